"""Contrast normalisation and local whitening of images, fitted on the training set.

Paper, section 3; the paper's recipe is not known.

1. Each image: subtract its mean, divide by its standard deviation plus a floor.
2. Whitening by one kernel at every position. ZCA of whole images is impossible at 200 x 200 x 3 (a
   covariance of 120,000 squared); images are nearly stationary, so the covariance of small patches
   (side k) gives the same filter: the rows of the patches' ZCA matrix that belong to the centre
   pixel. At the image's border the image is continued by reflection.
3. Each image: divide by its standard deviation.

The same stored numbers are applied in training and in every test. All of it is differentiable
(`Preprocessor.backward`): what a neuron would like to see is found in pixels.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import PreprocessConfig
from hpclcae.model.layers.whitening import normalise_gradient
from hpclcae.partition.blocks import ExchangePlan, Rectangle
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.utils.ahead import Work, finish
from hpclcae.utils.errors import InputError

PORTION = 100  # images that the fit holds as float64 at a time
FLAT = 1e-6   # an image of less contrast is not made stronger
TILE = 4  # neighbouring pixels of a row that are whitened by one matrix product


@dataclass(frozen=True)
class Preprocessing:
    """What was fitted.

    config : PreprocessConfig
    kernel : (krow, kcol, channel in, channel) or None
        Whitening kernel.
    eigenvalues : (k * k * channels,) or None
        Of the patches' covariance, largest first, for inspection.
    """
    config: PreprocessConfig
    kernel: np.ndarray | None = None
    eigenvalues: np.ndarray | None = None

    def preprocessor(self, size: int, dtype: DTypeLike, x: ExchangePlan | None = None,
                     communicator: Communicator | None = None) -> "Preprocessor":
        """The function from uint8 images of `size` to the network's input, or a block's part."""
        return Preprocessor(self, size, dtype, x, communicator)


def fit(config: PreprocessConfig, images: np.ndarray) -> Preprocessing:
    """Fit the whitening kernel on uint8 images (image, row, col, channel).

    Raises
    ------
    InputError
        The kernel is larger than the images, or all images are flat.
    """
    side = config.whitening
    if not side:
        return Preprocessing(config)
    count, rows, cols, channels = images.shape
    if side > min(rows, cols):
        raise InputError(f"preprocess.whitening = {side} does not fit into images of {rows} x "
                         f"{cols} pixels; make it at most {min(rows, cols)}, or 0 for no whitening")
    whole = np.s_[:, :]
    size = side * side * channels
    covariance, patches = np.zeros((size, size)), 0
    # Every patch that starts on a grid; the grid is as fine as about 200,000 patches allow.
    stride = max(1, int(np.sqrt((rows - side + 1) * (cols - side + 1) * count / 200_000)))
    for first in range(0, count, PORTION):
        part = images[first:first + PORTION]
        contrast = finish(_contrast_normalised(config, part, np.float64, whole,
                                               rows * cols * channels),
                          SerialCommunicator().allreduce_sum)
        for y in range(0, rows - side + 1, stride):
            for x in range(0, cols - side + 1, stride):
                patch = contrast[y:y + side, x:x + side].reshape(size, len(part))
                covariance += patch @ patch.T
                patches += len(part)
    values, vectors = np.linalg.eigh(covariance / patches)
    if values.mean() <= 0:
        raise InputError(f"all {count} training images looked at are flat; whitening cannot be "
                         "fitted on them")
    gains = 1 / np.sqrt(np.maximum(values, 0) + config.whitening_epsilon * values.mean() + 1e-12)
    centre = (side // 2 * side + side // 2) * channels
    zca = (vectors * gains) @ vectors.T[:, centre:centre + channels]
    return Preprocessing(config, zca.reshape(side, side, channels, channels), values[::-1])


class Preprocessor:
    """Applies a `Preprocessing` to minibatches of one image size.

    Parameters
    ----------
    fitted : Preprocessing
    size : int
        Rows and columns of the whole images.
    dtype : dtype
    x : ExchangePlan, optional
        What one block owns and holds of the network's input; without it, everything.
    communicator : Communicator, optional
        To the other blocks: an image's mean and standard deviation are those of the whole image.

    Attributes
    ----------
    pixels : Rectangle
        The part of each image that is to be read: what the block holds, and half a whitening kernel
        around it.
    """

    def __init__(self, fitted: Preprocessing, size: int, dtype: DTypeLike,
                 x: ExchangePlan | None = None, communicator: Communicator | None = None) -> None:
        self.fitted, self.size, self.dtype = fitted, size, np.dtype(dtype)
        self.communicator = communicator or SerialCommunicator()
        whole = Rectangle((0, size), (0, size))
        self.owned, self.held = (x.owned, x.held) if x else (whole, whole)
        half = 0 if fitted.kernel is None else fitted.kernel.shape[0] // 2
        self.pixels = self.held.grown(half, size, size)
        if fitted.kernel is not None:
            self._weights = _tiled(fitted.kernel, self.dtype)
        self._transposed: list[np.ndarray] | None = None  # the transpose's, made when needed

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Prepare the `pixels` of images (image, row, col, channel), uint8 or real numbers.

        Returns
        -------
        (row, col, channel, image), of the held positions
        """
        return finish(self.in_pieces(images), self.communicator.allreduce_sum)

    @property
    def sums(self) -> int:
        """How often an image's numbers are added over the blocks; 0: there is one block."""
        config = self.fitted.config
        return 2 * config.contrast + config.rescale if self.communicator.size > 1 else 0

    def in_pieces(self, images: np.ndarray) -> Work[np.ndarray]:
        """The same, for the caller to add over the blocks what is yielded (utils/ahead.py)."""
        count = self.size ** 2 * images.shape[-1]
        own = self.owned.within(self.pixels)
        x = yield from _contrast_normalised(self.fitted.config, images, self.dtype, own, count)
        if self.fitted.kernel is not None:
            x = self._whitened(x)
        if self.fitted.config.rescale:
            own = self.owned.within(self.held)
            squares = yield np.einsum("yxci,yxci->i", x[own], x[own])
            x /= np.maximum(np.sqrt(squares / count), FLAT).astype(self.dtype)
        return x

    def backward(self, images: np.ndarray, dx: np.ndarray) -> np.ndarray:
        """The gradient with respect to pixels from `dx`, that with respect to the network's input.

        Of a preprocessor of whole images.

        Parameters
        ----------
        images : (image, row, col, channel)
            Real numbers, or uint8: those that were prepared.
        dx : (row, col, channel, image)

        Returns
        -------
        (image, row, col, channel)
        """
        assert self.pixels.shape == (self.size, self.size) == self.held.shape
        config, images_last = self.fitted.config, dx.shape
        count = self.size ** 2 * images.shape[-1]
        u = finish(_contrast_normalised(config, images, self.dtype, np.s_[:, :], count),
                   self.communicator.allreduce_sum)
        if config.rescale:
            w = u if self.fitted.kernel is None else self._whitened(u)
            deviation = np.sqrt(np.einsum("yxci,yxci->i", w, w) / count)
            along = np.einsum("yxci,yxci->i", w, dx) / count
            along = np.where(deviation > FLAT, along / np.maximum(deviation, FLAT) ** 2, 0)
            dx = (dx - w * along.astype(dx.dtype)) / np.maximum(deviation, FLAT).astype(dx.dtype)
        if self.fitted.kernel is not None:
            dx = self._whitened_backward(dx)
        if config.contrast:
            pixels = images.reshape(len(images), -1).astype(np.float64)
            dx = normalise_gradient(u.reshape(pixels.shape[::-1]), pixels.std(axis=1),
                                    dx.reshape(pixels.shape[::-1]), pixels.shape[1],
                                    config.contrast_floor, np.asarray).reshape(images_last)
        else:
            dx = dx / dx.dtype.type(255)
        return np.ascontiguousarray(np.moveaxis(dx, -1, 0))

    def _whitened(self, x: np.ndarray) -> np.ndarray:
        """Apply the kernel at every held position of x (row, col, channel, image).

        Beyond its border x is continued by reflection.
        """
        assert self.fitted.kernel is not None
        half = self.fitted.kernel.shape[0] // 2
        lacking = [(half - (held[0] - read[0]), half - (read[1] - held[1]))  # around the held
                   for held, read in ((self.held.rows, self.pixels.rows),
                                      (self.held.cols, self.pixels.cols))]
        return self._filtered(np.pad(x, (*lacking, (0, 0), (0, 0)), mode="reflect"), self._weights)

    def _whitened_backward(self, dw: np.ndarray) -> np.ndarray:
        """The transpose of `_whitened`, of whole images."""
        kernel = self.fitted.kernel
        assert kernel is not None
        half = kernel.shape[0] // 2
        if self._transposed is None:
            self._transposed = _tiled(kernel[::-1, ::-1].transpose(0, 1, 3, 2), self.dtype)
        around = (2 * half, 2 * half)
        du = self._filtered(np.pad(dw, (around, around, (0, 0), (0, 0))), self._transposed)
        for _ in range(2 if half else 0):  # what fell beyond the border is of the pixels mirrored
            inner = du[half:-half]
            inner[1:half + 1] += du[:half][::-1]
            inner[-half - 1:-1] += du[-half:][::-1]
            du = inner.swapaxes(0, 1)
        return du

    def _filtered(self, padded: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
        """Apply `weights` of `_tiled` wherever their window fits into (row, col, channel, image).

        As in layers/local_filter.py, the rows under one row of output lie as (col, row modulo side,
        channel, image), so that every window is a contiguous matrix and a row is copied once.
        """
        channels, images = padded.shape[2:]
        side = len(weights)
        rows, cols = (length - side + 1 for length in padded.shape[:2])
        tiles = -(-cols // TILE)
        strip = np.zeros((tiles * TILE + side - 1, side, channels, images), self.dtype)
        item = strip.itemsize
        column = side * channels * images * item
        windows = np.lib.stride_tricks.as_strided(
            strip, (tiles, weights[0].shape[1], images), (TILE * column, images * item, item),
            writeable=False)
        code = np.empty((tiles, TILE * channels, images), self.dtype)
        out = np.empty((rows, cols, channels, images), self.dtype)
        for y in range(len(padded)):
            strip[:cols + side - 1, y % side] = padded[y]
            if y >= side - 1:
                first = y - side + 1
                np.matmul(weights[first % side], windows, out=code)
                out[first] = code.reshape(tiles * TILE, channels, images)[:cols]
        return out


def _tiled(kernel: np.ndarray, dtype: DTypeLike) -> list[np.ndarray]:
    """A kernel (krow, kcol, channel in, channel) as one matrix for TILE neighbouring pixels.

    They share one window; unit b reads it from column b on. There is a matrix for every row modulo
    the kernel's side at which a window may begin.
    """
    side, _, channels, _ = kernel.shape
    weights = np.zeros((side + TILE - 1, side, channels, TILE, channels), dtype)
    for b in range(TILE):
        weights[b:b + side, :, :, b] = kernel.transpose(1, 0, 2, 3)
    return [np.roll(weights, first, axis=1).reshape(-1, TILE * channels).T.copy()
            for first in range(side)]


def _contrast_normalised(config: PreprocessConfig, images: np.ndarray, dtype: DTypeLike,
                         own: tuple[slice, slice], count: int) -> Work[np.ndarray]:
    """Step 1; (image, row, col, channel) to (row, col, channel, image).

    Yields sums (image,) over the pixels `own`; whole images have `count` numbers.
    """
    x = np.ascontiguousarray(np.moveaxis(images, 0, -1)).astype(dtype)
    if config.contrast:
        # The sum of integers is exact, so a flat image becomes zero and not noise.
        exact = np.int64 if images.dtype == np.uint8 else np.float64
        total = yield images[:, own[0], own[1]].sum(axis=(1, 2, 3), dtype=exact)
        x -= (total / count).astype(dtype)
        squares = yield np.einsum("yxci,yxci->i", x[own], x[own])
        x /= (np.sqrt(squares / count) + config.contrast_floor).astype(x.dtype)
    else:
        x /= x.dtype.type(255)
    return x
