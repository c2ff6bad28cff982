"""The paper's test of single neurons: how well does one threshold on one response tell a concept?

For every neuron 20 thresholds are spaced equally, strictly between its smallest and its largest
response to the test images; an image is said to show the concept if its response lies *above* the
threshold; the accuracy of the best threshold is the neuron's, and the best neuron speaks for its
stage. (The paper does not name the side. Above it is here: a neuron that falls silent at faces is
not called a face neuron.)

That figure is optimistic, because neuron and threshold are chosen on the images they are judged by,
and the more neurons there are, the more so. The *honest* accuracy chooses range, threshold and
neuron on one half of the images and counts on the other, both ways. No person or photograph has
images in both halves.

Nothing here grows with the number of images but their labels. Three passes over the responses:
extremes; counts between the thresholds; a close look at the best neurons, with a bootstrap that
resamples whole groups (the crops of one person are not independent).
"""
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.data.halves import group_keys, halves
from hpclcae.utils.errors import InputError

THRESHOLDS = 20
BINS = THRESHOLDS + 1  # bin k holds the responses above exactly k of the thresholds
FINE_BINS = 48 * BINS  # histogram of a best neuron; the thresholds are edges of its bins
STIMULI = 48  # so many of the images with the highest response are remembered
BLOCK = 512  # neurons counted at once: their bins stay in the cache
ALL, HALVES = 0, (1, 2)  # the three ranges of a neuron: over all images, over either half
SMALLEST_SPAN = 1e-38  # of responses; below it, which float32 cannot tell, all are the same

#: Starts a pass over the images: minibatch by minibatch the responses (row, col, map, image) of
#: each population of neurons, and which of the labelled images they belong to.
Pass = Callable[[], Iterable[tuple[Sequence[np.ndarray], slice]]]


