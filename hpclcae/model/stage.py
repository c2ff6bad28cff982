"""One stage of the network and its term of the objective.

A stage is filtering, L2 pooling, and what makes its responses fit for the stage above: they may be
standardised, contrast-normalised and whitened (conditioner.py). Its term, per image and averaged
over the minibatch (paper, section 3; the paper writes the sum)::

    weight * ( ||D V' x - x||^2  +  lambda * sum h ),   h = sqrt(eps + pooled (V' x)^2)
"""
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import StageConfig
from hpclcae.geometry import StageGeometry
from hpclcae.model.conditioner import BlockConditioner, Conditioner, is_fitted
from hpclcae.model.layers.contrast_norm import ContrastNorm
from hpclcae.model.layers.l2_pooling import L2Pooling
from hpclcae.model.layers.local_filter import LocalFilter, RowSink
from hpclcae.model.layers.standardise import Standardisation
from hpclcae.model.layers.unit_norm import Filters, filters
from hpclcae.model.layers.whitening import MapWhitening, WindowWhitening
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

    In a network of many blocks, x, z, residual and held_y cover what the block holds (its own
    positions and its halo), h, v, y and c what it owns.
    """
    encoder: Filters
    decoder: Filters | None        # None: encoded only, no term in the objective
    x: np.ndarray
    z: np.ndarray
    residual: np.ndarray | None    # D z - x
    h: np.ndarray                  # pooled
    v: np.ndarray                  # standardised; h itself where nothing is
    y: np.ndarray                  # contrast-normalised: the stage's response; v where nothing is
    held_y: np.ndarray
    c: np.ndarray                  # what is passed on; y itself where nothing is whitened
    norm: tuple[np.ndarray, np.ndarray] | None = None
    whitened: tuple[np.ndarray, np.ndarray | None] | None = None
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
        self.standardisation = (Standardisation(config.log) if config.standardise or config.log
                                else None)
        self.map_whitening = MapWhitening(int(np.prod(geometry.output)), config.contrast,
                                          communicator)
        self.window_whitening = WindowWhitening(config.window, config.window_stride, config.maps,
                                                config.contrast, plan, communicator)
        self.fitted: BlockConditioner | None = None  # numbers of the conditioner
        self._partly = False
        self.sparsity = config.sparsity * (geometry.sigma if config.sparsity_unit == "sigma" else 1)
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

    @property
    def is_open(self) -> bool:
        """Whether it passes on through a conditioner that has not been fitted yet."""
        return is_fitted(self.config) and (self.fitted is None or self._partly)

    def condition(self, conditioner: Conditioner | None, partly: bool = False) -> None:
        """Use these numbers from now on; `partly`: units are standardised, not more."""
        self._partly = partly
        self.fitted = (None if conditioner is None
                       else conditioner.of_block(self.plan, self.dtype))

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
                objective: bool, passes_on: bool = True) -> StageActivations:
        """Run the stage on the held x (row, col, map, image); with `objective` also decode.

        Without `passes_on` it ends with h, and y and c are h: nobody asks for them.
        """
        config, plan = self.config, self.plan
        encoder = self.filters(parameters, "encode")
        z = self.code(x.shape[-1])
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
        h = self._pooled(z, work)
        state = StageActivations(encoder, decoder, x, z, residual, h, h, h, h, h)
        if passes_on:
            self._respond(state, work)
            self.whiten(state)
        return state

    def code(self, images: int) -> np.ndarray:
        """The held z (row, col, map, image), to be overwritten."""
        return self._kept_array("z", self.plan.z.held, self.config.maps, images)

    def respond(self, encoder: Filters, x: np.ndarray, z: np.ndarray,
                work: Workspace) -> StageActivations:
        """From z, of which the owned part has been made of x, to the response y."""
        h = self._pooled(z, work)
        state = StageActivations(encoder, None, x, z, None, h, h, h, h, h)
        self._respond(state, work)
        return state

    def _pooled(self, z: np.ndarray, work: Workspace) -> np.ndarray:
        """h from the owned part of z."""
        self._z.fill(z)
        h = self._kept_array("h", self.plan.h.owned, self.config.maps, z.shape[-1])
        self.pooling.forward(z[self.plan.z.read], h, work)
        return h

    def _respond(self, state: StageActivations, work: Workspace) -> None:
        """From h to v and y."""
        config, plan, h, fitted = self.config, self.plan, state.h, self.fitted
        standardises = self.standardisation and fitted is not None
        if self.norm or standardises or config.window:
            state.held_y = self._kept_array("y", plan.y.held, *h.shape[2:])
            state.y = state.held_y[plan.y.own]
        if self.standardisation and fitted is not None:
            assert fitted.mean is not None and fitted.gain is not None
            state.v = (self._kept_array("v", plan.h.owned, *h.shape[2:]) if self.norm else state.y)
            self.standardisation.forward(h, fitted.mean, fitted.gain, state.v)
        if self.norm:
            state.norm = self.norm.forward(state.v, state.y, self.kept, work)
        elif config.window and not standardises:
            np.copyto(state.y, h)
        state.c = state.y

    def whiten(self, state: StageActivations) -> None:
        """From y to c."""
        config, plan, fitted = self.config, self.plan, self.fitted
        if self.is_open or fitted is None or fitted.floor is None:
            return
        state.c = self._kept_array("c", plan.c, config.whiten if config.window else config.maps,
                                   state.y.shape[-1])
        if config.window:
            assert fitted.centre is not None and fitted.directions is not None
            self.window_whitening.forward(state.held_y, fitted.floor, fitted.centre,
                                          fitted.directions, state.c)
        else:
            state.whitened = self.map_whitening.forward(
                state.y, float(fitted.floor), fitted.centre, fitted.directions, state.c, self.kept)

    def coordinates(self, state: StageActivations) -> np.ndarray:
        """The coordinates (direction, image) of a whitened map, of which c = A coordinates."""
        fitted = self.fitted
        assert fitted is not None and fitted.floor is not None
        assert fitted.centre is not None and fitted.directions is not None
        return self.map_whitening.coordinates(state.y, float(fitted.floor), fitted.centre,
                                              fitted.directions, self.kept)[0]

    def sums(self, state: StageActivations) -> tuple[float, float, float]:
        """Squared residual, sparsity and squared responses, summed over all images.

        They are of the block's own positions.
        """
        assert state.residual is not None
        return (sum_of_squares(state.residual[self.plan.x.own]),
                self.sparsity * float(state.h.sum(dtype=np.float64)),
                sum_of_squares(state.z[self.plan.z.own]))

    def loss(self, sums: np.ndarray, images: int) -> StageLoss:
        """The stage's part of the objective from `sums` over all blocks."""
        reconstruction, sparsity, power = sums
        return StageLoss(float(reconstruction) / images, float(sparsity) / images,
                         sqrt(power / (np.prod(self.geometry.filtered) * images)),
                         self.config.weight)

    def backward(self, state: StageActivations, dc: np.ndarray | None, dx: np.ndarray | None,
                 on_gradient: RowSink | None, work: Workspace) -> None:
        """Gradients of this stage's term plus those that arrive as dc.

        Parameters
        ----------
        state : StageActivations
            Of the latest forward pass.
        dc : (row, col, map, image) or None
            On the owned c.
        dx : (row, col, map, image) or None
            On the held x; the owned part is overwritten with the gradient with respect to the
            stage's input.
        on_gradient : callable or None
            Receives (parameter name, row of tiles, gradient); see LocalFilter.backward.
        """
        images, config, plan = state.x.shape[-1], self.config, self.plan
        factor = 2 * config.weight / images
        dh = work.array("dh", state.h.shape, self.dtype)
        dh[...] = config.weight * self.sparsity / images if state.decoder else 0
        if dc is not None:
            self._backward_from(state, dc, dh, work)
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

    def _backward_from(self, state: StageActivations, dc: np.ndarray, dh: np.ndarray,
                       work: Workspace) -> None:
        """Add to dh the gradient through c, y and v."""
        fitted, dy = self.fitted, dc
        if state.c is not state.y and fitted is not None and fitted.floor is not None:
            held = work.array("dy", state.held_y.shape, self.dtype)
            dy = held[self.plan.y.own]
            if self.config.window:
                assert fitted.directions is not None
                self.window_whitening.backward(state.held_y, fitted.floor, fitted.directions, dc,
                                               held)
            else:
                assert state.whitened is not None
                dy[...] = 0
                self.map_whitening.backward(state.whitened, float(fitted.floor), fitted.directions,
                                            dc, dy)
        standardises = state.v is not state.h
        if self.norm and state.norm:
            dv = dh
            if standardises:
                dv = work.array("dv", state.h.shape, self.dtype)
                dv[...] = 0
            self.norm.backward(state.v, state.y, state.norm, dy, dv, work)
        elif standardises:
            dv = dy
        else:
            dh += dy
            return
        if standardises and self.standardisation:
            assert fitted is not None and fitted.gain is not None
            self.standardisation.backward(state.h, fitted.gain, dv, dh, work)

    def filters(self, parameters: ParameterVector, part: str) -> Filters:
        """The encoder's or the decoder's filters, normalised if the configuration says so."""
        norm = self.config.encoder_norm if part == "encode" else self.config.decoder_norm
        return filters(parameters[f"{self.name}/{part}"], norm, self.gain)

    def _kept_array(self, name: str, rectangle: Rectangle, *trailing: int) -> np.ndarray:
        return self.kept.array(name, (*rectangle.shape, *trailing), self.dtype)


def sum_of_squares(a: np.ndarray) -> float:
    """Sum of squares, row by row in float64, so that its error does not grow with size."""
    return float(sum(float(np.vdot(row, row)) for row in a))
