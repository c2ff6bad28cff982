"""The command ``hpclcae experiment histograms``: responses, the concept against the rest."""
import argparse
from functools import partial

from hpclcae.commands.experiment import arguments
from hpclcae.experiments import histograms
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "neurons", "test", "batch", "seed", "grid", "out")


def run(args: argparse.Namespace) -> int:
    """Ask the best neurons, or those that are named."""
    return share("hpclcae experiment histograms", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> None:
    """The same on one of the ranks that share it."""
    model = ranks.load(args.run)
    neurons = arguments.chosen_neurons(args, model, ranks)
    record = Record("histograms", "Responses of the best neurons, the concept against the rest",
                    args.run, model, args.command_line, figures=["responses"], out=args.out,
                    writes=ranks.is_first)
    histograms.run(model, neurons, args.test, args.batch, args.seed, record, ranks)
