"""The network: stages in a row, trained together or one after the other.

* ``joint``: the objective is the sum of all stages' terms and its gradient flows through
  everything, also through the targets of the upper stages (the paper).
* ``stopped``: all stages learn at the same time, each from its own term alone.
* ``greedy``: the stages learn one after the other, each for an equal share of the steps.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpclcae.model.layers.local_filter import RowSink
from hpclcae.model.layout import Layout
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.stage import Stage, StageActivations
from hpclcae.model.workspace import Workspace
from hpclcae.partition.communicator import Communicator, SerialCommunicator


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

    def responses(self, parameters: ParameterVector, x: np.ndarray) -> list[np.ndarray]:
        """Output of each stage (row, col, map, image), of the block's own positions.

        `x` is (row, col, channel, image). The arrays are reused by the next call.
        """
        return [state.y for state in self._forward(parameters, x, objective=())]

    def forward(self, parameters: ParameterVector, x: np.ndarray,
                only: int | None = None) -> list[StageActivations]:
        """Run all stages with their terms.

        With `only`: up to that stage, and with that stage's term alone.

        x (row, col, channel, image) is what the block holds of the prepared images:
        block.plan.stages[0].x.held.
        """
        stages = range(len(self.stages))
        return self._forward(parameters, x, stages if only is None else (only,),
                             last=len(self.stages) - 1 if only is None else only)

    def _forward(self, parameters: ParameterVector, x: np.ndarray, objective: Sequence[int],
                 last: int | None = None) -> list[StageActivations]:
        states: list[StageActivations] = []
        for index, stage in enumerate(self.stages[:None if last is None else last + 1]):
            if index:
                x = stage.hold(states[-1].y)
            states.append(stage.forward(parameters, x, self.work, index in objective))
        decoded = [(stage, state) for stage, state in zip(self.stages, states) if state.decoder]
        if decoded:
            sums = self.communicator.allreduce_sum([*(stage.sums(state) for stage,
                                                      state in decoded), (*self.flags, 0)])
            self.any_flags = Flags(*(bool(said) for said in sums[-1, :2]))
            for (stage, state), row in zip(decoded, sums):
                state.loss = stage.loss(row, x.shape[-1])
        return states

    def backward(self, states: list[StageActivations], on_gradient: RowSink,
                 dx: np.ndarray | None = None) -> None:
        """Hand every row of gradients to `on_gradient`, from the top stage down.

        Gradients pass between stages if the configuration says "joint". `dx` (row, col, channel,
        image), if given, has the shape of x; its owned part is overwritten with the gradient with
        respect to the input.
        """
        joint = self.config.train.gradient == "joint"
        dy: np.ndarray | None = None
        for index in reversed(range(len(states))):
            state = states[index]
            if state.decoder is None and dy is None:  # below the only stage that is trained
                if dx is not None:
                    dx[...] = 0
                return
            below: np.ndarray | None = dx
            if index:
                below = self.work.array("dx", state.x.shape, self.dtype) if joint else None
            self.stages[index].backward(state, dy, below, on_gradient, self.work)
            dy = None if below is None else below[self.stages[index].plan.x.own]
