"""From chunks to rectangles of positions, the form in which weights are stored.

A chunk is a rectangle of tiles of one block. What an owner holds of a parameter is a run of
consecutive tiles, row after row; so at most three rectangles cover it: the end of a row, whole
rows, the beginning of a row. The fewer they are, the fewer pieces the global arrays of a checkpoint
are made of.
"""
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.config import Config
from hpclcae.model.layers.local_filter import LocalFilter, Tiles
from hpclcae.parameter_server.chunks import Chunk, block_filters
from hpclcae.partition.blocks import Grid, plan_block


@dataclass(frozen=True)
class Region:
    """A rectangle of positions of one parameter, and where an owner's flat buffer has its tiles.

    Attributes
    ----------
    tiles : ((first, last + 1), (first, last + 1))
        Rows and columns of tiles in the block.
    positions : ((first, last + 1), (first, last + 1))
        Rows and columns of the whole stage.
    start : int
        WorkerContext of its first number in the buffer.
    """
    name: str
    filter: LocalFilter
    tiles: Tiles
    positions: Tiles
    start: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col, krow, kcol, map in, map), as it is stored."""
        (top, bottom), (left, right) = self.positions
        plan = self.filter
        return bottom - top, right - left, plan.field, plan.field, plan.maps_in, plan.maps

    @property
    def numbers(self) -> int:
        """How many it stores."""
        return math.prod(self.shape)

    def tiles_of(self, buffer: np.ndarray) -> np.ndarray:
        """Its part of the owner's buffer, (tile row, tile col, input, unit)."""
        (top, bottom), (left, right) = self.tiles
        shape = bottom - top, right - left, *self.filter.shape[2:]
        return buffer[self.start:self.start + int(np.prod(shape))].reshape(shape)

    def pieces(self, buffer: np.ndarray) -> Iterator[np.ndarray]:
        """Its filters by position, one row of tiles after the other."""
        tiles = self.tiles_of(buffer)
        for j in range(*self.tiles[0]):
            yield self.filter.unpack_row(tiles, j, self.tiles)


class Blocks:
    """The kernels' plans and the positions of the blocks of a grid, worked out when they are asked
    for."""

    def __init__(self, config: Config, grid: Grid) -> None:
        self.config, self.grid = config, grid
        self._known: dict[int, dict[str, tuple[LocalFilter, tuple[int, int]]]] = {}

    def plan(self, block: int, name: str) -> tuple[LocalFilter, tuple[int, int]]:
        """The kernel's plan of a parameter of a block, and the row and column of the block's first
        position."""
        if block not in self._known:
            stages = plan_block(self.config, self.grid, block).stages
            corners = [(stage.z.owned.rows[0], stage.z.owned.cols[0]) for stage in stages]
            self._known[block] = {name: (plan, corners[stage_number(name)]) for name,
                                  plan in block_filters(self.config, self.grid, block).items()}
        return self._known[block][name]

    def positions(self, chunk: Chunk) -> Tiles:
        """Rows and columns of the whole stage that a chunk covers."""
        return self._positions(chunk.block, chunk.name, (chunk.rows, chunk.cols))

    def regions(self, chunks: Sequence[Chunk]) -> list[Region]:
        """Few rectangles that cover the chunks, which lie one after the other in the owner's
        buffer."""
        found, start = [], 0
        for run in _runs(chunks):
            block, name, cols = run[0].block, run[0].name, self.plan(run[0].block,
                                                                     run[0].name)[0].tile_cols
            first = run[0].rows[0] * cols + run[0].cols[0]
            size = run[0].shape[2] * run[0].shape[3]
            for tiles in rectangles(first, first + sum(c.size for c in run) // size, cols):
                found.append(Region(name, self.plan(block, name)[0], tiles,
                                    self._positions(block, name, tiles), start))
                start += (tiles[0][1] - tiles[0][0]) * (tiles[1][1] - tiles[1][0]) * size
        return found

    def _positions(self, block: int, name: str, tiles: Tiles) -> Tiles:
        plan, (row, col) = self.plan(block, name)
        (top, bottom), (left, right) = plan.positions(tiles)
        return (row + top, row + bottom), (col + left, col + right)


def stage_number(name: str) -> int:
    """The stage, from 0, of a parameter ("stage2/encode": 1)."""
    return int(name.partition("/")[0].removeprefix("stage")) - 1


def rectangles(first: int, last: int, cols: int) -> Iterator[Tiles]:
    """The fewest rectangles that the tiles first ..

    Last - 1 make, counted along rows of `cols` tiles.
    """
    while first < last:
        row, col = divmod(first, cols)
        rows = 1 if col else max(1, (last - first) // cols)
        width = min(cols - col, last - first)
        yield (row, row + rows), (col, col + width)
        first += rows * width


def _runs(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks of one parameter that lie one after the other in their block."""
    run: list[Chunk] = []
    for chunk in chunks:
        if run and (chunk.block, chunk.name, chunk.start) != (run[-1].block, run[-1].name,
                                                              run[-1].stop):
            yield run
            run = []
        run.append(chunk)
    if run:
        yield run
