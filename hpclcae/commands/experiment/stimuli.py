"""The command ``hpclcae experiment stimuli``: images of highest response, numerical optima."""
import argparse
from functools import partial

from hpclcae.commands.arguments import whole
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import stimuli
from hpclcae.experiments.optimum import ITERATIONS, STARTS
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "neurons", "test", "batch", "seed", "grid", "out")
    parser.add_argument("--starts", type=whole(1, 1000), default=2 * STARTS,
                        help="climbs to the numerical optimum of each neuron (%(default)s)")
    parser.add_argument("--iterations", type=whole(1, 10 ** 5), default=3 * ITERATIONS,
                        help="steps of each climb (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Ask the best neurons, or those that are named."""
    return share("hpclcae experiment stimuli", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> None:
    """The same on one of the ranks that share it."""
    model = ranks.load(args.run)
    neurons = [neuron for neuron, _ in arguments.chosen_neurons(args, model, ranks)]
    record = Record("stimuli", "The images of highest response, and the numerical optimum",
                    args.run, model, args.command_line, figures=["stimuli"], out=args.out,
                    writes=ranks.is_first)
    stimuli.run(model, neurons, args.test, args.starts, args.iterations, args.batch, args.seed,
                record, ranks)
