"""The stream of minibatches: which images a replica sees in which step.

Deterministic in (seed, replica, step): any step's minibatch can be made without the ones before it,
so a run that is resumed sees what it would have seen. A replica draws from its own portion of the
dataset, in runs of consecutive images (a chunk of the file), in a new random order in every epoch;
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

    Raises
    ------
    InputError
        The replica's portion is smaller than a minibatch.
    """

    def __init__(self, dataset: Dataset, phases: Sequence[Phase], seed: int, replica: int = 0,
                 replicas: int = 1, mirror: bool = False) -> None:
        self.dataset, self.phases, self.mirror = dataset, phases, mirror
        self.seed, self.replica = seed, replica
        self.first = dataset.count * replica // replicas
        self.count = dataset.count * (replica + 1) // replicas - self.first
        batch = max(phase.batch for phase in phases)
        if self.count < batch:
            portion = f" for each of {replicas} replicas" if replicas > 1 else ""
            raise InputError(f"a minibatch of {batch} is more than the {self.count} images that "
                             f"{dataset.path} has{portion}; make train.batch (stages.*.batch) "
                             "smaller or the dataset larger")
        self._order: tuple[int, np.ndarray] | None = None

    def indices(self, step: int) -> np.ndarray:
        """Indices in the dataset of the images of minibatch `step` (from 0)."""
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

    def images(self, step: int, part: Rectangle | None = None) -> np.ndarray:
        """Minibatch `step`, or a part of each of its images: uint8 (image, row, col, channel)."""
        return read_mirrored(self.dataset, self.indices(step), self.mirrored(step), part)

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, self.replica, 0, epoch])
            runs = generator.permutation(-(-self.count // CHUNK_IMAGES)) * CHUNK_IMAGES
            order = (runs[:, None] + np.arange(CHUNK_IMAGES)).ravel()
            self._order = epoch, self.first + order[order < self.count]
        return self._order[1]


def read_mirrored(dataset: Dataset, indices: np.ndarray, mirrored: np.ndarray,
                  part: Rectangle | None = None) -> np.ndarray:
    """Images, those of a mask mirrored left to right, or a part of each.

    Returns
    -------
    uint8 (image, row, col, channel)
    """
    width = dataset.cols
    part = part or Rectangle((0, dataset.rows), (0, width))
    rows, cols = slice(*part.rows), slice(*part.cols)
    images = dataset.read(indices, rows, cols)
    if mirrored.any():
        # where a mirrored image has these columns
        there = slice(width - part.cols[1], width - part.cols[0])
        flipped = (images[mirrored] if there == cols
                   else dataset.read(indices[mirrored], rows, there))
        images[mirrored] = flipped[:, :, ::-1]
    return images
