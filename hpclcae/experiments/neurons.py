"""The best neuron of every stage, beside what it has to beat (paper: tests of single neurons).

An image is said to show the concept if the neuron's response lies above one of 20 thresholds
equally spaced between its smallest and its largest response; single_neurons.py says more and does
the counting, for the trained stages and for all baselines alike.
"""
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hpclcae.checkpoint.folder import MANIFEST, step_of
from hpclcae.checkpoint.trained import Model
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import DEVELOPMENT
from hpclcae.experiments import baselines
from hpclcae.experiments.comparison import Row
from hpclcae.experiments.labelled_images import HALF_NAMES, LabelledImages
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.single_neurons import Part, Pass, Population, TrainingImages, examine
from hpclcae.experiments.training_images import prepared_ahead, read_ahead, sample_alike
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress

LEAST = {"batch": 1, "seed": 0, "filters": 0, "random_seeds": 0, "bootstrap": 100,
         "training_images": 0}

#: images -> responses (row, col, map, image) of each population
Respond = Callable[[np.ndarray], Sequence[np.ndarray]]
#: a dataset, and positions in it batch by batch -> images, as they are or prepared
Read = Callable[[Dataset, Sequence[np.ndarray]], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Settings:
    """How neurons are examined, and what they are held against.

    Raises
    ------
    InputError
        A number is too small: names the option of hpclcae neurons.
    """
    batch: int = 256        # images at a time: whole cache lines, and enough that calls cost little
    seed: int = 0           # of halves, bootstrap, filters, weights, choice of training images
    filters: int = 5000     # linear filters of each kind; 0: none
    random_seeds: int = 1   # untrained networks; 0: none
    development: bool = False  # only that half of the test set, halved again
    bootstrap: int = 1000   # replicates
    training_images: int = 16_000  # labelled ones, to choose neurons by and for the ceiling

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: it must be "
                                 f"at least {least}")


def run_folder(model: str) -> Path:
    """Folder of the run that a checkpoint belongs to; a run folder is its own.

    Never a checkpoint itself, whose files belong together: of one that was copied out of its run,
    the folder that it is in.

    Raises
    ------
    InputError
        There is no such file or folder.
    """
    path = Path(model)
    if not path.exists():
        raise InputError(f"{model} does not exist: give the folder that 'hpclcae train' wrote, or "
                         "a checkpoint in it")
    if path.is_file() and (path.parent / MANIFEST).exists():
        path = path.parent  # a file of a checkpoint
    if path.is_dir() and not (path / MANIFEST).exists() and step_of(path) < 0:
        return path
    if path.parent.name != "checkpoints":
        path = path.resolve()  # called in a folder below the run, or by another name
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def open_fitting(path: str | Path, config: Config) -> Dataset:
    """Open a dataset whose images fit the network.

    Raises
    ------
    InputError
        It cannot be opened or has another size or number of channels.
    """
    dataset = Dataset(path)
    size, channels = config.data.size, config.data.channels
    if (dataset.rows, dataset.cols, dataset.channels) == (size, size, channels):
        return dataset
    dataset.close()
    raise InputError(f"{path} holds images of {dataset.rows}x{dataset.cols}x{dataset.channels}, "
                     f"the network takes {size}x{size}x{channels}: make a dataset of that size and "
                     "number of channels")


def labelled_images(test: Dataset, settings: Settings) -> LabelledImages:
    """Sort out the labels of a test set, in the halves that it has or that the seed decides.

    Raises
    ------
    InputError
        It has no labels, or of one kind only; its development half is asked for, and it does not
        say which that is.
    """
    if test.labels is None:
        raise InputError(f"{test.path} has no labels, so there is no concept to test for: give a "
                         "labelled dataset (hpclcae data frames --split test makes one)")
    labels, half = test.labels, test.half
    if settings.development:
        if half is None:
            raise InputError(f"{test.path} does not say which half is for development: leave "
                             "--development away, or make the set again (hpclcae data frames)")
        labels, half = np.where(half == DEVELOPMENT, labels, -1), None
    try:
        return LabelledImages.of(labels, test.groups, settings.seed, half)
    except InputError as error:
        raise InputError(f"{test.path}: {error}") from error


def concept_of(test: Dataset) -> str:
    """The name of label 1."""
    return (test.label_names or ["other", "concept"])[1]


def training_labels(train: Dataset | None, test: Dataset) -> tuple[np.ndarray | None, str]:
    """Labels of training images, if they are about the concept of the test; else why not."""
    if train is None:
        return None, ""
    if train.labels is None:
        return None, f"{train.path} has no labels"
    if concept_of(train) != concept_of(test):
        return None, (f"the labels of {train.path} are about '{concept_of(train)}', those of "
                      f"{test.path} about '{concept_of(test)}'")
    return train.labels, ""


def describe(test: Dataset, images: LabelledImages) -> str:
    """Say what the test set is, what its halves are, and what cannot be said with it."""
    concept, framing = concept_of(test), test.framing
    without = int((test.labels < 0).sum()) if test.labels is not None else 0
    lines = [f"{test.path}: {images.index.size:,} labelled images, {images.concept.sum():,} show "
             f"'{concept}'" + (f"; {without:,} without a label are left out" if without else "")]
    if framing:
        lines.append(f"framing: {framing}")
    by = "the dataset" if test.half is not None else "the seed"
    if test.half is not None and (images.half != test.half[images.index]).any():
        by = "the seed, of the development half of the dataset"
    lines.append(f"halves made by {by}; no {images.resampled} in both:")
    for half, (name, deed) in enumerate(zip(HALF_NAMES, ("to choose", "to judge"))):
        mine = images.half == half
        lines.append(f"  {name}, {deed}: {mine.sum():,} images of {images.count_groups(mine):,} "
                     f"{images.resampled}; {(mine & images.concept).sum():,} show it")
    if images.why_not_honest:
        lines.append(f"no choice on one half to judge on the other: {images.why_not_honest}")
    if images.why_no_interval:
        lines.append(f"no intervals: {images.why_no_interval}")
    return "\n".join(lines)


