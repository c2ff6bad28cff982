"""Who holds which weights: chunks of about 1 MB, dealt to parameter servers in contiguous runs.

A block's parameters are one flat vector: parameter after parameter, row of tiles after row of tiles
(layers/local_filter.py). A chunk is a contiguous piece of it: some whole rows of tiles of one
parameter, or, where a row is longer than a chunk should be, some tiles of one row. So a chunk is
always a rectangle of tiles and with it a rectangle of positions, and a chunk can travel as soon as
the gradient of its last row is there.

The chunks of all blocks, in order of blocks, are cut into as many runs as there are servers, of
equal bytes. There may be more servers than blocks or fewer (the paper: 256 partitions for 169
blocks).
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.config import Config
from hpclcae.geometry import network_geometry
from hpclcae.model.layers.local_filter import LocalFilter
from hpclcae.model.stage import filter_plan, parameter_names
from hpclcae.partition.blocks import Grid, plan_block

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Tiles rows[0] .. rows[1] - 1, cols[0] .. cols[1] - 1 of parameter `name` of a block.

    start, stop : int
        Where they lie in the block's flat vector.
    fan_in : int
        Inputs of one filter (update_rules.py).
    """
    block: int
    name: str
    rows: tuple[int, int]
    cols: tuple[int, int]
    start: int
    stop: int
    shape: tuple[int, int, int, int]
    fan_in: int

    @property
    def size(self) -> int:
        """Numbers in it."""
        return self.stop - self.start


def block_filters(config: Config, grid: Grid, block: int) -> dict[str, LocalFilter]:
    """The kernel's plan of every parameter of a block, in the order of its flat vector."""
    plans = plan_block(config, grid, block).stages
    dtype = np.dtype(config.train.dtype)
    filters: dict[str, LocalFilter] = {}
    for index, (stage, geometry,
                plan) in enumerate(zip(config.stages, network_geometry(config), plans)):
        filters |= dict.fromkeys(parameter_names(stage, f"stage{index + 1}"),
                                 filter_plan(stage, geometry, dtype, plan))
    return filters


def block_chunks(config: Config, grid: Grid, block: int,
                 chunk_bytes: int = CHUNK_BYTES) -> list[Chunk]:
    """The chunks of one block, in the order of its flat vector."""
    chunks, start = [], 0
    for name, plan in block_filters(config, grid, block).items():
        rows, cols, inputs, units = plan.shape
        tile = inputs * units
        at_most = max(1, chunk_bytes // (tile * plan.dtype.itemsize))  # tiles
        across = max(1, min(cols, at_most))
        down = max(1, at_most // cols) if across == cols and cols else 1
        for top in range(0, rows, down):
            bottom = min(rows, top + down)
            for left in range(0, cols, across):
                right = min(cols, left + across)
                shape = bottom - top, right - left, inputs, units
                stop = start + int(np.prod(shape))
                chunks.append(Chunk(block, name, (top, bottom), (left, right), start, stop, shape,
                                    plan.fan_in))
                start = stop
    return chunks


def all_chunks(config: Config, grid: Grid, servers: int = 1) -> list[list[Chunk]]:
    """The chunks of every block.

    Smaller than 1 MB where servers would otherwise get less than four.
    """
    filters = [block_filters(config, grid, block) for block in range(grid.size)]
    total = sum(int(np.prod(plan.shape)) * plan.dtype.itemsize for block in filters
                for plan in block.values())
    size = min(CHUNK_BYTES, total // (4 * max(1, servers)))
    return [block_chunks(config, grid, block, size) for block in range(grid.size)]


def deal(chunks: Sequence[Sequence[Chunk]], servers: int) -> list[list[int]]:
    """Which server holds each chunk of each block: contiguous runs of equal bytes over all blocks.
    """
    total = sum(chunk.size for block in chunks for chunk in block)
    owners, before = [], 0
    for block in chunks:
        mine = []
        for chunk in block:
            mine.append(min(servers - 1, (2 * before + chunk.size) * servers // (2 * total)))
            before += chunk.size
        owners.append(mine)
    return owners


class Shards:
    """The chunks of all blocks and the server of each.

    Attributes
    ----------
    chunks : list of list of Chunk
        Of every block.
    owners : list of list of int
        Server of every chunk of every block.
    """

    def __init__(self, config: Config, grid: Grid, servers: int) -> None:
        self.servers = servers
        self.chunks = all_chunks(config, grid, servers)
        self.owners = deal(self.chunks, servers)

    def held_by(self, server: int) -> list[Chunk]:
        """A server's chunks, in order of blocks."""
        return [chunk for chunks, owners in zip(self.chunks, self.owners)
                for chunk, owner in zip(chunks, owners) if owner == server]

    def spans(self, block: int) -> dict[int, tuple[range, int]]:
        """Where a block's chunks are: server -> (their numbers within the block, number of the
        first at the server)."""
        spans: dict[int, tuple[range, int]] = {}
        owners = self.owners[block]
        for server in sorted(set(owners)):
            first = owners.index(server)
            before = sum(row.count(server) for row in self.owners[:block])
            spans[server] = range(first, first + owners.count(server)), before
        return spans
