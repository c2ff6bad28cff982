"""A close look at one neuron with one threshold: accuracy, AUC, answers by source, bootstrap."""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hpclcae.experiments.labelled_images import LabelledImages, ratio
from hpclcae.partition.communicator import Communicator

THRESHOLDS = 20
BINS = THRESHOLDS + 1  # bin k holds the responses above exactly k of the thresholds
FINE_BINS = 48 * BINS  # of the histogram of one neuron; the thresholds are edges of its bins
STIMULI = 48        # so many of the images with the highest response are remembered
SMALLEST_SPAN = 1e-38  # of responses; below it, which float32 cannot tell, all are the same


@dataclass(frozen=True)
class JudgedNeuron:
    """One neuron, and how its threshold fared; accuracies and AUC are shares from 0 to 1."""
    where: tuple[int, ...]    # row, col, map
    neurons: int              # it was chosen among so many
    accuracy: float
    auc: float
    auc_resolution: float     # what the fine bins leave open, either way, at most
    threshold: float
    minimum: float            # between these the thresholds are spaced
    maximum: float
    histogram: np.ndarray     # int64 (label, bin): fine bins from minimum to maximum
    stimuli: np.ndarray       # int64: positions in the dataset, strongest response first
    stimuli_response: np.ndarray  # float64
    answers: np.ndarray       # int64 (label, source, answer): images, by what the neuron says
    #: float64 (accuracy or AUC; replicate), of this neuron: what choosing it adds is not in it.
    replicates: np.ndarray
    weighted_answers: np.ndarray  # int64 (label, source, answer, replicate)

    @property
    def hits(self) -> np.ndarray:
        """Share of the images with the concept that it answers "yes", float64 (source,)."""
        return ratio(self.answers[1, :, 1], self.answers[1].sum(axis=1))

    @property
    def false_alarms(self) -> float:
        """Share of the images without the concept that it answers "yes"."""
        return float(ratio(self.answers[0, :, 1].sum(), self.answers[0].sum()))

    def without_source(self, source: int) -> tuple[float, np.ndarray]:
        """Accuracy, and its replicates, without those images of the concept from one source."""
        def share(answers: np.ndarray) -> np.ndarray:
            kept = np.delete(answers[1], source, axis=0)
            right = answers[0, :, 0].sum(axis=0) + kept[:, 1].sum(axis=0)
            return ratio(right, answers[0].sum(axis=(0, 1)) + kept.sum(axis=(0, 1)))
        return float(share(self.answers)), share(self.weighted_answers)


