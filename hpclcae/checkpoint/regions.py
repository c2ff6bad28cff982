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

from hpclcae.model.layers.local_filter import LocalFilter, Tiles
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.chunks import Chunk


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
        Place of its first number in the buffer.
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
    def elements(self) -> int:
        """How many it stores."""
        return math.prod(self.shape)

    def tiles_of(self, buffer: np.ndarray) -> np.ndarray:
        """Its part of the owner's buffer, (tile row, tile col, input, unit)."""
        (top, bottom), (left, right) = self.tiles
        shape = bottom - top, right - left, *self.filter.shape[2:]
        return buffer[self.start:self.start + math.prod(shape)].reshape(shape)

    def pieces(self, buffer: np.ndarray) -> Iterator[np.ndarray]:
        """Its filters by position, one row of tiles after the other."""
        tiles = self.tiles_of(buffer)
        for j in range(*self.tiles[0]):
            yield self.filter.unpack_row(tiles, j, self.tiles)


def positions(layout: Layout, chunk: Chunk) -> Tiles:
    """Rows and columns of the whole stage that a chunk covers."""
    return layout.block(chunk.block).positions(chunk.name, (chunk.rows, chunk.cols))


def regions(layout: Layout, chunks: Sequence[Chunk]) -> list[Region]:
    """Few rectangles that cover the chunks, which lie one after the other in the owner's buffer."""
    found, start = [], 0
    for run in _runs(chunks):
        first, block = run[0], layout.block(run[0].block)
        kernel, size = block.filters[first.name], first.shape[2] * first.shape[3]
        begin = first.rows[0] * kernel.tile_cols + first.cols[0]
        end = begin + sum(chunk.size for chunk in run) // size
        for tiles in rectangles(begin, end, kernel.tile_cols):
            found.append(Region(first.name, kernel, tiles,
                                block.positions(first.name, tiles), start))
            start += (tiles[0][1] - tiles[0][0]) * (tiles[1][1] - tiles[1][0]) * size
    return found


def rectangles(first: int, last: int, cols: int) -> Iterator[Tiles]:
    """The fewest rectangles that tiles `first` to `last` - 1 make, counted along rows of `cols`."""
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
        if run and ((chunk.block, chunk.name, chunk.start)
                    != (run[-1].block, run[-1].name, run[-1].stop)):
            yield run
            run = []
        run.append(chunk)
    if run:
        yield run
