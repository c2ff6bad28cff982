"""Contrast of each image and whitening of low rank, of a whole map or of windows of it.

With y as one column of n units for each image, of the whole map or of one window::

    r = (y - mean y) / (std y + f)        contrast: each image's own mean and deviation
    map:      c = A A' (r - m)            n numbers again, of which k directions are left
    windows:  c = A' (r - m)              k numbers for each window

The columns of A (n x k) are directions of the training images' covariance, scaled so that c is
white (model/conditioner.py), m is their mean and f a floor. Each part may be left out.

The map is spread over the blocks of a network; they add up a few sums: two for the contrast, and
the k coordinates A' (r - m). Of windows each block computes those that it owns, from a halo of y.
"""
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.model.workspace import Workspace
from hpclcae.partition.blocks import StagePlan
from hpclcae.partition.communicator import Communicator
from hpclcae.partition.halo import Exchange

PORTION = 64  # units whose products are added in float32, if that is what they are

#: sums over what this block holds -> sums over all units
Total = Callable[[np.ndarray], np.ndarray]


class MapWhitening:
    """The sublayer over a whole map; arrays are (row, col, map, image), of the owned y.

    Parameters
    ----------
    units : int
        Of the whole map.
    contrast : bool
    communicator : Communicator
        To the other blocks.
    """

    def __init__(self, units: int, contrast: bool, communicator: Communicator) -> None:
        self.units, self.contrast, self._communicator = units, contrast, communicator

    def normalised(self, y: np.ndarray, floor: float, keep: Workspace
                   ) -> tuple[np.ndarray, np.ndarray | None]:
        """r (unit, image), held by `keep`, and the deviation (image,) of y if it was divided by."""
        centred, deviation = self._centred(y, keep)
        if deviation is not None:
            centred /= _divisor(deviation, floor, y.dtype)
        return centred, deviation

    def _centred(self, y: np.ndarray, keep: Workspace) -> tuple[np.ndarray, np.ndarray | None]:
        """y without the mean of every image, and its deviation; without contrast y, and None."""
        units = y.reshape(-1, y.shape[-1])
        if not self.contrast:
            return units, None
        r = keep.array("contrast", units.shape, y.dtype)
        return r, centre(units, self.units, r, self._total)

    def forward(self, y: np.ndarray, floor: float, centre: np.ndarray | None,
                directions: np.ndarray | None, c: np.ndarray,
                keep: Workspace) -> tuple[np.ndarray, np.ndarray | None]:
        """Overwrite c; what it returns is for `backward`.

        Parameters
        ----------
        centre, directions : (unit,) and (unit, direction) or None
            m and A, of the owned units; None: no whitening.
        """
        if directions is None or centre is None:
            r, deviation = self._centred(y, keep)
            divisor = 1 if deviation is None else _divisor(deviation, floor, y.dtype)
            np.divide(r.reshape(y.shape), divisor, out=c)
            return r, deviation
        coordinates, r, deviation = self.coordinates(y, floor, centre, directions, keep)
        np.matmul(directions, coordinates, out=c.reshape(r.shape))
        return r, deviation

    def coordinates(self, y: np.ndarray, floor: float, centre: np.ndarray, directions: np.ndarray,
                    keep: Workspace) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """A' (r - m), the same on all blocks, and what `forward` returns; arguments as there.

        What is done with each image as a whole is done with its k coordinates, not its n units.
        """
        r, deviation = self._centred(y, keep)
        coordinates = directions.T @ r
        if deviation is not None:
            coordinates /= _divisor(deviation, floor, y.dtype)
        coordinates -= (directions.T @ centre)[:, None]
        return self._total(coordinates).astype(y.dtype), r, deviation

    def backward(self, state: tuple[np.ndarray, np.ndarray | None], floor: float,
                 directions: np.ndarray | None, dc: np.ndarray, dy: np.ndarray) -> None:
        """Add to dy the gradient through c; the state is spoilt."""
        r, deviation = state
        dr = dc.reshape(r.shape)
        if directions is not None:
            dr = directions @ self._total(directions.T @ dr).astype(dr.dtype)
        if deviation is not None:
            r /= _divisor(deviation, floor, r.dtype)
            dr = normalise_gradient(r, deviation, dr, self.units, floor, self._total)
        dy += dr.reshape(dy.shape)

    def _total(self, sums: np.ndarray) -> np.ndarray:
        return self._communicator.allreduce_sum(sums)


