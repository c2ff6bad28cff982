"""One stage of the network and its term of the objective.

A stage is filtering, L2 pooling and contrast normalisation. Its term, per image and averaged over
the minibatch (paper, section 3; the paper writes the sum)::

    weight * ( ||D V' x - x||^2  +  lambda * sum h ),   h = sqrt(eps + pooled (V' x)^2)
"""
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import StageConfig
from hpclcae.geometry import StageGeometry
from hpclcae.model.layers.contrast_norm import ContrastNorm
from hpclcae.model.layers.l2_pooling import L2Pooling
from hpclcae.model.layers.local_filter import LocalFilter, RowSink
from hpclcae.model.layers.unit_norm import Filters, filters
from hpclcae.model.layout import filter_plan, parameter_names
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.workspace import Workspace
from hpclcae.partition.blocks import Rectangle, StagePlan, whole_stage
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.partition.halo import Exchange


@dataclass(frozen=True)
class StageLoss:
    """One stage's part of the objective, per image, and how strongly its filters respond."""
    reconstruction: float  # ||D V' x - x||^2
    sparsity: float        # lambda * sum h
    response: float        # root mean square of z; falls to 0 if the scale degeneracy wins
    weight: float          # of this stage in the objective

    @property
    def objective(self) -> float:
        return self.weight * (self.reconstruction + self.sparsity)


@dataclass
class StageActivations:
    """What one forward pass leaves for the backward pass; arrays are (row, col, map, image).

    In a network of many blocks, x, z and residual cover what the block holds (its own positions and
    its halo), h and y what it owns.
    """
    encoder: Filters
    decoder: Filters | None        # None: encoded only, no term in the objective
    x: np.ndarray
    z: np.ndarray
    residual: np.ndarray | None    # D z - x
    h: np.ndarray
    y: np.ndarray
    norm: tuple[np.ndarray, np.ndarray] | None
    loss: StageLoss | None = None


