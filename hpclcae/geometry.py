"""Sizes of every sublayer, parameters and FLOP: pure functions of a configuration.

Windows are VALID (no padding), which with stride 1 gives the paper's 1.15 billion connections
(notes/decisions.md); only contrast normalisation may go on beyond the border. Axes are always
(row, col, map).
"""
from dataclasses import dataclass
from math import prod, sqrt

from hpclcae.config import Config, StageConfig
from hpclcae.utils.errors import InputError

Shape = tuple[int, int, int]  # rows, cols, maps
#: How often contrast normalisation loses lcn - 1 rows and columns, by its border.
LCN_LOSES = {"same": 0, "clip": 1, "centre": 1, "valid": 2}


def windows(size: int, window: int, stride: int = 1) -> int:
    """Number of VALID windows of side `window`, `stride` apart, in `size` positions (0 if none
    fits)."""
    return (size - window) // stride + 1 if size >= window else 0


@dataclass(frozen=True)
class StageGeometry:
    """Shapes (rows, cols, maps) of one stage's arrays and what they cost.

    output : Shape
        What the stage answers: pooled, standardised and contrast-normalised.
    passed_on : Shape
        What the stage above gets: the output, or whitened directions of windows of it.
    sigma : float
        Standard deviation of one direction of the input, where that is whitened.
    """
    input: Shape
    filtered: Shape
    pooled: Shape
    output: Shape
    passed_on: Shape
    receptive_field: int
    tied: bool
    sigma: float = 1.0

    @property
    def fan_in(self) -> int:
        """Inputs of one filter."""
        return self.receptive_field ** 2 * self.input[2]

    @property
    def encoder_weights(self) -> int:
        """Weights of the encoder W1: every position has filters of its own."""
        rows, cols, maps = self.filtered
        return rows * cols * maps * self.fan_in

    @property
    def parameters(self) -> int:
        """Learned numbers: the encoder, and the decoder unless it is tied."""
        return self.encoder_weights * (1 if self.tied else 2)

    def training_flop(self, needs_dx: bool) -> int:
        """FLOP per image of one training step of the local filters (pooling and LCN are not
        counted).

        Encode, decode, dZ, dW1, dW2 and, where the stage below is trained through this one, dX;
        each is one multiply and one add per weight.
        """
        return 2 * self.encoder_weights * (6 if needs_dx else 5)


def stage_geometry(config: StageConfig, rows: int, cols: int, maps: int,
                   name: str = "stage", sigma: float = 1.0) -> StageGeometry:
    """Shapes of one stage for an input of (rows, cols, maps).

    Raises
    ------
    InputError
        A window is larger than what it is applied to, or more directions are asked for than there
        are units.
    """
    def step(size: tuple[int, int], window: int, stride: int, key: str) -> tuple[int, int]:
        out = windows(size[0], window, stride), windows(size[1], window, stride)
        if min(out) < 1:
            raise InputError(f"{name}.{key} = {window} does not fit: its input has {size[0]} x "
                             f"{size[1]} positions; make the window smaller or the image larger")
        return out

    filtered = step((rows, cols), config.receptive_field, config.stride, "receptive_field")
    pooled = step(filtered, config.pooling, config.pooling_stride, "pooling")
    output = pooled
    for _ in range(LCN_LOSES[config.lcn_border] if config.lcn else 0):
        output = step(output, config.lcn, 1, "lcn")
    passed_on = *output, config.maps
    if config.window:
        passed_on = *step(output, config.window, config.window_stride, "window"), config.whiten
    units = config.maps * (config.window ** 2 or prod(output))
    if config.whiten > units:
        raise InputError(f"{name}.whiten = {config.whiten}: there are only {units} units "
                         f"({'in a window' if config.window else 'in the map'}), so no more "
                         f"directions; make it at most {units}")
    return StageGeometry((rows, cols, maps), (*filtered, config.maps), (*pooled, config.maps),
                         (*output, config.maps), passed_on, config.receptive_field,
                         config.weights == "tied", sigma)


def sigma(config: StageConfig, geometry: StageGeometry) -> float:
    """Standard deviation of one direction of what a stage passes on.

    A map whitened as a whole has unit variance on average over its units, and all of it in
    `whiten` directions; each direction of a window has unit variance by itself.
    """
    if config.whiten and not config.window:
        return sqrt(prod(geometry.output) / config.whiten)
    return 1.0


def network_geometry(config: Config) -> tuple[StageGeometry, ...]:
    """Geometry of every stage; what each stage passes on is the next one's input."""
    shape: Shape = (config.data.size, config.data.size, config.data.channels)
    stages, deviation = [], 1.0
    for i, stage in enumerate(config.stages):
        stages.append(stage_geometry(stage, *shape, name=f"stages.{i}", sigma=deviation))
        shape, deviation = stages[-1].passed_on, sigma(stage, stages[-1])
    return tuple(stages)


def pixels_seen(config: Config) -> tuple[int, ...]:
    """Side of the square of pixels that one output of each stage covers (paper: 76 at the top).

    The divisor of contrast normalisation looks one window further where its border is "clip" or
    "same"; that is not counted. Above a map whose contrast or whitening is that of the whole map,
    every unit sees all pixels.
    """
    return tuple(side for side, _ in _fields(config))


def receptive_field(config: Config, stage: int, row: int, col: int) -> tuple[int, int, int, int]:
    """The pixels that an output of a stage (from 0) covers: top, left, bottom and right edge.

    The same is not counted as in `pixels_seen`.
    """
    side, jump = _fields(config)[stage]
    return row * jump, col * jump, row * jump + side, col * jump + side


def _fields(config: Config) -> list[tuple[int, int]]:
    """Of each stage the side of the square that an output covers, and pixels from one to the next.
    """
    seen, jump, found = 1, 1, []
    for stage in config.stages:
        nested = LCN_LOSES[stage.lcn_border] or 1
        for window, stride in ((stage.receptive_field, stage.stride),
                               (stage.pooling, stage.pooling_stride),
                               *([(stage.lcn, 1)] * nested if stage.lcn else [])):
            seen += (window - 1) * jump
            jump *= stride
        found.append((seen, jump))
        if stage.window:
            seen += (stage.window - 1) * jump
            jump *= stage.window_stride
        elif stage.whiten or stage.contrast:
            seen, jump = config.data.size, 0  # all see all
    return found


def training_flop(config: Config, only: int | None = None, given: bool = False) -> int:
    """FLOP per image of one training step, local filters only.

    Parameters
    ----------
    only : int, optional
        The stage (from 0) that the step trains alone; those below only encode, or, if `given`, do
        not run. Without it, greedy training is counted at its mean over the stages.
    """
    stages = network_geometry(config)
    if only is not None:
        below = 0 if given else sum(2 * stage.encoder_weights for stage in stages[:only])
        return stages[only].training_flop(False) + below
    if config.train.gradient == "greedy":
        return sum(training_flop(config, index) for index in range(len(stages))) // len(stages)
    joint = config.train.gradient == "joint"
    return sum(s.training_flop(joint and i > 0) for i, s in enumerate(stages))
