"""What choosing among fewer neurons would reach: the best of many is luckier than the best of few.

From all neurons of a population as many are drawn as the top stage has, again and again; each time
the best of them on the development half is judged on the final half.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.experiments.close_look import BINS, Thresholds, bin_of
from hpclcae.experiments.labelled_images import FINAL, LabelledImages, ratio
from hpclcae.partition.communicator import Communicator

DRAWS = 50


@dataclass(frozen=True)
class Equal:
    """The accuracy on the final half with an equal number of candidates; shares from 0 to 1."""
    accuracy: float         # mean over the draws
    spread: float           # standard deviation over them; 0 where nothing had to be drawn
    replicates: np.ndarray  # float64 (replicate,): means over the draws, paired with all others


class FewerCandidates:
    """Follows the neurons that the draws choose through a pass.

    Parameters
    ----------
    populations : sequence of (Thresholds, int64 array (neuron, threshold))
        Thresholds of the development half, and right answers there; neurons are drawn from all.
    count : int
        Candidates of a draw; if there are no more, it is one draw.
    seed : int
    images : LabelledImages
    replicates : int
    """

    def __init__(self, populations: Sequence[tuple[Thresholds, np.ndarray]], count: int, seed: int,
                 images: LabelledImages, replicates: int) -> None:
        rng, best = np.random.default_rng(seed), np.hstack([c.max(axis=1) for _, c in populations])
        drawn = ([np.sort(rng.choice(best.size, count, replace=False)) for _ in range(DRAWS)]
                 if best.size > count else [np.arange(best.size)])
        neuron = np.array([mine[best[mine].argmax()] for mine in drawn])
        self.images, self.first = images, np.cumsum([0, *(c.shape[0] for _, c in populations)])
        self.lowest = np.hstack([thresholds.lowest for thresholds, _ in populations])[neuron]
        self.highest = np.hstack([thresholds.highest for thresholds, _ in populations])[neuron]
        self.number = np.hstack([c.argmax(axis=1) for _, c in populations])[neuron]
        self.neuron = neuron  # of all populations, one after the other
        # (right or all; draw; replicate), the first one of the images as they are
        self.counts = np.zeros((2, neuron.size, 1 + replicates))

    def add(self, population: int, responses: np.ndarray, own: np.ndarray, part: slice,
            weights: np.ndarray) -> None:
        """Take in responses (neuron, image) of the neurons `own` to the images `part`.

        Parameters
        ----------
        population : int
            Whose neurons they are.
        weights : int array (image, replicate)
        """
        final = self.images.half[part] == FINAL
        if not own.size:
            return
        wanted = self.neuron - self.first[population]
        at = np.minimum(np.searchsorted(own, wanted), own.size - 1)
        held = np.flatnonzero(own[at] == wanted)
        values = responses[at[held]][:, final].astype(np.float64)
        says = bin_of(values, self.lowest[held, None], self.highest[held, None], BINS)
        right = (says > self.number[held, None]) == self.images.concept[part][final]
        counted = np.column_stack([np.ones(right.shape[1]), weights[final]])
        self.counts[0, held] += right @ counted
        self.counts[1, held] += counted.sum(axis=0)

    def combine(self, world: Communicator) -> None:
        """Add what other processes have seen."""
        world.combine(self.counts, "sum")

    def judged(self) -> Equal:
        """Sum up."""
        shares = ratio(*self.counts)
        return Equal(float(shares[:, 0].mean()),
                     float(shares[:, 0].std(ddof=1)) if len(shares) > 1 else 0.0,
                     shares[:, 1:].mean(axis=0))
