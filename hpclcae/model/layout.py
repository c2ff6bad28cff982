"""What a configuration means on a grid of blocks, worked out once and handed on.

Shapes of every sublayer, which rectangles each block owns and exchanges, the kernels' plans and the
order of a block's flat vector all follow from (configuration, grid). Whoever needs one of them is
given the `Layout`, or the `BlockLayout` of one block; nobody works a block's plan out twice.
"""
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import Config, StageConfig
from hpclcae.geometry import StageGeometry, network_geometry
from hpclcae.model.layers.local_filter import LocalFilter, Tiles
from hpclcae.model.parameters import ParameterVector
from hpclcae.partition.blocks import (ARRAYS, BlockPlan, ExchangePlan, Grid, Rectangle, Share,
                                      Span, StagePlan, check_grid, exchange_plan, plan_block,
                                      shares, split)
from hpclcae.utils.errors import InputError

WHOLE = Grid(1, 1)
NOWHERE = Rectangle((0, 0), (0, 0))


class Site(NamedTuple):
    """Where a parameter of a block lies.

    filter : LocalFilter
        The kernel's plan of the block's part.
    owned : Rectangle
        The positions of the whole array that this part is.
    fan_in : int
        Inputs of one filter (model/optimizers.py).
    """
    filter: LocalFilter
    owned: Rectangle
    fan_in: int


class Part(NamedTuple):
    """Some of the categories of a classifier: classes first <= class < stop."""
    weights: str  # names of its parameters
    bias: str
    first: int
    stop: int


class Layout:
    """The shapes and plans of a network on a grid.

    Parameters
    ----------
    config : Config
    grid : Grid, optional
        Blocks that share the network; without it there is one.

    Attributes
    ----------
    geometry : tuple of StageGeometry
        Of the whole network.
    dtype : dtype
        Of parameters and activations.
    parts : tuple of Part
        The categories of the classifier; none without one.

    Raises
    ------
    InputError
        A window does not fit (geometry.py), or the grid is finer than the image.
    """

    def __init__(self, config: Config, grid: Grid = WHOLE) -> None:
        check_grid(config, grid)
        self.config, self.grid = config, grid
        self.geometry = network_geometry(config)
        self.dtype = np.dtype(config.train.dtype)
        self.parts = classifier_parts(config)
        self._rows = shares(config.stages, self.geometry, 0, grid.rows)
        self._cols = shares(config.stages, self.geometry, 1, grid.cols)
        self._blocks: dict[int, BlockLayout] = {}

    def block(self, rank: int) -> "BlockLayout":
        """The part of the block of that rank; made when it is first asked for."""
        if rank not in self._blocks:
            plan = plan_block(self._rows, self._cols, self.grid, rank)
            self._blocks[rank] = BlockLayout(self, rank, plan)
        return self._blocks[rank]

    @cached_property
    def stored_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter by position: name -> (row, col, krow, kcol, map in, map)."""
        shapes: dict[str, tuple[int, ...]] = {}
        for index, (stage, geometry) in enumerate(zip(self.config.stages, self.geometry)):
            rows, cols, maps = geometry.filtered
            field = geometry.receptive_field
            for name in parameter_names(stage, f"stage{index + 1}"):
                shapes[name] = rows, cols, field, field, geometry.input[2], maps
        rows, cols, maps = self.geometry[-1].output
        for part in self.parts:
            shapes[part.weights] = rows, cols, 1, 1, maps, part.stop - part.first
            shapes[part.bias] = 1, 1, 1, 1, 1, part.stop - part.first
        return shapes

    def features(self, rank: int) -> ExchangePlan:
        """What a block owns of the top stage's response, and what of it its classifier reads.

        That is what it owns; where the categories are cut into parts, the columns of blocks that
        have one of them read whole rows of positions.
        """
        rows, cols = self._rows[-1].y.owned, self._cols[-1].y.owned
        across = cols
        if len(self.parts) > 1:
            everything = 0, self.geometry[-1].output[1]
            columns = {self.column(number) for number in range(len(self.parts))}
            across = tuple(everything if column in columns else (0, 0)
                           for column in range(self.grid.cols))
        return exchange_plan(len(ARRAYS) * len(self.geometry), Share(rows, rows),
                             Share(cols, across), self.grid, rank)

    def column(self, part: int) -> int:
        """The column of blocks that a part of the categories, if there are several, belongs to."""
        return part * self.grid.cols // len(self.parts)

    def holds(self, rank: int, part: int) -> bool:
        """Whether a block has weights of a part of the categories."""
        return len(self.parts) == 1 or self.grid.coords(rank)[1] == self.column(part)


@dataclass(frozen=True)
class BlockLayout:
    """What one block of a layout computes, holds and exchanges.

    Attributes
    ----------
    plan : BlockPlan
        Its rectangles and exchanges, stage by stage (partition/blocks.py).
    """
    layout: Layout
    rank: int
    plan: BlockPlan

    @cached_property
    def stage_filters(self) -> tuple[LocalFilter, ...]:
        """The kernel's plan of every stage."""
        layout = self.layout
        return tuple(filter_plan(stage, geometry, layout.dtype, plan) for stage, geometry, plan
                     in zip(layout.config.stages, layout.geometry, self.plan.stages))

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Every parameter, in the order of the block's flat vector."""
        found = {name: Site(kernel, plan.z.owned, kernel.fan_in)
                 for index, (stage, kernel, plan) in enumerate(zip(
                     self.layout.config.stages, self.stage_filters, self.plan.stages))
                 for name in parameter_names(stage, f"stage{index + 1}")}
        return found | self._classifier_sites()

    def _classifier_sites(self) -> dict[str, Site]:
        """A classifier is a layer whose filters see one position, and whose responses are summed.

        The bias is one position by itself, at the first row of blocks.
        """
        layout, found = self.layout, {}
        shape, read = layout.geometry[-1].output, layout.features(self.rank).needed
        for number, part in enumerate(layout.parts):
            holds = layout.holds(self.rank, number)
            first = holds and self.rank == (0 if len(layout.parts) == 1 else layout.column(number))
            for name, where, maps, inputs in (
                    (part.weights, read if holds else NOWHERE, shape[2], prod(shape)),
                    (part.bias, Rectangle((0, 1), (0, 1)) if first else NOWHERE, 1, 1)):
                found[name] = Site(LocalFilter(*where.shape, maps, part.stop - part.first, 1,
                                               tile=1, dtype=layout.dtype), where, inputs)
        return found

    @cached_property
    def filters(self) -> dict[str, LocalFilter]:
        """The kernel's plan of every parameter, in the order of the block's flat vector."""
        return {name: site.filter for name, site in self.sites.items()}

    @property
    def fan_in(self) -> dict[str, int]:
        """Inputs of one filter of every parameter."""
        return {name: site.fan_in for name, site in self.sites.items()}

    @property
    def elements(self) -> int:
        """Elements of the flat vector: the weights in the kernel's tiles, with a few zeros."""
        return sum(prod(plan.shape) for plan in self.filters.values())

    def parameters(self) -> ParameterVector:
        """A flat vector of zeros with the block's parameters by name, in the kernel's layout."""
        shapes = {name: plan.shape for name, plan in self.filters.items()}
        return ParameterVector(shapes, self.layout.dtype)

    def positions(self, name: str, tiles: Tiles) -> tuple[Span, Span]:
        """Rows and columns of the whole stage that some tiles of a parameter cover."""
        owned = self.sites[name].owned
        (top, bottom), (left, right) = self.filters[name].positions(tiles)
        row, col = owned.rows[0], owned.cols[0]
        return (row + top, row + bottom), (col + left, col + right)


