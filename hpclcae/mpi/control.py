"""How all replicas come to stand between two steps at the same time: the first one asks.

The first replica is the leader: it knows when a checkpoint is due. Its first block tells the first
block of every other replica. That one says so in the sums of its next step (Network.note), so that
all blocks of the replica stand after the same step. Then each goes to the servers and waits
(messages.BARRIER): they take the checkpoint when all have come.
"""
import numpy as np
from mpi4py import MPI

from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.mpi.waiting import wait
from hpclcae.parameter_server.roles import OVER, Role

_TAG = 1


class ControlChannel:
    """What the first block of the first replica asks of the first blocks of the others.

    Parameters
    ----------
    peers : MpiCommunicator
        All workers, replica by replica.
    role : Role
        Of this worker.
    blocks : int
        Of every replica.
    """

    def __init__(self, peers: MpiCommunicator, role: Role, blocks: int) -> None:
        self._comm: MPI.Intracomm = peers.comm.Dup()
        self._role = role
        self._others = range(blocks, peers.size, blocks) if role == Role() else ()
        self.over = role.replica == 0 or role.block > 0

    def tell(self, what: int) -> None:
        """Ask the other replicas; only the leader does, of others nobody hears it."""
        letter = np.array([what], np.int64)
        wait([self._comm.Isend(letter, other, _TAG) for other in self._others])

    def heard(self) -> bool:
        """Whether the leader has asked for something that `take` has not returned yet."""
        return not self.over and self._comm.Iprobe(0, _TAG)

    def take(self) -> int:
        """The next thing that the leader asks for; waits for it."""
        letter = np.empty(1, np.int64)
        wait([self._comm.Irecv(letter, 0, _TAG)])
        self.over = letter[0] == OVER
        return int(letter[0])

    def close(self) -> None:
        """End: the leader says so, the others read what they have not heeded."""
        self.tell(OVER)
        while not self.over:
            self.take()
        self._comm.Free()
