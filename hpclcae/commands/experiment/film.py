"""The command ``hpclcae experiment film``: a neuron's response to a film, frame by frame."""
import argparse
from functools import partial
from pathlib import Path

from hpclcae.commands.arguments import real
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import film
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.record import Record
from hpclcae.utils.errors import require


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "neuron", "batch", "grid", "out")
    parser.add_argument("--film", type=Path, required=True, metavar="FILE",
                        help="a film that FFmpeg reads")
    parser.add_argument("--every", type=real(0.001, 3600), default=film.EVERY, metavar="SECONDS",
                        help="from frame to frame; 0.001: every frame (%(default)s)")
    parser.add_argument("--windows", type=real(0.01, 1), nargs="+", default=list(film.SHARES),
                        metavar="SHARE", help="side of the windows, over the shorter side of a "
                        f"frame ({' '.join(map(str, film.SHARES))})")


def run(args: argparse.Namespace) -> int:
    """Follow one neuron."""
    return share("hpclcae experiment film", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> None:
    """The same on one of the ranks that share it."""
    require("av", "images", "reading films")
    model = ranks.load(args.run)
    neuron, threshold = arguments.chosen_neuron(args, model, ranks)
    record = Record("film", "Responses to a film, frame by frame", args.run, model,
                    args.command_line, figures=["track"], out=args.out,
                    writes=ranks.is_first)
    film.run(model, neuron, threshold, args.film, args.every, args.windows, args.batch, record,
             ranks)
