"""Update rules: what a row of gradients does to the parameters.

Each rule is elementwise, so a row of tiles can be updated as soon as its gradient is there.
"""
import numexpr
import numpy as np

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
        Inputs of one filter of each parameter; adagrad and adam measure their step in units of a typical
        weight, 1/sqrt(fan-in).

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

    def begin(self, progress: float) -> None:
        """Set the rate for a step; `progress` is 0 at the first and near 1 at the last step."""
        falling = min(1.0, 2 * (1 - progress)) if self.config.schedule == "halfway" else 1.0
        self.rate = self.config.rate * falling

    def __call__(self, name: str, row: int, gradient: np.ndarray) -> None:
        """Update row `row` of parameter `name`."""
        if row == 0:
            self.counts[name] += 1
        number = gradient.dtype.type
        w = self.parameters[name][row]
        s = [self.state[slot][name][row] for slot in self.state]
        names = dict(w=w, g=gradient, rate=number(self.rate))
        if self.config.rule == "sgd":
            _evaluate("w - rate * g", names, w)
        elif self.config.rule == "momentum":
            names |= dict(v=s[0], mu=number(self.config.momentum))
            _evaluate("mu * v - rate * g", names, s[0])
            w += s[0]
        elif self.config.rule == "adagrad":
            names |= dict(a=s[0], tiny=number(1e-12), rate=number(self.rate / np.sqrt(self.fan_in[name])))
            _evaluate("a + g * g", names, s[0])
            _evaluate("w - rate * g / (sqrt(a) + tiny)", names, w)
        else:
            self._adam(name, w, gradient, *s)

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
