"""The paper's test of single neurons: how well does one threshold on one response tell a concept?

For every neuron 20 thresholds are spaced equally, strictly between its smallest and its largest
response; an image is said to show the concept if its response lies *above* the threshold; the
accuracy of the best threshold is the neuron's, and the best neuron speaks for its stage. (The paper
does not name the side. Above it is here: a neuron that falls silent at faces is not called a face
neuron.)

Taken over all images, as the paper does, that figure is optimistic: neuron and threshold are chosen
on the images they are judged by, and the more neurons there are, the more so. The *honest* accuracy
chooses range, threshold and neuron on the development half and counts on the final half.

Nothing here grows with the number of images but their labels. Three passes over the responses:
extremes; counts between the thresholds; a close look at the chosen neurons (close_look.py).
"""
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.experiments.close_look import (BINS, JudgedNeuron, NeuronLook, area_under_curve,
                                            bin_of)
from hpclcae.experiments.fewer_candidates import Equal, FewerCandidates
from hpclcae.experiments.labelled_images import (DEVELOPMENT, FINAL, LabelledImages,
                                                 group_weights)
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.utils.errors import InputError

BLOCK = 512  # neurons counted at once: their bins stay in the cache

#: Starts a pass over images: minibatch by minibatch the responses (row, col, map, image) of each
#: population of neurons, and which of the images they belong to.
Pass = Callable[[], Iterable[tuple[Sequence[np.ndarray], slice]]]


@dataclass(frozen=True)
class Part:
    """The neurons of a population that this process looks at."""
    shape: tuple[int, ...]  # row, col, map: of all of them
    own: np.ndarray         # int64: where the neurons of the responses are among all, flattened

    @classmethod
    def of(cls, shape: tuple[int, ...], rows: slice, cols: slice) -> "Part":
        """The positions of a rectangle."""
        return cls(shape, np.arange(np.prod(shape)).reshape(shape)[rows, cols].ravel())


@dataclass(frozen=True)
class TrainingImages:
    """Labelled training images, to choose a neuron of the last population without test labels."""
    responses: Pass      # of the same populations
    concept: np.ndarray  # bool (image,)


@dataclass(frozen=True)
class Population:
    """All neurons of a stage (or all filters of a baseline): arrays (row, col, map).

    Accuracies and AUC are shares from 0 to 1; what cannot be said honestly is None.
    """
    accuracy: np.ndarray        # of the best of 20 thresholds, over all images
    auc: np.ndarray             # over all images, from the bins between the thresholds
    auc_resolution: np.ndarray  # half the share of pairs in one bin: the exact AUC is no further
    threshold: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    development: np.ndarray | None   # of the best of 20 thresholds, on the development half
    final: np.ndarray | None         # of that threshold, on the final half
    best: JudgedNeuron                # chosen and judged on all images: the paper's measure
    chosen: JudgedNeuron | None       # chosen on the development half, judged on the final half
    by_training: JudgedNeuron | None  # by training labels, its threshold by development
    equal: Equal | None               # chosen so, with an equal number of candidates
    equal_of_all: Equal | None        # the same, drawn from all populations of the examination


