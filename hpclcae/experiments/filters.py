"""Two numbers for a filter: is it oriented (an edge, a bar), is it localised in its window?

Both read a filter as an image of (row, col), its channels taken together. Neither means much alone:
a small window makes even noise look a little oriented, so the medians are reported beside those of
noise filters of the same shape.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpclcae.partition.communicator import Communicator, SerialCommunicator

NOISE_FILTERS = 2000


@dataclass(frozen=True)
class FilterShape:
    """Medians over the filters of a stage, and over filters of Gaussian noise of the same shape."""
    orientation: float
    orientation_noise: float
    localisation: float
    localisation_noise: float
    filters: int

    def __str__(self) -> str:
        return (f"orientation index {self.orientation:.2f} (noise {self.orientation_noise:.2f}), "
                f"localisation {self.localisation:.2f} (noise {self.localisation_noise:.2f}), "
                f"medians of {self.filters:,} filters")


def orientation_index(filters: np.ndarray) -> np.ndarray:
    """How much a filter's power gathers around one orientation, from 0 (none) to 1 (a grating).

    ``|sum P exp(2i theta)| / sum P`` over all frequencies but zero, theta their direction, P summed
    over the channels. Only the Nyquist circle, where all directions are equally represented, counts
    above the line: the corners beyond it hold checkerboards, which have two orientations and so
    none.

    Parameters
    ----------
    filters : array (filter, row, col, channel)

    Returns
    -------
    float64 array (filter,); 0 for a filter without power but at frequency zero.
    """
    power = (np.abs(np.fft.fft2(filters, axes=(1, 2))) ** 2).sum(axis=3)
    down, right = np.meshgrid(np.fft.fftfreq(filters.shape[1]), np.fft.fftfreq(filters.shape[2]),
                              indexing="ij")
    radius = np.hypot(down, right)
    within = (radius > 0) & (radius <= 0.5 + 1e-12)
    direction = np.zeros(radius.shape, complex)
    direction[within] = ((right + 1j * down)[within] / radius[within]) ** 2
    return _share(np.abs((power * direction).sum(axis=(1, 2))),
                  (power * (radius > 0)).sum(axis=(1, 2)))


def localisation(filters: np.ndarray) -> np.ndarray:
    """Share of a filter's energy in the best square window of half its side: about 1/4 to 1.

    Half is rounded up.

    Parameters
    ----------
    filters : array (filter, row, col, channel)

    Returns
    -------
    float64 array (filter,); 0 for a filter that is zero.
    """
    energy = (filters.astype(np.float64) ** 2).sum(axis=3)
    side = [(size + 1) // 2 for size in energy.shape[1:]]
    windows = np.lib.stride_tricks.sliding_window_view(energy, side, axis=(1, 2)).sum(axis=(3, 4))
    return _share(windows.max(axis=(1, 2)), energy.sum(axis=(1, 2)))


def filter_shape(weights: np.ndarray, seed: int = 0,
                 network: Communicator = SerialCommunicator()) -> FilterShape:
    """Measure all filters of a stage.

    Parameters
    ----------
    weights : array (row, col, krow, kcol, map_in, map)
        As given by `Model.filters`; worked through row by row, so that no copy of all is made.
    seed : int
        Of the noise.
    network : Communicator, optional
        To the blocks that have the other filters of the stage; all of them call and have the same.
    """
    noise = np.random.default_rng(seed).standard_normal((NOISE_FILTERS, *weights.shape[2:5]))

    def measured(measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        mine = [measure(np.moveaxis(row, -1, 1).reshape(-1, *weights.shape[2:5]))
                for row in weights]
        return np.concatenate(sum(network.gather(mine), []))

    oriented, localised = measured(orientation_index), measured(localisation)
    return FilterShape(
        float(np.median(oriented)), float(np.median(orientation_index(noise))),
        float(np.median(localised)), float(np.median(localisation(noise))), oriented.size)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