def parameter_names(stage: StageConfig, name: str) -> list[str]:
    """Names of a stage's parameters.

    "stage1/encode", and "stage1/decode" if the decoder has weights of its own.
    """
    parts = ["encode"] if stage.weights == "tied" else ["encode", "decode"]
    return [f"{name}/{part}" for part in parts]


def filter_plan(stage: StageConfig, geometry: StageGeometry, dtype: DTypeLike,
                plan: StagePlan) -> LocalFilter:
    """The kernel's plan of the part of a stage that one block computes."""
    return LocalFilter(*plan.x.needed.shape, geometry.input[2], stage.maps, stage.receptive_field,
                       stage.stride, stage.tile, dtype)


def parameters_below(config: Config, stage: int) -> list[str]:
    """Names of all parameters of the stages below stage `stage` (from 0)."""
    return [name for number, settings in enumerate(config.stages[:stage], 1)
            for name in parameter_names(settings, f"stage{number}")]


def classifier_parts(config: Config) -> tuple[Part, ...]:
    """The categories of a classifier in parts, with the names of their parameters.

    "classifier/weights" and "classifier/bias", or "classifier/weights1", ... of several parts.
    """
    settings = config.classifier
    if not config.is_supervised:
        return ()
    if not settings.classes:
        raise InputError("classifier.classes = 0: how many categories there are is not known yet; "
                         "hpclcae finetune takes it from data.train, elsewhere set it")
    spans = [split(settings.classes, settings.parts, number) for number in range(settings.parts)]
    numbers = [""] if len(spans) == 1 else [str(number) for number, _ in enumerate(spans, 1)]
    return tuple(Part(f"classifier/weights{number}", f"classifier/bias{number}", *span)
                 for number, span in zip(numbers, spans))
