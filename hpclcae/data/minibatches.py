"""The stream of minibatches: which images a replica sees in which step.

Deterministic in (seed, replica, step): any step's minibatch can be made without the ones before it,
so a run that is resumed sees what it would have seen. A replica draws from its own portion of the
images, in runs of consecutive images (a chunk of the file), in a new random order in every epoch;
every image is shown once per epoch. How many images a minibatch has is a matter of the phase
(model/phases.py).

The order takes the memory of one deck of runs, however many images there are. Of d decks, deck i
has the runs i, i + d, i + 2d, ...: a sample of the whole portion. An epoch takes the decks in a
random order and shuffles each when it comes to it. A portion of up to a million images is one deck.
"""
from collections.abc import Sequence

import numpy as np

from hpclcae.data.dataset import Dataset
from hpclcae.model.phases import Phase, find
from hpclcae.partition.blocks import Rectangle
from hpclcae.utils.errors import InputError


#: Images that are read in one go. Chunks of our files are as long; whatever they become, a run that
#: goes on must draw what it would have drawn.
RUN = 8
#: Most runs of a deck; its order takes 1 MB.
DECK = 2**17
#: How images are drawn, as checkpoints know it; 1: a portion was one deck, however large.
ORDER = 2


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
    among : int array or None
        All images that are drawn from, by any replica; None: those of the dataset.
    first, count : int
        Which of them are this replica's.

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
        self.among, total = among, dataset.count if among is None else len(among)
        self.first = total * replica // replicas
        self.count = total * (replica + 1) // replicas - self.first
        batch = max(phase.batch for phase in phases)
        if self.count < batch:
            portion = f" for each of {replicas} replicas" if replicas > 1 else ""
            has, keys = "has", "train.batch (stages.*.batch)"
            if among is not None:
                has, keys = "has to learn classes from", "train.batch and classifier.batch"
            raise InputError(f"a minibatch of {batch} is more than the {self.count} images that "
                             f"{dataset.path} {has}{portion}; make {keys} smaller or the dataset "
                             "larger")
        self._runs = -(-self.count // RUN)
        self._decks = -(-self._runs // DECK)
        self._shuffled: tuple[int, int, np.ndarray, int] | None = None  # epoch, deck, _order

    def indices(self, step: int) -> np.ndarray:
        """Indices in the dataset of the images of minibatch `step` (from 0)."""
        return self.at(self.numbers(step))

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Indices in the dataset of images that are counted within those of this replica."""
        return self.first + numbers if self.among is None else self.among[self.first + numbers]

    def numbers(self, step: int) -> np.ndarray:
        """The same, counted within the images of this replica."""
        positions = find(self.phases, step).positions(step)
        parts, position = [], positions.start
        while position < positions.stop:  # an epoch or a deck may end in a minibatch
            parts.append(self._drawn(*divmod(position, self.count), positions.stop - position))
            position += len(parts[-1])
        return np.concatenate(parts)

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

    def _drawn(self, epoch: int, place: int, most: int) -> np.ndarray:
        """Up to `most` numbers from a place in an epoch on, none from beyond the end of a deck."""
        decks = np.arange(self._decks)
        if self._decks > 1:
            decks = np.random.default_rng([self.seed, self.replica, 2, epoch]).permutation(decks)
        runs = -(-(self._runs - decks) // self._decks)
        short = self._runs * RUN - self.count  # what the last run lacks
        images = runs * RUN - short * (decks == (self._runs - 1) % self._decks)
        ends = np.cumsum(images)
        which = int(np.searchsorted(ends, place, side="right"))
        deck, size = int(decks[which]), int(images[which])
        order, last = self._order(epoch, deck, int(runs[which]))
        place -= int(ends[which]) - size
        places = np.arange(place, min(place + most, size))
        places[places >= last * RUN + RUN - short] += short  # behind the run that is not whole
        return (order[places // RUN] * self._decks + deck) * RUN + places % RUN

    def _order(self, epoch: int, deck: int, runs: int) -> tuple[np.ndarray, int]:
        """The order of the runs of a deck; at which place the last one of all stands, if it does.
        """
        if self._shuffled is None or self._shuffled[:2] != (epoch, deck):
            words = [self.seed, self.replica, 0, epoch, *([deck] if self._decks > 1 else [])]
            order = np.random.default_rng(words).permutation(runs)
            found = np.flatnonzero(order * self._decks + deck == self._runs - 1)
            self._shuffled = epoch, deck, order, int(found[0]) if found.size else runs
        return self._shuffled[2:]


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
