"""What several experiments are told: the run, the neuron, the images, where results go."""
import argparse

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import output, positive, whole
from hpclcae.experiments.neurons import Settings
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.results import read_neurons
from hpclcae.experiments.scan import Neuron
from hpclcae.experiments.scan_results import choose_neuron


def add(parser: argparse.ArgumentParser, *names: str) -> None:
    """Declare some of: run, neuron, neurons, test, batch, seed, grid, out."""
    for name in names:
        flags, options = _ARGUMENTS[name]
        parser.add_argument(flags, **options)


_ARGUMENTS: dict[str, tuple[str, dict]] = {
    "run": ("run", {"metavar": "RUN",
                    "help": "folder of a training run, or one of its checkpoints"}),
    "neuron": ("--neuron", {"metavar": "STAGE/ROW,COL,MAP",
                            "help": "which (default: the best of the top stage, as neurons.h5 in "
                                    "the run folder has it, with its threshold)"}),
    "neurons": ("--neuron", {"metavar": "STAGE/ROW,COL,MAP", "nargs": "+",
                             "help": "which (default: the best of every stage, as neurons.h5 in "
                                     "the run folder has them)"}),
    "test": ("--test", {"metavar": "DATASET",
                        "help": "labelled dataset (default: the one in the configuration of the "
                                "run)"}),
    "batch": ("--batch", {"type": positive, "default": Settings.batch,
                          "help": "images at a time (%(default)s)"}),
    "seed": ("--seed", {"type": whole(0), "default": 0,
                        "help": "of what is drawn (%(default)s)"}),
    "grid": ("--grid", {"default": "1x1", "metavar": "ROWSxCOLUMNS",
                        "help": "under mpiexec: blocks that a network is cut into; the work is "
                        "spread over the networks (%(default)s)"}),
    "out": ("--out", {"type": output, "metavar": "FOLDER",
                      "help": "where results go (default: RUN/experiments)"})}


def chosen_neuron(args: argparse.Namespace, model: Model,
                  ranks: Ranks) -> tuple[Neuron, float | None]:
    """The neuron that is named, or the best of the top stage, and its threshold, if it is known.

    One rank looks, since all weights are compared with what the results are of.
    """
    return ranks.by_first(lambda: choose_neuron(args.run, model, args.neuron))


def chosen_neurons(args: argparse.Namespace, model: Model,
                   ranks: Ranks) -> list[tuple[Neuron, float | None]]:
    """The neurons that are named, or the best of every stage, with their thresholds."""
    return ranks.by_first(lambda: _chosen_neurons(args, model))


def _chosen_neurons(args: argparse.Namespace,
                    model: Model) -> list[tuple[Neuron, float | None]]:
    if args.neuron:
        return [choose_neuron(args.run, model, named) for named in args.neuron]
    stages = [stage["best"] for stage in read_neurons(args.run, model)["stages"]]
    return [(Neuron(number, (int(best["where"][0]), int(best["where"][1]), int(best["where"][2]))),
             float(best["threshold"])) for number, best in enumerate(stages, start=1)]
