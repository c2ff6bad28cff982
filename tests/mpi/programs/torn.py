"""On every rank of a job with one-sided sums: is a chunk ever half old, half new?

Started by ../test_servers.py.

    torn.py CONFIGURATION FOLDER PUSHES

All but the first replica add one to every number of all chunks, again and again. The first replica
reads all the time. So a chunk of version v that is whole holds v everywhere.

Before that, a single push is caught half-way: one half of a chunk has one added, the other half not
yet.
"""
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.mpi.job import run_job
from hpclcae.mpi.runtime import run_on_all_ranks

config, folder, pushes = configuration.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
writers = config.parallel.replicas - 1
HALF, ON = 1, 2  # tags


@dataclass
class Report:
    """How often a chunk was read, and found half new."""
    reads: int
    torn: int


def fetch(connection, into, count):
    connection.start_fetch(into, np.full(count, -1), np.zeros(count, np.int64), 0, 0)
    return connection.finish_fetch()


def caught_half_way(worker, got):
    """Chunk 0 is read between the two halves of a push."""
    chunks, connection, peers = worker.served.chunks, worker.served.connection, worker.peers.comm
    half, window, number = chunks[0].size // 2, connection.windows[0], 0
    if worker.role.replica == 1:
        first = connection.buffers[0]
        window.start(number)
        first[:] = 0
        first[:half] = 1
        window.add(number, first).Wait()
        window.win.Flush(0)
        peers.send("half", 0, HALF)
        peers.recv(source=0, tag=ON)
        rest = np.ones(chunks[0].size, got.dtype) - first
        window.add(number, rest).Wait()
        window.finish([number])
        window.win.Flush(0)
    elif worker.role.replica == 0:
        peers.recv(source=1, tag=HALF)
        # What an access without the lock sees:
        raw = np.empty(chunks[0].size, got.dtype)
        window.read(number, raw).Wait()
        assert (raw[:half] == 1).all() and (raw[half:] == 0).all()
        connection.start_fetch(got, np.full(len(chunks), -1), np.zeros(len(chunks), np.int64), 0, 0)
        peers.send("go on", 1, ON)
        versions = connection.finish_fetch()
        assert connection.torn > 0, "the half-way state was not noticed"
        assert versions[0] == 1 and (got[:2 * half] == 1).all()
        assert not got[chunks[1].start:].any()
    worker.peers.allreduce_sum(0)


def work(worker):
    chunks, connection, reads = worker.served.chunks, worker.served.connection, 0
    count, got = len(chunks), np.zeros(chunks[-1].stop, config.train.dtype)
    if worker.role.replica == 0:
        connection.initialise(got)
    fetch(connection, got, count)
    worker.peers.allreduce_sum(0)
    caught_half_way(worker, got)
    if worker.role.replica:
        for push in range(pushes):
            for index in range(count):
                connection.wait_for_buffer(index)
                connection.buffers[index][:] = 1
                connection.push(index, push, 0, config.update.rate)
            connection.flush()
    else:
        connection.torn = 0
        versions = np.zeros(count, np.int64)
        expected = np.full(count, writers * pushes)
        expected[0] += 1
        while (versions != expected).any():
            before = versions
            versions = fetch(connection, got, count)
            reads += 1
            assert (versions >= before).all()
            for chunk, version in zip(chunks, versions):
                piece = got[chunk.start:chunk.stop]
                assert (piece == version).all(), f"version {version} holds {np.unique(piece)}"
    connection.close(pushes)
    return Report(reads, connection.torn)


sys.exit(run_on_all_ranks("torn", lambda world: run_job(world, config, folder, None, work)))
