"""The command ``hpclcae report``: a run as one page to read, with an atlas of its neurons."""
import argparse
import time
from pathlib import Path

from hpclcae.commands.arguments import output, whole
from hpclcae.experiments.neurons import run_folder
from hpclcae.experiments.report import page
from hpclcae.utils.text import printable


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN",
                        help="folder of a training run, or one of its checkpoints")
    parser.add_argument("--out", metavar="FILE.html", type=output,
                        help="the page (default: RUN/report.html)")
    parser.add_argument("--test", metavar="SET",
                        help="where the test images are now (default: where 'hpclcae neurons' read "
                        "them)")
    parser.add_argument("--sources", type=Path, metavar="FOLDER",
                        help="what hpclcae data fetch filled: the heads that turn in the atlas, "
                        "rendered and scanned (default: 'sources' beside the test set)")
    parser.add_argument("--neurons", type=whole(0, 2000), default=page.NEURONS, metavar="COUNT",
                        help="neurons of a stage in the atlas, at most: half of them the most "
                        "selective, the others a regular sample; 0: no atlas (%(default)s)")
    parser.add_argument("--neuron", action="append", default=[], metavar="STAGE/ROW,COL,MAP",
                        help="this one, too; may be given several times")


def run(args: argparse.Namespace) -> None:
    """Write the page and name what it lacks."""
    began = time.monotonic()
    file = args.out or run_folder(args.run) / "report.html"
    request = page.Request(args.run, args.test, args.neurons, tuple(args.neuron),
                           args.sources, args.command_line)
    for line in page.write(request, file):
        print(f"left out: {printable(line)}")
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.0f} s)")
