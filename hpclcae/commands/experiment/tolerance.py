"""The command ``hpclcae experiment tolerance``: how a neuron stands shift, scale and covering."""
import argparse
from dataclasses import fields

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import output, positive, real, whole
from hpclcae.experiments import tolerance_results
from hpclcae.experiments.neurons import LEAST
from hpclcae.experiments.record import Record
from hpclcae.experiments.scan_results import choose_neuron
from hpclcae.experiments.tolerance import SCALES
from hpclcae.experiments.tolerance_results import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN",
                        help="folder of a training run, or one of its checkpoints")
    parser.add_argument("--frames", metavar="SET", required=True,
                        help="labelled dataset of larger frames with the concept in their middle "
                        "(hpclcae data frames SOURCES --split test --size 96 --place 0 --face-size "
                        "0.33 0.42)")
    parser.add_argument("--neuron", metavar="STAGE/ROW,COL,MAP",
                        help="which (default: the best of the top stage, as neurons.h5 in the run "
                        "folder has it, with its threshold)")
    parser.add_argument("--final", action="store_true",
                        help="look at the final half of the set (default: the development half)")
    parser.add_argument("--step", type=positive, default=4,
                        help="pixels from shift to shift (%(default)s)")
    parser.add_argument("--scales", type=real(0.01, 100), nargs="+", default=list(SCALES),
                        help="how many times as large; what the frame has no room for is left out "
                        f"({' '.join(map(str, SCALES))})")
    parser.add_argument("--patch", type=positive, metavar="PIXELS",
                        help="side of the grey patch (default: 20/64 of what the network sees)")
    parser.add_argument("--batch", type=positive, default=100,
                        help="images at a time (%(default)s)")
    parser.add_argument("--bootstrap", type=whole(LEAST["bootstrap"], 10 ** 6), default=1000,
                        help="replicates (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the bootstrap (%(default)s)")
    parser.add_argument("--out", type=output, metavar="FOLDER",
                        help="where results go (default: RUN/experiments)")


def run(args: argparse.Namespace) -> None:
    """Measure one neuron."""
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    model = Model.load(args.run)
    neuron, threshold = choose_neuron(args.run, model, args.neuron)
    record = Record("tolerance", "How a neuron stands shift, scale and covering", args.run, model,
                    args.command_line, figures=["curves"], out=args.out)
    tolerance_results.run(model, neuron, threshold, args.frames, settings, record)
