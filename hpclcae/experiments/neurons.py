"""The best neuron of every stage, beside what it has to beat (paper: tests of single neurons).

An image is said to show the concept if the neuron's response lies above one of 20 thresholds
equally spaced between its smallest and its largest response; single_neurons.py says more and does
the counting, for the trained stages and for all baselines alike.
"""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.checkpoint.folder import MANIFEST, step_of
from hpclcae.checkpoint.trained import Model
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import baselines
from hpclcae.experiments.comparison import Row, Verdict
from hpclcae.experiments.single_neurons import BINS, LabelledImages, Population, examine
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replacing_hdf5
from hpclcae.utils.progress import progress

KIND = "hpclcae neurons"
SCHEMA = 1
ARRAYS = ("accuracy", "auc", "auc_resolution", "threshold", "minimum", "maximum")
AUC_COMPUTED = (f"from the counts of images in {BINS} equal bins from minimum to maximum; pairs of "
                "images in one bin count half, so the exact AUC lies within half the share of such "
                "pairs (auc_resolution)")
LEAST = {"batch": 1, "seed": 0, "filters": 0, "random_seeds": 0, "bootstrap": 100}

#: images uint8 (image, row, col, channel) -> responses (row, col, map, image) of each population
Respond = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Settings:
    """How neurons are examined, and what they are held against.

    Raises
    ------
    InputError
        A number is too small: names the option of hpclcae neurons.
    """
    batch: int = 100        # images at a time
    seed: int = 0           # of halves, bootstrap, patches, weights
    filters: int = 5000     # linear filters to try; 0: none
    random_seeds: int = 1   # untrained networks; 0: none
    bootstrap: int = 1000   # replicates

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


def labelled_images(test: Dataset, seed: int) -> LabelledImages:
    """Sort out the labels of a test set.

    Raises
    ------
    InputError
        It has no labels, or of one kind only.
    """
    if test.labels is None:
        raise InputError(f"{test.path} has no labels, so there is no concept to test for: give a "
                         "labelled dataset (hpclcae data frames --split test makes one)")
    try:
        return LabelledImages.of(test.labels, test.groups, seed)
    except InputError as error:
        raise InputError(f"{test.path}: {error}") from error


def describe(test: Dataset, images: LabelledImages, concept: str) -> str:
    """Say what the test set is."""
    without = test.count - images.index.size
    shown = int(images.concept.sum())
    return (f"{test.path}: {images.index.size:,} labelled images, {shown:,} show '{concept}'; "
            + (f"{without:,} without a label are left out; " if without else "")
            + f"{images.groups:,} independent {images.resampled}, none in both halves")


def compare(model: Model, test: Dataset, train: Dataset | None, images: LabelledImages,
            settings: Settings) -> tuple[list[Population], list[Row]]:
    """Examine the trained stages and every baseline.

    Parameters
    ----------
    model : Model
    test : Dataset
        It is read three times for each network and each kind of filter.
    train : Dataset or None
        What linear filters are cut from; None: there are none.
    images : LabelledImages
        Of the test.
    settings : Settings

    Returns
    -------
    list of Population
        The trained stages.
    list of Row
        Chance, random weights (top stage, first stage), linear filters, trained stages.
    """
    def study(name: str, respond: Respond) -> list[Population]:
        parts = [slice(first, first + settings.batch)
                 for first in range(0, images.index.size, settings.batch)]
        # one bar for the three passes
        ticks = iter(progress(range(3 * len(parts)), name, unit="batches"))

        def start() -> Iterator[tuple[Sequence[np.ndarray], slice]]:
            for part, _ in zip(parts, ticks):
                yield respond(test.read(images.index[part])), part
        populations = examine(start, images, settings.bootstrap)
        next(ticks, None)  # the bar learns that it is full
        return populations

    stages = study("trained stages", lambda pixels: model.responses(model.prepare(pixels)))
    rows = [Row.chance(images, settings.bootstrap, settings.batch)]
    untrained = []
    for seed in range(settings.seed, settings.seed + settings.random_seeds):
        random = model.with_random_weights(seed)
        untrained.append(study(f"random weights, seed {seed}",
                               lambda pixels: random.responses(model.prepare(pixels))))
    for number in sorted({len(stages), 1}, reverse=True) if untrained else []:
        bests = [populations[number - 1].best for populations in untrained]
        rows.append(Row.of(f"random weights, stage {number}", bests,
                           "random" if number == len(stages) else ""))
    if train:
        rows += linear_rows(model, train, settings, study)
    for number, population in enumerate(stages, start=1):
        paper = {len(stages): "top", 1: "first"}.get(number, "")
        rows.append(Row.of(f"trained, stage {number}", [population.best], paper, trained=True))
    return stages, rows


