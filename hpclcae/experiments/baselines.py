"""What a trained neuron has to beat: linear filters, and the best that is linear at all.

Chance, lower stages and random weights, the other baselines of the paper, need no code of their
own: all are populations of neurons to `single_neurons.examine`, and so are the filters here.

There are four kinds of filters, from the paper's own to the strongest. *Gaussian* noise; *windows*
of training frames, of random size and at a random place, as the paper draws its patches; whole
training *frames without the concept*; and whole *templates*: any training frames, those that show
the concept among them, so that choosing one by labels of the test is half way to a classifier. The
*ceiling* is ridge regression on pixels with the labels of the training images: no linear filter can
do much better.

They see pixels that were only contrast-normalised: whitening helps a network to learn and takes
from a template what it could match.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import lsqr

from hpclcae.config import PreprocessConfig
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.training_images import read, sample
from hpclcae.model.preprocess import Preprocessing

#: images uint8 (image, row, col, channel) -> pixels (row, col, channel, image)
Prepare = Callable[[np.ndarray], np.ndarray]
SMALLEST_WINDOW = 1 / 4  # of a frame's side
DAMPING = 0.1            # of the ridge, in units of a pixel's variance
RIDGE_BYTES = 2**28      # of pixels that the ridge holds


@dataclass(frozen=True)
class LinearKind:
    """A kind of linear filters: the row's name, how to make them, what the paper calls them."""
    name: str
    make: Callable[[], np.ndarray]
    paper: str = ""


def normalised_pixels(size: int) -> Prepare:
    """Return the preparation that gives each image zero mean and about unit variance, no more."""
    config = PreprocessConfig(contrast=True, whitening=0, rescale=False)
    return Preprocessing(config).preprocessor(size, np.float32)


