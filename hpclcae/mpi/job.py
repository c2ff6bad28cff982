"""From the ranks of a job to servers and replicas: roles, lines, windows, and the end."""
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpclcae.checkpoint import ChunkState, ShardWriter, load_chunk_states
from hpclcae.checkpoint.event_log import EventLog
from hpclcae.config import Config
from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.mpi.control import ControlChannel
from hpclcae.mpi.messages import MessageConnection
from hpclcae.mpi.one_sided import RmaConnection
from hpclcae.mpi.server import Server
from hpclcae.mpi.window import Window, open_windows, self_test
from hpclcae.parameter_server.chunks import Chunk, Shards
from hpclcae.parameter_server.roles import Role, blocks_of, joint_step, roles
from hpclcae.parameter_server.store import Store
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator
from hpclcae.partition.cost import choose_grid
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import requests


@dataclass(frozen=True)
class WorkerContext:
    """Where a worker stands.

    communicator : Communicator
        To the blocks of its own replica.
    peers : Communicator
        To all workers, replica by replica.
    chunks : list of Chunk
        Of its block.
    """
    role: Role
    grid: Grid
    communicator: Communicator
    peers: Communicator
    chunks: list[Chunk]
    line: MessageConnection
    asks: ControlChannel


def run_job(world: MpiCommunicator, config: Config, run: Path, start: Path | None,
              work: Callable[[WorkerContext], dict]) -> None:
    """Be what this rank is to be: serve until all workers have ended, or work(place); every rank of
    the job calls it.

    Parameters
    ----------
    run : Path
        Run folder; the first worker writes what all ranks say of themselves to parallel.json in it.
    start : Path or None
        Checkpoint that the servers begin with.
    work : callable
        Returns what the worker has to say.

    Raises
    ------
    InputError
        The number of ranks does not fit, or the configuration asks for one-sided sums and they do
        not work here.
    """
    parallel, began = config.parallel, time.monotonic()
    fixed = None if parallel.grid == "auto" else Grid.parse(parallel.grid).size
    blocks = blocks_of(world.size, parallel.servers, parallel.replicas, fixed)
    grid = choose_grid(config, blocks, parallel.grid)
    everyone = roles(world.gather_texts(MPI.Get_processor_name()), parallel.servers,
                     parallel.replicas, blocks, parallel.placement)
    role = everyone[world.rank]
    shards = Shards(config, grid, parallel.servers)
    windows, transport = _transport(world, everyone, shards, config)
    # ranks may be dealt to nodes in turn
    peers = world.split(role.server is None, role.replica * blocks + role.block)
    replica = peers.split(role.replica)
    control = world.comm.Dup()
    if role.server is not None:
        told = _serve(control, everyone, role.server, shards, grid, config,
                      windows.get(role.server), run, start)
    else:
        ranks = sorted((r.server, rank) for rank, r in enumerate(everyone) if r.server is not None)
        servers = [rank for _, rank in ranks]
        line = (RmaConnection(control, servers, shards, role.block, config, windows) if transport
                == "rma" else MessageConnection(control, servers, shards, role.block, config))
        asks = ControlChannel(peers, role, blocks)
        told = work(WorkerContext(role, grid, replica, peers, shards.chunks[role.block], line,
                                  asks))
        asks.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told |= {"role": str(role), "node": MPI.Get_processor_name(), "transport": transport,
             "seconds": time.monotonic() - began, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    texts = world.gather_texts(json.dumps(told))
    if role == Role():
        (run / "parallel.json").write_text("[" + ",\n ".join(texts) + "]\n")
    control.Free()
    replica.close()
    peers.close()


def _transport(world: MpiCommunicator, everyone: list[Role], shards: Shards, config: Config) \
        -> tuple[dict[int, Window], str]:
    """Open windows where one-sided sums are wanted and work; says which way is taken."""
    parallel, update = config.parallel, config.update
    possible = ((update.rule == "sgd" or parallel.elastic) and parallel.consistency
                == "asynchronous" and not update.delay_compensation and not parallel.log_events)
    if parallel.transport == "messages" or not possible:
        return {}, "messages"
    windows = open_windows(world, everyone, shards.held_by, config)
    good = world.allreduce_sum([not self_test(windows)])[0] == 0
    if not good:
        if parallel.transport == "rma":
            raise InputError("parallel.transport = 'rma': concurrent one-sided sums came out wrong "
                             "on this machine and MPI library: use 'messages', or another "
                             "parallel.window")
        if world.rank == 0:
            print("one-sided sums came out wrong in the self-test: using messages", file=sys.stderr,
                  flush=True)
        for window in windows.values():
            window.close()
        return {}, "messages"
    return windows, "rma"


def _serve(control: MPI.Intracomm, everyone: list[Role], number: int, shards: Shards, grid: Grid,
           config: Config, window: Window | None, run: Path, start: Path | None) -> dict:
    """Run a server to its end; returns what it has to say."""
    log = EventLog(run, start, number, config, grid) if config.parallel.log_events else None
    store = Store(shards.held_by(number), config, window.values if window else None, log)
    if start:
        for index, chunk_state in enumerate(load_chunk_states(start, config, grid, store.chunks)):
            store.seed(index, chunk_state.values.ravel(), chunk_state.state, chunk_state.version)
        if window:
            window.set_versions(store.versions)
    first = store.versions.copy()
    writer = ShardWriter(run, number, config, grid)

    def synchronise() -> None:
        if window:
            window.win.Sync()

    def checkpoint(clocks: np.ndarray) -> None:
        synchronise()
        if window:
            store.versions[:] = window.finished
        if not np.isfinite(store.memory).all():
            raise InputError(f"server {number} holds weights that are not finite: update.rate = "
                             f"{config.update.rate:g} is likely too large for "
                             f"{config.parallel.replicas} replicas; the last checkpoint is "
                             "untouched")
        writer.start(joint_step(clocks.tolist()),
                     [ChunkState(chunk, *store.shaped(index), count=int(store.versions[index]),
                                 version=int(store.versions[index]))
                      for index, chunk in enumerate(store.chunks)])
    server = Server(control, everyone, store, checkpoint, writer.check, synchronise,
                    window.visited if window else lambda: False)
    with requests():  # a first TERM is the leader's affair
        server.run()
    writer.wait()
    writer.close()
    if log:
        log.close()
    if window:
        window.win.Sync()
        store.versions[:] = window.finished
        store.counters.pushes = int((store.versions - first).sum())
        window.close()
    counters = store.counters
    return {"chunks": len(store.chunks), "bytes": store.memory.nbytes, "pushes": counters.pushes,
            "dropped": counters.dropped, "fetched_chunks": counters.fetches,
            "unchanged_chunks": counters.unchanged,
            "staleness": counters.staleness.tolist(), "wait_seconds": server.wait_seconds,
            "versions": [int(limit(store.versions)) for limit in (np.min, np.max)] if store.chunks
            else []}
