"""On every rank of a job with one-sided updates: is a chunk ever half old, half new?

Started by ../test_servers.py.

    torn.py CONFIGURATION FOLDER PUSHES

All but the first replica add one to every number of all chunks, again and again. The first replica
reads all the time. So a chunk of version v that is whole holds v everywhere.
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


@dataclass
class Report:
    """How often a chunk was read, and found half new."""
    reads: int
    torn: int


def fetch(connection, into, count):
    connection.start_fetch(into, np.full(count, -1), np.zeros(count, np.int64), 0, 0)
    return connection.finish_fetch()


def work(worker):
    chunks, connection, reads = worker.served.chunks, worker.served.connection, 0
    count, got = len(chunks), np.zeros(chunks[-1].stop, config.train.dtype)
    if worker.role.replica == 0:
        connection.initialise(got)
    fetch(connection, got, count)
    worker.peers.allreduce_sum(0)
    if worker.role.replica:
        for push in range(pushes):
            for index in range(count):
                connection.buffer(index)[:] = 1
                connection.push(index, push, 0, config.update.rate)
            connection.flush()
    else:
        versions = np.zeros(count, np.int64)
        expected = np.full(count, writers * pushes)
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
