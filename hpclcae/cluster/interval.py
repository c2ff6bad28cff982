"""How often a checkpoint is taken: every so many steps, or as often as pays ("auto").

With a checkpoint every T seconds that costs d of them, and failures M seconds apart on average, a
job loses d in every T to checkpoints and about T / 2 in every M to steps that it makes again.
T = sqrt(2 d M) makes the sum smallest (Young 1974); Daly (2006) has the next terms, for failures
that are independent of each other and exponentially distributed:

    T = sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d,  and T = M where d >= 2 M

How long a start takes does not matter for T. The leader measures d and the time of a step, and
tells the others when a checkpoint is due as if somebody had asked for one (USR1): so nobody else
decides by a clock, and event logs say where each replica paused.
"""
import math
import statistics
from collections import deque
from typing import NamedTuple

from hpclcae.config import Config

#: Steps before the first checkpoint, which measures what one costs.
FIRST = 20
#: So many steps, and checkpoints, are looked back on.
STEPS, CHECKPOINTS = 101, 5
#: A change of the interval by less than this share is not told of.
TOLD = 0.2
HOUR = 3600.0


def best_seconds(stall: float, mtbf: float) -> float:
    """Seconds of training between two checkpoints that lose least (Daly 2006).

    Parameters
    ----------
    stall : float
        Seconds that one costs.
    mtbf : float
        Seconds between failures.
    """
    if stall >= 2 * mtbf:
        return mtbf
    share = stall / (2 * mtbf)
    return math.sqrt(2 * stall * mtbf) * (1 + math.sqrt(share) / 3 + share / 9) - stall


class Chosen(NamedTuple):
    """An interval, and what it was chosen for."""
    steps: int
    stall: float
    step_seconds: float
    mtbf_hours: float

    def __str__(self) -> str:
        return (f"every {self.steps:,} steps ({self.steps * self.step_seconds:.3g} s): one costs "
                f"{self.stall:.3g} s, a failure is expected every {self.mtbf_hours:g} h "
                "(train.mtbf)")


class Interval:
    """When the leader's next checkpoint is due, where train.checkpoint_every is "auto".

    Attributes
    ----------
    news : Chosen or None
        An interval that has not been told of yet.
    """

    def __init__(self, config: Config) -> None:
        self._hours = config.train.mtbf
        self._since = 0             # steps since the last checkpoint
        self._seconds: deque[float] = deque(maxlen=STEPS)   # of steps beside which nothing is saved
        self._costs: deque[float] = deque(maxlen=CHECKPOINTS)
        # of the checkpoint that is being written: how long training stood still, and how much
        # slower steps have been since
        self._still: float | None = None
        self._slower = 0.0
        self._last: Chosen | None = None
        self.news: Chosen | None = None

    @property
    def is_due(self) -> bool:
        """Whether it is time; not while one is still being written."""
        return self._still is None and self._since >= (self._last.steps if self._last else FIRST)

    def made_step(self, seconds: float, is_saving: bool) -> None:
        """A step has been made.

        Parameters
        ----------
        seconds : float
            That it took, without a checkpoint.
        is_saving : bool
            A checkpoint was being written beside it, which makes steps slower.
        """
        self._since += 1
        if self._still is None:
            self._seconds.append(seconds)
            return
        if self._seconds:
            self._slower += seconds - statistics.median(self._seconds)
        if not is_saving:
            self._costs.append(self._still + max(0.0, self._slower))
            self._still, self._slower = None, 0.0
            self._choose()

    def took_checkpoint(self, seconds: float) -> None:
        """Training stood still for so long, to hand over what belongs into a checkpoint."""
        self._since, self._still = 0, (self._still or 0.0) + seconds

    def _choose(self) -> None:
        step = statistics.median(self._seconds) if self._seconds else 0.0
        if not step:
            return
        stall = statistics.median(self._costs)
        steps = max(1, round(best_seconds(stall, self._hours * HOUR) / step))
        chosen = Chosen(steps, stall, step, self._hours)
        if self._last is None or abs(steps - self._last.steps) > TOLD * self._last.steps:
            self.news = self._last = chosen
