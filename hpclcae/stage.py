"""One stage of the network: filtering, L2 pooling, contrast normalisation, and its term of the objective.

Per image, averaged over the minibatch (paper, section 3; the paper writes the sum)::

    weight * ( ||D V' x - x||^2  +  lambda * sum h ),   h = sqrt(eps + pooled (V' x)^2)
"""
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import StageConfig
from hpclcae.geometry import StageGeometry
from hpclcae.layers.contrast_norm import ContrastNorm
from hpclcae.layers.l2_pooling import L2Pooling
from hpclcae.layers.local_filter import LocalFilter, RowSink
from hpclcae.layers.unit_norm import Filters, filters
from hpclcae.parameters import ParameterVector
from hpclcae.workspace import Workspace


@dataclass(frozen=True)
class Terms:
    """One stage's part of the objective, per image, and how strongly its filters respond."""
    reconstruction: float  # ||D V' x - x||^2
    sparsity: float        # lambda * sum h
    response: float        # root mean square of z; falls to 0 if the scale degeneracy wins
    weight: float          # of this stage in the objective

    @property
    def objective(self) -> float:
        return self.weight * (self.reconstruction + self.sparsity)


@dataclass
class StageState:
    """What one forward pass leaves for the backward pass; arrays are (row, col, map, image)."""
    encoder: Filters
    decoder: Filters | None        # None: encoded only, no term in the objective
    x: np.ndarray
    z: np.ndarray
    residual: np.ndarray | None    # D z - x
    h: np.ndarray
    y: np.ndarray
    norm: tuple[np.ndarray, np.ndarray] | None
    terms: Terms | None


class Stage:
    """The plan of one stage; `name` prefixes its parameters ("stage1/encode", "stage1/decode")."""

    def __init__(self, config: StageConfig, geometry: StageGeometry, name: str, dtype: DTypeLike) -> None:
        self.config, self.geometry, self.name, self.dtype = config, geometry, name, np.dtype(dtype)
        self.filter = LocalFilter(*geometry.input, config.maps, config.receptive_field, config.stride, config.tile,
                                  dtype)
        self.pooling = L2Pooling(*geometry.filtered[:2], config.pooling, config.pooling_stride, config.epsilon)
        self.norm = ContrastNorm(*geometry.pooled, config.lcn, config.lcn_sigma, config.lcn_floor,
                                 config.lcn_border) if config.lcn else None
        # With filters of this norm in random directions D V' is near the identity on average: the
        # inputs are (units / inputs)-fold overcomplete.
        units = int(np.prod(geometry.filtered))
        self.gain = sqrt(min(1.0, int(np.prod(geometry.input)) / units))
        self._keep = Workspace()

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of this stage's weights, in the kernel's layout (layers/local_filter.py)."""
        names = ["encode"] if self.config.weights == "tied" else ["encode", "decode"]
        return {f"{self.name}/{n}": self.filter.shape for n in names}

    def initialise(self, parameters: ParameterVector, seed: int, index: int) -> None:
        """Random filters, the decoder equal to the encoder: of norm 1 where the norm is "unit", else of norm `gain`.

        Every row of positions has a generator of its own, so the same weights come out whatever the tile
        or the partition.
        """
        t, plan = self.filter.tile, self.filter
        norms = {"encode": self.config.encoder_norm, "decode": self.config.decoder_norm}
        for j in range(plan.tile_rows):
            drawn = []
            for y in range(j * t, min((j + 1) * t, plan.out_rows)):
                generator = np.random.default_rng([seed, index, y])
                row = generator.standard_normal((plan.out_cols, plan.field, plan.field, plan.maps_in, plan.maps))
                drawn.append(row / np.sqrt(np.square(row).sum(axis=(1, 2, 3), keepdims=True)))
            for name in self.parameter_shapes():
                norm = 1.0 if norms[name.rpartition("/")[2]] == "unit" else self.gain
                plan.pack_row((norm * np.stack(drawn)).astype(self.dtype), parameters[name], j)

    def forward(self, parameters: ParameterVector, x: np.ndarray, work: Workspace, objective: bool) -> StageState:
        """Run the stage on x (row, col, map, image); with `objective` also decode and evaluate its term."""
        config, images = self.config, x.shape[-1]

        def kept(name: str, shape: tuple[int, ...]) -> np.ndarray:
            return self._keep.array(name, (*shape, images), self.dtype)

        encoder = self.filters(parameters, "encode")
        z = kept("z", self.geometry.filtered)
        decoder = residual = terms = None
        if objective:
            decoder = encoder if config.weights == "tied" else self.filters(parameters, "decode")
            residual = kept("residual", self.geometry.input)
            self.filter.encode_decode(encoder, decoder, x, z, residual, work)
        else:
            self.filter.encode(encoder, x, z, work)
        h = y = kept("h", self.geometry.pooled)
        self.pooling.forward(z, h, work)
        norm = None
        if self.norm:
            y = kept("y", self.geometry.output)
            norm = self.norm.forward(h, y, self._keep, work)
        if residual is not None:
            terms = Terms(sum_of_squares(residual) / images, config.sparsity * float(h.sum(dtype=np.float64)) / images,
                          sqrt(sum_of_squares(z) / z.size), config.weight)
        return StageState(encoder, decoder, x, z, residual, h, y, norm, terms)

    def backward(self, state: StageState, dy: np.ndarray | None, dx: np.ndarray | None, emit: RowSink | None,
                 work: Workspace) -> None:
        """Gradients of this stage's term plus those that arrive as dy.

        Parameters
        ----------
        state : StageState
            Of the latest forward pass.
        dy : (out row, out col, map, image) or None
        dx : (row, col, map, image) or None
            Overwritten with the gradient with respect to the stage's input.
        emit : callable or None
            Receives (parameter name, row of tiles, gradient); see LocalFilter.backward.
        """
        images, config = state.x.shape[-1], self.config
        factor = 2 * config.weight / images
        dh = work.array("dh", state.h.shape, self.dtype)
        dh[...] = config.weight * config.sparsity / images if state.decoder else 0
        if dy is not None:
            if self.norm and state.norm:
                self.norm.backward(state.h, state.y, state.norm, dy, dh, work)
            else:
                dh += dy
        dz = work.array("dz", state.z.shape, self.dtype)
        self.pooling.backward(state.z, state.h, dh, dz, work)
        if dx is not None:
            if state.residual is None:
                dx[...] = 0
            else:  # x is also what the decoder aims at
                np.multiply(state.residual, self.dtype.type(-factor), out=dx)

        def named(part: str, row: int, gradient: np.ndarray) -> None:
            assert emit is not None
            emit(f"{self.name}/{part}", row, gradient)
        self.filter.backward(state.encoder, state.decoder, state.x, state.z, state.residual, factor, dz, dx,
                             named if emit else None, work)

    def filters(self, parameters: ParameterVector, part: str) -> Filters:
        """The encoder's or the decoder's filters, normalised if the configuration says so."""
        norm = self.config.encoder_norm if part == "encode" else self.config.decoder_norm
        return filters(parameters[f"{self.name}/{part}"], norm, self.gain)


def sum_of_squares(a: np.ndarray) -> float:
    """Sum of squares of a C-contiguous array, row by row in float64, so that its error does not grow with size."""
    return float(sum(float(np.vdot(row, row)) for row in a))
