"""Update rules: what a row of gradients does to the parameters.

Each rule is elementwise, so a row of tiles can be updated as soon as its gradient is there.

Rules of the form "add a multiple" use BLAS, one pass each at the memory's speed; the others take pieces that stay in
cache through all their terms. Both were faster than numexpr's fused expressions (notes/decisions.md).
"""
from collections.abc import Iterator

import numpy as np
from scipy.linalg.blas import get_blas_funcs

from hpclcae.config import UpdateConfig
from hpclcae.parameters import ParameterVector

#: Vectors that each rule keeps beside the parameters.
SLOTS = {"sgd": (), "momentum": ("velocity",), "adagrad": ("sum_of_squares",),
         "adam": ("first_moment", "second_moment")}
CHUNK = 32768  # numbers that are updated at a time
TINY = 1e-12   # keeps a weight without any gradient from 0 / 0


class UpdateRule:
    """Applies rows of gradients in place; it is an `emit` for Network.backward.

    Parameters
    ----------
    config : UpdateConfig
    parameters : ParameterVector
    fan_in : dict of str to int
        Inputs of one filter of each parameter. The rate of sgd and momentum is in units of 1/fan-in: the curvature
        of the reconstruction grows with a filter's inputs, so one number suits all stages. That of adagrad and
        adam is in units of a typical weight, 1/sqrt(fan-in).

    Attributes
    ----------
    rate : float
        Of the current step; set it with `begin`.
    state : dict of str to ParameterVector
        The rule's memory, in the parameters' layout.
    counts : dict of str to int
        Updates that each parameter has had (adam's bias correction).
    """

    def __init__(self, config: UpdateConfig, parameters: ParameterVector, fan_in: dict[str, int]) -> None:
        self.config, self.parameters, self.fan_in = config, parameters, fan_in
        self.rate = config.rate
        self.state = {slot: parameters.like() for slot in SLOTS[config.rule]}
        self.counts = dict.fromkeys(parameters.views, 0)
        self._scratch = np.empty(CHUNK, parameters.vector.dtype)
        self._axpy, self._scal = get_blas_funcs(("axpy", "scal"), dtype=parameters.vector.dtype)

    def begin(self, progress: float) -> None:
        """Set the rate for a step; `progress` is 0 at the first and near 1 at the last step."""
        falling = min(1.0, 2 * (1 - progress)) if self.config.schedule == "halfway" else 1.0
        self.rate = self.config.rate * falling

    def __call__(self, name: str, row: int, gradient: np.ndarray) -> None:
        """Update row `row` of parameter `name`."""
        if row == 0:
            self.counts[name] += 1
        w = self.parameters[name][row]
        slots = [self.state[slot][name][row] for slot in self.state]
        if self.config.rule == "sgd":
            self._axpy(gradient.ravel(), w.ravel(), a=-self.rate / self.fan_in[name])
        elif self.config.rule == "momentum":
            velocity = slots[0].ravel()
            self._scal(self.config.momentum, velocity)
            self._axpy(gradient.ravel(), velocity, a=-self.rate / self.fan_in[name])
            self._axpy(velocity, w.ravel())
        elif self.config.rule == "adagrad":
            self._adagrad(name, w, gradient, *slots)
        else:
            self._adam(name, w, gradient, *slots)

    def _adagrad(self, name: str, w: np.ndarray, gradient: np.ndarray, sums: np.ndarray) -> None:
        rate = self.rate / np.sqrt(self.fan_in[name])
        for w, g, a, t in self._chunks(w, gradient, sums):
            np.square(g, out=t)
            a += t
            np.sqrt(a, out=t)
            t += TINY
            np.divide(g, t, out=t)
            t *= rate
            w -= t

    def _adam(self, name: str, w: np.ndarray, gradient: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        one, two, count = self.config.momentum, self.config.second_moment, self.counts[name]
        rate = self.rate * np.sqrt(1 - two ** count) / (1 - one ** count) / np.sqrt(self.fan_in[name])
        for w, g, m, v, t in self._chunks(w, gradient, first, second):
            np.multiply(g, 1 - one, out=t)
            m *= one
            m += t
            np.square(g, out=t)
            t *= 1 - two
            v *= two
            v += t
            np.sqrt(v, out=t)
            t += TINY
            np.divide(m, t, out=t)
            t *= rate
            w -= t

    def _chunks(self, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Corresponding pieces that stay in cache of contiguous arrays, and scratch of the same size."""
        flat = [a.reshape(-1) for a in arrays]
        for start in range(0, flat[0].size, CHUNK):
            pieces = [a[start:start + CHUNK] for a in flat]
            yield *pieces, self._scratch[:pieces[0].size]
