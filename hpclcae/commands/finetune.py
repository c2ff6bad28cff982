"""The command ``hpclcae finetune``: a classifier on a trained network, then the whole network.

The network is that of the checkpoint: its stages, preprocessing, and the conditioners between its
stages, which stay as they are. How it is trained, on which images, says the configuration.
"""
import argparse
import dataclasses
import shlex

from hpclcae import checkpoint, config as configuration
from hpclcae.cluster.launcher import launched
from hpclcae.cluster.status import COMPLETE, run_status
from hpclcae.commands import train
from hpclcae.commands.evaluate import evaluate
from hpclcae.config import Config
from hpclcae.data.classes import HOW
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import classification
from hpclcae.utils.errors import InputError

RANDOM = "classifier.start=random"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint",
                        help="a trained network: the folder of its run, or one of its checkpoints")
    train.configure(parser, "run/finetune.toml")
    parser.add_argument("--random-weights", action="store_true",
                        help=f"begin with random stages, the control ({RANDOM})")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    words = ["--on", args.checkpoint, *train.train_words(args)]
    words += ["--set", RANDOM] if args.random_weights else []
    code = train.train(args, "hpclcae finetune", lambda: _configuration(args),
                       ["hpclcae", "launch", *words])
    if code == 0 and launched().rank == 0:
        if run_status(args.out).code == COMPLETE:
            print(classification.describe([evaluate(str(args.out))]))
        else:
            print(f"not tested, as training is not complete: --resume goes on; hpclcae evaluate "
                  f"{shlex.quote(str(args.out))} tests what is there")
    return code


def supervised(network: str, file: str, changes: list[str]) -> Config:
    """The configuration of a file, with the network of a checkpoint and the classes of the images.

    Raises
    ------
    InputError
        One of them cannot be read, or the images have no classes.
    """
    path = checkpoint.find(network)
    config = configuration.load_supervised(file, changes, checkpoint.load_state(path).config,
                                           network)
    with Dataset(config.data.train) as dataset:
        names = dataset.label_names
        if names is None:
            raise InputError(f"data.train = {config.data.train!r} has no labels: {HOW}")
    if not config.classifier.classes:
        config = dataclasses.replace(config, classifier=dataclasses.replace(
            config.classifier, classes=len(names)))
    return config


def _configuration(args: argparse.Namespace) -> Config:
    """The configuration that is asked for; the first rank tells of it."""
    train.check_kept(args)
    changes = train.changes(args) + [RANDOM] * args.random_weights
    config = supervised(args.checkpoint, args.configuration, changes)
    if launched().rank == 0:
        settings, steps = config.classifier, config.train.steps
        print(f"{args.checkpoint}: {settings.classes} classes, {settings.loss}, {settings.start} "
              f"weights; {settings.steps} steps of the classifier alone, {steps - settings.steps} "
              "of the whole network")
    return config
