"""What a configuration means on a grid of blocks, worked out once and handed on.

Shapes of every sublayer, which rectangles each block owns and exchanges, the kernels' plans and the
order of a block's flat vector all follow from (configuration, grid). Whoever needs one of them is
given the `Layout`, or the `BlockLayout` of one block; nobody works a block's plan out twice.
"""
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import Config, StageConfig
from hpclcae.geometry import StageGeometry, network_geometry
from hpclcae.model.layers.local_filter import LocalFilter, Tiles
from hpclcae.model.parameters import ParameterVector
from hpclcae.partition.blocks import (BlockPlan, Grid, Span, StagePlan, check_grid, plan_block,
                                      shares)

WHOLE = Grid(1, 1)


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
        return shapes


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
    def filters(self) -> dict[str, LocalFilter]:
        """The kernel's plan of every parameter, in the order of the block's flat vector."""
        return {name: self.stage_filters[index]
                for index, stage in enumerate(self.layout.config.stages)
                for name in parameter_names(stage, f"stage{index + 1}")}

    @property
    def fan_in(self) -> dict[str, int]:
        """Inputs of one filter of every parameter."""
        return {name: plan.fan_in for name, plan in self.filters.items()}

    @property
    def elements(self) -> int:
        """Elements of the flat vector: the weights in the kernel's tiles, with a few zeros."""
        return sum(prod(plan.shape) for plan in self.filters.values())

    def parameters(self) -> ParameterVector:
        """A flat vector of zeros with the block's parameters by name, in the kernel's layout."""
        shapes = {name: plan.shape for name, plan in self.filters.items()}
        return ParameterVector(shapes, self.layout.dtype)

    def stage_of(self, name: str) -> StagePlan:
        """The plan of the stage that a parameter belongs to."""
        return self.plan.stages[stage_index(name)]

    def positions(self, name: str, tiles: Tiles) -> tuple[Span, Span]:
        """Rows and columns of the whole stage that some tiles of a parameter cover."""
        owned = self.stage_of(name).z.owned
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


def stage_index(name: str) -> int:
    """The stage, from 0, of a parameter ("stage2/encode": 1)."""
    return int(name.partition("/")[0].removeprefix("stage")) - 1
