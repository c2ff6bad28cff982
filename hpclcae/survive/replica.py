"""A rank of one life of a replica: it joins the job, trains, and says what it has done."""
import dataclasses
import os
import resource
from pathlib import Path

from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.roles import Role
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator
from hpclcae.survive.connection import SocketConnection, SocketControl
from hpclcae.survive.link import Link
from hpclcae.survive.part import Part
from hpclcae.training.trainer import Trainer
from hpclcae.training.worker import Joined, Served, WorkerContext
from hpclcae.utils.errors import InputError

WELCOME_SECONDS = 600  # the supervisor decides long before whether it is worth waiting


def train(part: Part, config: Config, run: Path, communicator: Communicator) -> None:
    """Train as one block of a replica, from where the supervisor says.

    Parameters
    ----------
    config : Config
        With the grid of every replica.
    communicator : Communicator
        To the blocks of the replica.

    Raises
    ------
    InputError
        The job does not take it; or what training raises, which the supervisor is told.
    """
    layout = Layout(config, Grid.parse(config.parallel.grid))
    shards, block = Shards(layout, config.parallel.servers), communicator.rank
    link = Link(part, block, config.parallel.servers)
    with link.changed:
        if not link.wait_for(lambda: "welcome" in link.told, WELCOME_SECONDS):
            raise InputError("the supervisor does not let this replica begin")
        welcome = link.told["welcome"]
    role, start = Role(replica=part.number, block=block), welcome["start"]
    control = SocketControl(link, block)
    connection = SocketConnection(link, shards, block, welcome["step"], welcome["begun"])
    joined = Joined(welcome["step"], welcome["seconds"], lambda: control.commits,
                    lambda: control.abandons)
    worker = WorkerContext(role, layout, communicator, communicator, control,
                           Served(shards.chunks[block], connection), joined)
    try:
        report = Trainer(config, run, Path(start) if start else None, worker).train(
            welcome["stop_at"])
    except (InputError, OSError, MemoryError) as error:
        link.tell(kind="error", text=str(error))
        link.close()
        raise
    usage = resource.getrusage(resource.RUSAGE_SELF)
    link.tell(kind="report", report=dataclasses.asdict(report) | {
        "role": str(role), "node": os.uname().nodename, "transport": "sockets",
        "shared_memory": False, "cpu_seconds": usage.ru_utime + usage.ru_stime})
    link.close()
