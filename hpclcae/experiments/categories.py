"""Does pretraining help to tell categories apart: fine-tuned runs and their controls in one table.

What a run is follows from its own configuration: which weights it began with, whether the whole
network learned or the classifier alone, how many labels a class it had, which seed. Runs of one
kind that differ in their seeds are one row. Beside them stands logistic regression on the pixels,
trained here with as many updates of as many images, on the same images.

Intervals resample whole groups (objects, photographs) of the test half, the same for all rows, so
that differences are paired; a mean over seeds is taken within each replicate.
"""
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae import checkpoint
from hpclcae.config import Config
from hpclcae.data.classes import ClassSplit
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import group_keys
from hpclcae.experiments.classification import HDF5, read_arrays
from hpclcae.experiments.labelled_images import group_weights, interval
from hpclcae.training.evaluation import Evaluation
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress

REPLICATES = 1000
#: A kind is what the network began with, and what of it learned.
TUNED, FROZEN = ("pretrained", "whole network"), ("pretrained", "classifier alone")
TRAINED, RANDOM = ("random", "whole network"), ("random", "classifier alone")
PIXELS = ("pixels", "logistic regression")
KINDS = {TUNED: "pretrained, then fine-tuned", FROZEN: "pretrained, frozen",
         TRAINED: "random weights, then trained", RANDOM: "random weights, frozen",
         PIXELS: "logistic regression on pixels"}
RATES = (0.03, 0.1, 0.3, 1.0)   # of the regression; the best on the validation images is taken
LOOKS = 8                       # at the validation images, in the course of its training
ADAM = (0.9, 0.99, 1e-8)        # first and second moment, and what keeps from dividing by zero


@dataclass(frozen=True)
class Outcome:
    """One classifier on the test images.

    right : bool (image,), in the order of the test half
    """
    kind: tuple[str, str]
    per_class: int              # labels a class; 0: all
    seed: int
    right: np.ndarray
    figures: dict[str, float]   # Evaluation.summary
    updates: int
    batch: int