@dataclass(frozen=True)
class LabelledImages:
    """What is known of the test images apart from their pixels.

    Images without a label are left out.
    """
    index: np.ndarray    # int64 (image,): position in the dataset
    concept: np.ndarray  # bool (image,): does it show the concept
    half: np.ndarray     # int64 (image,): 0 or 1, the same for all images of a group
    key: np.ndarray      # uint64 (image,): hash of the group, seed of its bootstrap weights
    groups: int          # how many persons and photographs there are
    resampled: str       # what half and key belong to: these, or "images"

    @classmethod
    def of(cls, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> "LabelledImages":
        """Sort out labels and groups.

        Parameters
        ----------
        labels : int array (image,)
            1 the concept, -1 unknown (the image is left out), anything else not the concept.
        groups : str array (image,)
            Person or photograph. If all images have the same one, each image counts as a group of
            its own.
        seed : int
            Another seed gives other halves and another bootstrap.

        Raises
        ------
        InputError
            No image has a label, or all have the same.
        """
        index = np.flatnonzero(labels >= 0)
        concept = labels[index] == 1
        if not 0 < concept.sum() < index.size:
            raise InputError(f"{concept.sum()} of {index.size} labelled images show the concept: a "
                             "test needs images that show it and images that do not")
        names, member = np.unique(groups[index], return_inverse=True)
        resampled = "persons and photographs"
        if names.size == 1:
            names, member, resampled = index, np.arange(index.size), "images"
        keys = group_keys(names, seed)
        half = halves(names, np.bincount(member, concept) > 0, seed).astype(np.int64)
        return cls(index, concept, half[member], keys[member], names.size, resampled)

    @property
    def chance(self) -> float:
        """Accuracy of always giving the more frequent answer."""
        return int(max(self.concept.sum(), (~self.concept).sum())) / self.concept.size


@dataclass(frozen=True)
class BestNeuron:
    """The best neuron of a population; accuracies and AUC are shares from 0 to 1."""
    where: tuple[int, ...]            # row, col, map
    neurons: int                      # among so many
    accuracy: float                   # of the best of its 20 thresholds
    honest: float                     # chosen on one half, counted on the other; mean over images
    honest_halves: tuple[float, ...]  # counted on the first half, and on the second
    auc: float
    auc_resolution: float             # what the fine bins leave open, either way, at most
    threshold: float
    minimum: float
    maximum: float
    histogram: np.ndarray             # int64 (label, bin): FINE_BINS bins from minimum to maximum
    stimuli: np.ndarray               # int64: positions in the dataset, strongest response first
    stimuli_response: np.ndarray      # float64
    #: float64 (accuracy, honest accuracy or AUC; replicate): of this neuron at this threshold and
    #: of those chosen on the halves; what choosing adds is not in it.
    replicates: np.ndarray


@dataclass(frozen=True)
class Population:
    """All neurons of a stage (or all filters of a baseline): arrays (row, col, map)."""
    accuracy: np.ndarray
    auc: np.ndarray             # from the bins between the thresholds; pairs in one bin count half
    auc_resolution: np.ndarray  # so the exact AUC is no further away: half the share of such pairs
    threshold: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    best: BestNeuron


def examine(responses: Pass, images: LabelledImages, replicates: int = 1000) -> list[Population]:
    """Examine every neuron of each population.

    Parameters
    ----------
    responses : Pass
        Starts a pass over the labelled images; it is called three times and must give the same each
        time.
    images : LabelledImages
    replicates : int
        Number of bootstrap replicates.

    Returns
    -------
    list of Population
        Memory: about 1.3 KB a neuron and 8 KB a replicate and population, beside the responses to
        one batch.

    Raises
    ------
    InputError
        A response is not finite.
    """
    ranges = find_ranges(responses(), images)
    tallies = [Tally(lowest, highest, images) for lowest, highest, _ in ranges]
    for arrays, part in responses():
        for tally, response in zip(tallies, arrays):
            tally.add(response, part)
    looks = [CloseLook(tally, replicates) for tally in tallies]
    for arrays, part in responses():
        weights = group_weights(images.key[part], replicates)
        for look, response in zip(looks, arrays):
            look.add(response, part, weights)
    return [look.population(shape) for look, (_, _, shape) in zip(looks, ranges)]


def find_ranges(batches: Iterable[tuple[Sequence[np.ndarray], slice]], images: LabelledImages
                ) -> list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]]:
    """Find the smallest and largest response of each neuron, and the shape (row, col, map).

    They are float64 (range, neuron); the ranges are over all images and over either half.

    Raises
    ------
    InputError
        A response is not finite.
    """
    found: list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]] = []
    for arrays, part in batches:
        if not found:
            sizes = [array[..., 0].size for array in arrays]
            found = [(np.full((3, size), np.inf), np.full((3, size), -np.inf), array.shape[:-1])
                     for array, size in zip(arrays, sizes)]
        for half, row in enumerate(HALVES):
            chosen = images.half[part] == half
            for (lowest, highest, _), array in zip(found, arrays):
                flat = array.reshape(-1, array.shape[-1])[:, chosen]
                np.minimum(lowest[row], flat.min(axis=1, initial=np.inf), out=lowest[row])
                np.maximum(highest[row], flat.max(axis=1, initial=-np.inf), out=highest[row])
    for lowest, highest, shape in found:
        lowest[ALL], highest[ALL] = lowest[1:].min(axis=0), highest[1:].max(axis=0)
        broken = ~(np.isfinite(lowest) & np.isfinite(highest)).all(axis=0)
        if broken.any():
            raise InputError(f"{broken.sum()} of the {broken.size} neurons of a "
                             f"{'x'.join(map(str, shape))} stage gave a response that is not "
                             "finite: training diverged, take an earlier checkpoint")
    return found


def bin_of(response: np.ndarray, lowest: np.ndarray, highest: np.ndarray, bins: int) -> np.ndarray:
    """Say into which of `bins` equal bins from `lowest` to `highest` a response falls, int64.

    A response on an edge belongs below it; responses outside the range go into the outermost bins;
    a neuron that gives the same response to all images has them all in bin 0. The arrays broadcast.
    """
    span = highest - lowest
    scale = np.divide(bins, span, out=np.zeros_like(span), where=span > SMALLEST_SPAN)
    position = np.ceil((response - lowest) * scale)
    return np.clip(position, 1, bins).astype(np.int64) - 1