class Thresholds(Protocol):
    """What the thresholds of some neurons are spaced between (`single_neurons.Tally`)."""
    lowest: np.ndarray
    highest: np.ndarray
    neurons: int

    def threshold(self, neuron: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Return threshold `number` of `neuron`."""


def bin_of(response: np.ndarray, lowest: np.ndarray, highest: np.ndarray, bins: int) -> np.ndarray:
    """Say into which of `bins` equal bins from `lowest` to `highest` a response falls, int64.

    A response on an edge belongs below it; responses outside the range go into the outermost bins;
    a neuron that gives the same response to all images has them all in bin 0. The arrays broadcast.
    """
    span = highest - lowest
    scale = np.divide(bins, span, out=np.zeros_like(span), where=span > SMALLEST_SPAN)
    position = np.ceil((response - lowest) * scale)
    return np.clip(position, 1, bins).astype(np.int64) - 1


class NeuronLook:
    """Follows one neuron through a pass.

    Parameters
    ----------
    neuron, number : int
        The neuron, and the number of its threshold (0 to 19).
    thresholds : Thresholds
    images : LabelledImages
    half : int or None
        The half that it is judged by; None: all images.
    replicates : int
    """

    def __init__(self, neuron: int, number: int, thresholds: Thresholds, images: LabelledImages,
                 half: int | None, replicates: int) -> None:
        self.neuron, self.number, self.thresholds, self.images = neuron, number, thresholds, images
        self.judged_by = np.ones(images.half.size, bool) if half is None else images.half == half
        self.histogram = np.zeros((2, FINE_BINS), np.int64)
        self.weighted = np.zeros((2, FINE_BINS, replicates), np.int32)
        self.answers = np.zeros((2, len(images.sources), 2), np.int64)
        self.weighted_answers = np.zeros((*self.answers.shape, replicates), np.int64)
        self.stimuli, self.stimuli_response = np.zeros(0, np.int64), np.zeros(0)

    def add(self, response: np.ndarray, part: slice, weights: np.ndarray) -> None:
        """Take in its responses (image,) to the images `part`; `weights` is (image, replicate)."""
        mine = np.flatnonzero(self.judged_by[part])
        images, values = self.images, response[mine].astype(np.float64)
        between = self.thresholds.lowest[self.neuron], self.thresholds.highest[self.neuron]
        says = (bin_of(values, *between, BINS) > self.number).astype(int)
        fine = bin_of(values, *between, FINE_BINS)
        for label, place, source, answer, weight in zip(
                images.concept[part][mine].astype(int), fine, images.source[part][mine], says,
                weights[mine]):
            self.histogram[label, place] += 1
            self.weighted[label, place] += weight
            self.answers[label, source, answer] += 1
            self.weighted_answers[label, source, answer] += weight
        self._remember(values, images.index[part][mine])

    def _remember(self, values: np.ndarray, index: np.ndarray) -> None:
        response = np.append(self.stimuli_response, values)
        positions = np.append(self.stimuli, index)
        strongest = np.argsort(-response, kind="stable")[:STIMULI]
        self.stimuli_response, self.stimuli = response[strongest], positions[strongest]

    def combine(self, world: Communicator) -> None:
        """Add what other processes have seen."""
        for counts in (self.histogram, self.weighted, self.answers, self.weighted_answers):
            world.combine(counts, "sum")
        response = np.full((world.size, STIMULI), -np.inf)
        index = np.full((world.size, STIMULI), -1, np.int64)
        response[world.rank, :self.stimuli.size] = self.stimuli_response
        index[world.rank, :self.stimuli.size] = self.stimuli
        world.combine(response, "maximum")
        world.combine(index, "maximum")
        there = np.flatnonzero(index.ravel() >= 0)
        order = np.lexsort((index.ravel()[there], -response.ravel()[there]))[:STIMULI]
        self.stimuli_response = response.ravel()[there][order]
        self.stimuli = index.ravel()[there][order]

    def judged(self, shape: Sequence[int]) -> JudgedNeuron:
        """Sum up; `shape` is (row, col, map) of the population."""
        def accuracy(answers: np.ndarray) -> np.ndarray:
            by_label = answers.sum(axis=1)  # (label, answer) or (label, answer, replicate)
            return ratio(by_label[0, 0] + by_label[1, 1], by_label.sum(axis=(0, 1)))
        auc, resolution = area_under_curve(self.histogram[..., None])
        at = self.neuron
        return JudgedNeuron(
            where=tuple(int(i) for i in np.unravel_index(at, tuple(shape))),
            neurons=self.thresholds.neurons, accuracy=float(accuracy(self.answers)),
            auc=float(auc[0]), auc_resolution=float(resolution[0]),
            threshold=float(self.thresholds.threshold(np.array(at), np.array(self.number))),
            minimum=float(self.thresholds.lowest[at]), maximum=float(self.thresholds.highest[at]),
            histogram=self.histogram, stimuli=self.stimuli, stimuli_response=self.stimuli_response,
            answers=self.answers, weighted_answers=self.weighted_answers,
            replicates=np.stack([accuracy(self.weighted_answers),
                                 area_under_curve(self.weighted)[0]]))


def area_under_curve(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve from histograms (label, bin, replicate), and its uncertainty.

    It is the chance that an image with the concept has the higher response of a random pair. Pairs
    in one bin count half, so the exact area lies within half the share of such pairs. NaN where a
    label is missing.
    """
    without, having = histogram.astype(np.float64)
    pairs = without.sum(axis=0) * having.sum(axis=0)
    below = without.cumsum(axis=0) - without / 2
    return (ratio((having * below).sum(axis=0), pairs),
            ratio((having * without).sum(axis=0) / 2, pairs))