class Stage:
    """One stage on one block; `name` prefixes its parameters ("stage1/encode", "stage1/decode").

    Parameters
    ----------
    config, geometry
        Of the whole stage.
    kernel : LocalFilter
        Of the block.
    plan : StagePlan
        What the block owns, needs and exchanges.
    communicator : Communicator
        To the other blocks.
    """

    def __init__(self, config: StageConfig, geometry: StageGeometry, name: str, kernel: LocalFilter,
                 plan: StagePlan, communicator: Communicator) -> None:
        self.config, self.geometry, self.name, self.plan = config, geometry, name, plan
        self.filter, self.dtype = kernel, kernel.dtype
        self.pooling = L2Pooling(*plan.z.needed.shape, config.pooling, config.pooling_stride,
                                 config.epsilon)
        self.norm = ContrastNorm(*geometry.pooled, config.lcn, config.lcn_sigma, config.lcn_floor,
                                 config.lcn_border, plan, communicator) if config.lcn else None
        self._x, self._z = Exchange(plan.x, communicator), Exchange(plan.z, communicator)
        # With filters of this norm in random directions D V' is near the identity on average:
        # the inputs are (units / inputs)-fold overcomplete.
        units = int(np.prod(geometry.filtered))
        self.gain = sqrt(min(1.0, int(np.prod(geometry.input)) / units))
        self.kept = Workspace()

    @classmethod
    def whole(cls, config: StageConfig, geometry: StageGeometry, name: str,
              dtype: DTypeLike) -> "Stage":
        """A stage that is one block by itself."""
        plan = whole_stage(config, geometry)
        return cls(config, geometry, name, filter_plan(config, geometry, dtype, plan), plan,
                   SerialCommunicator())

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of this block's weights, in the kernel's layout (layers/local_filter.py)."""
        return {name: self.filter.shape for name in parameter_names(self.config, self.name)}

    def initialise(self, parameters: ParameterVector, seed: int, index: int) -> None:
        """Random filters, the decoder equal to the encoder.

        They are of norm 1 where the norm is "unit", else of norm `gain`. Every row of positions of
        the whole stage has a generator of its own, so the same weights come out whatever the tile
        or the partition.
        """
        plan, t = self.filter, self.filter.tile
        (first, _), cols = self.plan.z.owned.rows, self.plan.z.owned.cols
        norms = {"encode": self.config.encoder_norm, "decode": self.config.decoder_norm}
        for j in range(plan.tile_rows):
            drawn = []
            for y in range(first + j * t, first + min((j + 1) * t, plan.out_rows)):
                generator = np.random.default_rng([seed, index, y])
                row = generator.standard_normal((self.geometry.filtered[1], plan.field, plan.field,
                                                 plan.maps_in, plan.maps))[slice(*cols)]
                drawn.append(row / np.sqrt(np.square(row).sum(axis=(1, 2, 3), keepdims=True)))
            for name in self.parameter_shapes():
                norm = 1.0 if norms[name.rpartition("/")[2]] == "unit" else self.gain
                plan.pack_row((norm * np.stack(drawn)).astype(self.dtype), parameters[name], j)

    def hold(self, owned: np.ndarray) -> np.ndarray:
        """The held x from the owned one, which the stage below has made.

        That is with its halo, filled by its owners.
        """
        if self.plan.x.held == self.plan.x.owned:
            x = owned
        else:
            x = self._kept_array("x", self.plan.x.held, *owned.shape[2:])
            x[self.plan.x.own] = owned
        self._x.fill(x)
        return x

    def forward(self, parameters: ParameterVector, x: np.ndarray, work: Workspace,
                objective: bool) -> StageActivations:
        """Run the stage on the held x (row, col, map, image); with `objective` also decode."""
        config, plan, images = self.config, self.plan, x.shape[-1]
        encoder = self.filters(parameters, "encode")
        z = self._kept_array("z", plan.z.held, config.maps, images)
        decoder = residual = None
        if objective:
            decoder = encoder if config.weights == "tied" else self.filters(parameters, "decode")
            residual = self._kept_array("residual", plan.x.held, *x.shape[2:])
            # Every block adds its part of D z, also to positions of others;
            # -x counts once, at its owner.
            residual[...] = 0
            np.negative(x[plan.x.own], out=residual[plan.x.own])
            self.filter.encode_decode(encoder, decoder, x[plan.x.read], z[plan.z.own],
                                      residual[plan.x.read], work)
            self._x.fold(residual)
            self._x.fill(residual)
        else:
            self.filter.encode(encoder, x[plan.x.read], z[plan.z.own], work)
        self._z.fill(z)
        h = y = self._kept_array("h", plan.h.owned, config.maps, images)
        self.pooling.forward(z[plan.z.read], h, work)
        norm = None
        if self.norm:
            y = self._kept_array("y", plan.y, config.maps, images)
            norm = self.norm.forward(h, y, self.kept, work)
        return StageActivations(encoder, decoder, x, z, residual, h, y, norm)

    def sums(self, state: StageActivations) -> tuple[float, float, float]:
        """Squared residual, sparsity and squared responses, summed over all images.

        They are of the block's own positions.
        """
        assert state.residual is not None
        return (sum_of_squares(state.residual[self.plan.x.own]),
                self.config.sparsity * float(state.h.sum(dtype=np.float64)),
                sum_of_squares(state.z[self.plan.z.own]))

    def loss(self, sums: np.ndarray, images: int) -> StageLoss:
        """The stage's part of the objective from `sums` over all blocks."""
        reconstruction, sparsity, power = sums
        return StageLoss(float(reconstruction) / images, float(sparsity) / images,
                         sqrt(power / (np.prod(self.geometry.filtered) * images)),
                         self.config.weight)

    def backward(self, state: StageActivations, dy: np.ndarray | None, dx: np.ndarray | None,
                 on_gradient: RowSink | None, work: Workspace) -> None:
        """Gradients of this stage's term plus those that arrive as dy.

        Parameters
        ----------
        state : StageActivations
            Of the latest forward pass.
        dy : (out row, out col, map, image) or None
            On the owned y.
        dx : (row, col, map, image) or None
            On the held x; the owned part is overwritten with the gradient with respect to the
            stage's input.
        on_gradient : callable or None
            Receives (parameter name, row of tiles, gradient); see LocalFilter.backward.
        """
        images, config, plan = state.x.shape[-1], self.config, self.plan
        factor = 2 * config.weight / images
        dh = work.array("dh", state.h.shape, self.dtype)
        dh[...] = config.weight * config.sparsity / images if state.decoder else 0
        if dy is not None:
            if self.norm and state.norm:
                self.norm.backward(state.h, state.y, state.norm, dy, dh, work)
            else:
                dh += dy
        dz = work.array("dz", state.z.shape, self.dtype)
        if plan.z.held != plan.z.needed:
            dz[...] = 0  # positions that no pooling window of this block covers
        self.pooling.backward(state.z[plan.z.read], state.h, dh, dz[plan.z.read], work)
        self._z.fold(dz)
        residual = None if state.residual is None else state.residual[plan.x.read]
        if dx is not None:
            dx[...] = 0
            if state.residual is not None:  # x is also what the decoder aims at
                np.multiply(state.residual[plan.x.own], self.dtype.type(-factor),
                            out=dx[plan.x.own])

        def named(part: str, row: int, gradient: np.ndarray) -> None:
            assert on_gradient is not None
            on_gradient(f"{self.name}/{part}", row, gradient)
        self.filter.backward(state.encoder, state.decoder, state.x[plan.x.read],
                             state.z[plan.z.own], residual, factor,
                             dz[plan.z.own], None if dx is None else dx[plan.x.read],
                             named if on_gradient else None, work)
        if dx is not None:
            self._x.fold(dx)

    def filters(self, parameters: ParameterVector, part: str) -> Filters:
        """The encoder's or the decoder's filters, normalised if the configuration says so."""
        norm = self.config.encoder_norm if part == "encode" else self.config.decoder_norm
        return filters(parameters[f"{self.name}/{part}"], norm, self.gain)

    def _kept_array(self, name: str, rectangle: Rectangle, *trailing: int) -> np.ndarray:
        return self.kept.array(name, (*rectangle.shape, *trailing), self.dtype)


def sum_of_squares(a: np.ndarray) -> float:
    """Sum of squares, row by row in float64, so that its error does not grow with size."""
    return float(sum(float(np.vdot(row, row)) for row in a))
