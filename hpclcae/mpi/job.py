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
from hpclcae.mpi.answers import Answers
from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.mpi.control import MpiControlChannel
from hpclcae.mpi.mailbox import MailboxConnection
from hpclcae.mpi.memory import Mailroom, ServerMemory, memory_bytes, open_memories, workers_of
from hpclcae.mpi.messages import MessageConnection
from hpclcae.mpi.self_test import self_test
from hpclcae.mpi.server import Server
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.roles import Role, roles
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
        The number of ranks does not fit, or the configuration asks for one-sided updates and they
        do not work here.
    """
    began = time.monotonic()
    job = assign_roles(world, config)
    memories, transport = open_transport(job)
    peers, replica = split_workers(job)
    control = world.comm.Dup()
    if job.role.server is not None:
        said = dataclasses.asdict(serve(job, control, memories.get(job.role.server), run, start))
    else:
        context = worker_context(job, control, memories, replica, peers)
        said = dataclasses.asdict(work(context))
        context.control.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    said |= {"role": str(job.role), "node": MPI.Get_processor_name(), "transport": transport,
             "shared_memory": bool(memories) and all(memory.bytes is not None
                                                     for memory in memories.values()),
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


def open_transport(job: Job) -> tuple[dict[int, ServerMemory], str]:
    """Open the servers' memories where one-sided updates are wanted and work; says which way is
    taken.

    Raises
    ------
    InputError
        The configuration insists on one-sided updates, and there is no room for them or they come
        out wrong.
    """
    parallel = job.layout.config.parallel
    if parallel.transport == "messages" or not parallel.servers:
        return {}, "messages"
    memories: dict[int, ServerMemory] = {}
    why_not = _shortage(job)
    if not why_not:
        memories = open_memories(job.world, job.roles, job.shards)
        if job.world.allreduce_sum([not self_test(memories)])[0] == 0:
            _tell(job, memories)
            return memories, "rma"
        why_not = "concurrent one-sided updates came out wrong on this machine and MPI library"
    remedy = "parallel.transport = \"messages\" or another parallel.window"
    if parallel.transport == "rma":
        raise InputError(f"parallel.transport = \"rma\": {why_not}: use {remedy}")
    if job.world.rank == 0:
        print(f"hpclcae: {why_not}: using messages ({remedy} avoids this line)",
              file=sys.stderr, flush=True)
    for memory in memories.values():
        memory.close()
    return {}, "messages"


def _tell(job: Job, memories: dict[int, ServerMemory]) -> None:
    """Say how many workers write into the memory of their servers, and how."""
    works = job.role.server is None
    shared = works and all(memory.bytes is not None for memory in memories.values())
    beside, all_workers = job.world.allreduce_sum([shared, works]).astype(int)
    if job.role == Role():
        print(f"updates are one-sided: {beside} workers share memory with their servers, "
              f"{all_workers - beside} reach one through the network", flush=True)


def _shortage(job: Job) -> str:
    """What the servers' memories lack of shared memory; "" if they fit.

    Only one that a worker of the same node reaches is shared.
    """
    if job.layout.config.parallel.window == "create":
        return ""
    free = shared_memory.free_space(MPI.get_vendor()[0])
    said = [text.split(" ", 1) for text in job.world.gather_texts(
        f"{free} {MPI.Get_processor_name()}")]
    nodes, sizes = [node for _, node in said], []
    for server, rank in enumerate(job.server_ranks):
        workers = workers_of(job.roles, job.shards, server)
        if nodes[rank] in {nodes[worker] for worker in workers}:
            blocks = [job.roles[worker].block for worker in workers]
            sizes.append((nodes[rank], memory_bytes(job.shards, server, blocks)))
    lacking = shared_memory.shortage(sizes, nodes, [float(there) for there, _ in said])
    return lacking and f"{lacking}; {shared_memory.MORE}, or parallel.window = \"create\""


def split_workers(job: Job) -> tuple[MpiCommunicator, MpiCommunicator]:
    """All workers, replica by replica, and those of one replica; servers get one of their own."""
    role, blocks = job.role, job.layout.grid.size
    # Ranks may be dealt to nodes in turn, so their order is not that of replicas.
    peers = job.world.split(role.server is None, role.replica * blocks + role.block)
    return peers, peers.split(role.replica)


def worker_context(job: Job, control: MPI.Intracomm, memories: dict[int, ServerMemory],
                   replica: MpiCommunicator, peers: MpiCommunicator) -> WorkerContext:
    """Where a worker stands, with its connection to the servers."""
    layout, block = job.layout, job.role.block
    messages = MessageConnection(control, job.server_ranks, job.shards, block)
    connection = MailboxConnection(messages, layout.config, memories) if memories else messages
    return WorkerContext(job.role, layout, replica, peers,
                         MpiControlChannel(peers, job.role, layout.grid.size),
                         Served(job.shards.chunks[block], connection))


def serve(job: Job, control: MPI.Intracomm, memory: ServerMemory | None, run: Path,
          start: Path | None) -> ServerReport:
    """Run a server to its end."""
    number = job.role.server
    assert number is not None
    mailroom, senders, answers = None, [], Answers(control)
    if memory is None:
        serving = Serving(job.shards, number, run, start, changing=answers.changing)
    else:
        mailroom = Mailroom(memory)
        serving = Serving(job.shards, number, run, start, memory.values,
                          mailroom.lock.changing)
        workers = workers_of(job.roles, job.shards, number)
        senders = [workers[place] for place in memory.order]
    answers.store = serving.store
    server = Server(control, job.roles, serving.store, serving.checkpoint, serving.check,
                    answers, mailroom, senders)
    with requests():  # a first TERM is the leader's affair
        server.run()
    report = serving.close(server.wait_seconds)
    if memory:
        memory.close()
    return report
