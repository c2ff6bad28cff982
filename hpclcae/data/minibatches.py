"""The stream of minibatches: which images a replica sees in which step.

Deterministic in (seed, replica, step): any step's minibatch can be made without the ones before it,
so a run that is resumed sees what it would have seen. A replica draws from its own portion of the
images, in runs of consecutive images (a chunk of the file), in a new random order in every epoch;
every image is shown once per epoch. How many images a minibatch has is a matter of the phase
(model/phases.py).
"""
from collections.abc import Sequence

import numpy as np

from hpclcae.data.dataset import CHUNK_IMAGES, Dataset
from hpclcae.model.phases import Phase, find
from hpclcae.partition.blocks import Rectangle
from hpclcae.utils.errors import InputError


class MinibatchStream:
    """Minibatches of a dataset for one replica.

    Parameters
    ----------
    dataset : Dataset
    phases : sequence of Phase
        Which images a minibatch has.
    seed, replica, replicas : int
    mirror : bool
        Show a random half of the images mirrored left to right.
    crop : int
        Move every image by up to so many pixels along both sides.
    among : int array (image,), optional
        Indices of the images that it draws from, ascending; without it all.

    Attributes
    ----------
    among : int array
        All images that are drawn from, by any replica.
    count : int
        Those of this replica.

    Raises
    ------
    InputError
        The replica's portion is smaller than a minibatch.
    """

    def __init__(self, dataset: Dataset, phases: Sequence[Phase], seed: int, replica: int = 0,
                 replicas: int = 1, mirror: bool = False, crop: int = 0,
                 among: np.ndarray | None = None) -> None:
        self.dataset, self.phases, self.mirror, self.crop = dataset, phases, mirror, crop
        self.seed, self.replica = seed, replica
        self.among = np.arange(dataset.count) if among is None else among
        first, stop = (len(self.among) * number // replicas for number in (replica, replica + 1))
        self.own, self.count = self.among[first:stop], stop - first
        batch = max(phase.batch for phase in phases)
        if self.count < batch:
            portion = f" for each of {replicas} replicas" if replicas > 1 else ""
            raise InputError(f"a minibatch of {batch} is more than the {self.count} images that "
                             f"{dataset.path} has{portion}; make train.batch (stages.*.batch) "
                             "smaller or the dataset larger")
        self._order: tuple[int, np.ndarray] | None = None

    def indices(self, step: int) -> np.ndarray:
        """Indices in the dataset of the images of minibatch `step` (from 0)."""
        return self.own[self.numbers(step)]

    def numbers(self, step: int) -> np.ndarray:
        """The same, counted within the images of this replica."""
        positions = np.array(find(self.phases, step).positions(step))
        epochs = positions // self.count
        return np.concatenate([self._epoch(int(e))[positions[epochs == e] % self.count]
                               for e in np.unique(epochs)])

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

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, self.replica, 0, epoch])
            runs = generator.permutation(-(-self.count // CHUNK_IMAGES)) * CHUNK_IMAGES
            order = (runs[:, None] + np.arange(CHUNK_IMAGES)).ravel()
            self._order = epoch, order[order < self.count]
        return self._order[1]


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
