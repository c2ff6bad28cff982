"""The command ``hpclcae experiment histograms``: responses, the concept against the rest."""
import argparse

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import histograms
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "neurons", "test", "batch", "seed", "out")


def run(args: argparse.Namespace) -> None:
    """Ask the best neurons, or those that are named."""
    model = Model.load(args.run)
    neurons = arguments.chosen_neurons(args, model)
    record = Record("histograms", "Responses of the best neurons, the concept against the rest",
                    args.run, model, args.command_line, figures=["responses"], out=args.out)
    histograms.run(model, neurons, args.test, args.batch, args.seed, record)
