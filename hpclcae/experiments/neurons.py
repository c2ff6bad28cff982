"""``hpclcae neurons``: the best neuron of every stage, beside what it has to beat (paper: tests of
single neurons).

An image is said to show the concept if the neuron's response lies above one of 20 thresholds
equally spaced between its smallest and its largest response; single_neurons.py says more and does
the counting, for the trained stages and for all baselines alike.
"""
import argparse
import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import h5py
import numpy as np
import scipy

from hpclcae import __version__
from hpclcae.checkpoint.trained import Model
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import baselines
from hpclcae.experiments.comparison import Row, Verdict, as_text
from hpclcae.experiments.filters import FilterShape, filter_shape
from hpclcae.experiments.single_neurons import LabelledImages, Population, examine
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replacing, replacing_hdf5
from hpclcae.utils.progress import progress

KIND = "hpclcae neurons"
SCHEMA = 1
NOTE = """\
Percent. 'best of 20' chooses neuron and threshold on the images it is judged by (the paper's measure); 'honest'
chooses on one half and is judged on the other. Intervals resample the {resampled} of the test set;
they do not hold what another training seed would change, which is some points for a best neuron.
Linear filters are training images, on pixels prepared as the network sees them, and with contrast normalised only.
'paper' is for faces on the paper's 37,000 test images: another test set, so context and no comparison;
'recalled' figures are quoted from memory, not confirmed."""

#: images uint8 (image, row, col, channel) -> responses (row, col, map, image) of each population
Respond = Callable[[np.ndarray], Sequence[np.ndarray]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="CHECKPOINT_OR_RUN",
                        help="a run folder, or one of its checkpoints")
    parser.add_argument("--test",
                        help="labelled dataset (default: the one in the configuration of the run)")
    parser.add_argument(
        "--train", help="dataset the linear filters are cut from (default: the one of the run)")
    parser.add_argument("--batch", type=int, default=100, help="images at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of halves, bootstrap, patches, weights (%(default)s)")
    parser.add_argument("--filters", type=int, default=5000,
                        help="linear filters to try; 0: none (%(default)s)")
    parser.add_argument("--random-seeds", type=int, default=1,
                        help="untrained networks; 0: none (%(default)s)")
    parser.add_argument("--bootstrap", type=int, default=1000, help="replicates (%(default)s)")
    parser.add_argument("--json", metavar="FILE",
                        help="write the results here, too (always: RUN/neurons.json)")


def run(args: argparse.Namespace) -> None:
    """Examine the network and its baselines; print the table; write neurons.json and neurons.h5."""
    for name, least in (("batch", 1), ("seed", 0), ("filters", 0), ("random_seeds", 0),
                        ("bootstrap", 100)):
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: it must be at "
                             f"least {least}")
    model = Model.load(args.model)
    folder = run_folder(args.model)
    outputs = [folder / "neurons.json", *([Path(args.json)] if args.json else [])]
    for file in outputs:  # before the work, not after it
        if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise InputError(f"cannot write {file}: {file.parent} is not a folder that can be "
                             "written to")
    with (open_fitting(args.test or model.config.data.test, model.config) as test,
          training_images(args, model.config) as train):
        images = labelled_images(test, args.seed)
        concept = (test.label_names or ["other", "concept"])[1]
        print(describe(test, images, concept))
        stages, rows = compare(model, test, train, images, args)
    shape = filter_shape(model.filters(0), args.seed)
    verdicts = judge(rows)
    print_report(rows, verdicts, shape, images, concept)
    header = {"kind": KIND, "schema": SCHEMA,
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
              "run": str(folder), "step": model.step, "concept": concept, "test": str(test.path),
              "test_images": test.count}
    results = header | {
        "unit": "share (verdicts: points of percent)", "rows": [row.as_json() for row in rows],
        "verdicts": [verdict.as_json() for verdict in verdicts], "first_stage_filters": vars(shape),
        "labelled_images": images.index.size, "images_with_concept": int(images.concept.sum()),
        "groups": images.groups, "resampled": images.resampled, "settings": vars(args),
        "versions": versions()}
    for file in outputs:
        with replacing(file) as partial:
            partial.write_text(json.dumps(results, indent=1), encoding="utf-8")
    save_neurons(folder / "neurons.h5", stages, header)
    print("wrote " + ", ".join(map(str, [*outputs, folder / "neurons.h5"])))


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    return {"hpclcae": __version__, "python": platform.python_version(), "numpy": np.__version__,
            "scipy": scipy.__version__, "h5py": h5py.__version__}


def run_folder(model: str) -> Path:
    """Folder of the run that a checkpoint belongs to; a run folder is its own.

    Raises
    ------
    InputError
        There is no such file or folder.
    """
    path = Path(model)
    if not path.exists():
        raise InputError(f"{model} does not exist: give the folder that 'hpclcae train' wrote, or "
                         "a checkpoint in it")
    if path.parent.name == "checkpoints":
        return path.parent.parent
    return path if path.is_dir() else path.parent


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


