"""The responses of all stages to many images, with parameters that stay as they are.

What training does in every step is done once here: filters are normalised, and where a stage
whitens its map to k directions, the two products between its coordinates a = A' (r - m) and the
code of the stage above (layers/whitening.py) become one, since both are linear::

    c = A a,  z = V c        becomes        z = (V A) a

V A is what the filters make of the k directions, as if these were images. So c, of as many numbers
as the map has, is never made, and a filter has k inputs in place of its window.
"""
import numpy as np

from hpclcae.model.layers.unit_norm import Filters
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.stage import Stage


class Responses:
    """Responses of a network, or of one block of it; all blocks make one, and call it.

    Parameters
    ----------
    network : Network
        With its conditioners.
    parameters : ParameterVector
        They, and the conditioners, must not change as long as this is used.
    """

    def __init__(self, network: Network, parameters: ParameterVector) -> None:
        self._work = network.work
        last = next((index for index, stage in enumerate(network.stages) if stage.is_open),
                    len(network.stages) - 1)
        self._stages = network.stages[:last + 1]
        self._encoders = [stage.filters(parameters, "encode") for stage in self._stages]
        #: (unit of z, direction), V A of each stage; None where c is made
        self._joined = [None, *map(self._join, self._stages, self._stages[1:],
                                   self._encoders[1:])]

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """Response of each stage (row, col, map, image), of the block's own positions.

        `x` is the prepared images that the block holds, (row, col, channel, image). The arrays are
        reused by the next call. In the course of greedy training only of the stages that have been
        trained, or are being trained.
        """
        responses = []
        for number, (stage, encoder, joined) in enumerate(zip(self._stages, self._encoders,
                                                              self._joined), start=1):
            z = stage.code(x.shape[-1])
            own = z[stage.plan.z.own]
            if joined is None:
                stage.filter.encode(encoder, x[stage.plan.x.read], own, self._work)
            else:
                own[...] = (joined @ x).reshape(own.shape)
            state = stage.respond(encoder, x, z, self._work)
            responses.append(state.y)
            if number == len(self._stages):
                break
            if self._joined[number] is not None:
                x = stage.coordinates(state)
            else:
                stage.whiten(state)
                x = self._stages[number].hold(state.c)
        return responses

    def _join(self, below: Stage, stage: Stage, encoder: Filters) -> np.ndarray | None:
        """V A, if a map is whitened to fewer directions than a filter has inputs."""
        fitted = below.fitted
        if below.config.window or fitted is None or fitted.directions is None:
            return None
        directions = fitted.directions.shape[1]
        if directions >= stage.filter.fan_in:
            return None
        owned = below.plan.y.owned.shape
        x = stage.hold(fitted.directions.reshape(*owned, below.config.maps, directions))
        z = np.empty((*stage.plan.z.owned.shape, stage.config.maps, directions), stage.dtype)
        stage.filter.encode(encoder, x[stage.plan.x.read], z, self._work)
        return z.reshape(-1, directions)
