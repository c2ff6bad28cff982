"""The stream of minibatches: which images a replica sees in which step.

Deterministic in (seed, deal, replica, step): any step's minibatch can be made without the ones
before it, so a run that is resumed sees what it would have seen. A replica draws from its own
logical stream (dealing.py), after its share of what another number of replicas has left of an
epoch. How many images a minibatch has is a matter of the phase (model/phases.py).
"""
from collections.abc import Sequence

import numpy as np

from hpclcae.data.dataset import Dataset
from hpclcae.data.dealing import DECK, RUN, Deal, Stream
from hpclcae.model.phases import Phase, find
from hpclcae.partition.blocks import Rectangle
from hpclcae.utils.errors import InputError

#: How images are drawn, as checkpoints know it; 1: a portion was one deck, however large.
ORDER = 2


class MinibatchStream:
    """Minibatches of a dataset for one replica.

    Parameters
    ----------
    dataset : Dataset
    phases : sequence of Phase
        Which images a minibatch has.
    seed, replica : int
    deal : Deal, optional
        How images are dealt to all replicas; without it there is one.
    mirror : bool
        Show a random half of the images mirrored left to right.
    crop : int
        Move every image by up to so many pixels along both sides.
    among : int array (image,), optional
        Indices of the images that it draws from, ascending; without it all.

    Attributes
    ----------
    among : int array or None
        All images that are drawn from, by any replica; None: those of the dataset.
    first, count : int
        Which of them are in this replica's own stream.

    Raises
    ------
    InputError
        The replica's portion is smaller than a minibatch.
    """

    def __init__(self, dataset: Dataset, phases: Sequence[Phase], seed: int, replica: int = 0,
                 deal: Deal = Deal(), mirror: bool = False, crop: int = 0,
                 among: np.ndarray | None = None) -> None:
        self.dataset, self.phases, self.mirror, self.crop = dataset, phases, mirror, crop
        self.seed, self.replica, self.deal = seed, replica, deal
        self.among, self._total = among, dataset.count if among is None else len(among)
        self._own = Stream(self._total, seed, replica, deal.replicas)
        self.first, self.count = self._own.first, self._own.count
        batch = max(phase.batch for phase in phases)
        if self.count < batch:
            portion = f" for each of {deal.replicas} replicas" if deal.replicas > 1 else ""
            has, keys = "has", "train.batch (stages.*.batch)"
            if among is not None:
                has, keys = "has to learn classes from", "train.batch and classifier.batch"
            raise InputError(f"a minibatch of {batch} is more than the {self.count} images that "
                             f"{dataset.path} {has}{portion}; make {keys} smaller or the dataset "
                             "larger")
        self._share = deal.share(replica)
        self._left = sum(piece.stop - piece.start for piece in self._share)
        self._other: Stream | None = None  # the one that the share was last read from

    def indices(self, step: int) -> np.ndarray:
        """Indices in the dataset of the images of minibatch `step` (from 0)."""
        return self.at(self.numbers(step))

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Indices in the dataset of images that are counted as in `numbers`."""
        return self.first + numbers if self.among is None else self.among[self.first + numbers]

    def numbers(self, step: int) -> np.ndarray:
        """The same, counted within the images of this replica's own stream.

        Those of other streams are below 0, or from `count` on.
        """
        taken, parts = self._taken(step), []
        at = taken.start
        while at < taken.stop:  # a piece, an epoch or a deck may end in a minibatch
            parts.append(self._drawn(at, taken.stop - at) - self.first)
            at += len(parts[-1])
        return np.concatenate(parts)

    def is_shared_out(self, step: int) -> bool:
        """Whether minibatch `step` has images of the rest that is shared out (Deal.rest)."""
        return self._taken(step).start < self._left

    def passes(self, step: int) -> float:
        """Passes over the images, of all replicas together, that were made before `step` if all
        have made as many steps as this one."""
        return self.deal.passes(self._total) + self._taken(step).start / self.count

    def _taken(self, step: int) -> range:
        """Which images of those that this replica takes in the course of the deal a step has."""
        positions = find(self.phases, step).positions(step)
        before = find(self.phases, self.deal.step).positions(self.deal.step).start
        return range(positions.start - before, positions.stop - before)

    def _drawn(self, at: int, most: int) -> np.ndarray:
        """Up to `most` images from one on that this replica takes."""
        if at >= self._left:
            return self._own.drawn(self.deal.epochs * self.count + at - self._left, most)
        for piece in self._share:
            size = piece.stop - piece.start
            if at < size:
                break
            at -= size
        if self._other is None or piece[:2] != (self._other.streams, self._other.number):
            self._other = Stream(self._total, self.seed, piece.number, piece.streams)
        return self._other.drawn(piece.start + at, min(most, size - at))

    def check_order(self, order: int) -> None:
        """Refuse to go on with a run that drew its images in another order.

        Parameters
        ----------
        order : int
            Of its checkpoint.

        Raises
        ------
        InputError
            It would see some images twice and others not at all.
        """
        if order < ORDER and self.dataset.count > DECK * RUN:
            raise InputError(f"the run began with an older hpclcae, which drew the images of "
                             f"{self.dataset.path} in another order (more than {DECK * RUN:,} of "
                             "them): start a new run from its weights, with train.weights")

    def mirrored(self, step: int) -> np.ndarray:
        """Which images of minibatch `step` are shown mirrored (a mask)."""
        images = len(find(self.phases, step).positions(step))
        if not self.mirror:
            return np.zeros(images, bool)
        generator = np.random.default_rng([self.seed, self.replica, 1, step])
        return generator.random(images) < 0.5

    def moved(self, step: int) -> np.ndarray:
        """By how many pixels the images of minibatch `step` are moved: int (image, 2)."""
        images = len(find(self.phases, step).positions(step))
        if not self.crop:
            return np.zeros((images, 2), int)
        generator = np.random.default_rng([self.seed, self.replica, 3, step])
        return generator.integers(-self.crop, self.crop + 1, (images, 2))

    @property
    def variants(self) -> int:
        """In how many ways an image may be shown."""
        return (2 if self.mirror else 1) * (2 * self.crop + 1) ** 2

    def entries(self, step: int) -> np.ndarray:
        """A number for every image of minibatch `step` and the way in which it is shown.

        They are below count times variants.
        """
        down, right = self.moved(step).T + self.crop
        way = down * (2 * self.crop + 1) + right
        if self.mirror:
            way = 2 * way + self.mirrored(step)
        return self.numbers(step) * self.variants + way

    def images(self, step: int, part: Rectangle | None = None) -> np.ndarray:
        """Minibatch `step`, or a part of each of its images: uint8 (image, row, col, channel)."""
        return read_shown(self.dataset, self.indices(step), self.mirrored(step), part,
                          self.moved(step))


def sample(generator: np.random.Generator, count: int, most: int) -> np.ndarray:
    """Up to `most` of the numbers below `count`, in a random order: int (number,).

    Of very many numbers no list is made.
    """
    if count <= DECK * RUN:
        return generator.permutation(count)[:most]
    return generator.choice(count, min(count, most), replace=False)


def read_shown(dataset: Dataset, indices: np.ndarray, mirrored: np.ndarray,
               part: Rectangle | None = None, moved: np.ndarray | None = None) -> np.ndarray:
    """Images as they are shown, or a part of each.

    Parameters
    ----------
    mirrored : bool array (image,)
        Which are mirrored left to right.
    moved : int array (image, 2), optional
        The shown pixel (row, col) is that at (row, col) + moved of the image, which goes on beyond
        its border as its outermost pixels are; mirrored after that.

    Returns
    -------
    uint8 (image, row, col, channel)
    """
    width = dataset.cols
    part = part or Rectangle((0, dataset.rows), (0, width))
    if moved is not None and moved.any():
        return _read_moved(dataset, indices, mirrored, part, moved)
    rows, cols = slice(*part.rows), slice(*part.cols)
    images = dataset.read(indices, rows, cols)
    if mirrored.any():
        # where a mirrored image has these columns
        there = slice(width - part.cols[1], width - part.cols[0])
        flipped = (images[mirrored] if there == cols
                   else dataset.read(indices[mirrored], rows, there))
        images[mirrored] = flipped[:, :, ::-1]
    return images


def _read_moved(dataset: Dataset, indices: np.ndarray, mirrored: np.ndarray, part: Rectangle,
                moved: np.ndarray) -> np.ndarray:
    cols = np.arange(*part.cols)
    across = np.where(mirrored[:, None], dataset.cols - 1 - cols, cols) + moved[:, 1:]
    across = across.clip(0, dataset.cols - 1)
    down = (np.arange(*part.rows) + moved[:, :1]).clip(0, dataset.rows - 1)
    top, left = down.min(), across.min()
    images = dataset.read(indices, slice(top, down.max() + 1),
                          slice(left, across.max() + 1))
    each = np.arange(len(images))[:, None, None]
    return images[each, down[:, :, None] - top, across[:, None, :] - left]