def examine(responses: Pass, images: LabelledImages, replicates: int = 1000,
            training: TrainingImages | None = None, world: Communicator = SerialCommunicator(),
            parts: Sequence[Part] | None = None, candidates: int = 0,
            seed: int = 0) -> list[Population]:
    """Examine every neuron of each population.

    Parameters
    ----------
    responses : Pass
        Starts a pass over the labelled images; it is called three times and must give the same each
        time.
    images : LabelledImages
    replicates : int
        Number of bootstrap replicates.
    training : TrainingImages, optional
        One pass over them is made, too. Each neuron of the last population is scored by the best
        of its 20 thresholds, spaced between its extremes on the development half.
    world : Communicator, optional
        The processes that share the images and neurons; each passes over its part of them, and all
        of them together over every image and neuron once. All return the same.
    parts : sequence of Part, optional
        The neurons of each population that the responses are of; without it all.
    candidates : int, optional
        Numbers of candidates are made equal to this; 0: to the size of the last population.
    seed : int, optional
        Of the draws for it.

    Returns
    -------
    list of Population
        Memory: about 1 KB a neuron and 8 KB a replicate and chosen neuron, beside the responses to
        one batch.

    Raises
    ------
    InputError
        A response is not finite.
    """
    honest, everything = not images.why_not_honest, not images.why_no_interval
    replicates = replicates if everything else 0
    ranges = find_ranges(responses(), images, world, parts)
    parts = (parts or [Part.of(shape, slice(None), slice(None)) for _, _, shape in ranges]
             )[:len(ranges)]
    whole = [Tally(lowest[0], highest[0], images.concept, images.half, part.own)
             for (lowest, highest, _), part in zip(ranges, parts)]
    development = [Tally(lowest[1], highest[1], images.concept, images.half, part.own)
                   for (lowest, highest, _), part in zip(ranges, parts)] if honest else []
    for arrays, part in responses():
        for tallies in (whole, development):
            for tally, response in zip(tallies, arrays):
                tally.add(response, part)
    for tally in (*whole, *development):
        tally.combine(world)
    by_training = (_choose_by_training(development[-1], training, parts[-1].own, world)
                   if training and honest else None)

    looks = []
    for number, tally in enumerate(whole):
        chosen = [NeuronLook(*tally.best((DEVELOPMENT, FINAL)), tally, images, None, replicates)]
        if honest:
            halved = development[number]
            picks = [halved.best((DEVELOPMENT,))]
            if by_training is not None and tally is whole[-1]:
                picks.append((by_training, int(halved.correct((DEVELOPMENT,))[by_training].argmax())
                              ))
            chosen += [NeuronLook(*pick, halved, images, FINAL, replicates) for pick in picks]
        looks.append(chosen)
    known = [(halved, halved.correct((DEVELOPMENT,))) for halved in development]
    fewer = [FewerCandidates(among, candidates or whole[-1].neurons, seed, images, replicates)
             for among in (*([each] for each in known), known) if among]
    for arrays, part in responses():
        weights = group_weights(images.key[part], replicates)
        for chosen, response, held in zip(looks, arrays, parts):
            flat = response.reshape(-1, response.shape[-1])
            for look in chosen:
                at = int(np.searchsorted(held.own, look.neuron))
                if at < held.own.size and held.own[at] == look.neuron:
                    look.add(flat[at], part, weights)
        for number, (response, held) in enumerate(zip(arrays, parts)) if fewer else ():
            flat = response.reshape(-1, response.shape[-1])
            fewer[number].add(0, flat, held.own, part, weights)
            fewer[-1].add(number, flat, held.own, part, weights)
    for chosen in looks:
        for look in chosen:
            look.combine(world)
    for each in fewer:
        each.combine(world)
    return [_population(tally, development[number] if honest else None, chosen, shape,
                        (fewer[number].judged(), fewer[-1].judged()) if honest else (None, None))
            for number, (tally, chosen, (_, _, shape)) in enumerate(zip(whole, looks, ranges))]


def find_ranges(batches: Iterable[tuple[Sequence[np.ndarray], slice]], images: LabelledImages,
                world: Communicator = SerialCommunicator(), parts: Sequence[Part] | None = None
                ) -> list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]]:
    """Find the smallest and largest response of each neuron, and the shape (row, col, map).

    They are float64 (range, neuron); the ranges are over all images and over the development half.

    Raises
    ------
    InputError
        A response is not finite.
    """
    found: list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]] = []
    for arrays, part in batches:
        if not found:
            sizes = [array[..., 0].size for array in arrays]
            found = [(np.full((2, size), np.inf), np.full((2, size), -np.inf), array.shape[:-1])
                     for array, size in zip(arrays, sizes)]
        development = images.half[part] == DEVELOPMENT
        for (lowest, highest, _), array in zip(found, arrays):
            flat = array.reshape(-1, array.shape[-1])
            for row, chosen in enumerate((flat, flat[:, development])):
                np.minimum(lowest[row], chosen.min(axis=1, initial=np.inf), out=lowest[row])
                np.maximum(highest[row], chosen.max(axis=1, initial=-np.inf), out=highest[row])
    everyones = []
    for number, (lowest, highest, shape) in enumerate(found):
        if parts is not None:
            whole = parts[number]
            size, own, shape = int(np.prod(whole.shape)), whole.own, whole.shape
            (lowest, held), (highest, also) = ((np.full((2, size), np.inf), lowest),
                                               (np.full((2, size), -np.inf), highest))
            lowest[:, own], highest[:, own] = held, also
        # NaN would get lost in the comparisons of other processes
        lowest[np.isnan(lowest)], highest[np.isnan(highest)] = -np.inf, np.inf
        world.combine(lowest, "minimum")
        world.combine(highest, "maximum")
        broken = ~(np.isfinite(lowest[0]) & np.isfinite(highest[0]))
        if broken.any():
            raise InputError(f"{broken.sum()} of the {broken.size} neurons of a "
                             f"{'x'.join(map(str, shape))} stage gave a response that is not "
                             "finite: training diverged, take an earlier checkpoint")
        everyones.append((lowest, highest, shape))
    return everyones


