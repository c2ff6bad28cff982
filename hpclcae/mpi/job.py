"""From the ranks of a job to servers and replicas, and back to one report of all."""
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpi4py import MPI

from hpclcae.cluster.ranks import grid_for
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.mpi import shared_memory
from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.mpi.control import MpiControlChannel
from hpclcae.mpi.messages import MessageConnection
from hpclcae.mpi.one_sided import RmaConnection
from hpclcae.mpi.server import Server
from hpclcae.mpi.window import Window, open_windows, self_test, window_bytes
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.roles import Role, roles
from hpclcae.parameter_server.store import Store
from hpclcae.training.serving import ServerReport, Serving
from hpclcae.training.worker import Served, WorkerContext
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import requests

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Job:
    """What all ranks agree on.

    roles : list of Role
        Of every rank.
    """
    world: MpiCommunicator
    layout: Layout
    roles: list[Role]
    shards: Shards

    @property
    def role(self) -> Role:
        """Of this rank."""
        return self.roles[self.world.rank]

    @property
    def server_ranks(self) -> list[int]:
        """Rank of every server, in order of servers."""
        ranks = ((role.server, rank) for rank, role in enumerate(self.roles)
                 if role.server is not None)
        return [rank for _, rank in sorted(ranks)]


def run_job(world: MpiCommunicator, config: Config, run: Path, start: Path | None,
            work: Callable[[WorkerContext], "DataclassInstance"]) -> None:
    """Be what this rank is to be, to the end of the job; every rank calls it.

    A server serves until all workers have ended; a worker calls work(context). The leader writes
    what all ranks say of themselves to RUN/parallel.json.

    Parameters
    ----------
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
    began = time.monotonic()
    job = assign_roles(world, config)
    windows, transport = open_transport(job)
    peers, replica = split_workers(job)
    control = world.comm.Dup()
    if job.role.server is not None:
        said = dataclasses.asdict(serve(job, control, windows.get(job.role.server), run, start))
    else:
        context = worker_context(job, control, windows, transport, replica, peers)
        said = dataclasses.asdict(work(context))
        context.control.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    said |= {"role": str(job.role), "node": MPI.Get_processor_name(), "transport": transport,
             "seconds": time.monotonic() - began, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    texts = world.gather_texts(json.dumps(said))
    if job.role == Role():
        (run / "parallel.json").write_text("[" + ",\n ".join(texts) + "]\n")
    control.Free()
    replica.close()
    peers.close()


def assign_roles(world: MpiCommunicator, config: Config) -> Job:
    """Who does what, the same on every rank."""
    parallel = config.parallel
    layout = Layout(config, grid_for(config, world.size))
    everyone = roles(world.gather_texts(MPI.Get_processor_name()), parallel.servers,
                     parallel.replicas, layout.grid.size, parallel.placement)
    return Job(world, layout, everyone, Shards(layout, parallel.servers))


def open_transport(job: Job) -> tuple[dict[int, Window], str]:
    """Open windows where one-sided sums are wanted and work; says which way is taken.

    Raises
    ------
    InputError
        The configuration insists on one-sided sums, and there is no room for them or they come out
        wrong.
    """
    parallel, update = job.layout.config.parallel, job.layout.config.update
    possible = ((update.rule == "sgd" or parallel.elastic)
                and parallel.consistency == "asynchronous" and not update.delay_compensation
                and not parallel.log_events)
    if parallel.transport == "messages" or not possible:
        return {}, "messages"
    windows: dict[int, Window] = {}
    why_not = _shortage(job)
    if not why_not:
        windows = open_windows(job.world, job.roles, job.shards)
        if job.world.allreduce_sum([not self_test(windows)])[0] == 0:
            return windows, "rma"
        why_not = "concurrent one-sided sums came out wrong on this machine and MPI library"
    remedy = "parallel.transport = \"messages\" or another parallel.window"
    if parallel.transport == "rma":
        raise InputError(f"parallel.transport = \"rma\": {why_not}: use {remedy}")
    if job.world.rank == 0:
        print(f"hpclcae: {why_not}: using messages ({remedy} avoids this line)",
              file=sys.stderr, flush=True)
    for window in windows.values():
        window.close()
    return {}, "messages"


def _shortage(job: Job) -> str:
    """What windows that MPI allocates lack of shared memory; "" if they fit.

    Only a window that a worker of the same node reaches is shared.
    """
    if job.layout.config.parallel.window == "create":
        return ""
    free = shared_memory.free_space(MPI.get_vendor()[0])
    said = [text.split(" ", 1) for text in job.world.gather_texts(
        f"{free} {MPI.Get_processor_name()}")]
    nodes = [node for _, node in said]
    working = {node for node, role in zip(nodes, job.roles) if role.server is None}
    sizes = [(nodes[rank], window_bytes(job.shards.held_by(server), job.layout.dtype))
             for server, rank in enumerate(job.server_ranks)]
    lacking = shared_memory.shortage([(node, size) for node, size in sizes if node in working],
                                     nodes, [float(there) for there, _ in said])
    return lacking and f"{lacking}; {shared_memory.MORE}, or parallel.window = \"create\""


def split_workers(job: Job) -> tuple[MpiCommunicator, MpiCommunicator]:
    """All workers, replica by replica, and those of one replica; servers get one of their own."""
    role, blocks = job.role, job.layout.grid.size
    # Ranks may be dealt to nodes in turn, so their order is not that of replicas.
    peers = job.world.split(role.server is None, role.replica * blocks + role.block)
    return peers, peers.split(role.replica)


def worker_context(job: Job, control: MPI.Intracomm, windows: dict[int, Window], transport: str,
                   replica: MpiCommunicator, peers: MpiCommunicator) -> WorkerContext:
    """Where a worker stands, with its connection to the servers."""
    layout, block = job.layout, job.role.block
    messages = MessageConnection(control, job.server_ranks, job.shards, block)
    rma = transport == "rma"
    connection = RmaConnection(messages, layout.config, windows) if rma else messages
    return WorkerContext(job.role, layout, replica, peers,
                         MpiControlChannel(peers, job.role, layout.grid.size),
                         Served(job.shards.chunks[block], connection))


def serve(job: Job, control: MPI.Intracomm, window: Window | None, run: Path,
          start: Path | None) -> ServerReport:
    """Run a server to its end."""
    def refresh(store: Store) -> None:
        """Workers count versions in the window by themselves."""
        if window:
            window.synchronise()
            store.versions[:] = window.finished
    assert job.role.server is not None
    serving = Serving(job.shards, job.role.server, run, start, window.values if window else None,
                      refresh)
    if start and window:
        window.set_versions(serving.store.versions)
    server = Server(control, job.roles, serving.store, serving.checkpoint, serving.check,
                    window)
    with requests():  # a first TERM is the leader's affair
        server.run()
    report = serving.close(server.wait_seconds)
    if window:
        window.close()
    return report
