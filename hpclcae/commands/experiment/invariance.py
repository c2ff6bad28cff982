"""The command ``hpclcae experiment invariance``: shift, scale, rotation, turning heads, covering.
"""
import argparse
from dataclasses import fields
from functools import partial
from pathlib import Path

from hpclcae.commands.arguments import positive, real, whole
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import invariance_results, turning_heads
from hpclcae.experiments.invariance import FACES, ROTATIONS, SCALES
from hpclcae.experiments.invariance_results import Settings
from hpclcae.experiments.neurons import LEAST
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "neuron", "test", "grid", "out")
    parser.add_argument("--frames", metavar="SET",
                        help="labelled dataset (default: the test set, continued by "
                        "reflection); larger frames with the concept in their middle have "
                        "surroundings of their own (hpclcae data frames SOURCES --split test "
                        "--size 96 --place 0 --face-size 0.33 0.42)")
    parser.add_argument("--sources", type=Path, metavar="FOLDER",
                        help="what hpclcae data fetch filled: the heads that turn (default: "
                        "'sources' beside the test set)")
    parser.add_argument("--faces", type=whole(0), default=FACES,
                        help="persons, one image each; 0: all images (%(default)s)")
    parser.add_argument("--development", action="store_true",
                        help="for trials: the development half; the final half stays unseen")
    parser.add_argument("--step", type=positive, metavar="PIXELS",
                        help="from shift to shift (default: a 16th of what the network sees)")
    parser.add_argument("--scales", type=real(0.1, 100), nargs="+", default=list(SCALES),
                        help=f"how many times as large ({' '.join(map(str, SCALES))})")
    parser.add_argument("--rotations", type=real(-180, 180), nargs="+", default=list(ROTATIONS),
                        metavar="DEGREES", help="in the plane (-90 to 90 by 15)")
    parser.add_argument("--patch", type=positive, metavar="PIXELS",
                        help="side of the grey patch (default: 20/64 of what the network sees)")
    parser.add_argument("--batch", type=positive, default=100,
                        help="images at a time (%(default)s)")
    parser.add_argument("--bootstrap", type=whole(LEAST["bootstrap"], 10 ** 6), default=1000,
                        help="replicates (%(default)s)")
    parser.add_argument("--seed", type=whole(0), default=0,
                        help="of faces, heads and bootstrap (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure one neuron."""
    return share("hpclcae experiment invariance", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> None:
    """The same on one of the ranks that share it."""
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    model = ranks.load(args.run)
    neuron, threshold = arguments.chosen_neuron(args, model, ranks)
    record = Record("invariance", "Shift, scale, rotation, turning heads and covering", args.run,
                    model, args.command_line, figures=["curves"], out=args.out,
                    writes=ranks.is_first)
    frames = args.frames or args.test or model.config.data.test
    sources = turning_heads.find_sources(args.sources, model.config.data.test)
    invariance_results.run(model, neuron, threshold, frames, sources, settings, record, ranks)
