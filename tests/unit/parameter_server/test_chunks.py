"""Chunks and their servers: nothing is left out, nothing is held twice, and the load is even."""
import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.parameter_server.chunks import CHUNK_BYTES, all_chunks, block_chunks, deal
from hpclcae.partition.blocks import Grid
from tests.support.processes import RUN


@pytest.mark.parametrize("name, grid",
                         [("tiny", Grid(1, 1)), ("tiny", Grid(2, 3)), ("plain", Grid(2, 1))])
@pytest.mark.parametrize("chunk_bytes", [1, 3000, CHUNK_BYTES])
def test_the_chunks_of_a_block_are_its_vector_piece_by_piece(name, grid, chunk_bytes):
    config = configuration.load(RUN / f"{name}.toml")
    for block in range(grid.size):
        class Here:
            rank, size = block, grid.size
        network = Network(Layout(config, grid), Here())
        parameters = network.parameters()
        parameters.vector[:] = np.arange(parameters.vector.size)
        end = 0
        for chunk in block_chunks(Layout(config, grid).block(block), chunk_bytes):
            piece = parameters[chunk.name][slice(*chunk.rows), slice(*chunk.cols)]
            assert chunk.start == end and piece.shape == chunk.shape
            assert np.array_equal(piece.ravel(), parameters.vector[chunk.start:chunk.stop])
            assert chunk.size * parameters.vector.itemsize <= chunk_bytes or chunk.shape[:2] == (1,
                                                                                                 1)
            end = chunk.stop
        assert end == parameters.vector.size


def test_the_papers_256_partitions_of_169_blocks_are_even():
    config = configuration.load(RUN / "paper.toml")
    chunks = all_chunks(Layout(config, Grid(13, 13)), 256)
    owners = deal(chunks, 256)
    flat = [owner for block in owners for owner in block]
    held = np.bincount(flat, [chunk.size for block in chunks for chunk in block], 256)
    assert flat == sorted(flat) and set(flat) == set(range(256))
    assert held.max() < 1.05 * held.mean()


@pytest.mark.parametrize("servers", [1, 2, 3, 7])
@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(2, 2)])
def test_every_server_gets_a_contiguous_run(servers, grid):
    config = configuration.load(RUN / "tiny.toml")
    chunks = all_chunks(Layout(config, grid), servers)
    flat = [owner for block in deal(chunks, servers) for owner in block]
    assert flat == sorted(flat) and set(flat) == set(range(servers))
