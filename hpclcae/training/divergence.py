"""Stopping before a broken gradient reaches the parameters, or broken parameters a checkpoint."""
import math
from collections.abc import Sequence

from hpclcae.config import UpdateConfig
from hpclcae.model.stage import StageLoss
from hpclcae.utils.errors import InputError

#: An objective this many times larger than at first has diverged, though it may still be finite.
DIVERGED = 1000.0


class Divergence:
    """Compares the objective of every stage with its first value."""

    def __init__(self, config: UpdateConfig) -> None:
        self.config = config
        self._first: dict[int, float] = {}

    def check(self, losses: Sequence[StageLoss | None], step: int) -> None:
        """Look at the losses of step `step` (from 0); None: a stage that is not trained.

        Raises
        ------
        InputError
            An objective is not finite, or much larger than at first.
        """
        for index, loss in enumerate(losses):
            if not loss:
                continue
            first = self._first.setdefault(index, loss.objective)
            if not math.isfinite(loss.objective) or loss.objective > DIVERGED * first:
                raise InputError(self.describe(index, loss.objective, first, step))

    def describe(self, stage: int, objective: float, first: float, step: int) -> str:
        """The step, the stage and the likely cause, on one line."""
        times = objective / first
        how = f"{times:.2g} times its first value" if math.isfinite(times) else "not finite"
        return (f"the objective of stage {stage + 1} is {how} in step {step + 1}: update.rate = "
                f"{self.config.rate:g} is likely too large for rule {self.config.rule!r} (or the "
                "weights of an earlier checkpoint are damaged); the last checkpoint is untouched")
