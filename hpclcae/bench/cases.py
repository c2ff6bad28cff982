"""What the kernel benchmarks time: one stage on a patch of positions, and the whole network.

Useful FLOP are counted: two per weight, image and pass over the weights (encode, decode, dZ, dW1,
dW2, dX are one pass each); entries that tiles add and that are zero by construction do not count.
Sublayers count each operation of their formula once, window sums as separable.
"""
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hpclcae.config import Config, DataConfig, StageConfig, TrainConfig, UpdateConfig
from hpclcae.geometry import stage_geometry, training_flop
from hpclcae.model.layers.local_filter import RowSink
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import Phase, phases
from hpclcae.model.stage import Stage
from hpclcae.model.workspace import Workspace
from hpclcae.training.step import train_step

#: Small enough to leave the weights as they are however many steps are timed, and not zero (BLAS
#: skips zero).
RATE = 1e-12

#: Passes over the weights of a whole step, and how tables call it.
PASSES = 6
ALL_PASSES = "all six: encode ... dX"
STAGE_STEP = "stage step, no update"


@dataclass(frozen=True)
class Timed:
    """Something to time and the useful FLOP of one call."""
    run: Callable[[], object]
    flop: float


class StageCase:
    """One stage with the paper's settings on `positions` x `positions` output positions.

    The work of a position is that of the paper's network: 8 filters of 18 x 18 x maps_in.
    """

    def __init__(self, maps_in: int, positions: int, batch: int, tile: int = 0) -> None:
        self.config = StageConfig(tile=tile)
        side = positions + self.config.receptive_field - 1
        geometry = stage_geometry(self.config, side, side, maps_in)
        self.stage = Stage.whole(self.config, geometry, "stage", np.float32)
        self.tile = self.stage.filter.tile
        self.label = (f"{maps_in} maps in, {positions}x{positions} positions, batch {batch}, tile "
                      f"{self.tile}")
        self.parameters = ParameterVector(self.stage.parameter_shapes())
        self.stage.initialise(self.parameters, 0, 0)
        random = np.random.default_rng(0)
        self.x, self.dx = (random.standard_normal((*geometry.input, batch), dtype=np.float32)
                           for _ in range(2))
        self.dy = random.standard_normal((*geometry.output, batch), dtype=np.float32)
        self.work = Workspace()
        self.flop = 2.0 * geometry.encoder_weights * batch
        self.weight_bytes = self.parameters["stage/encode"].nbytes

    def timed(self) -> dict[str, Timed]:
        """Everything there is to time, by name."""
        return {**self.filters(), **self.sublayers(), **self.steps()}

    def filters(self) -> dict[str, Timed]:
        """The local filter alone.

        Without a sink for gradients or without a decoder parts of it can be timed.
        """
        plan, x, dx, work = self.stage.filter, self.x, self.dx, self.work
        encoder, decoder = (self.stage.filters(self.parameters, part)
                            for part in ("encode", "decode"))
        state = self.stage.forward(self.parameters, x, work, objective=True)
        z, residual, dz = state.z.copy(), x.copy(), state.z.copy()

        def forward() -> None:
            np.negative(x, out=residual)
            plan.encode_decode(encoder, decoder, x, z, residual, work)

        def backward(decoded: bool, dx: np.ndarray | None, gradients: bool) -> None:
            plan.backward(encoder, decoder if decoded else None, x, z, residual if decoded
                          else None, 0.01, dz, dx, _drop if gradients else None, work)

        def everything() -> None:
            forward()
            backward(True, dx, True)
        parts: dict[str, tuple[Callable[[], object], int]] = {
            "encode": (lambda: plan.encode(encoder, x, z, work), 1),
            "encode, decode": (forward, 2),
            "dZ": (lambda: backward(True, None, False), 1),
            "dW1": (lambda: backward(False, None, True), 1),
            "dX": (lambda: backward(False, dx, False), 1),
            "dZ, dW1, dW2": (lambda: backward(True, None, True), 3),
            "dZ, dW1, dW2, dX": (lambda: backward(True, dx, True), 4),
            ALL_PASSES: (everything, PASSES)}
        return {name: Timed(run, passes * self.flop) for name, (run, passes) in parts.items()}

    def sublayers(self) -> dict[str, Timed]:
        """Pooling, contrast normalisation, filter norms and update rules."""
        stage, work, pooling, norm = self.stage, self.work, self.stage.pooling, self.stage.norm
        assert norm is not None
        state = stage.forward(self.parameters, self.x, work, objective=True)
        z, h, y = state.z.copy(), state.h.copy(), state.y.copy()
        keep = Workspace()
        cache = norm.forward(h, y, keep, work)
        dh, dz, dy = np.ones_like(h), np.empty_like(z), self.dy
        k, taps, positions = self.config.pooling, self.config.lcn, h.size / self.config.maps
        parts = {
            "pooling": (lambda: pooling.forward(z, h, work), (2 * k + 1) * z.size + 2 * h.size),
            "pooling, gradient": (lambda: pooling.backward(z, h, dh, dz, work),
                                  (2 * k + 2) * z.size),
            "contrast norm": (lambda: norm.forward(h, y, keep, work),
                              5 * h.size + 8 * taps * positions),
            "contrast norm, gradient": (lambda: norm.backward(h, y, cache, dy, dh, work),
                                        8 * h.size + 8 * taps * positions),
            "norms of the decoder": (lambda: stage.filters(self.parameters, "decode"),
                                     2 * stage.geometry.encoder_weights)}
        timed = {name: Timed(run, flop) for name, (run, flop) in parts.items()}
        gradient = np.full_like(self.parameters["stage/encode"][0], 1e-3)
        for rule, operations in (("sgd", 2), ("momentum", 4)):
            optimizer = self.optimizer(rule)

            def update(optimizer: Optimizer = optimizer) -> None:
                for name, rows in self.parameters.views.items():
                    for j in range(len(rows)):
                        optimizer.on_gradient(name, j, gradient)
            timed[f"update, {rule}"] = Timed(update, operations * stage.geometry.parameters)
        return timed

    def steps(self) -> dict[str, Timed]:
        """The whole stage: forward with its loss, backward with dX, with and without update."""
        def step(on_gradient: RowSink) -> None:
            state = self.stage.forward(self.parameters, self.x, self.work, objective=True)
            self.stage.loss(np.array(self.stage.sums(state)), self.x.shape[-1])
            self.stage.backward(state, self.dy, self.dx, on_gradient, self.work)
        sgd, momentum = (self.optimizer(name).on_gradient for name in ("sgd", "momentum"))
        return {STAGE_STEP: Timed(lambda: step(_drop), PASSES * self.flop),
                "stage step, sgd": Timed(lambda: step(sgd), PASSES * self.flop),
                "stage step, momentum": Timed(lambda: step(momentum), PASSES * self.flop)}

    def optimizer(self, rule: str) -> Optimizer:
        """For this stage's parameters; it hardly moves them."""
        config = UpdateConfig(rule=rule, rate=RATE)  # type: ignore[arg-type]
        return Optimizer(config, self.parameters,
                         dict.fromkeys(self.parameters.views, self.stage.filter.fan_in))