@dataclass(frozen=True)
class Row:
    """Classifiers that differ in their seeds alone; shares of the test images."""
    kind: tuple[str, str]
    per_class: int
    seeds: tuple[int, ...]
    each: tuple[float, ...]     # top 1 of every seed
    top5: float                 # means over the seeds
    by_class: float
    replicates: np.ndarray      # float (replicate,): of the mean of `each`

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.each))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean, for other objects."""
        return interval(self.replicates)


@dataclass(frozen=True)
class Comparison:
    """All rows of one dataset."""
    dataset: str
    fingerprint: str
    classes: int
    images: int                 # of the test
    groups: int
    chance: float               # always saying the most frequent class
    labels: float               # mean of the training images a class, when all are used
    rows: tuple[Row, ...]
    budgets: tuple[tuple[int, int], ...]  # updates, images a minibatch, of all classifiers
    outcomes: tuple[Outcome, ...]

    def find(self, kind: tuple[str, str], per_class: int = 0) -> Row | None:
        """The row of a kind."""
        return next((row for row in self.rows
                     if (row.kind, row.per_class) == (kind, per_class)), None)

    def difference(self, kind: tuple[str, str], other: tuple[str, str],
                   per_class: int = 0) -> tuple[float, float, float] | None:
        """How much better one kind is than another: mean and 95 % interval, shares."""
        first, second = self.find(kind, per_class), self.find(other, per_class)
        if first is None or second is None:
            return None
        return (first.mean - second.mean, *interval(first.replicates - second.replicates))


def compare(runs: Sequence[str], pixels: bool = True) -> Comparison:
    """Put the results of fine-tuned runs of one dataset on its final half beside each other.

    Parameters
    ----------
    runs : sequence of str
        Folders of ``hpclcae finetune``, which left the result of the checkpoint that was best on
        validation images (classification.h5).
    pixels : bool
        Also train logistic regression on pixels, for every number of labels and every seed.

    Raises
    ------
    InputError
        A run has no result on the test images, or no checkpoint; datasets differ or are gone; two
        runs are the same in everything.
    """
    outcomes: list[Outcome] = []
    seen: dict[tuple[Any, ...], str] = {}
    data, fingerprint, keys, whole = "", "", np.array([]), None
    for run in progress(runs, "runs", unit="runs"):
        found = read_arrays(Path(run) / HDF5)
        if found.facts["part"] != "test":
            raise InputError(f"{run} has a result on {found.facts['part']} images: hpclcae "
                             f"evaluate {shlex.quote(run)} makes the one on the final half")
        state = checkpoint.load_state(checkpoint.find_best(run))
        config = state.config
        if found.facts["step"] != state.step:
            raise InputError(f"{run} has a result of step {found.facts['step']:,}, and its best "
                             f"checkpoint is step {state.step:,}: hpclcae evaluate "
                             f"{shlex.quote(run)} makes it again")
        with Dataset(config.data.train) as dataset:
            if fingerprint not in ("", dataset.fingerprint):
                raise InputError(f"{run} was trained on {dataset.path}, other runs on {data}: "
                                 "compare those of one dataset")
            if found.facts["dataset_fingerprint"] != dataset.fingerprint:
                raise InputError(f"{run} has a result on other images than {dataset.path}: hpclcae "
                                 f"evaluate {shlex.quote(run)} makes it again")
            data, fingerprint = str(dataset.path), dataset.fingerprint
            whole = whole or ClassSplit.of(dataset, config.classifier.validation, config.train.seed)
            keys = group_keys(dataset.groups[whole.test])
            outcome = _outcome(_kind(config), config, found.evaluation)
            which = (outcome.kind, outcome.per_class, outcome.seed)
            if which in seen:
                raise InputError(f"{run} and {seen[which]} are both {KINDS[outcome.kind]} with "
                                 f"seed {outcome.seed}: leave one of them out")
            seen[which] = run
            outcomes.append(outcome)
            if pixels and (PIXELS, *which[1:]) not in seen:
                seen[(PIXELS, *which[1:])] = run
                outcomes.append(_of_pixels(run, dataset))
    if whole is None:
        raise InputError("no run was given: name folders of hpclcae finetune")
    train, _, test = whole.counts.T
    return Comparison(data, fingerprint, len(whole.names), whole.test.size, np.unique(keys).size,
                      float(test.max() / test.sum()), float(train.mean()), _rows(outcomes, keys),
                      tuple(sorted({(o.updates, o.batch) for o in outcomes})), tuple(outcomes))


def _kind(config: Config) -> tuple[str, str]:
    alone = config.classifier.steps >= config.train.steps
    return config.classifier.start, "classifier alone" if alone else "whole network"


def _outcome(kind: tuple[str, str], config: Config, found: Evaluation) -> Outcome:
    return Outcome(kind, config.classifier.per_class, config.train.seed, found.rank == 0,
                   found.summary(), config.train.steps, config.train.batch)


def _of_pixels(run: str, dataset: Dataset) -> Outcome:
    """Logistic regression on the grey levels, one against all others, with a run's settings.

    The levels are better for it than what the network gets, whose local whitening leaves it edges.
    """
    config = checkpoint.load_state(checkpoint.find_best(run)).config
    train = config.train
    split = ClassSplit.of(dataset, config.classifier.validation, train.seed,
                          config.classifier.per_class or None)
    middle = np.float64(0)

    def pixels(chosen: np.ndarray) -> np.ndarray:
        return dataset.read(chosen).reshape(chosen.size, -1) / 255 - middle
    middle = pixels(split.train).mean(axis=0)
    weights = regress(pixels(split.train), split.labels[split.train], len(split.names),
                      pixels(split.validation), split.labels[split.validation],
                      train.steps, train.batch, config.classifier.l2, train.seed)
    found = Evaluation.of(config.classifier, lambda chosen: _scores(pixels(chosen), weights).T,
                          split.test, split.labels)
    return _outcome(PIXELS, config, found)


def regress(x: np.ndarray, labels: np.ndarray, classes: int, held: np.ndarray,
            held_labels: np.ndarray, updates: int, batch: int, l2: float,
            seed: int) -> np.ndarray:
    """Train logistic regression with Adam, and keep what does best on held-out images.

    Parameters
    ----------
    x, held : float (image, pixel)
        Images, to train on and to choose rate and time by.
    labels, held_labels : int (image,)
    updates, batch, l2, seed
        As those of a classifier.

    Returns
    -------
    float (pixel + 1, class)
        Weights, the biases last.
    """
    best, kept = -1.0, np.zeros((x.shape[1] + 1, classes))
    for rate in RATES:
        rng = np.random.default_rng(seed)
        weights = np.zeros((x.shape[1] + 1, classes))
        first, second = np.zeros_like(weights), np.zeros_like(weights)
        for step in range(1, updates + 1):
            chosen = rng.integers(0, len(x), batch)
            error = 1 / (1 + np.exp(-np.clip(_scores(x[chosen], weights), -50, 50)))
            error[np.arange(batch), labels[chosen]] -= 1
            gradient = np.vstack([x[chosen].T @ error, error.sum(axis=0)]) / batch
            gradient[:-1] += l2 * weights[:-1]
            first += (1 - ADAM[0]) * (gradient - first)
            second += (1 - ADAM[1]) * (gradient ** 2 - second)
            change = first / (1 - ADAM[0] ** step) / (
                np.sqrt(second / (1 - ADAM[1] ** step)) + ADAM[2])
            weights -= rate / np.sqrt(x.shape[1]) * change
            if step % max(1, updates // LOOKS) == 0 or step == updates:
                right = (float((_scores(held, weights).argmax(axis=1) == held_labels).mean())
                         if len(held) else float(step))
                if right > best:
                    best, kept = right, weights.copy()
    return kept


def _scores(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores (image, class)."""
    return x @ weights[:-1] + weights[-1]


