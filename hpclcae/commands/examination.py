"""Arguments of the commands that examine neurons, and the datasets that they open."""
import argparse
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import output
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import neurons, rivals
from hpclcae.experiments.neurons import Examination, Settings
from hpclcae.experiments.record import Record
from hpclcae.utils.errors import InputError


def add_examination(parser: argparse.ArgumentParser) -> None:
    """Declare how neurons are examined, and what they are held against."""
    parser.add_argument("--train", metavar="DATASET",
                        help="dataset the linear filters are cut from, and whose labels may choose "
                        "(default: the one of the run)")
    parser.add_argument("--batch", type=int, default=Settings.batch,
                        help="images at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of bootstrap, filters, weights, and of halves where the dataset has "
                        "none (%(default)s)")
    parser.add_argument("--filters", type=int, default=5000,
                        help="linear filters of each kind; 0: none (%(default)s)")
    parser.add_argument("--random-seeds", type=int, default=1,
                        help="untrained networks; 0: none (%(default)s)")
    parser.add_argument("--training-images", type=int, default=16_000,
                        help="labelled training images that choose a neuron and make the linear "
                        "ceiling, at most; 0: neither (%(default)s)")
    parser.add_argument("--development", action="store_true",
                        help="for trials: look at the development half alone, halved once more by "
                        "the seed, so that the final half stays unseen")
    parser.add_argument("--bootstrap", type=int, default=1000, help="replicates (%(default)s)")


def examination_settings(args: argparse.Namespace) -> Settings:
    """What `add_examination` declared.

    Raises
    ------
    InputError
        A number is too small.
    """
    return Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})


def training_images(named: str | None, model: Model, settings: Settings,
                    stack: contextlib.ExitStack, says: bool = True) -> Dataset | None:
    """Open the images that linear filters are cut from, and whose labels may choose.

    Where none are named, a run whose training images are gone is no error: there are no filters
    then, with a line.

    Raises
    ------
    InputError
        Those that are named cannot be opened, or do not fit.
    """
    if not (settings.filters or settings.training_images):
        return None
    try:
        return stack.enter_context(neurons.open_fitting(named or model.config.data.train,
                                                        model.config))
    except InputError as error:
        if named:
            raise
        if says:
            print(f"no linear filters: {error} (--train names the training images)")
        return None


def add_rival(parser: argparse.ArgumentParser) -> None:
    """Declare the run that something else is compared with, and the test set."""
    parser.add_argument("run", metavar="CHECKPOINT",
                        help="folder of a training run, or one of its checkpoints")
    parser.add_argument("--test", metavar="SET",
                        help="labelled dataset (default: the one in the configuration of the run)")
    parser.add_argument("--out", type=output, metavar="FOLDER",
                        help="where results go (default: RUN/experiments)")


def examine_rivals(name: str, title: str, args: argparse.Namespace,
                   train: Callable[[Model, Dataset, Examination], Sequence[rivals.Rival]]
                   ) -> None:
    """Open what is needed, train, and judge on the test set."""
    settings = examination_settings(args)
    model = Model.load(args.run)
    record = Record(name, title, args.run, model, args.command_line, out=args.out)
    with contextlib.ExitStack() as stack:
        test = stack.enter_context(neurons.open_fitting(args.test or model.config.data.test,
                                                        model.config))
        images = neurons.labelled_images(test, settings)
        found = rivals.check_training(training_images(
            args.train, model, replace(settings, filters=1), stack, says=False))
        print(neurons.describe(test, images), flush=True)
        examination = Examination(test, images, None, settings)
        rivals.run(model, train(model, found, examination), examination, record)
