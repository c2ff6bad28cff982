"""The learning rate in the course of training."""
import math
from collections.abc import Callable

import numpy as np

from hpclcae.config import SCHEDULES, Config
from hpclcae.model.phases import phase_of
from hpclcae.utils.errors import InputError
from hpclcae.utils.expressions import Expression

TRIED = 1000  # steps at which an expression is tried before training begins


class Schedule:
    """The learning rate of every step, from the rate of its phase and UpdateConfig.schedule.

    In greedy training a schedule runs through once for each stage: `step` and `steps` are those of
    the stage. `epoch` counts from the beginning, in passes over the images.

    Parameters
    ----------
    config : Config
    passes : callable, optional
        passes(step): how often the images have been seen before a step (MinibatchStream.passes).

    Raises
    ------
    InputError
        The expression does not give a rate for every step that is tried.
    """

    def __init__(self, config: Config,
                 passes: Callable[[int], float] = lambda step: 0.0) -> None:
        self.config, self._passes = config, passes
        self._expression: Expression | None = None
        if config.update.schedule not in SCHEDULES:
            self._expression = Expression(config.update.schedule, "update.schedule")
            rates = [self.learning_rate(int(step)) for step in
                     np.unique(np.linspace(0, config.train.steps - 1, TRIED, dtype=int))]
            # in the only step of a stage, one that rises from 0 is 0 too
            if len(rates) > len(config.stages) and not any(rates):
                raise InputError(f"update.schedule = {config.update.schedule!r} is 0 in every step "
                                 "that was tried, so nothing is learnt: it must be above 0 "
                                 "somewhere")

    def learning_rate(self, step: int) -> float:
        """Of step `step` (from 0), in the units of UpdateConfig.rate.

        Raises
        ------
        InputError
            The expression gives no number, or a negative one.
        """
        phase, schedule = phase_of(self.config, step), self.config.update.schedule
        own_step, own_steps, rate = step - phase.first, phase.end - phase.first, phase.rate
        if self._expression is None:
            falling = min(1.0, 2 * (1 - own_step / own_steps))
            return rate * falling if schedule == "halfway" else rate
        factor = float(self._expression.evaluate({"step": own_step, "steps": own_steps,
                                                  "epoch": self._passes(step)}))
        if not math.isfinite(factor) or factor < 0:
            raise InputError(f"update.schedule = {schedule!r} is {factor:g} where step = "
                             f"{own_step}: it must give a number of at least 0 for every step")
        return rate * factor
