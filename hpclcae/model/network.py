"""The network: stages in a row, trained together or one after the other.

* ``joint``: the objective is the sum of all stages' terms and its gradient flows through
  everything, also through the targets of the upper stages (the paper).
* ``stopped``: all stages learn at the same time, each from its own term alone.
* ``greedy``: the stages learn one after the other (phases.py).

With a classifier on the top stage (classifier.py) its objective is the only one, and its gradient
flows through all stages, or stops at it while it is trained alone (phases.py).

Conditioners between the stages (conditioner.py) are constants to all gradients.
"""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hpclcae.model.classifier import Classifier, balanced
from hpclcae.model.conditioner import Conditioner, are_fitted
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
    classifier : Classifier or None
        What is trained instead of the stages' own terms.
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
        self.classifier = Classifier(block, self.communicator) if layout.parts else None
        self.work = Workspace()
        self.flags = self.any_flags = Flags()

    def parameters(self, seed: int | None = None) -> ParameterVector:
        """A parameter vector of this network: zeros, or random filters drawn from `seed`.

        A classifier begins with zeros.
        """
        parameters = self.block.parameters()
        if seed is not None:
            for index, stage in enumerate(self.stages):
                stage.initialise(parameters, seed, index)
        return parameters

    def condition(self, conditioners: Sequence[Conditioner | None]) -> None:
        """Put fitted numbers above the stages; None: there are none (yet).

        Those above the last one are the classifier's.
        """
        for stage, conditioner in zip(self.stages, conditioners):
            stage.condition(conditioner)
        if self.classifier and len(conditioners) > len(self.stages):
            self.classifier.condition(conditioners[-1])

    def weigh(self, labels: np.ndarray | None) -> None:
        """Let a classifier count the images of every class alike, if its configuration says so.

        `labels` (image,) are those of all training images.
        """
        if self.classifier and self.classifier.config.balance and labels is not None:
            self.classifier.class_weights = balanced(labels, self.classifier.config.classes)

    def condition_unfitted(self) -> None:
        """Put numbers between the stages that were not fitted, for benchmarks and tests."""
        drawn = [Conditioner.drawn(stage, geometry)
                 for stage, geometry in zip(self.config.stages, self.layout.geometry)]
        shape = self.layout.geometry[-1].output
        drawn.append(Conditioner(np.zeros(shape), np.ones(shape)))  # a classifier's
        self.condition([numbers if fitted else None
                        for numbers, fitted in zip(drawn, are_fitted(self.config))])

    def activations(self, parameters: ParameterVector, x: np.ndarray,
                    stage: int) -> StageActivations:
        """What a stage (from 0) makes of the held x, without the objective."""
        return self._forward(parameters, x, (), stage)[-1]

    def input_of(self, parameters: ParameterVector, x: np.ndarray, stage: int) -> np.ndarray:
        """What a stage above the first holds of its input (row, col, map, image) for the held x.

        Above the last stage that is the classifier.
        """
        below = self._forward(parameters, x, (), stage - 1)[-1]
        if self.classifier and stage == len(self.stages):
            return self.classifier.hold(below.y)
        return self.stages[stage].hold(below.c)

    def scores(self, parameters: ParameterVector, x: np.ndarray) -> np.ndarray:
        """The classifier's scores (class, image) for the held x; overwritten by the next call."""
        assert self.classifier is not None
        return self.classifier.scores(parameters,
                                      self.input_of(parameters, x, len(self.stages)))

    def forward(self, parameters: ParameterVector, x: np.ndarray, only: int | None = None,
                given: bool = False, labels: np.ndarray | None = None) -> list[StageActivations]:
        """Run all stages with their terms; or the classifier's.

        Parameters
        ----------
        x : (row, col, channel, image)
            What the block holds of the prepared images: block.plan.stages[0].x.held.
        only : int, optional
            Up to that stage, and with that stage's term alone. Whatever it is, a classifier has
            the only term.
        given : bool
            x is what stage `only` gets (`input_of`): those below have been run already.
        labels : int array (image,), optional
            Classes of the images, for a classifier.

        Returns
        -------
        list of StageActivations
            Of the stages that were run; the last is that of stage `only`.
        """
        if self.classifier is not None:
            assert labels is not None
            states = [] if given else self._forward(parameters, x, (), len(self.stages) - 1)
            features = x if given else self.classifier.hold(states[-1].y)
            self.any_flags = Flags(*self.classifier.forward(parameters, features, labels,
                                                            self.flags))
            return states
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
        """Hand every row of gradients to `on_gradient`, from the top down.

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
        if self.classifier is not None:
            alone = last is not None
            dc = self.classifier.backward(on_gradient, through=not alone)
            if alone:
                return
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
