"""Contrast normalisation and local whitening of images, fitted on the training set (paper, section 3; the
paper's recipe is not known).

1. Each image: subtract its mean, divide by its standard deviation plus a floor.
2. Whitening by one kernel at every position. ZCA of whole images is impossible at 200 x 200 x 3 (a
   covariance of 120,000 squared); images are nearly stationary, so the covariance of small patches
   (side k) gives the same filter: the rows of the patches' ZCA matrix that belong to the centre pixel.
   At the image's border the image is continued by reflection.
3. Each image: divide by its standard deviation.

The same stored numbers are applied in training and in every test.
"""
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import PreprocessConfig
from hpclcae.errors import InputError

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

    def preparer(self, size: int, dtype: DTypeLike) -> "Preparer":
        """The function from uint8 images of `size` to the network's input."""
        return Preparer(self, size, dtype)


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
        raise InputError(f"preprocess.whitening = {side} does not fit into images of {rows} x {cols} pixels; "
                         f"make it at most {min(rows, cols)}, or 0 for no whitening")
    contrast = _contrast_normalised(config, images, np.float64)  # (row, col, channel, image)
    size = side * side * channels
    covariance, patches = np.zeros((size, size)), 0
    # Every patch that starts on a grid; the grid is as fine as about 200,000 patches allow.
    stride = max(1, int(np.sqrt((rows - side + 1) * (cols - side + 1) * count / 200_000)))
    for y in range(0, rows - side + 1, stride):
        for x in range(0, cols - side + 1, stride):
            patch = contrast[y:y + side, x:x + side].reshape(size, count)
            covariance += patch @ patch.T
            patches += count
    values, vectors = np.linalg.eigh(covariance / patches)
    if values.mean() <= 0:
        raise InputError(f"all {count} training images looked at are flat; whitening cannot be fitted on them")
    gains = 1 / np.sqrt(np.maximum(values, 0) + config.whitening_epsilon * values.mean() + 1e-12)
    centre = (side // 2 * side + side // 2) * channels
    zca = (vectors * gains) @ vectors.T[:, centre:centre + channels]
    return Preprocessing(config, zca.reshape(side, side, channels, channels), values[::-1])


class Preparer:
    """Applies a `Preprocessing` to minibatches of one image size."""

    def __init__(self, fitted: Preprocessing, size: int, dtype: DTypeLike) -> None:
        self.fitted, self.size, self.dtype = fitted, size, np.dtype(dtype)
        if fitted.kernel is not None:
            side, _, channels, _ = fitted.kernel.shape
            # TILE neighbouring pixels share one window; unit b reads it from column b on.
            weights = np.zeros((side + TILE - 1, side, channels, TILE, channels), self.dtype)
            for b in range(TILE):
                weights[b:b + side, :, :, b] = fitted.kernel.transpose(1, 0, 2, 3)
            self._weights = weights.reshape(-1, TILE * channels).T.copy()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Prepare uint8 images (image, row, col, channel); returns (row, col, channel, image)."""
        x = _contrast_normalised(self.fitted.config, images, self.dtype)
        if self.fitted.kernel is not None:
            x = self._whitened(x)
        if self.fitted.config.rescale:
            deviation = np.sqrt(np.einsum("yxci,yxci->i", x, x) / (x.size / x.shape[-1]))
            x /= np.maximum(deviation, 1e-6).astype(self.dtype)
        return x

    def _whitened(self, x: np.ndarray) -> np.ndarray:
        """The kernel at every position of x (row, col, channel, image), which is continued by reflection.

        As in layers/local_filter.py, the rows under one row of output lie as (col, krow, channel, image), so that
        every window is a contiguous matrix.
        """
        assert self.fitted.kernel is not None
        side, half = self.fitted.kernel.shape[0], self.fitted.kernel.shape[0] // 2
        rows, cols, channels, images = x.shape
        tiles = -(-cols // TILE)
        spare = tiles * TILE - cols
        padded = np.pad(x, ((half, half), (half, half), (0, 0), (0, 0)), mode="reflect")
        strip = np.zeros((cols + spare + side - 1, side, channels, images), self.dtype)
        item = strip.itemsize
        column = side * channels * images * item
        windows = np.lib.stride_tricks.as_strided(
            strip, (tiles, self._weights.shape[1], images), (TILE * column, images * item, item), writeable=False)
        out = np.empty_like(x)
        for y in range(rows):
            strip[:cols + side - 1] = padded[y:y + side].transpose(1, 0, 2, 3)
            out[y] = np.matmul(self._weights, windows).reshape(tiles * TILE, channels, images)[:cols]
        return out


def _contrast_normalised(config: PreprocessConfig, images: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Step 1; uint8 (image, row, col, channel) to (row, col, channel, image)."""
    x = np.ascontiguousarray(np.moveaxis(images, 0, -1)).astype(dtype)
    if config.contrast:
        x -= images.mean(axis=(1, 2, 3)).astype(dtype)  # of integers, in float64: exact for a flat image
        deviation = np.sqrt(np.einsum("yxci,yxci->i", x, x) / (x.size / x.shape[-1]))
        x /= (deviation + config.contrast_floor).astype(x.dtype)
    else:
        x /= x.dtype.type(255)
    return x
