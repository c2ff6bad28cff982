"""The test of a classifier: the final half of the images, which nothing was chosen by.

What comes out lies in the run folder: ``classification.json``, the figures that are one number, and
``classification.h5``, all that they were made of.
"""
import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.classes import ClassSplit
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.made_from import weights_fingerprint
from hpclcae.experiments.neurons import run_folder
from hpclcae.training.evaluation import Evaluation
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5, replacing_hdf5
from hpclcae.utils.reading import reading
from hpclcae.utils.tables import table
from hpclcae.utils.text import attribute, printable, storable

KIND = "hpclcae classification"
SCHEMA = 1
PARTS = "test", "validation", "train"
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


def split_of(model: Model, dataset: Dataset) -> ClassSplit:
    """The parts of a dataset as the classifier of a model was trained with them.

    Raises
    ------
    InputError
        There is no classifier, or the dataset has other classes.
    """
    settings = model.config.classifier
    if not model.categories:
        raise InputError(f"{model.path} has no classifier: hpclcae finetune trains one on it")
    split = ClassSplit.of(dataset, settings.validation, model.config.train.seed,
                          settings.per_class or None)
    if tuple(split.names) != model.categories:
        raise InputError(f"{dataset.path} has other classes than the classifier of {model.path} "
                         f"({len(split.names)} and {len(model.categories)}): use images with the "
                         "same classes")
    return split


def classify(model: Model, dataset: Dataset, part: str = "test") -> Classification:
    """Put the images of a part of a dataset (PARTS) into classes.

    Raises
    ------
    InputError
        There is no classifier, or the dataset has other classes or images.
    """
    split = split_of(model, dataset)
    indices = {"test": split.test, "validation": split.validation, "train": split.train}[part]
    if not indices.size:
        raise InputError(f"{dataset.path} has no {part} images (classifier.validation = "
                         f"{model.config.classifier.validation:g})")

    def scores(chosen: np.ndarray) -> np.ndarray:
        return model.scores(model.prepare(dataset.read(chosen)))
    evaluation = Evaluation.of(model.config.classifier, scores, indices, split.labels)
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
