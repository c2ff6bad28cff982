"""On every rank of a job with servers: push integers, which sum exactly (../test_servers.py).

    pushing.py CONFIGURATION FOLDER PUSHES

Every worker adds numbers to all chunks of its block; what it then fetches must hold what all
replicas added.
"""
import sys
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.mpi.job import run_job
from hpclcae.mpi.runtime import run_on_all_ranks

config, folder, pushes = configuration.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
replicas = config.parallel.replicas


def numbers(place, index, replica, push):
    """What a replica adds: small integers that tell replica, push, chunk and place in it apart."""
    size = place.chunks[index].size
    return (np.arange(size) % 7 + 3 * index + 10 * replica + 100 * push).astype(config.train.dtype)


def work(place):
    line, role, count = place.line, place.role, len(place.chunks)
    start = np.arange(place.chunks[-1].stop).astype(config.train.dtype) % 11
    if role.replica == 0:
        line.seed(start)
    got, nothing, wanted = np.empty_like(start), np.full(count, -1), np.zeros(count, np.int64)
    line.start_fetch(got, nothing, wanted, 0, 0)
    line.finish_fetch()
    place.peers.allreduce_sum(0)  # all begin at once
    for push in range(pushes):
        for index in range(count):
            line.reuse(index)
            line.buffers[index][:] = numbers(place, index, role.replica, push)
            line.push(index, push, 0, 0.0)
        line.settle()
    place.peers.allreduce_sum(0)
    line.start_fetch(got, nothing, wanted + pushes * replicas, pushes, pushes)
    versions = line.finish_fetch()
    assert (versions == pushes * replicas).all(), versions
    for index, chunk in enumerate(place.chunks):
        expected = start[chunk.start:chunk.stop] + sum(numbers(place, index, replica, push)
                                                       for replica in range(replicas)
                                                       for push in range(pushes))
        assert np.array_equal(got[chunk.start:chunk.stop], expected), (str(role), index)
    before = line.fetched_bytes
    line.start_fetch(got, versions, versions, pushes, pushes)
    # nothing has changed
    assert (line.finish_fetch() == versions).all() and line.fetched_bytes == before
    line.close()
    return {"chunks": count, "pushed_bytes": line.pushed_bytes, "block_bytes": start.nbytes,
            "staleness": line.staleness.tolist()}


sys.exit(run_on_all_ranks("pushing", lambda world: run_job(world, config, folder, None, work)))
