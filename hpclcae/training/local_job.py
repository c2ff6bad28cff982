"""A job with parameter servers in one process: every worker a thread, no MPI.

It trains, pauses, checkpoints and ends as a job under mpiexec does, with the same `Trainer`, the
same `Store` and the same barrier; only the messages are function calls. For tests and simulations:
threads share one Python, so it is slower than processes.
"""
import queue
from pathlib import Path

import numpy as np

from hpclcae.config import Config
from hpclcae.model.layout import WHOLE, Layout
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.local import LocalServers
from hpclcae.parameter_server.roles import Role
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import ThreadCommunicator, run_blocks
from hpclcae.training.coordination import Command, LocalControl
from hpclcae.training.serving import Serving
from hpclcae.training.trainer import Trainer
from hpclcae.training.worker import Served, WorkerContext, WorkerReport
from hpclcae.utils.signals import Requests


def run_local_job(config: Config, run: Path, start: Path | None = None, grid: Grid = WHOLE,
                  stop_at: int | None = None,
                  asked: Requests | None = None) -> list[WorkerReport]:
    """Train with parallel.servers servers and parallel.replicas replicas of a grid of blocks.

    Parameters
    ----------
    start : Path or None
        Checkpoint to go on from.
    asked : Requests, optional
        What the leader finds in place of signals to a process.

    Returns
    -------
    list of WorkerReport
        Of every worker, replica by replica.

    Raises
    ------
    Exception
        Whatever one worker raises ends them all, and is raised here.
    """
    layout, parallel = Layout(config, grid), config.parallel
    shards = Shards(layout, parallel.servers)
    serving = [Serving(shards, number, run, start) for number in range(parallel.servers)]

    def checkpoint(clocks: np.ndarray) -> None:
        for server in serving:
            server.checkpoint(clocks)
    servers = LocalServers(shards, [server.store for server in serving], checkpoint)
    commands: dict[int, queue.SimpleQueue[Command]] = {
        replica: queue.SimpleQueue() for replica in range(parallel.replicas)}

    def work(peers: ThreadCommunicator) -> WorkerReport:
        replica, block = divmod(peers.rank, grid.size)
        served = Served(shards.chunks[block], servers.connection(replica, block))
        worker = WorkerContext(Role(replica=replica, block=block), layout, peers.split(replica),
                               peers, LocalControl(commands, replica, block, servers.check), served)
        signals = asked if asked and worker.is_leader else Requests()
        try:
            return Trainer(config, run, start, worker, signals).train(stop_at)
        except BaseException:
            servers.stop()
            raise
    reports = run_blocks(parallel.replicas * grid.size, work)
    for server in serving:
        server.close()
    return reports