class Tally:
    """Counts images that show the concept minus images that do not, per bin of each neuron.

    The difference is enough for accuracies: above a threshold, each of the first kind is a correct
    answer gained and each of the second one lost, against answering "no" to everything. For the AUC
    the images that show the concept are counted by themselves too, in one of the ranges.

    Attributes
    ----------
    balance : int32 array (range, half, neuron, bin)
        Images with the concept minus those without it.
    shown : int32 array (neuron, bin)
        Images with the concept, of both halves, in the range over all images.
    """

    def __init__(self, lowest: np.ndarray, highest: np.ndarray, images: LabelledImages) -> None:
        self.lowest, self.highest, self.images = lowest, highest, images
        self.neurons = lowest.shape[1]
        self.balance = np.zeros((3, 2, self.neurons, BINS), np.int32)
        self.shown = np.zeros((self.neurons, BINS), np.int32)

    def add(self, response: np.ndarray, part: slice) -> None:
        """Count the responses (row, col, map, image) to the labelled images `part`."""
        flat = response.reshape(self.neurons, -1)
        kind = 2 * self.images.concept[part] + self.images.half[part]  # 0 to 3
        for first in range(0, self.neurons, BLOCK):
            block = slice(first, min(first + BLOCK, self.neurons))
            size = block.stop - first
            row = (kind * size + np.arange(size)[:, None]) * BINS
            for each, (lowest, highest) in enumerate(zip(self.lowest[:, block, None],
                                                         self.highest[:, block, None])):
                place = row + bin_of(flat[block], lowest, highest, BINS)
                counts = np.bincount(place.ravel(), minlength=4 * size * BINS).astype(np.int32)
                without, shown = counts.reshape(2, 2, size, BINS)  # (half, neuron, bin)
                self.balance[each, :, block] += shown - without
                if each == ALL:
                    self.shown[block] += shown.sum(axis=0, dtype=np.int32)

    def correct(self, each: int, halves: Sequence[int]) -> np.ndarray:
        """Count correct answers, int64 (neuron, threshold): some halves, thresholds of a range."""
        balance = self.balance[each, list(halves)].sum(axis=0)
        negatives = (~self.images.concept & np.isin(self.images.half, halves)).sum()
        return negatives + balance[:, ::-1].cumsum(axis=1)[:, -2::-1]

    def area_under_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """AUC of every neuron and its resolution (`area_under_curve`), float64 (neuron,)."""
        pieces = []
        for first in range(0, self.neurons, BLOCK):
            block = slice(first, first + BLOCK)
            shown = self.shown[block]
            without = shown - self.balance[ALL, :, block].sum(axis=0)
            pieces.append(area_under_curve(np.stack([without.T, shown.T])))
        auc, resolution = np.hstack(pieces)
        return auc, resolution

    def threshold(self, each: int, neuron: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Return threshold `number` (0 to 19) of `neuron` in range `each`."""
        lowest, highest = self.lowest[each][neuron], self.highest[each][neuron]
        return lowest + (number + 1) * ((highest - lowest) / BINS)


def group_weights(keys: np.ndarray, replicates: int) -> np.ndarray:
    """Draw how often each image counts in each bootstrap replicate, int32 (image, replicate).

    A Poisson number of mean 1, seeded by the group alone: a group gets the same in every batch,
    pass and population, so nothing need be stored and differences between populations are paired.
    """
    unique, member = np.unique(keys, return_inverse=True)
    drawn = [np.random.default_rng(int(key)).poisson(1.0, replicates) for key in unique]
    return np.array(drawn, np.int32)[member]


class CloseLook:
    """Follows the best neuron, and the two chosen on either half, through the third pass."""

    def __init__(self, tally: Tally, replicates: int) -> None:
        self.tally = tally
        self.best = _best(tally.correct(ALL, (0, 1)))
        self.chosen = [_best(tally.correct(each, (half,))) for half, each in enumerate(HALVES)]
        self.histogram = np.zeros((2, FINE_BINS), np.int64)
        self.weighted = np.zeros((2, FINE_BINS, replicates), np.int32)
        # of the correct answers, of all answers
        self.honest_weight = np.zeros((2, replicates), np.int64)
        self.stimuli = np.zeros(0, np.int64)
        self.stimuli_response = np.zeros(0)

    def add(self, response: np.ndarray, part: slice, weights: np.ndarray) -> None:
        """Take in the responses to the labelled images `part`; `weights` is (image, replicate)."""
        tally, images = self.tally, self.tally.images
        flat = response.reshape(tally.neurons, -1)
        concept, half = images.concept[part], images.half[part]
        neuron = self.best[0]
        values = flat[neuron].astype(np.float64)
        fine = bin_of(values, tally.lowest[ALL, neuron], tally.highest[ALL, neuron], FINE_BINS)
        for label, place, weight in zip(concept.astype(int), fine, weights):
            self.histogram[label, place] += 1
            self.weighted[label, place] += weight
        # chosen on one half, counted on the other
        for source, (neuron, number) in enumerate(self.chosen):
            each, other = HALVES[source], half != source
            place = bin_of(flat[neuron],
                           tally.lowest[each, neuron], tally.highest[each, neuron], BINS)
            right = (place > number) == concept
            self.honest_weight += [weights[other & right].sum(axis=0), weights[other].sum(axis=0)]
        self._remember(values, images.index[part])

    def _remember(self, values: np.ndarray, index: np.ndarray) -> None:
        response = np.append(self.stimuli_response, values)
        positions = np.append(self.stimuli, index)
        strongest = np.argsort(-response, kind="stable")[:STIMULI]
        self.stimuli_response, self.stimuli = response[strongest], positions[strongest]

    def population(self, shape: tuple[int, ...]) -> Population:
        """Sum up; `shape` is (row, col, map)."""
        tally, images = self.tally, self.tally.images
        correct = tally.correct(ALL, (0, 1))
        number = correct.argmax(axis=1)
        threshold = tally.threshold(ALL, np.arange(tally.neurons), number)
        neuron, best_number = self.best
        counted = [tally.correct(HALVES[source], (1 - source,))[self.chosen[source]]
                   for source in (1, 0)]
        sizes = np.bincount(images.half, minlength=2)
        auc, resolution = area_under_curve(self.histogram[..., None])
        replicates = [self._accuracy(best_number), _ratio(*self.honest_weight),
                      area_under_curve(self.weighted)[0]]
        best = BestNeuron(
            where=tuple(int(i) for i in np.unravel_index(neuron, shape)), neurons=tally.neurons,
            accuracy=float(correct[self.best] / images.concept.size),
            honest=float(sum(counted) / images.concept.size),
            honest_halves=tuple(float(share) for share in np.array(counted) / sizes),
            auc=float(auc[0]), auc_resolution=float(resolution[0]),
            threshold=float(threshold[neuron]),
            minimum=float(tally.lowest[ALL, neuron]), maximum=float(tally.highest[ALL, neuron]),
            histogram=self.histogram, stimuli=self.stimuli, stimuli_response=self.stimuli_response,
            replicates=np.stack(replicates))
        accuracy = correct.max(axis=1) / images.concept.size
        areas, resolutions = tally.area_under_curve()
        return Population(
            accuracy=accuracy.reshape(shape), auc=areas.reshape(shape),
            auc_resolution=resolutions.reshape(shape), threshold=threshold.reshape(shape),
            minimum=tally.lowest[ALL].reshape(shape), maximum=tally.highest[ALL].reshape(shape),
            best=best)

    def _accuracy(self, number: int) -> np.ndarray:
        """Accuracy of the best neuron at its threshold in each replicate."""
        edge = (number + 1) * (FINE_BINS // BINS)
        right = self.weighted[0, :edge].sum(axis=0) + self.weighted[1, edge:].sum(axis=0)
        return _ratio(right, self.weighted.sum(axis=(0, 1)))


def area_under_curve(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve from histograms (label, bin, replicate), and its uncertainty.

    It is the chance that an image with the concept has the higher response of a random pair. Pairs
    in one bin count half, so the exact area lies within half the share of such pairs. NaN where a
    label is missing.
    """
    without, having = histogram.astype(np.float64)
    pairs = without.sum(axis=0) * having.sum(axis=0)
    below = without.cumsum(axis=0) - without / 2
    return (_ratio((having * below).sum(axis=0), pairs),
            _ratio((having * without).sum(axis=0) / 2, pairs))


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of those bootstrap replicates that are defined."""
    defined = values[np.isfinite(values)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined.size else (np.nan, np.nan)
    return float(low), float(high)


def chance_replicates(images: LabelledImages, replicates: int, batch: int) -> np.ndarray:
    """Accuracy of always giving the more frequent answer, in each bootstrap replicate."""
    right = images.concept == (images.concept.mean() > 0.5)
    weight = np.zeros((2, replicates), np.int64)
    for first in range(0, right.size, batch):
        part = slice(first, first + batch)
        weights = group_weights(images.key[part], replicates)
        weight += [weights[right[part]].sum(axis=0), weights.sum(axis=0)]
    return _ratio(*weight)


def _best(correct: np.ndarray) -> tuple[int, int]:
    """Return (neuron, threshold number) of the largest count; the first of equals."""
    neuron, number = np.unravel_index(correct.argmax(), correct.shape)
    return int(neuron), int(number)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