def linear_rows(model: Model, train: Dataset, settings: Settings,
                study: Callable[[str, Respond], list[Population]]) -> list[Row]:
    """Try training images as linear filters, on two kinds of pixels."""
    patches = baselines.sample_patches(train, settings.filters, settings.seed)
    rows = []
    for name, prepare, paper in (("prepared pixels", model.prepare, "linear"),
                                 ("contrast only", baselines.normalised_pixels(train.size), "")):
        filters = baselines.linear_filters(train, patches, prepare, settings.batch)
        population, = study(f"linear filters, {name}",
                            lambda pixels: [baselines.filter_responses(filters, prepare(pixels))])
        rows.append(Row.of(f"linear filter, {name}", [population.best], paper))
    return rows


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Hold trained stages against the other rows.

    That is the top stage against every row, the winner against every baseline, and stage 1 against
    the random one.
    """
    trained = [row for row in rows if row.trained]
    baselines = [row for row in rows if not row.trained]
    top, first = trained[-1], trained[0]
    pairs = [(top, other) for other in [*baselines, *trained[:-1]]]
    pairs += [(winner(rows), baseline) for baseline in baselines]
    pairs += [(first, baseline) for baseline in baselines
              if baseline.name == "random weights, stage 1"]
    return [Verdict(*pair) for pair in dict.fromkeys(pairs)]


def winner(rows: Sequence[Row]) -> Row:
    """Choose the trained stage that has the best neuron."""
    return max((row for row in rows if row.trained), key=lambda row: row.values[0])


def save_neurons(file: Path, stages: Sequence[Population], attributes: dict[str, object]) -> None:
    """Write what is known of every neuron.

    Every stage is a group ``stage1`` and so on, with arrays (row, col, map):

    ``accuracy``, ``threshold``
        The accuracy of the best of 20 thresholds, a share, and that threshold.
    ``auc``
        Area under the ROC curve, a share, from the 21 bins between the thresholds: pairs of images
        in one bin count half.
    ``auc_resolution``
        Half the share of such pairs: the exact AUC is no further from ``auc`` than this.
    ``minimum``, ``maximum``
        The smallest and the largest response.

    ``stage1/best`` holds the best neuron: its class histograms (label, bin) between its minimum and
    maximum, and the test images with its highest responses (``stimuli``, positions in the dataset).
    The AUC among its attributes is from these finer bins.
    """
    with replacing_hdf5(file) as store:
        store.attrs.update(attributes)
        for number, stage in enumerate(stages, start=1):
            group = store.create_group(f"stage{number}")
            for name in ARRAYS:
                group[name] = getattr(stage, name)
                group[name].attrs["axes"] = ["row", "col", "map"]
            group["auc"].attrs["computed"] = AUC_COMPUTED
            best = group.create_group("best")
            for name in ("histogram", "stimuli", "stimuli_response"):
                best[name] = getattr(stage.best, name)
            for name in ("where", "accuracy", "honest", "auc", "threshold", "minimum", "maximum"):
                best.attrs[name] = getattr(stage.best, name)
