"""Training images as material for filters and choices: drawn by a seed, read in few goes."""
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset

GAP = 8  # images that are read for nothing rather than with another call: a chunk of the file


def sample(total: int, count: int, seed: int) -> np.ndarray:
    """Choose `count` different numbers below `total` (all, if there are fewer); sorted."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def sample_alike(labels: np.ndarray, share: float, count: int, seed: int) -> np.ndarray:
    """Choose labelled images of which a given share shows the concept.

    Parameters
    ----------
    labels : int array (image,)
        1 the concept, 0 not the concept; others are not chosen.
    share : float
        Between 0 and 1.
    count : int
        At most so many.
    seed : int

    Returns
    -------
    int64 array: positions, sorted; none if an image of a kind is missing.
    """
    shown, others = (np.flatnonzero(labels == label) for label in (1, 0))
    total = int(min(count, shown.size / share, others.size / (1 - share)))
    wanted = round(total * share)
    if not 0 < wanted < total:
        return np.zeros(0, np.int64)
    return np.sort(np.concatenate([shown[sample(shown.size, wanted, seed)],
                                   others[sample(others.size, total - wanted, seed)]]))


def read(dataset: Dataset, places: np.ndarray) -> np.ndarray:
    """Read images at sorted positions (repeats allowed); those that lie close in one go.

    Returns
    -------
    uint8 array (image, row, col, channel)
    """
    cuts = np.flatnonzero(np.diff(places) > GAP) + 1
    runs = np.split(places, cuts)
    wanted = np.concatenate([np.arange(run[0], run[-1] + 1) for run in runs])
    return dataset.read(wanted)[np.searchsorted(wanted, places)]


def read_ahead(dataset: Dataset, batches: Sequence[np.ndarray],
               prepare: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Iterator[np.ndarray]:
    """Yield the images at some positions, batch by batch; the next is read meanwhile.

    Two batches are held at most, whatever their number.

    Parameters
    ----------
    prepare : callable
        What is to be done with every batch, in the thread that reads.
    """
    def made(places: np.ndarray) -> np.ndarray:
        return prepare(read(dataset, places))
    with ThreadPoolExecutor(1) as reader:
        waiting = None
        for places in batches:
            ready, waiting = waiting, reader.submit(made, places)
            if ready is not None:
                yield ready.result()
                del ready
        if waiting is not None:
            yield waiting.result()


def prepared_ahead(model: Model, dataset: Dataset, batches: Sequence[np.ndarray]
                   ) -> Iterator[np.ndarray]:
    """The same, prepared for a network (row, col, channel, image).

    Where blocks share it they add up numbers of whole images, which only their main threads may.
    """
    if model.preprocessor.sums:
        yield from map(model.prepare, read_ahead(dataset, batches))
    else:
        yield from read_ahead(dataset, batches, model.prepare)