class NetworkCase:
    """A training step of the paper's network on images of `size` pixels.

    Forward, backward, update in place. Reading and preparing the minibatch is not part of it.
    """
    stages = (StageConfig(),) * 3

    def __init__(self, size: int, batch: int, rule: str, tile: int = 0) -> None:
        stages = tuple(replace(stage, tile=tile) for stage in self.stages)
        config = Config(data=DataConfig(size=size), stages=stages, train=TrainConfig(batch=batch),
                        update=UpdateConfig(rule=rule, rate=RATE))  # type: ignore[arg-type]
        self.network = Network(Layout(config))
        self.parameters = self.network.parameters(seed=0)
        tiles = ", ".join(str(stage.filter.tile) for stage in self.network.stages)
        self.label = (f"network of 3 stages, {size}x{size} pixels, batch {batch}, tiles {tiles}, "
                      f"{rule}, {self.parameters.vector.nbytes / 1e9:.2f} GB")
        self.optimizer = Optimizer(config.update, self.parameters, self.network.block.fan_in)
        shape = *self.network.layout.geometry[0].input, batch
        self.x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        self.flop = float(training_flop(config) * batch)

    def step(self) -> None:
        """One training step."""
        train_step(self.network, self.optimizer, 0, self.x)


def _drop(name: str, row: int, gradient: np.ndarray) -> None:
    """A sink that does nothing with a row of gradients."""


def minibatches(config: Config, shape: tuple[int, ...]) -> list[tuple[Phase, np.ndarray]]:
    """Every phase of training, with noise in place of a minibatch of its size.

    Parameters
    ----------
    shape : tuple of int
        Of what a block holds of an image: (rows, cols, channels).
    """
    random = np.random.default_rng(0)
    return [(phase, random.standard_normal((*shape, phase.batch)).astype(config.train.dtype))
            for phase in phases(config)]
