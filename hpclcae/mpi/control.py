"""What the leader tells the other replicas, by messages (training/coordination.py)."""
import numpy as np
from mpi4py import MPI

from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.mpi.waiting import wait
from hpclcae.parameter_server.roles import Role
from hpclcae.training.coordination import Command, ControlChannel

_TAG = 1


class MpiControlChannel(ControlChannel):
    """From the first block of the first replica to the first blocks of the others.

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
        self._others = range(blocks, peers.size, blocks) if role == Role() else ()
        self._over = role.replica == 0 or role.block > 0  # then nothing is heard

    def broadcast(self, command: Command) -> None:
        message = np.array([command], np.int64)
        wait([self._comm.Isend(message, other, _TAG) for other in self._others])

    def poll(self) -> bool:
        return not self._over and self._comm.Iprobe(0, _TAG)

    def receive(self) -> Command:
        message = np.empty(1, np.int64)
        wait([self._comm.Irecv(message, 0, _TAG)])
        self._over = message[0] == Command.OVER
        return Command(int(message[0]))

    def close(self) -> None:
        self.broadcast(Command.OVER)
        while not self._over:
            self.receive()
        self._comm.Free()
