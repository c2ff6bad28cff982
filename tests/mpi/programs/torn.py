"""On every rank of a one-sided job: is a chunk ever half old, half new? (../test_servers.py)

    torn.py CONFIGURATION FOLDER PUSHES

All but the first replica add one to every number of all chunks, again and again. The first replica
reads all the time. So a chunk of version v that is whole holds v everywhere.

Before that, a single push is caught half-way: one half of a chunk has one added, the other half not
yet.
"""
import sys
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.mpi.job import run_job
from hpclcae.mpi.runtime import run_on_all_ranks

config, folder, pushes = configuration.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
writers = config.parallel.replicas - 1
HALF, ON = 1, 2  # tags


def fetch(line, into, count):
    line.start_fetch(into, np.full(count, -1), np.zeros(count, np.int64), 0, 0)
    return line.finish_fetch()


def caught_half_way(place, got):
    """Chunk 0 is read between the two halves of a push."""
    line, peers, count = place.line, place.peers.comm, len(place.chunks)
    half = place.chunks[0].size // 2
    server, number = line.place[0]
    window = line.windows[server]
    if place.role.replica == 1:
        one = np.ones(place.chunks[0].size, got.dtype)
        window.start(number)
        line.buffers[0][:] = 0
        line.buffers[0][:half] = 1
        window.add(number, line.buffers[0]).Wait()
        window.win.Flush(0)
        peers.send("half", 0, HALF)
        peers.recv(source=0, tag=ON)
        rest = one - line.buffers[0]
        window.add(number, rest).Wait()
        window.finish([number])
        window.win.Flush(0)
    elif place.role.replica == 0:
        peers.recv(source=1, tag=HALF)
        # What an access without the lock sees:
        raw = np.empty(place.chunks[0].size, got.dtype)
        window.read(number, raw).Wait()
        assert (raw[:half] == 1).all() and (raw[half:] == 0).all()
        line.start_fetch(got, np.full(count, -1), np.zeros(count, np.int64), 0, 0)
        peers.send("go on", 1, ON)
        versions = line.finish_fetch()
        assert line.torn > 0, "the half-way state was not noticed"
        assert versions[0] == 1 and (got[:2 * half]
                                     == 1).all() and not got[place.chunks[1].start:].any()
    place.peers.allreduce_sum(0)


def work(place):
    line, count, reads = place.line, len(place.chunks), 0
    got = np.zeros(place.chunks[-1].stop, config.train.dtype)
    if place.role.replica == 0:
        line.seed(got)
    fetch(line, got, count)
    place.peers.allreduce_sum(0)
    caught_half_way(place, got)
    if place.role.replica:
        for push in range(pushes):
            for index in range(count):
                line.reuse(index)
                line.buffers[index][:] = 1
                line.push(index, push, 0, 0.0)
            line.settle()
    else:
        line.torn = 0
        versions = np.zeros(count, np.int64)
        expected = np.full(count, writers * pushes)
        expected[0] += 1
        while (versions != expected).any():
            before = versions
            versions = fetch(line, got, count)
            reads += 1
            assert (versions >= before).all()
            for chunk, version in zip(place.chunks, versions):
                piece = got[chunk.start:chunk.stop]
                assert (piece == version).all(), f"version {version} holds {np.unique(piece)}"
    line.close()
    return {"reads": reads, "torn": line.torn}


sys.exit(run_on_all_ranks("torn", lambda world: run_job(world, config, folder, None, work)))
