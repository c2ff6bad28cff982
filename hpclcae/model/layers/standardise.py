"""Standardisation of pooled responses, unit by unit, with numbers fitted on training images.

Pooled responses are positive; their mean holds most of their energy, and unshared units have
different means and scales. A stage above would learn that static pattern. With the mean m and the
standard deviation s of every unit over training images (model/conditioner.py)::

    v = (u - m) / s,    u = h, or log h

A unit that gave the same response to all of them has s = 0 and stays at v = 0.
"""
import numpy as np

from hpclcae.model.workspace import Workspace


class Standardisation:
    """The sublayer on one block; arrays are (row, col, map, image) of the owned h.

    Parameters
    ----------
    log : bool
        Take the logarithm of h first. h is above 0 (StageConfig.epsilon).
    """

    def __init__(self, log: bool) -> None:
        self.log = log

    def forward(self, h: np.ndarray, mean: np.ndarray, gain: np.ndarray, v: np.ndarray) -> None:
        """Overwrite v; `mean` m and `gain` 1 / s are (row, col, map), the gain 0 where s = 0."""
        if self.log:
            np.log(h, out=v)
            v -= mean[..., None]
        else:
            np.subtract(h, mean[..., None], out=v)
        v *= gain[..., None]

    def backward(self, h: np.ndarray, gain: np.ndarray, dv: np.ndarray, dh: np.ndarray,
                 work: Workspace) -> None:
        """Add to dh the gradient through v: dv / s, with the logarithm dv / (s h)."""
        passed = work.array("standardise", h.shape, h.dtype)
        np.multiply(dv, gain[..., None], out=passed)
        if self.log:
            passed /= h
        dh += passed