def linear_kinds(train: Dataset, labels: np.ndarray | None, prepare: Prepare, count: int,
                 labelled: int, seed: int, batch: int) -> list[LinearKind]:
    """The kinds of linear filters that can be made from some training images.

    Without labels there are no frames without the concept and no ceiling.

    Parameters
    ----------
    train : Dataset
    labels : int array (image,) or None
        Of its images: 1 the concept, 0 not, -1 unknown.
    prepare : Prepare
        Turns its images into the pixels that the filters will be applied to.
    count : int
        Filters of each kind; fewer where there are not so many images.
    labelled : int
        Training images for the ceiling, at most; 0: no ceiling.
    seed, batch : int
        Of all choices; images prepared at once.
    """
    pixels = train.rows * train.cols * train.channels
    kinds = [LinearKind("linear: Gaussian noise", lambda: gaussian_filters(pixels, count, seed)),
             LinearKind("linear: windows of frames",
                        lambda: window_filters(train, count, seed, prepare, batch), "linear")]
    if labels is not None and (labels == 0).any():
        others = np.flatnonzero(labels == 0)
        kinds.append(LinearKind(
            "linear: frames, no concept", lambda: linear_filters(
                train, others[sample(others.size, count, seed)], prepare, batch)))
    kinds.append(LinearKind("linear: templates by label", lambda: linear_filters(
        train, sample(train.count, count, seed), prepare, batch)))
    if labelled and labels is not None and {0, 1} <= set(labels.tolist()):
        known = np.flatnonzero(labels >= 0)
        places = known[sample(known.size, min(labelled, RIDGE_BYTES // (4 * pixels)), seed)]
        shown = labels[places] == 1
        kinds.append(LinearKind("linear: ridge with labels",
                                lambda: ridge_filter(train, places, shown, prepare, batch)))
    return kinds


def linear_filters(train: Dataset, places: np.ndarray, prepare: Prepare, batch: int) -> np.ndarray:
    """Make one filter of zero mean and unit norm from each of some training images.

    Parameters
    ----------
    train : Dataset
    places : int array (filter,)
        Positions of the images, sorted.
    prepare : Prepare
        Turns them into the pixels that the filters will be applied to.
    batch : int
        Images prepared at once.

    Returns
    -------
    float32 array (filter, pixel)
        The memory is 4 bytes a filter and pixel: 138 MB for 5,000 filters of 48x48x3. An image
        without contrast is a filter of zeros.
    """
    filters = np.empty((places.size, train.rows * train.cols * train.channels), np.float32)
    for first in range(0, places.size, batch):
        pixels = prepare(read(train, places[first:first + batch]))
        filters[first:first + batch] = _normed(pixels.reshape(-1, pixels.shape[-1]).T)
    return filters


def window_filters(train: Dataset, count: int, seed: int, prepare: Prepare,
                   batch: int) -> np.ndarray:
    """Make filters from random windows of random training images, as the paper draws patches.

    A window is square, its side drawn uniformly in the logarithm from a quarter of the frame to all
    of it; it stays at the place where it was found, and around it the filter is zero. Inside, the
    mean is zero; the norm is one.

    Returns
    -------
    float32 array (filter, pixel)
    """
    rng = np.random.default_rng(seed)
    places = np.sort(rng.integers(train.count, size=count))
    size = train.size
    logs = rng.uniform(np.log(max(2, SMALLEST_WINDOW * size)), np.log(size + 1), count)
    sides = np.minimum(np.exp(logs).astype(int), size)
    corners = (rng.random((2, count)) * (size - sides + 1)).astype(int)
    filters = np.zeros((count, size, size, train.channels), np.float32)
    for first in range(0, count, batch):
        pixels = prepare(read(train, places[first:first + batch]))
        for number in range(first, min(first + batch, count)):
            (top, left), side = corners[:, number], sides[number]
            window = np.s_[top:top + side, left:left + side]
            cut = pixels[..., number - first][window]
            filters[number][window] = _normed(cut.reshape(1, -1)).reshape(cut.shape)
    return filters.reshape(count, -1)


def gaussian_filters(pixels: int, count: int, seed: int) -> np.ndarray:
    """Make filters of Gaussian noise, zero mean and unit norm, float32 (filter, pixel)."""
    drawn = np.random.default_rng(seed).standard_normal((count, pixels), np.float32)
    for first in range(0, count, 1000):
        drawn[first:first + 1000] = _normed(drawn[first:first + 1000])
    return drawn


def ridge_filter(train: Dataset, places: np.ndarray, shown: np.ndarray, prepare: Prepare,
                 batch: int) -> np.ndarray:
    """The filter of least squares with labels, damped, float32 (1, pixel).

    It minimises ``|X w - y|^2 + DAMPING n |w|^2`` for the n images X and labels y, both centred.

    Parameters
    ----------
    train : Dataset
    places : int array (image,)
    shown : bool array (image,)
        Does the image show the concept.
    prepare, batch
        As for `linear_filters`. All prepared images are held: 4 bytes a pixel.
    """
    x = np.empty((places.size, train.rows * train.cols * train.channels), np.float32)
    for first in range(0, places.size, batch):
        pixels = prepare(read(train, places[first:first + batch]))
        x[first:first + batch] = pixels.reshape(-1, pixels.shape[-1]).T
    x -= x.mean(axis=0)
    y = shown - shown.mean()
    solution = lsqr(x, y.astype(np.float32), damp=np.sqrt(DAMPING * places.size), atol=1e-5,
                    btol=1e-5, iter_lim=300)[0]
    return solution.astype(np.float32)[None]


def filter_responses(filters: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Inner products of all filters (filter, pixel) with all images (row, col, channel, image).

    Returns
    -------
    array (1, 1, filter, image): a stage that has one position and a map for each filter.
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    return (filters @ flat.astype(filters.dtype, copy=False))[None, None]


def _normed(rows: np.ndarray) -> np.ndarray:
    """Give each row zero mean and unit norm; zeros where it has no contrast."""
    rows = rows.astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 1e-9)
