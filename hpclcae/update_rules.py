"""Update rules: what a row of gradients does to the parameters.

Each rule is elementwise, so a row of tiles can be updated as soon as its gradient is there.

Rules of the form "add a multiple" use BLAS, one pass each at the memory's speed (measured: a quarter of the time
that numexpr takes); the others use numexpr, which fuses their many terms into one blocked pass.
"""
import numexpr
import numpy as np
from scipy.linalg.blas import get_blas_funcs

from hpclcae.config import UpdateConfig
from hpclcae.parameters import ParameterVector

#: Vectors that each rule keeps beside the parameters.
SLOTS = {"sgd": (), "momentum": ("velocity",), "adagrad": ("sum_of_squares",),
         "adam": ("first_moment", "second_moment")}


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

    def _adagrad(self, name: str, w: np.ndarray, g: np.ndarray, a: np.ndarray) -> None:
        number = g.dtype.type
        names = dict(w=w, g=g, a=a, tiny=number(1e-12), rate=number(self.rate / np.sqrt(self.fan_in[name])))
        _evaluate("a + g * g", names, a)
        _evaluate("w - rate * g / (sqrt(a) + tiny)", names, w)

    def _adam(self, name: str, w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray) -> None:
        number, count = g.dtype.type, self.counts[name]
        one, two = self.config.momentum, self.config.second_moment
        correction = np.sqrt(1 - two ** count) / (1 - one ** count)
        names = dict(w=w, g=g, m=m, v=v, one=number(one), new_one=number(1 - one), two=number(two),
                     new_two=number(1 - two), tiny=number(1e-12),
                     rate=number(self.rate * correction / np.sqrt(self.fan_in[name])))
        _evaluate("one * m + new_one * g", names, m)
        _evaluate("two * v + new_two * g * g", names, v)
        _evaluate("w - rate * m / (sqrt(v) + tiny)", names, w)


def _evaluate(expression: str, names: dict[str, np.ndarray], out: np.ndarray) -> None:
    """One blocked pass over the arrays; float32 scalars keep it in float32."""
    numexpr.evaluate(expression, local_dict=names, global_dict={}, out=out)