class Examination:
    """Examines networks and filters on one test set.

    Parameters
    ----------
    test : Dataset
    images : LabelledImages
        Of the test.
    train : Dataset or None
        What linear filters are cut from, and whose labels may choose; None: neither.
    settings : Settings
    ranks : Ranks, optional
        The processes that share the work; all have the same results.

    Attributes
    ----------
    labels : int array (image,) or None
        Of the training images, if they are about the same concept.
    why_no_labels : str
        Why they are not used; "" if they are, or if there are no training images.
    """

    def __init__(self, test: Dataset, images: LabelledImages, train: Dataset | None,
                 settings: Settings, ranks: Ranks = Ranks()) -> None:
        self.test, self.images, self.train, self.settings = test, images, train, settings
        self.ranks = ranks
        self.labels, self.why_no_labels = training_labels(train, test)

    def compare(self, model: Model,
                linear: Sequence[Row] | None = None) -> tuple[list[Population], list[Row]]:
        """Examine the trained stages and every baseline.

        Parameters
        ----------
        model : Model
        linear : sequence of Row, optional
            The linear rows, if another run of the same network has them.

        Returns
        -------
        list of Population
            The trained stages.
        list of Row
            Chance, random weights (first stage, top stage), linear filters and their ceiling,
            trained stages, the neuron of the top stage that training labels choose.
        """
        settings = self.settings
        stages = self.trained("trained stages", model, by_training=True)
        rows = [Row.chance(self.images, settings.bootstrap, settings.batch)]
        untrained = [self._random(model, seed) for seed in
                     range(settings.seed, settings.seed + settings.random_seeds)]
        for number in sorted({1, len(stages)}) if untrained else []:
            rows.append(Row.of(f"random weights, stage {number}",
                               [populations[number - 1] for populations in untrained],
                               "random" if number == len(stages) else ""))
        rows += self.linear_rows(stages[-1].accuracy.size) if linear is None else linear
        for number, population in enumerate(stages, start=1):
            paper = {len(stages): "top", 1: "first"}.get(number, "")
            rows.append(Row.of(f"trained, stage {number}", [population], paper, trained=True))
        if stages[-1].by_training:
            rows.append(Row.by_training(f"stage {len(stages)}, by training labels",
                                        stages[-1].by_training))
        return stages, rows

    def trained(self, name: str, model: Model, by_training: bool = False) -> list[Population]:
        """Examine the stages of a network."""
        return self.study(name, model.responses, self.ranks.parts(model), by_training,
                          read=partial(prepared_ahead, model))

    def linear_rows(self, candidates: int) -> list[Row]:
        """The linear filters and their ceiling, on contrast-normalised pixels."""
        if self.train is None or not self.settings.filters:
            return []
        prepare = baselines.normalised_pixels(self.train.size)
        rows = []
        for kind in baselines.linear_kinds(self.train, self.labels, prepare, self.settings.filters,
                                           self.settings.training_images, self.settings.seed,
                                           self.settings.batch):
            filters = kind.make()
            found = self.study(kind.name, lambda pixels: [
                baselines.filter_responses(filters, prepare(pixels))], candidates=candidates)
            rows.append(Row.of(kind.name, found, kind.paper))
        return rows

    def _random(self, model: Model, seed: int) -> list[Population]:
        return self.trained(f"random weights, seed {seed}", model.with_random_weights(seed))

    def study(self, name: str, respond: Respond, parts: Sequence[Part] | None = None,
              by_training: bool = False, candidates: int = 0,
              read: Read = read_ahead) -> list[Population]:
        """Examine what responds to the test images; `parts` are its neurons on a grid.

        It responds to what `read` yields: read_ahead(dataset, batches), or the same, prepared.
        Numbers of candidates are made equal to `candidates`; 0: to the size of its last population.
        """
        training = self._training(name, respond, read) if by_training else None
        passes = self._passes(name, self.test, self.images.index, respond, 3, read,
                              parts is not None)
        return examine(passes, self.images, self.settings.bootstrap, training, self.ranks.world,
                       parts, candidates, self.settings.seed)

    def _training(self, name: str, respond: Respond, read: Read) -> TrainingImages | None:
        """Labelled training images that show the concept as often as the test images do."""
        if self.train is None or self.labels is None:
            return None
        places = sample_alike(self.labels, self.images.concept.mean(),
                              self.settings.training_images, self.settings.seed)
        if not places.size:
            return None
        return TrainingImages(self._passes(f"{name}, training images", self.train, places, respond,
                                           1, read), self.labels[places] == 1)

    def _passes(self, name: str, dataset: Dataset, places: np.ndarray, respond: Respond,
                count: int, read: Read, network: bool = True) -> Pass:
        """Passes over this process's part of some images, of which `count` will be made.

        One bar for all of them. The next batch is read while one is looked at.
        """
        parts = self.ranks.batches(places.size, self.settings.batch, network)
        total = range(count * len(parts))
        ticks = iter(progress(total, name, unit="batches") if self.ranks.is_first else total)
        started = itertools.count(1)

        def start() -> Iterator[tuple[Sequence[np.ndarray], slice]]:
            last = next(started) == count
            images = read(dataset, [places[part] for part in parts])
            for part, x, _ in zip(parts, images, ticks):
                yield respond(x), part
            if last:
                next(ticks, None)  # the bar learns that it is full
        return start
