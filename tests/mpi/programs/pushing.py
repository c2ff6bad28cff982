"""On every rank of a job with servers: push integers, and see that they sum exactly.

Started by ../test_servers.py.

    pushing.py CONFIGURATION FOLDER PUSHES

Every worker adds numbers to all chunks of its block; what it then fetches must hold what all
replicas added.
"""
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.mpi.job import run_job
from hpclcae.mpi.runtime import run_on_all_ranks

config, folder, pushes = configuration.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
replicas = config.parallel.replicas


@dataclass
class Report:
    """What a worker saw."""
    chunks: int
    pushed_bytes: int
    block_bytes: int


def numbers(chunk, index, replica, push):
    """What a replica adds to a chunk.

    Small integers that tell replica, push, chunk and place within the chunk apart.
    """
    places = np.arange(chunk.size) % 7
    return (places + 3 * index + 10 * replica + 100 * push).astype(config.train.dtype)


def work(worker):
    chunks, connection, role = worker.served.chunks, worker.served.connection, worker.role
    count, start = len(chunks), np.arange(chunks[-1].stop).astype(config.train.dtype) % 11
    if role.replica == 0:
        connection.initialise(start)
    got, nothing, wanted = np.empty_like(start), np.full(count, -1), np.zeros(count, np.int64)
    connection.start_fetch(got, nothing, wanted, 0, 0)
    connection.finish_fetch()
    worker.peers.allreduce_sum(0)  # all begin at once
    for push in range(pushes):
        for index, chunk in enumerate(chunks):
            connection.buffer(index)[:] = numbers(chunk, index, role.replica, push)
            connection.push(index, push, 0, config.update.rate)
        connection.flush()
    worker.peers.allreduce_sum(0)
    connection.start_fetch(got, nothing, wanted + pushes * replicas, pushes, pushes)
    versions = connection.finish_fetch()
    assert (versions == pushes * replicas).all(), versions
    for index, chunk in enumerate(chunks):
        expected = start[chunk.start:chunk.stop] + sum(
            numbers(chunk, index, replica, push)
            for replica in range(replicas) for push in range(pushes))
        assert np.array_equal(got[chunk.start:chunk.stop], expected), (str(role), index)
    before = connection.fetched_bytes
    connection.start_fetch(got, versions, versions, pushes, pushes)
    # nothing has changed
    assert (connection.finish_fetch() == versions).all() and connection.fetched_bytes == before
    connection.close(pushes)
    return Report(count, connection.pushed_bytes, start.nbytes)


sys.exit(run_on_all_ranks("pushing", lambda world: run_job(world, config, folder, None, work)))