def _rows(outcomes: Sequence[Outcome], keys: np.ndarray) -> tuple[Row, ...]:
    """Gather the seeds of every kind, in the order of KINDS, all labels first."""
    weights = group_weights(keys, REPLICATES).astype(np.float64)
    total = np.maximum(weights.sum(axis=0), 1)
    rows = []
    for per_class in sorted({o.per_class for o in outcomes}, key=lambda n: (n > 0, n)):
        for kind in KINDS:
            own = sorted((o for o in outcomes if (o.kind, o.per_class) == (kind, per_class)),
                         key=lambda o: o.seed)
            if own:
                drawn = np.mean([o.right @ weights / total for o in own], axis=0)
                rows.append(Row(kind, per_class, tuple(o.seed for o in own),
                                tuple(float(o.right.mean()) for o in own),
                                float(np.mean([o.figures["top5"] for o in own])),
                                float(np.mean([o.figures["mean_by_class"] for o in own])), drawn))
    return tuple(rows)


def values(found: Comparison) -> dict[str, Any]:
    """Everything but what stands in arrays, for programs."""
    return {"dataset": found.dataset, "dataset_fingerprint": found.fingerprint,
            "classes": found.classes, "test_images": found.images, "test_groups": found.groups,
            "chance": found.chance, "labels_per_class": found.labels,
            "budgets": [list(budget) for budget in found.budgets],
            "rows": [{"kind": KINDS[row.kind], "per_class": row.per_class,
                      "seeds": list(row.seeds), "top1": list(row.each), "mean": row.mean,
                      "interval": list(row.interval), "top5": row.top5,
                      "mean_by_class": row.by_class} for row in found.rows],
            "classifiers": [{"kind": KINDS[each.kind], "per_class": each.per_class,
                             "seed": each.seed} for each in found.outcomes]}


def points(found: Comparison) -> list[int]:
    """Numbers of labels a class that were tried, in their order; 0, all, last."""
    return sorted({row.per_class for row in found.rows}, key=lambda n: (n == 0, n))