class WindowWhitening:
    """The sublayer over windows; y is what the block holds, c (row, col, direction, image) what it
    owns.

    Parameters
    ----------
    window, stride : int
        Positions.
    maps : int
        Of y.
    contrast : bool
    plan : StagePlan
    communicator : Communicator
        To the other blocks.
    """

    def __init__(self, window: int, stride: int, maps: int, contrast: bool, plan: StagePlan,
                 communicator: Communicator) -> None:
        self.window, self.stride, self.units = window, stride, window ** 2 * maps
        self.contrast, self._plan = contrast, plan
        self._exchange = Exchange(plan.y, communicator)

    def fill(self, y: np.ndarray) -> None:
        """Bring the halo of y."""
        self._exchange.fill(y)

    def places(self) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
        """Every window that the block owns: its place in the owned c, and where it lies in y."""
        c, held = self._plan.c, self._plan.y.held
        for row in range(*c.rows):
            for col in range(*c.cols):
                top, left = (row * self.stride - held.rows[0], col * self.stride - held.cols[0])
                yield ((row - c.rows[0], col - c.cols[0]),
                       (slice(top, top + self.window), slice(left, left + self.window)))

    def normalised(self, y: np.ndarray, where: tuple[slice, slice],
                   floor: float) -> tuple[np.ndarray, np.ndarray | None]:
        """r (unit, image) of one window, and the deviation of y if it was divided by."""
        r = y[where].reshape(self.units, -1).copy()
        return r, normalise(r, self.units, floor, np.asarray) if self.contrast else None

    def forward(self, y: np.ndarray, floor: np.ndarray, centre: np.ndarray,
                directions: np.ndarray, c: np.ndarray) -> None:
        """Overwrite c.

        Parameters
        ----------
        floor, centre, directions
            Of the owned windows: (row, col), (row, col, unit), (row, col, unit, direction).
        """
        self.fill(y)
        for place, where in self.places():
            r, _ = self.normalised(y, where, floor[place])
            r -= centre[place][:, None]
            np.matmul(directions[place].T, r, out=c[place])

    def backward(self, y: np.ndarray, floor: np.ndarray, directions: np.ndarray, dc: np.ndarray,
                 dy: np.ndarray) -> None:
        """Overwrite dy, of what the block holds, with the gradient through c; its halo is spoilt.

        r is made again: to keep it for all windows would cost many times the memory of y.
        """
        dy[...] = 0
        for place, where in self.places():
            dr = directions[place] @ dc[place]
            if self.contrast:
                r, deviation = self.normalised(y, where, floor[place])
                assert deviation is not None
                dr = normalise_gradient(r, deviation, dr, self.units, floor[place], np.asarray)
            dy[where] += dr.reshape(dy[where].shape)
        self._exchange.fold(dy)


def normalise(r: np.ndarray, units: int, floor: float, total: Total) -> np.ndarray:
    """Turn y (unit, image) into r, in place; returns the deviation of every image, float64."""
    deviation = centre(r, units, r, total)
    r /= _divisor(deviation, floor, r.dtype)
    return deviation


def centre(y: np.ndarray, units: int, r: np.ndarray, total: Total) -> np.ndarray:
    """Overwrite r with y (unit, image) less each image's mean; returns its deviation, float64."""
    mean = total(y.sum(axis=0, dtype=np.float64)) / units
    np.subtract(y, mean.astype(y.dtype), out=r)
    return np.sqrt(total(_products(r, r)) / units)


def _divisor(deviation: np.ndarray, floor: float, dtype: DTypeLike) -> np.ndarray:
    """d = s + f of every image."""
    return np.maximum(deviation + floor, np.finfo(dtype).tiny).astype(dtype)


def normalise_gradient(r: np.ndarray, deviation: np.ndarray, dr: np.ndarray, units: int,
                       floor: float, total: Total) -> np.ndarray:
    """The gradient with respect to y: with d = s + f, (dr - mean dr) / d - r mean(r dr) / s.

    Where an image has no contrast (s = 0) r is 0, and so is the second term.
    """
    sums = total(np.stack([dr.sum(axis=0, dtype=np.float64), _products(r, dr)]))
    mean, along = sums / units
    slope = np.divide(along, deviation, out=np.zeros_like(along), where=deviation > 0)
    return ((dr - mean.astype(r.dtype)) / _divisor(deviation, floor, r.dtype)
            - r * slope.astype(r.dtype))


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums over units of a * b, both (unit, image): float64 (image,).

    Few at a time are added in the arrays' own arithmetic: to make all float64 first takes longer.
    """
    whole = len(a) - len(a) % PORTION
    shape = -1, PORTION, a.shape[1]
    sums = np.einsum("pui,pui->pi", a[:whole].reshape(shape), b[:whole].reshape(shape))
    rest = np.einsum("ui,ui->i", a[whole:], b[whole:])
    return sums.sum(axis=0, dtype=np.float64) + rest
