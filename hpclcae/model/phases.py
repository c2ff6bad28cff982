"""Which stage is trained in which step, with how many images and at which rate.

Greedy training has one phase for each stage, one after the other; joint and stopped training have a
single phase. With a classifier there are two: it alone, as if it were one more stage, and the whole
network. Pure functions of a configuration.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hpclcae.config import Config
from hpclcae.model.conditioner import is_fitted


@dataclass(frozen=True)
class Phase:
    """Steps first <= step < end.

    stage : int or None
        The stage (from 0) that is trained; the number of stages: the classifier on top of them;
        None: all of them.
    batch : int
        Images a minibatch.
    rate : float
        Learning rate, in the units of UpdateConfig.rate.
    position : int
        Images that all minibatches before `first` have taken.
    """
    stage: int | None
    first: int
    end: int
    batch: int
    rate: float
    position: int = 0

    def positions(self, step: int) -> range:
        """Where the images of a step stand in the endless stream of images."""
        start = self.position + (step - self.first) * self.batch
        return range(start, start + self.batch)


@cache
def phases(config: Config) -> tuple[Phase, ...]:
    """All phases, in order; one that has no step is left out."""
    train, update = config.train, config.update
    if config.is_supervised:
        alone = config.classifier
        first = Phase(len(config.stages), 0, alone.steps, alone.batch or train.batch,
                      alone.rate or update.rate)
        joint = Phase(None, first.end, train.steps, train.batch, update.rate,
                      alone.steps * first.batch)
        return tuple(phase for phase in (first, joint) if phase.first < phase.end)
    if train.gradient != "greedy":
        return Phase(None, 0, train.steps, train.batch, update.rate),
    open_stages = [stage for stage in config.stages if not stage.steps]
    rest = max(0, train.steps - sum(stage.steps for stage in config.stages))
    found: list[Phase] = []
    start = shared = position = 0
    for index, stage in enumerate(config.stages):
        steps = stage.steps
        if not steps:
            before, after = (-(-rest * n // len(open_stages)) for n in (shared, shared + 1))
            steps, shared = after - before, shared + 1
        phase = Phase(index, start, start + steps, stage.batch or train.batch,
                      stage.rate or update.rate, position)
        start, position = phase.end, position + steps * phase.batch
        if steps:
            found.append(phase)
    return tuple(found)


def phase_of(config: Config, step: int) -> Phase:
    """The phase of a step; of steps beyond the last one, the last phase."""
    return find(phases(config), step)


def find(among: Sequence[Phase], step: int) -> Phase:
    """The phase of a step among some in order; of steps beyond, the last."""
    for phase in among:
        if step < phase.end:
            return phase
    return among[-1]


@cache
def meetings(config: Config) -> frozenset[int]:
    """The steps before which all replicas wait for each other.

    They are the first steps of those phases that build on numbers of a finished stage: fitted ones
    (model/conditioner.py), or kept responses (TrainConfig.cache); and the first in which the whole
    network learns, which changes the features that a classifier is trained on.
    """
    found = set()
    for phase in phases(config)[1:]:
        below = config.stages[:phase.stage]
        if (config.train.cache != "none" or config.is_supervised
                or any(map(is_fitted, below))):
            found.add(phase.first)
    return frozenset(found)