class Tally:
    """Counts images that show the concept minus images that do not, per bin of each neuron.

    The difference is enough for accuracies: above a threshold, each of the first kind is a correct
    answer gained and each of the second one lost, against answering "no" to everything. For the AUC
    the images that show the concept are counted by themselves, too.

    Parameters
    ----------
    lowest, highest : float64 arrays (neuron,)
        The range in which the thresholds are spaced.
    concept : bool array (image,)
    half : int64 array (image,)
    own : int64 array, optional
        The neurons that responses are added of; without it all.

    Attributes
    ----------
    balance : int32 array (half, neuron, bin)
        Images with the concept minus those without it; of the own neurons, until `combine`.
    shown : int32 array (neuron, bin)
        Images with the concept, of both halves.
    """

    def __init__(self, lowest: np.ndarray, highest: np.ndarray, concept: np.ndarray,
                 half: np.ndarray, own: np.ndarray | None = None) -> None:
        self.lowest, self.highest, self.concept, self.half = lowest, highest, concept, half
        self.neurons = lowest.size
        self.own = np.arange(self.neurons) if own is None else own
        self.balance = np.zeros((2, self.own.size, BINS), np.int32)
        self.shown = np.zeros((self.own.size, BINS), np.int32)

    def add(self, response: np.ndarray, part: slice) -> None:
        """Count the responses (row, col, map, image) to the images `part`."""
        flat = response.reshape(self.own.size, response.shape[-1])
        kind = 2 * self.concept[part] + self.half[part]  # 0 to 3
        for first in range(0, self.own.size, BLOCK):
            block = slice(first, min(first + BLOCK, self.own.size))
            size, own = block.stop - first, self.own[block]
            row = (kind * size + np.arange(size)[:, None]) * BINS
            place = row + bin_of(flat[block], self.lowest[own, None], self.highest[own, None],
                                 BINS)
            counts = np.bincount(place.ravel(), minlength=4 * size * BINS).astype(np.int32)
            without, shown = counts.reshape(2, 2, size, BINS)  # (half, neuron, bin)
            self.balance[:, block] += shown - without
            self.shown[block] += shown.sum(axis=0, dtype=np.int32)

    def combine(self, world: Communicator) -> None:
        """Add what other processes have counted; from here on it is about all neurons."""
        for name in ("balance", "shown"):
            counts = getattr(self, name)
            if self.own.size < self.neurons:
                mine, counts = counts, np.zeros((*counts.shape[:-2], self.neurons, BINS), np.int32)
                counts[..., self.own, :] = mine
            world.combine(counts, "sum")
            setattr(self, name, counts)
        self.own = np.arange(self.neurons)

    def correct(self, halves: Sequence[int]) -> np.ndarray:
        """Count correct answers in some halves, int64 (neuron, threshold)."""
        balance = self.balance[list(halves)].sum(axis=0)
        negatives = (~self.concept & np.isin(self.half, halves)).sum()
        return negatives + balance[:, ::-1].cumsum(axis=1)[:, -2::-1]

    def best(self, halves: Sequence[int]) -> tuple[int, int]:
        """(neuron, threshold number) with most correct answers; the first of equals."""
        correct = self.correct(halves)
        neuron, number = np.unravel_index(correct.argmax(), correct.shape)
        return int(neuron), int(number)

    def area_under_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """AUC of every neuron over both halves, and its resolution, float64 (neuron,)."""
        pieces = []
        for first in range(0, self.neurons, BLOCK):
            block = slice(first, first + BLOCK)
            shown = self.shown[block]
            without = shown - self.balance[:, block].sum(axis=0)
            pieces.append(area_under_curve(np.stack([without.T, shown.T])))
        auc, resolution = np.hstack(pieces)
        return auc, resolution

    def threshold(self, neuron: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Return threshold `number` (0 to 19) of `neuron`."""
        lowest, highest = self.lowest[neuron], self.highest[neuron]
        return lowest + (number + 1) * ((highest - lowest) / BINS)


def _choose_by_training(development: Tally, training: TrainingImages, own: np.ndarray,
                        world: Communicator) -> int:
    """The neuron of the last population that has most right answers on the training images."""
    tally = Tally(development.lowest, development.highest, training.concept,
                  np.zeros(training.concept.size, np.int64), own)
    for arrays, part in training.responses():
        tally.add(arrays[-1], part)
    tally.combine(world)
    return tally.best((0,))[0]


def _population(whole: Tally, halved: Tally | None, looks: Sequence[NeuronLook],
                shape: tuple[int, ...],
                equal: tuple[Equal | None, Equal | None]) -> Population:
    """Sum up; `shape` is (row, col, map)."""
    everyone = np.arange(whole.neurons)
    correct = whole.correct((DEVELOPMENT, FINAL))
    number = correct.argmax(axis=1)
    auc, resolution = whole.area_under_curve()
    development = final = None
    best, *judged = [look.judged(shape) for look in looks]
    if halved is not None:
        sizes = np.bincount(halved.half, minlength=2)
        chosen_by, counted = halved.correct((DEVELOPMENT,)), halved.correct((FINAL,))
        at = chosen_by.argmax(axis=1)
        development = (chosen_by[everyone, at] / sizes[DEVELOPMENT]).reshape(shape)
        final = (counted[everyone, at] / sizes[FINAL]).reshape(shape)
    return Population(
        accuracy=(correct.max(axis=1) / whole.concept.size).reshape(shape),
        auc=auc.reshape(shape), auc_resolution=resolution.reshape(shape),
        threshold=whole.threshold(everyone, number).reshape(shape),
        minimum=whole.lowest.reshape(shape), maximum=whole.highest.reshape(shape),
        development=development, final=final, best=best,
        chosen=judged[0] if judged else None, by_training=judged[1] if judged[1:] else None,
        equal=equal[0], equal_of_all=equal[1])
