"""What a trained neuron has to beat: linear filters cut from the training images.

Chance, the first stage and random weights, the other baselines of the paper, need no code of their
own: all are populations of neurons to `single_neurons.examine`, and so are the filters here.

The paper's filters are patches of training images; here a patch is a whole training image, so that
a filter sees as much of a test image as the top of the network may. The same filters are tried on
pixels that were only contrast-normalised: whitening helps a network to learn and takes from a
template what it could match.
"""
from collections.abc import Callable

import numpy as np

from hpclcae.config import PreprocessConfig
from hpclcae.data.dataset import Dataset
from hpclcae.model.preprocess import Preprocessing

#: images uint8 (image, row, col, channel) -> pixels (row, col, channel, image)
Prepare = Callable[[np.ndarray], np.ndarray]


def normalised_pixels(size: int) -> Prepare:
    """Return the preparation that gives each image zero mean and about unit variance, no more."""
    config = PreprocessConfig(contrast=True, whitening=0, rescale=False)
    return Preprocessing(config).preprocessor(size, np.float32)


def sample_patches(train: Dataset, count: int, seed: int) -> np.ndarray:
    """Choose `count` different training images (all, if there are fewer); sorted positions."""
    return np.sort(np.random.default_rng(seed).permutation(train.count)[:count])


def linear_filters(train: Dataset, patches: np.ndarray, prepare: Prepare, batch: int) -> np.ndarray:
    """Make one filter of zero mean and unit norm from each of some training images.

    Parameters
    ----------
    train : Dataset
    patches : int array (filter,)
        Positions of the images.
    prepare : Prepare
        Turns them into the pixels that the filters will be applied to.
    batch : int
        Images prepared at once.

    Returns
    -------
    float32 array (filter, pixel)
        The memory is 4 bytes a filter and pixel: 138 MB for 5,000 filters of 48x48x3. A patch
        without contrast is a filter of zeros.
    """
    filters = np.empty((patches.size, train.rows * train.cols * train.channels), np.float32)
    for first in range(0, patches.size, batch):
        pixels = prepare(train.read(patches[first:first + batch]))
        chosen = pixels.reshape(-1, pixels.shape[-1]).T.astype(np.float64)
        chosen -= chosen.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(chosen, axis=1, keepdims=True)
        filters[first:first + batch] = np.divide(chosen, norm, out=np.zeros_like(chosen),
                                                 where=norm > 1e-9)
    return filters


def filter_responses(filters: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Inner products of all filters (filter, pixel) with all images (row, col, channel, image).

    Returns
    -------
    array (1, 1, filter, image): a stage that has one position and a map for each filter.
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    return (filters @ flat.astype(filters.dtype, copy=False))[None, None]
