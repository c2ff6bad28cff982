"""The command ``hpclcae experiment probes``: what labels can tell from every stage."""
import argparse
import contextlib

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.examination import add_examination, add_rival, examine_rivals
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import probes, rivals
from hpclcae.experiments.neurons import Examination
from hpclcae.utils.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_rival(parser)
    add_examination(parser)


def why_not(model: Model) -> str:
    """Why a run is passed over by `experiment all`: it has no labels to learn from."""
    with contextlib.suppress(InputError), Dataset(model.config.data.train) as train:
        if train.labels is None:
            return (f"{train.path} has no labels to learn from (hpclcae experiment probes RUN "
                    "--train SET)")
    return ""  # images that are gone are an error of its own


def run(args: argparse.Namespace) -> None:
    """Learn with the labels of training images, and judge."""
    def train(model: Model, images: Dataset, examination: Examination) -> list[rivals.Rival]:
        return probes.rivals(model, probes.train_probes(model, images, examination.test,
                                                        examination.settings))
    examine_rivals("probes", "What labels can tell from every stage", args, train)
