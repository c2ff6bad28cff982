"""Update rules: what a row of gradients does to the parameters.

Each rule is elementwise, so a row of tiles can be updated as soon as its gradient is there.

Rules of the form "add a multiple" use BLAS, one pass each at the memory's speed; the others take
pieces that stay in cache through all their terms. Both were faster than numexpr's fused expressions
(notes/decisions.md).
"""
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike
from scipy.linalg.blas import get_blas_funcs

from hpclcae.config import UpdateConfig
from hpclcae.model.parameters import ParameterVector

#: Vectors that each rule keeps beside the parameters.
SLOTS = {"sgd": (), "momentum": ("velocity",), "adagrad": ("sum_of_squares",),
         "adam": ("first_moment", "second_moment")}
CHUNK = 32768  # elements that are updated at a time
TINY = 1e-12   # keeps a weight without any gradient from 0 / 0


class OptimizerKernel:
    """One rule's arithmetic on flat arrays; it has scratch, and no memory of its own.

    fan_in is the number of inputs of one filter. The learning rate of sgd and momentum is in units
    of 1/fan-in: the curvature of the reconstruction grows with a filter's inputs, so one number
    suits all stages. That of adagrad and adam is in units of a typical weight, 1/sqrt(fan-in).
    """

    def __init__(self, config: UpdateConfig, dtype: DTypeLike) -> None:
        self.config = config
        self.slots = SLOTS[config.rule]
        self._scratch = np.empty(CHUNK, dtype)
        self._axpy, self._scal = get_blas_funcs(("axpy", "scal"), dtype=dtype)

    def apply(self, w: np.ndarray, gradient: np.ndarray, slots: Sequence[np.ndarray],
              learning_rate: float, fan_in: int, count: int) -> None:
        """Update w (n,) with gradient (n,) in place.

        Parameters
        ----------
        slots : sequence of ndarray (n,)
            The rule's memory (SLOTS), changed too.
        count : int
            Updates that w has had, with this one.
        """
        rule = self.config.rule
        if rule == "sgd":
            self._axpy(gradient, w, a=-learning_rate / fan_in)
        elif rule == "momentum":
            velocity, = slots
            self._scal(self.config.momentum, velocity)
            self._axpy(gradient, velocity, a=-learning_rate / fan_in)
            self._axpy(velocity, w)
        elif rule == "adagrad":
            self._adagrad(w, gradient, slots, learning_rate / np.sqrt(fan_in))
        elif rule == "adam":
            self._adam(w, gradient, slots, learning_rate / np.sqrt(fan_in), count)
        else:
            raise NotImplementedError(f"update.rule = {rule!r}")

    def _adagrad(self, w: np.ndarray, gradient: np.ndarray, slots: Sequence[np.ndarray],
                 rate: float) -> None:
        for w, g, a, t in self._chunks(w, gradient, *slots):
            np.square(g, out=t)
            a += t
            np.sqrt(a, out=t)
            t += TINY
            np.divide(g, t, out=t)
            t *= rate
            w -= t

    def _adam(self, w: np.ndarray, gradient: np.ndarray, slots: Sequence[np.ndarray], rate: float,
              count: int) -> None:
        one, two = self.config.momentum, self.config.second_moment
        rate *= np.sqrt(1 - two ** count) / (1 - one ** count)
        for w, g, m, v, t in self._chunks(w, gradient, *slots):
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
        """Corresponding pieces that stay in cache, and scratch of the same size."""
        for start in range(0, arrays[0].size, CHUNK):
            pieces = [a[start:start + CHUNK] for a in arrays]
            yield *pieces, self._scratch[:pieces[0].size]


class Optimizer:
    """Updates the parameters of a block in place, row of gradients by row of gradients.

    Parameters
    ----------
    config : UpdateConfig
    parameters : ParameterVector
    fan_in : dict of str to int
        Inputs of one filter of each parameter.

    Attributes
    ----------
    learning_rate : float
        Of the current step; set it with `begin`.
    state : dict of str to ParameterVector
        The rule's memory, in the parameters' layout.
    counts : dict of str to int
        Updates that each parameter has had (adam's bias correction).
    """

    def __init__(self, config: UpdateConfig, parameters: ParameterVector,
                 fan_in: Mapping[str, int]) -> None:
        self.parameters, self.fan_in = parameters, fan_in
        self.kernel = OptimizerKernel(config, parameters.vector.dtype)
        self.learning_rate = config.rate
        self.state = {slot: parameters.like() for slot in self.kernel.slots}
        self.counts = dict.fromkeys(parameters.views, 0)

    def begin(self, learning_rate: float) -> None:
        """Begin a step."""
        self.learning_rate = learning_rate

    def on_gradient(self, name: str, row: int, gradient: np.ndarray) -> None:
        """Update row `row` of tiles of parameter `name` (model/layers/local_filter.RowSink).

        gradient : (tile col, input, unit)
            It may be clipped in place.
        """
        if row == 0:
            self.counts[name] += 1
        clip(gradient, self.kernel.config.clip)
        slots = [self.state[slot][name][row].reshape(-1) for slot in self.state]
        self.kernel.apply(self.parameters[name][row].reshape(-1), gradient.reshape(-1), slots,
                          self.learning_rate, self.fan_in[name], self.counts[name])

    def end(self) -> None:
        """After the last row of a step: nothing is left to do."""


def clip(gradient: np.ndarray, limit: float) -> None:
    """Shrink, in place, the gradient of every filter whose norm is above `limit`; 0: none.

    A filter is a column of gradient (tile col, input, unit), so what is clipped depends neither on
    the tile nor on the partition, and a row can be clipped before the next one is there.
    """
    if limit:
        norms = np.sqrt(np.einsum("xiu,xiu->xu", gradient, gradient))
        if norms.max(initial=0) > limit:
            gradient *= (limit / np.maximum(norms, limit))[:, None]
