"""One training step: the one copy for training, replay, benchmarks and tests."""
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import phase_of
from hpclcae.model.stage import StageActivations
from hpclcae.training.divergence import Divergence, Loss
from hpclcae.utils.timers import Timers


class Gradients(Protocol):
    """Where a step's parameters come from and its gradients go: an optimizer, or servers."""

    @property
    def parameters(self) -> ParameterVector:
        """What the step computes with."""

    def on_gradient(self, name: str, row: int, gradient: np.ndarray) -> None:
        """Take the gradient of one row of tiles (model/layers/local_filter.RowSink)."""

    def end(self) -> None:
        """After the last row."""


def train_step(network: Network, gradients: Gradients, step: int, x: np.ndarray,
               divergence: Divergence | None = None, timers: Timers | None = None,
               given: bool = False, labels: np.ndarray | None = None) -> list[Loss | None]:
    """Forward, look at the losses, backward; gradients leave row by row while the sweep goes on.

    Parameters
    ----------
    step : int
        From 0; it says which stage is trained.
    x : (row, col, channel, image)
        Prepared images, what the block holds of them.
    given : bool
        x is what the trained stage gets of them instead (Network.input_of).
    labels : int array (image,), optional
        Classes of the images, for a classifier.

    Returns
    -------
    list of StageLoss or None
        Of every stage, None: not trained in this step; with a classifier also its ClassifierLoss.

    Raises
    ------
    InputError
        `divergence` says so.
    """
    timers, only = timers or Timers(), phase_of(network.config, step).stage
    with np.errstate(over="ignore", invalid="ignore"):  # the losses tell
        with timers("forward", network.communicator):
            states = network.forward(gradients.parameters, x, only, given, labels)
        losses = all_losses(network, states, only)
        if divergence:
            divergence.check(losses, step)
        with timers("backward and update", network.communicator):
            network.backward(states, gradients.on_gradient, last=only)
            gradients.end()
    return losses


def all_losses(network: Network, states: Sequence[StageActivations],
               only: int | None) -> list[Loss | None]:
    """The losses of all stages, from the activations of those that were run, up to `only`.

    With a classifier only its own, in the last place.
    """
    if network.classifier is not None:
        return [*[None] * len(network.stages), network.classifier.loss]
    first = 0 if only is None else only + 1 - len(states)
    losses: list[Loss | None] = [None] * len(network.stages)
    losses[first:first + len(states)] = [state.loss for state in states]
    return losses
