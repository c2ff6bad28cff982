"""The command ``hpclcae figures``: what a run has learnt, in pictures.

What is missing is named, with the command that makes it; the rest is drawn.
"""
import argparse
from pathlib import Path

from hpclcae.experiments.figures import drawings
from hpclcae.experiments.neurons import run_folder
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import check_picture, save_figure


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN",
                        help="folder of a training run, or one of its checkpoints")
    parser.add_argument(
        "--test", help="where the test images are now (default: where 'hpclcae neurons' read them)")
    parser.add_argument("--out", metavar="FOLDER",
                        help="where the figures go (default: RUN/figures)")


def run(args: argparse.Namespace) -> int:
    """Draw what can be drawn."""
    require("matplotlib", "figures", "drawing")
    out = Path(args.out) if args.out else run_folder(args.run) / "figures"
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: name a folder")
    if args.out:  # RUN/figures is ours, with all that an earlier version drew
        for file in drawings(args.run, args.test):
            check_picture(out / file, "--out")
    written, missing = 0, dict[str, list[str]]()
    for file, draw in drawings(args.run, args.test).items():
        try:
            figure = draw()
        except InputError as error:
            missing.setdefault(str(error), []).append(file)
            continue
        out.mkdir(parents=True, exist_ok=True)
        save_figure(figure, out / file, 150)
        print(out / file)
        written += 1
    for why, files in missing.items():
        print(f"{', '.join(files)} {'is' if len(files) == 1 else 'are'} left out: {why}")
    if not written:
        raise InputError(f"nothing could be drawn: {next(iter(missing))}")
    return 0
