"""What messages to servers are measured against: the same chunks by MPI's messages alone."""
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.chunks import Shards

if TYPE_CHECKING:
    from hpclcae.mpi.communicator import MpiCommunicator

RAW = ("raw push", "raw fetch", "")


class RawMessages:
    """The chunks of a network, between the first rank and one that does nothing else."""

    def __init__(self, world: "MpiCommunicator", config: Config) -> None:
        self._comm, self._other = world.comm, 2 - world.rank
        sizes = [chunk.size for chunk in Shards(Layout(config), 1).chunks[0]]
        self._pieces = np.split(np.ones(sum(sizes), config.train.dtype), np.cumsum(sizes)[:-1])
        self._word = np.empty(1, np.int64)

    def meet(self, name: str) -> None:
        """The first rank says what it is going to do ("" in the end).

        Not part of what is measured.
        """
        from hpclcae.mpi.waiting import wait_spinning
        if name in RAW:
            self._word[0] = RAW.index(name)
            wait_spinning([self._comm.Isend(self._word, self._other, 1)])
            wait_spinning([self._comm.Irecv(self._word, self._other, 1)])

    def push(self) -> None:
        """Send everything and hear that it is there."""
        from hpclcae.mpi.waiting import wait_spinning
        wait_spinning([self._comm.Isend(piece, self._other, 0) for piece in self._pieces])
        wait_spinning([self._comm.Irecv(self._word, self._other, 1)])

    def fetch(self) -> None:
        """Ask for everything and get it."""
        from hpclcae.mpi.waiting import wait_spinning
        wait_spinning([self._comm.Isend(self._word, self._other, 1)])
        wait_spinning([self._comm.Irecv(piece, self._other, 0) for piece in self._pieces])

    def answer(self) -> None:
        """The other side."""
        from hpclcae.mpi.waiting import wait, wait_spinning
        while True:
            wait([self._comm.Irecv(self._word, self._other, 1)])
            wait_spinning([self._comm.Isend(self._word, self._other, 1)])
            name = RAW[self._word[0]]
            if name == "raw push":
                wait_spinning([self._comm.Irecv(piece, self._other, 0) for piece in self._pieces])
                wait_spinning([self._comm.Isend(self._word, self._other, 1)])
            elif name == "raw fetch":
                wait_spinning([self._comm.Irecv(self._word, self._other, 1)])
                wait_spinning([self._comm.Isend(piece, self._other, 0) for piece in self._pieces])
            else:
                return
