"""How well a classifier does on images that it was not trained on; and when it stops to do better.

What is known of every image is its class, the class with the highest score, how many classes have a
higher score than its own, and how sure the classifier is: from these few numbers an image follow
all figures, for any number of classes.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint.metrics_log import records
from hpclcae.config import ClassifierConfig, Config
from hpclcae.model.classifier import objectives, probabilities
from hpclcae.model.phases import phases

PORTION = 200  # images that are scored at a time
BINS = 10      # of the reliability curve


@dataclass(frozen=True)
class Evaluation:
    """What a classifier says of some images, all arrays (image,).

    Attributes
    ----------
    classes : int
    labels, predicted : int arrays
        The class of each image, and the one with the highest score (of equal ones the first).
    rank : int array
        How many classes have a higher score than the image's own.
    confidence : float array
        The probability that the classifier gives to the predicted class.
    objective : float array
        Of each image, without penalty and class weights.
    """
    classes: int
    labels: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    confidence: np.ndarray
    objective: np.ndarray

    @classmethod
    def of(cls, config: ClassifierConfig, scores: Callable[[np.ndarray], np.ndarray],
           indices: np.ndarray, labels: np.ndarray) -> "Evaluation":
        """Score images, portion by portion.

        Parameters
        ----------
        scores : callable
            scores(indices) gives the scores (class, image) of images.
        indices : int array (image,)
        labels : int array
            Of all images of the dataset.
        """
        parts: list[tuple[np.ndarray, ...]] = []
        for first in range(0, len(indices), PORTION):
            chosen = indices[first:first + PORTION]
            parts.append(_judged(config, scores(chosen), labels[chosen]))
        return cls(config.classes, labels[indices],
                   *(np.concatenate(arrays) for arrays in zip(*parts)))

    def top(self, count: int) -> float:
        """Share of the images whose class is among those with the `count` highest scores."""
        return float((self.rank < count).mean())

    def by_class(self) -> np.ndarray:
        """Share of the images of each class that are put into it (class,); NaN without images."""
        right = np.bincount(self.labels, self.predicted == self.labels, self.classes)
        images = np.bincount(self.labels, minlength=self.classes)
        return np.divide(right, images, out=np.full(self.classes, np.nan), where=images > 0)

    def mean_by_class(self) -> float:
        """Mean of `by_class` over the classes that have images."""
        return float(np.nanmean(self.by_class()))

    def confused(self) -> np.ndarray:
        """Pairs of classes and how often: int (pair, 3), true class, predicted class, images."""
        pairs, counts = np.unique(self.labels * self.classes + self.predicted, return_counts=True)
        return np.stack([*np.divmod(pairs, self.classes), counts], axis=1)

    def reliability(self) -> np.ndarray:
        """How often the classifier is right where it is how sure: float (bin, 3).

        Mean confidence, share of images that are right, and images, of those whose confidence lies
        in each of BINS equal parts of 0 to 1; NaN in empty ones.
        """
        place = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        images = np.bincount(place, minlength=BINS).astype(float)
        sums = (np.bincount(place, values, BINS)
                for values in (self.confidence, self.predicted == self.labels))
        means = [np.divide(total, images, out=np.full(BINS, np.nan), where=images > 0)
                 for total in sums]
        return np.stack([*means, images], axis=1)

    def calibration_error(self) -> float:
        """Mean distance of confidence and share right, over the bins of `reliability`."""
        confidence, right, images = self.reliability().T
        gap = np.abs(confidence - right)
        return float(np.nansum(gap * images) / images.sum())

    def summary(self) -> dict[str, float]:
        """The figures that are one number."""
        return {"images": len(self.labels), "top1": self.top(1), "top5": self.top(5),
                "mean_by_class": self.mean_by_class(), "objective": float(self.objective.mean()),
                "calibration_error": self.calibration_error()}


def _judged(config: ClassifierConfig, scores: np.ndarray,
            labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Predicted class, rank, confidence and objective of images from scores (class, image)."""
    images = np.arange(len(labels))
    true = scores[labels, images]
    earlier = np.arange(len(scores))[:, None] < labels
    rank = (scores > true).sum(axis=0) + ((scores == true) & earlier).sum(axis=0)
    predicted = scores.argmax(axis=0)
    each = objectives(config, scores, labels)
    return predicted, rank, probabilities(config, scores)[predicted, images], each


@dataclass
class Patience:
    """When training ends early: what the looks at the validation images have shown so far.

    Looks of the last phase count: before, the network is another one.

    Attributes
    ----------
    best, step : float, int
        The largest share of images that were right, and after how many steps.
    worse : int
        Looks since then.
    """
    config: Config
    best: float = -1.0
    step: int = 0
    worse: int = 0

    def look(self, step: int, top1: float) -> bool:
        """Take in one look; whether it is the best so far."""
        if top1 > self.best:
            self.best, self.step, self.worse = top1, step, 0
            return True
        self.worse += step > phases(self.config)[-1].first
        return False

    @property
    def is_over(self) -> bool:
        """Whether training ends."""
        return 0 < self.config.classifier.patience <= self.worse

    @classmethod
    def after(cls, config: Config, metrics: str, step: int) -> "Patience":
        """What it was after `step` steps, from lines of metrics."""
        found = cls(config)
        for record in records(metrics.encode(), "validation"):
            if record["step"] <= step:
                found.look(record["step"], record["validation"]["top1"])
        return found