def training_images(args: argparse.Namespace,
                    config: Config) -> contextlib.AbstractContextManager[Dataset | None]:
    """Open the images that linear filters are cut from.

    Without --train, a run whose training images are gone is no error: there are no filters then,
    with a line.
    """
    if not args.filters:
        return contextlib.nullcontext()
    try:
        return open_fitting(args.train or config.data.train, config)
    except InputError as error:
        if args.train:
            raise
        print(f"no linear filters: {error} (--train names the training images)")
        return contextlib.nullcontext()


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
            args: argparse.Namespace) -> tuple[list[Population], list[Row]]:
    """Examine the trained stages and every baseline.

    Returns
    -------
    list of Population
        The trained stages.
    list of Row
        Chance, random weights (top stage, first stage), linear filters, trained stages.
    """
    def study(name: str, respond: Respond) -> list[Population]:
        parts = [slice(first, first + args.batch)
                 for first in range(0, images.index.size, args.batch)]
        # one bar for the three passes
        ticks = iter(progress(range(3 * len(parts)), name, unit="batches"))

        def start() -> Iterator[tuple[Sequence[np.ndarray], slice]]:
            for part, _ in zip(parts, ticks):
                yield respond(test.read(images.index[part])), part
        populations = examine(start, images, args.bootstrap)
        next(ticks, None)  # the bar learns that it is full
        return populations

    stages = study("trained stages", lambda pixels: model.responses(model.prepare(pixels)))
    rows = [Row.chance(images, args.bootstrap, args.batch)]
    untrained = []
    for seed in range(args.seed, args.seed + args.random_seeds):
        random = model.with_random_weights(seed)
        untrained.append(study(f"random weights, seed {seed}",
                               lambda pixels: random.responses(model.prepare(pixels))))
    for number in sorted({len(stages), 1}, reverse=True) if untrained else []:
        bests = [populations[number - 1].best for populations in untrained]
        rows.append(Row.of(f"random weights, stage {number}", bests,
                           "random" if number == len(stages) else ""))
    if train:
        rows += linear_rows(model, train, args, study)
    for number, population in enumerate(stages, start=1):
        paper = {len(stages): "top", 1: "first"}.get(number, "")
        rows.append(Row.of(f"trained, stage {number}", [population.best], paper, trained=True))
    return stages, rows


def linear_rows(model: Model, train: Dataset, args: argparse.Namespace,
                study: Callable[[str, Respond], list[Population]]) -> list[Row]:
    """Try training images as linear filters, on two kinds of pixels."""
    patches = baselines.sample_patches(train, args.filters, args.seed)
    rows = []
    for name, prepare, paper in (("prepared pixels", model.prepare, "linear"),
                                 ("contrast only", baselines.normalised_pixels(train.size), "")):
        filters = baselines.linear_filters(train, patches, prepare, args.batch)
        population, = study(f"linear filters, {name}",
                            lambda pixels: [baselines.filter_responses(filters, prepare(pixels))])
        rows.append(Row.of(f"linear filter, {name}", [population.best], paper))
    return rows


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Hold the top stage against every row, the winner against every baseline, stage 1 against the
    random one."""
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


def print_report(rows: list[Row], verdicts: list[Verdict], shape: FilterShape,
                 images: LabelledImages, concept: str) -> None:
    """Print table, notes, best neuron and verdicts."""
    print(f"\n{as_text(rows)}\n\n{NOTE.format(resampled=images.resampled)}\n")
    best = winner(rows).runs[0]
    print(f"best neuron: {winner(rows).name}, row {best.where[0]}, col {best.where[1]}, map "
          f"{best.where[2]}: {100 * best.accuracy:.1f} % right if a response above "
          f"{best.threshold:.4g} means '{concept}'")
    for verdict in verdicts:
        print(verdict)
    print(f"filters of stage 1: {shape}")


def save_neurons(file: Path, stages: Sequence[Population], attributes: dict[str, object]) -> None:
    """Write what is known of every neuron: ``stage1/accuracy`` (row, col, map) and so on.

    ``stage1/best`` holds the best neuron: its class histograms (label, bin) between its minimum and
    maximum, and the test images with its highest responses (``stimuli``, positions in the dataset).
    """
    with replacing_hdf5(file) as store:
        store.attrs.update(attributes)
        for number, stage in enumerate(stages, start=1):
            group = store.create_group(f"stage{number}")
            for name in ("accuracy", "threshold", "minimum", "maximum"):
                group[name] = getattr(stage, name)
                group[name].attrs["axes"] = ["row", "col", "map"]
            best = group.create_group("best")
            for name in ("histogram", "stimuli", "stimuli_response"):
                best[name] = getattr(stage.best, name)
            best.attrs.update({name: getattr(stage.best, name) for name in (
                "where", "accuracy", "honest", "auc", "threshold", "minimum", "maximum")})
