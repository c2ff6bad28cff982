"""The network: stages in a row, trained together or one after the other.

* ``joint``: the objective is the sum of all stages' terms and its gradient flows through
  everything, also through the targets of the upper stages (the paper).
* ``stopped``: all stages learn at the same time, each from its own term alone.
* ``greedy``: the stages learn one after the other (phases.py).

Conditioners between the stages (conditioner.py) are constants to all gradients.
"""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hpclcae.model.conditioner import Conditioner, is_fitted
from hpclcae.model.layers.local_filter import RowSink
from hpclcae.model.layout import Layout
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.stage import Stage, StageActivations
from hpclcae.model.workspace import Workspace
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.utils.errors import InputError


class Flags(NamedTuple):
    """What the blocks of a replica tell each other, at no cost, in the sums of a training step."""
    checkpoint: bool = False  # a checkpoint is asked for
    end: bool = False         # training is to end


class Network:
    """A network, or one block of it; parameters are passed to every call.

    Parameters
    ----------
    layout : Layout
    communicator : Communicator, optional
        To the other blocks; its rank says which block this is. Without it there is one.

    Attributes
    ----------
    flags : Flags
        What this block tells the others of its replica in the next `forward`.
    any_flags : Flags
        After `forward`: what at least one of them said.
    """

    def __init__(self, layout: Layout, communicator: Communicator | None = None) -> None:
        self.layout, self.config, self.dtype = layout, layout.config, layout.dtype
        self.communicator = communicator or SerialCommunicator()
        self.block = block = layout.block(self.communicator.rank)
        self.stages = [Stage(settings, geometry, f"stage{number}", kernel, plan, self.communicator)
                       for number, (settings, geometry, kernel, plan) in enumerate(
                           zip(layout.config.stages, layout.geometry, block.stage_filters,
                               block.plan.stages), 1)]
        self.work = Workspace()
        self.flags = self.any_flags = Flags()

    def parameters(self, seed: int | None = None) -> ParameterVector:
        """A parameter vector of this network: zeros, or random filters drawn from `seed`."""
        parameters = self.block.parameters()
        if seed is not None:
            for index, stage in enumerate(self.stages):
                stage.initialise(parameters, seed, index)
        return parameters

    def condition(self, conditioners: Sequence[Conditioner | None]) -> None:
        """Put fitted numbers between the stages; None: there are none (yet)."""
        for stage, conditioner in zip(self.stages, conditioners):
            stage.condition(conditioner)

    def condition_unfitted(self) -> None:
        """Put numbers between the stages that were not fitted, for benchmarks and tests."""
        self.condition([Conditioner.drawn(stage, geometry) if is_fitted(stage) else None
                        for stage, geometry in zip(self.config.stages, self.layout.geometry)])

    def responses(self, parameters: ParameterVector, x: np.ndarray) -> list[np.ndarray]:
        """Response of each stage (row, col, map, image), of the block's own positions.

        `x` is (row, col, channel, image). The arrays are reused by the next call. In the course of
        greedy training only of the stages that have been trained, or are being trained.
        """
        last = next((index for index, stage in enumerate(self.stages) if stage.is_open),
                    len(self.stages) - 1)
        return [state.y for state in self._forward(parameters, x, (), last)]

    def activations(self, parameters: ParameterVector, x: np.ndarray,
                    stage: int) -> StageActivations:
        """What a stage (from 0) makes of the held x, without the objective."""
        return self._forward(parameters, x, (), stage)[-1]

    def input_of(self, parameters: ParameterVector, x: np.ndarray, stage: int) -> np.ndarray:
        """What a stage above the first holds of its input (row, col, map, image) for the held x."""
        below = self._forward(parameters, x, (), stage - 1)[-1]
        return self.stages[stage].hold(below.c)

    def forward(self, parameters: ParameterVector, x: np.ndarray, only: int | None = None,
                given: bool = False) -> list[StageActivations]:
        """Run all stages with their terms.

        Parameters
        ----------
        x : (row, col, channel, image)
            What the block holds of the prepared images: block.plan.stages[0].x.held.
        only : int, optional
            Up to that stage, and with that stage's term alone.
        given : bool
            x is what stage `only` gets (`input_of`): those below have been run already.

        Returns
        -------
        list of StageActivations
            Of the stages that were run; the last is that of stage `only`.
        """
        if only is None:
            return self._forward(parameters, x, range(len(self.stages)), len(self.stages) - 1)
        return self._forward(parameters, x, (only,), only, only if given else 0)

    def _forward(self, parameters: ParameterVector, x: np.ndarray, objective: Sequence[int],
                 last: int, first: int = 0) -> list[StageActivations]:
        states: list[StageActivations] = []
        alone = objective == (last,)  # then nobody asks what the last one passes on
        for index in range(first, last + 1):
            stage = self.stages[index]
            if states:
                if self.stages[index - 1].is_open:
                    raise InputError(f"stage {index + 1} cannot be computed: the conditioner below "
                                     "it has not been fitted; train further, or use a later "
                                     "checkpoint")
                x = stage.hold(states[-1].c)
            states.append(stage.forward(parameters, x, self.work, index in objective,
                                        passes_on=not (alone and index == last)))
        decoded = [(stage, state) for stage, state in zip(self.stages[first:], states)
                   if state.decoder]
        if decoded:
            sums = self.communicator.allreduce_sum([*(stage.sums(state) for stage,
                                                      state in decoded), (*self.flags, 0)])
            self.any_flags = Flags(*(bool(said) for said in sums[-1, :2]))
            for (stage, state), row in zip(decoded, sums):
                state.loss = stage.loss(row, x.shape[-1])
        return states

    def backward(self, states: list[StageActivations], on_gradient: RowSink,
                 dx: np.ndarray | None = None, last: int | None = None) -> None:
        """Hand every row of gradients to `on_gradient`, from the top stage down.

        Gradients pass between stages if the configuration says "joint".

        Parameters
        ----------
        states : list of StageActivations
            Of the latest forward pass.
        dx : (row, col, channel, image), optional
            It has the shape of x; its owned part is overwritten with the gradient with respect to
            the input.
        last : int, optional
            The stage that the last of the states belongs to, where they do not begin with the
            first stage.
        """
        joint = self.config.train.gradient == "joint"
        first = 0 if last is None else last + 1 - len(states)
        dc: np.ndarray | None = None
        for index in reversed(range(len(states))):
            state, stage = states[index], self.stages[first + index]
            if state.decoder is None and dc is None:  # below the only stage that is trained
                if dx is not None:
                    dx[...] = 0
                return
            below: np.ndarray | None = dx
            if index:
                below = self.work.array("dx", state.x.shape, self.dtype) if joint else None
            stage.backward(state, dc, below, on_gradient, self.work)
            dc = None if below is None else below[stage.plan.x.own]

    def input_gradient(self, parameters: ParameterVector, x: np.ndarray, stage: int,
                       on_response: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The gradient of a function of one stage's response with respect to the input.

        Parameters
        ----------
        x : (row, col, channel, image)
            What the block holds of the prepared images.
        stage : int
            From 0.
        on_response : callable
            Called with the owned response y (row, col, map, image), returns the gradient of the
            function with respect to it.

        Returns
        -------
        (row, col, channel, image), of the held x; right at the positions that the block owns.
        """
        states = self._forward(parameters, x, (), stage)
        states[-1].c = states[-1].y  # what is asked about, not what the stage passes on
        dc = on_response(states[-1].y)
        for index in reversed(range(stage + 1)):
            plan, state = self.stages[index].plan, states[index]
            below = self.work.array("dx", state.x.shape, self.dtype)
            self.stages[index].backward(state, dc, below, None, self.work)
            dc = below[plan.x.own]
        return below
