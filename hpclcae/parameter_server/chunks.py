"""Who holds which weights: chunks of about 1 MB, dealt to parameter servers in contiguous runs.

A block's parameters are one flat vector: parameter after parameter, row of tiles after row of tiles
(model/layers/local_filter.py). A chunk is a contiguous piece of it: some whole rows of tiles of one
parameter, or, where a row is longer than a chunk should be, some tiles of one row. So a chunk is
always a rectangle of tiles and with it a rectangle of positions, and a chunk can travel as soon as
the gradient of its last row is there.

The chunks of all blocks, in order of blocks, are cut into as many runs as there are servers, of
equal bytes. There may be more servers than blocks or fewer (the paper: 256 partitions for 169
blocks).
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpclcae.model.layout import BlockLayout, Layout

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Tiles rows[0] .. rows[1] - 1, cols[0] .. cols[1] - 1 of parameter `name` of a block.

    start, stop : int
        Where they lie in the block's flat vector.
    fan_in : int
        Inputs of one filter (model/optimizers.py).
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
        """Elements in it."""
        return self.stop - self.start


def block_chunks(block: BlockLayout, chunk_bytes: int = CHUNK_BYTES) -> list[Chunk]:
    """The chunks of one block, in the order of its flat vector."""
    chunks, start = [], 0
    for name, (plan, _, fan_in) in block.sites.items():
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
                stop = start + math.prod(shape)
                chunks.append(Chunk(block.rank, name, (top, bottom), (left, right), start, stop,
                                    shape, fan_in))
                start = stop
    return chunks


def all_chunks(layout: Layout, servers: int = 1) -> list[list[Chunk]]:
    """The chunks of every block; smaller than 1 MB where servers would else get less than four."""
    blocks = [layout.block(rank) for rank in range(layout.grid.size)]
    total = sum(block.elements for block in blocks) * layout.dtype.itemsize
    size = min(CHUNK_BYTES, total // (4 * max(1, servers)))
    return [block_chunks(block, size) for block in blocks]


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

    def __init__(self, layout: Layout, servers: int) -> None:
        self.layout, self.servers = layout, servers
        self.chunks = all_chunks(layout, servers)
        self.owners = deal(self.chunks, servers)

    def held_by(self, server: int) -> list[Chunk]:
        """A server's chunks, in order of blocks."""
        return [chunk for chunks, owners in zip(self.chunks, self.owners)
                for chunk, owner in zip(chunks, owners) if owner == server]

    def spans(self, block: int) -> dict[int, "ChunkSpan"]:
        """Where a block's chunks are: server -> their run there."""
        spans: dict[int, ChunkSpan] = {}
        owners = self.owners[block]
        for server in sorted(set(owners)):
            first, count = owners.index(server), owners.count(server)
            before = sum(row.count(server) for row in self.owners[:block])
            spans[server] = ChunkSpan(range(first, first + count), before)
        return spans


class ChunkSpan(NamedTuple):
    """The chunks of one block that one server holds: a run of them on both sides.

    chunk_range : range
        Their numbers within the block.
    first : int
        The number of the first of them at the server.
    """
    chunk_range: range
    first: int

    @property
    def mine(self) -> slice:
        """Where they lie in arrays with one element a chunk of the block."""
        return slice(self.chunk_range.start, self.chunk_range.stop)

    @property
    def at_server(self) -> dict[int, int]:
        """Number within the block -> number at the server."""
        return {index: self.first + n for n, index in enumerate(self.chunk_range)}
