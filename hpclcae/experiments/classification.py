"""The test of a classifier: the final half of the images, which nothing was chosen by.

Or images of another dataset, whose classes are told by their names.

What comes out lies in the run folder: ``classification.json``, the figures that are one number, and
``classification.h5``, all that they were made of.
"""
import contextlib
import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.classes import ClassSplit, labels_and_names
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import FINAL
from hpclcae.experiments.made_from import weights_fingerprint
from hpclcae.experiments.neurons import run_folder
from hpclcae.training.evaluation import Evaluation
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5, replacing_hdf5
from hpclcae.utils.reading import reading
from hpclcae.utils.tables import summed, table
from hpclcae.utils.text import attribute, printable, storable

KIND = "hpclcae classification"
SCHEMA = 1
PARTS = "test", "validation", "train", "all"
JSON, HDF5 = "classification.json", "classification.h5"
ARRAYS = "labels", "predicted", "rank", "confidence", "objective"
MOST_SHOWN = 5  # classes, or pairs of them, in what is printed


@dataclasses.dataclass(frozen=True)
class Classification:
    """What a classifier says of a part of a dataset.

    Attributes
    ----------
    names : tuple of str
        Of the classes.
    indices : int array (image,)
        Of the images in the dataset.
    facts : dict
        Of what it was made: run, step, dataset, part, fingerprints, date.
    """
    names: tuple[str, ...]
    indices: np.ndarray
    evaluation: Evaluation
    facts: dict[str, Any]


def labels_of(model: Model, dataset: Dataset) -> np.ndarray:
    """The class of every image as the classifier of a model numbers them, by name; -1 unknown.

    Raises
    ------
    InputError
        There is no classifier, or it does not know a class that the images have.
    """
    if not model.categories:
        raise InputError(f"{model.path} has no classifier: hpclcae finetune trains one on it")
    names, labels = labels_and_names(dataset)
    if other := sorted({names[label] for label in np.unique(labels[labels >= 0])}
                       - set(model.categories)):
        raise InputError(f"{dataset.path} has other classes than the classifier of {model.path} "
                         f"({summed(other)}): use images of the same classes")
    number = {name: index for index, name in enumerate(model.categories)}
    return np.array([*(number.get(name, -1) for name in names), -1], np.int64)[labels]


def chosen(model: Model, dataset: Dataset, labels: np.ndarray, part: str) -> np.ndarray:
    """Indices of the images of a part of a dataset, as the classifier was trained with it."""
    if part == "all":
        return np.flatnonzero(labels >= 0)
    if part == "test" and dataset.half is not None:  # also where there is nothing to train on
        return np.flatnonzero((labels >= 0) & (dataset.half == FINAL))
    settings = model.config.classifier
    split = ClassSplit.of(dataset, settings.validation, model.config.train.seed,
                          settings.per_class or None)
    return {"test": split.test, "validation": split.validation, "train": split.train}[part]


def learned_from(model: Model, dataset: Dataset, indices: np.ndarray) -> int:
    """How many images are of an object, person or photograph that the classifier learned from.

    As far as it can be known: 0 where the training images are gone.
    """
    settings = model.config.classifier
    with contextlib.suppress(InputError), Dataset(model.config.data.train) as train:
        split = ClassSplit.of(train, settings.validation, model.config.train.seed,
                              settings.per_class or None)
        seen = train.groups[np.concatenate([split.train, split.validation])]
        return int(np.isin(dataset.groups[indices], seen).sum())
    return 0


def classify(model: Model, dataset: Dataset, part: str = "test") -> Classification:
    """Put the images of a part of a dataset (PARTS) into classes.

    Raises
    ------
    InputError
        There is no classifier, or the dataset has other classes or images.
    """
    labels = labels_of(model, dataset)
    indices = chosen(model, dataset, labels, part)
    if not indices.size:
        other = " (--part all has those of both halves)" if part == "test" else ""
        raise InputError(f"{dataset.path} has no {part} images{other}: classifier.validation = "
                         f"{model.config.classifier.validation:g}")

    def scores(portion: np.ndarray) -> np.ndarray:
        return model.scores(model.prepare(dataset.read(portion)))
    evaluation = Evaluation.of(model.config.classifier, scores, indices, labels)
    facts = {"kind": KIND, "schema": SCHEMA,
             "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
             "checkpoint": str(model.path), "run": str(run_folder(str(model.path))),
             "step": model.step, "dataset": str(dataset.path), "part": part,
             "loss": model.config.classifier.loss, "start": model.config.classifier.start,
             "dataset_fingerprint": dataset.fingerprint,
             "weights_fingerprint": weights_fingerprint(model)}
    return Classification(model.categories, indices, evaluation, facts)


def results(found: Classification) -> dict[str, Any]:
    """The figures that are one number, and the facts."""
    return found.facts | {"classes": len(found.names)} | found.evaluation.summary()


def save_arrays(file: Path, found: Classification) -> None:
    """Write everything by image, the pairs of classes, and the reliability curve.

    ``labels``, ``predicted``, ``rank``, ``confidence``, ``objective``, ``indices`` (image,), as in
    Evaluation; ``names`` and ``by_class`` (class,); ``confused`` (pair, 3): true class, predicted
    class, images; ``reliability`` (bin, 3): mean confidence, share right, images.
    """
    evaluation = found.evaluation
    with replacing_hdf5(file) as store:
        store.attrs.update(storable(found.facts))
        for name in ARRAYS:
            store[name] = getattr(evaluation, name)
        store["indices"] = found.indices
        store["names"] = attribute(found.names)
        store["by_class"] = evaluation.by_class()
        store["confused"] = evaluation.confused()
        store["reliability"] = evaluation.reliability()


def read_arrays(file: Path) -> Classification:
    """What `save_arrays` wrote.

    Raises
    ------
    InputError
        It is missing, or damaged.
    """
    how = "make it with: hpclcae evaluate RUN"
    with reading(file, "the result of hpclcae evaluate", how), read_hdf5(file) as store:
        facts = {name: value.item() if isinstance(value, np.generic) else value
                 for name, value in store.attrs.items()}
        if facts.get("kind") != KIND:
            raise InputError(f"{file} is no result of hpclcae evaluate: {how}")
        names = tuple(store["names"].asstr(errors="surrogateescape")[...])
        evaluation = Evaluation(len(names), *(store[name][...] for name in ARRAYS))
        return Classification(names, store["indices"][...], evaluation, facts)


def describe(found: Sequence[Classification]) -> str:
    """The figures of several, each a row, and what the first confuses most."""
    rows = []
    for each in found:
        summary = each.evaluation.summary()
        rows.append((each.facts["run"], each.facts["step"], summary["images"],
                     *(round(100 * summary[key], 2) for key in ("top1", "top5", "mean_by_class")),
                     round(summary["objective"], 4), round(100 * summary["calibration_error"], 2)))
    lines = [table(("run", "step", "images", "top 1 %", "top 5 %", "mean of classes %",
                    "objective", "calibration error %"), rows)]
    first = found[0]
    wrong = [(count, true, predicted) for true, predicted, count in
             first.evaluation.confused().tolist() if true != predicted]
    if wrong:
        most = ", ".join(f"{printable(first.names[true])} as {printable(first.names[predicted])} "
                         f"({count})" for count, true, predicted
                         in sorted(wrong, reverse=True)[:MOST_SHOWN])
        lines.append(f"most frequent mistakes: {most}")
    return "\n".join(lines)
