"""Stopping before a broken gradient reaches the parameters, or broken parameters a checkpoint."""
import math
from collections.abc import Sequence

from hpclcae.config import Config
from hpclcae.geometry import network_geometry
from hpclcae.model.classifier import ClassifierLoss
from hpclcae.model.stage import StageLoss
from hpclcae.utils.errors import InputError

Loss = StageLoss | ClassifierLoss
#: An objective this many times larger than at first has diverged, though it may still be finite.
DIVERGED = 1000.0


class Divergence:
    """Compares the objective of every stage with its first value.

    The first minibatch may be blank, or the run may go on when its objective is small already: then
    a later one is many times larger and nothing is wrong. So the first value counts as at least
    that of a stage which reconstructs nothing of an input of unit power, which is what prepared
    images and normalised responses have: one for every input, times the stage's weight. Of a
    classifier that is one which holds every class for equally likely.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._nothing = [stage.weight * math.prod(shape.input) for stage, shape
                         in zip(config.stages, network_geometry(config))]
        if config.is_supervised:
            classes = config.classifier.classes
            self._nothing.append(classes * math.log(2) if config.classifier.loss == "logistic"
                                 else math.log(classes))
        self._first: dict[int, float] = {}

    def check(self, losses: Sequence[Loss | None], step: int) -> None:
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
            if not (math.isfinite(loss.objective)
                    and loss.objective <= DIVERGED * max(first, self._nothing[index])):
                raise InputError(self.describe(index, loss.objective, first, step))

    def name(self, stage: int) -> str:
        """What the objective of number `stage` belongs to."""
        return f"stage {stage + 1}" if stage < len(self.config.stages) else "the classifier"

    def describe(self, stage: int, objective: float, first: float, step: int) -> str:
        """The step, the stage, what was measured and the likely cause, on one line."""
        how = "not finite"
        if math.isfinite(objective):
            how = f"{objective:.3g}, and {first:.3g} in the first step"
            if first > 0:
                how = f"{objective / first:.2g} times its first value ({how})"
        update = self.config.update
        return (f"the objective of {self.name(stage)} is {how} in step {step + 1}: update.rate = "
                f"{update.rate:g} is likely too large for rule {update.rule!r} (or the "
                "weights of an earlier checkpoint are damaged); the last checkpoint is untouched")
