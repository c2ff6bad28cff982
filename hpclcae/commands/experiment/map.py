"""The command ``hpclcae experiment map``: where selective neurons are, beside chance."""
import argparse

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import whole
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import selectivity_map
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "test", "batch", "seed", "out")
    parser.add_argument("--permutations", type=whole(20, 10 ** 5), metavar="N",
                        default=selectivity_map.PERMUTATIONS,
                        help="how often labels are dealt out anew; fewer in large networks "
                        "(%(default)s)")


def run(args: argparse.Namespace) -> None:
    """Examine every neuron."""
    model = Model.load(args.run)
    record = Record("map", "Where selective neurons are, and how many chance would give", args.run,
                    model, args.command_line, figures=["stages"], out=args.out)
    selectivity_map.run(model, args.test, args.permutations, args.batch, args.seed, record)
