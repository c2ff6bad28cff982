"""Where a worker stands in its job, and what it reports at the end."""
from collections.abc import Callable
from dataclasses import dataclass

from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.chunks import Chunk
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.roles import Role
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.partition.cost import choose_grid
from hpclcae.training.coordination import ControlChannel, NoControl


@dataclass(frozen=True)
class Served:
    """What ties a worker to parameter servers.

    chunks : list of Chunk
        Of its block.
    """
    chunks: list[Chunk]
    connection: ServerConnection


@dataclass(frozen=True)
class Joined:
    """A replica of a job in which replicas come and go (survive/).

    step : int
        With which it begins.
    seconds : float
        Training time of the job so far.
    commits, abandons : callable
        After a barrier: whether this replica commits the checkpoint that was taken, and whether the
        one before will never be whole, as a server has died.
    """
    step: int
    seconds: float
    commits: Callable[[], bool]
    abandons: Callable[[], bool]


@dataclass(frozen=True)
class WorkerContext:
    """One block of one replica.

    communicator : Communicator
        To the blocks of its own replica.
    peers : Communicator
        To all workers of the job, replica by replica.
    control : ControlChannel
        What the leader tells the other replicas.
    served : Served or None
        None: the block updates its own parameters.
    joined : Joined or None
        None: all replicas of the job begin and end together.
    """
    role: Role
    layout: Layout
    communicator: Communicator
    peers: Communicator
    control: ControlChannel
    served: Served | None = None
    joined: Joined | None = None

    @classmethod
    def unserved(cls, config: Config, communicator: Communicator | None = None) -> "WorkerContext":
        """One network without servers, shared by the ranks of a communicator.

        Raises
        ------
        InputError
            The grid does not fit the ranks, or a window does not fit (geometry.py).
        """
        communicator = communicator or SerialCommunicator()
        grid = choose_grid(config, communicator.size, config.parallel.grid)
        return cls(Role(block=communicator.rank), Layout(config, grid), communicator, communicator,
                   NoControl())

    @property
    def is_rank0(self) -> bool:
        """Whether it speaks for its replica."""
        return self.role.block == 0

    @property
    def is_leader(self) -> bool:
        """Whether it speaks for the whole job."""
        return self.role == Role()


@dataclass(frozen=True)
class WorkerReport:
    """What one worker has done."""
    steps: int = 0
    fetched_bytes: int = 0
    pushed_bytes: int = 0
    wait_seconds: float = 0.0
    training_seconds: float = 0.0
