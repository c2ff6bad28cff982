"""The command ``hpclcae experiment map``: where selective neurons are, beside chance."""
import argparse
from functools import partial

from hpclcae.commands.arguments import whole
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import selectivity_map
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "test", "batch", "seed", "grid", "out")
    parser.add_argument("--permutations", type=whole(20, 10 ** 5), metavar="N",
                        default=selectivity_map.PERMUTATIONS,
                        help="how often labels are dealt out anew; fewer in large networks "
                        "(%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Examine every neuron."""
    return share("hpclcae experiment map", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> None:
    """The same on one of the ranks that share it."""
    model = ranks.load(args.run)
    record = Record("map", "Where selective neurons are, and how many chance would give", args.run,
                    model, args.command_line, figures=["stages"], out=args.out,
                    writes=ranks.is_first)
    selectivity_map.run(model, args.test, args.permutations, args.batch, args.seed, record,
                        ranks)
