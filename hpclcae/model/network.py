"""The network: stages in a row, trained together or one after the other.

* ``joint``: the objective is the sum of all stages' terms and its gradient flows through
  everything, also through the targets of the upper stages (the paper).
* ``stopped``: all stages learn at the same time, each from its own term alone.
* ``greedy``: the stages learn one after the other, each for an equal share of the steps.
"""
from collections.abc import Sequence

import numpy as np

from hpclcae.config import Config
from hpclcae.geometry import network_geometry
from hpclcae.model.layers.local_filter import RowSink
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.stage import Stage, StageActivations
from hpclcae.model.workspace import Workspace
from hpclcae.partition.blocks import Grid, plan_block
from hpclcae.partition.communicator import Communicator, SerialCommunicator


class Network:
    """The plan of a network, or of one block of it; parameters are passed to every call.

    Parameters
    ----------
    config : Config
    grid : Grid, optional
        Blocks that share the network (partition.py); without it there is one.
    communicator : Communicator, optional
        This block's line to the others; its rank says which block this is.

    Raises
    ------
    InputError
        A window does not fit (see geometry.py), or the grid is finer than the image.
    """

    def __init__(self, config: Config, grid: Grid | None = None,
                 communicator: Communicator | None = None) -> None:
        self.config = config
        self.dtype = np.dtype(config.train.dtype)
        self.geometry = network_geometry(config)
        self.communicator = communicator or SerialCommunicator()
        self.grid = grid or Grid(1, 1)
        self.plan = plan_block(config, self.grid, self.communicator.rank)
        self.stages = [Stage(c, g, f"stage{i + 1}", self.dtype, p, self.communicator) for i,
                       (c, g, p) in enumerate(zip(config.stages, self.geometry, self.plan.stages))]
        self._work = Workspace()
        #: Numbers that travel with the sums of a training step, so that blocks can tell each other
        #: something at no cost: `note` is what this block says, `notes` the sum over all blocks
        #: after `forward`.
        self.note = self.notes = 0.0

    def parameters(self, seed: int | None = None) -> ParameterVector:
        """A parameter vector of this network: zeros, or random filters drawn from `seed`."""
        shapes = {name: shape for stage in self.stages for name,
                  shape in stage.parameter_shapes().items()}
        parameters = ParameterVector(shapes, self.dtype)
        if seed is not None:
            for index, stage in enumerate(self.stages):
                stage.initialise(parameters, seed, index)
        return parameters

    def responses(self, parameters: ParameterVector, x: np.ndarray) -> list[np.ndarray]:
        """Each stage's output (row, col, map, image) for x (row, col, channel, image), of the
        block's own positions.

        The arrays are reused by the next call.
        """
        return [state.y for state in self._forward(parameters, x, objective=())]

    def forward(self, parameters: ParameterVector, x: np.ndarray,
                only: int | None = None) -> list[StageActivations]:
        """Run all stages with their terms; with `only`, up to that stage and with that stage's term
        alone.

        x (row, col, channel, image) is what the block holds of the prepared images:
        plan.stages[0].x.held.
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
            states.append(stage.forward(parameters, x, self._work, index in objective))
        decoded = [(stage, state) for stage, state in zip(self.stages, states) if state.decoder]
        if decoded:
            sums = self.communicator.allreduce_sum([*(stage.sums(state) for stage,
                                                      state in decoded), (self.note, 0, 0)])
            self.notes = float(sums[-1, 0])
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
                below = self._work.array("dx", state.x.shape, self.dtype) if joint else None
            self.stages[index].backward(state, dy, below, on_gradient, self._work)
            dy = None if below is None else below[self.stages[index].plan.x.own]


def trained_stage(config: Config, step: int) -> tuple[int | None, float]:
    """Which stage is trained in `step` (None: all of them) and how far its training has come, 0 to
    1."""
    if config.train.gradient != "greedy":
        return None, step / config.train.steps
    stages, steps = len(config.stages), config.train.steps
    stage = min(step * stages // steps, stages - 1)
    first, end = -(-stage * steps // stages), -(-(stage + 1) * steps // stages)
    return stage, (step - first) / max(1, end - first)
