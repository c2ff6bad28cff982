"""Messages between the blocks of one network with MPI.

Requests are persistent: made once, started in every step. Buffers are contiguous and of predefined
types.
"""
import math
import time
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import ArrayLike

from hpclcae.mpi.waiting import Backoff, wait
from hpclcae.partition.blocks import split
from hpclcae.partition.communicator import Buffers, Channel, Communicator
from hpclcae.utils.text import to_bytes, to_text

T = TypeVar("T")


class MpiCommunicator(Communicator):
    """Between all ranks of an MPI communicator, one block each, in the order of ranks.

    Parameters
    ----------
    comm : Intracomm
        Duplicated, so its messages cannot be taken for others; `close` frees the duplicate. Both
        are collective.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm: MPI.Intracomm = comm.Dup()
        self.rank, self.size = comm.rank, comm.size

    def on_one_node(self) -> bool:
        """Whether all ranks could share memory; all of them call."""
        node = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        size = node.size
        node.Free()
        return size == self.size

    def split(self, color: int, key: int | None = None) -> "MpiCommunicator":
        """To all ranks that give the same color, in order of key (or of rank); every rank calls it.
        """
        key = self.rank if key is None else key
        part: MPI.Intracomm = self.comm.Split(color, key)  # type: ignore[assignment]
        try:
            return MpiCommunicator(part)
        finally:
            part.Free()

    def gather_texts(self, text: str) -> list[str]:
        """What every rank says, on every rank; all call it."""
        mine = np.frombuffer(to_bytes(text), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self.comm.Allgather(np.array([mine.size], np.int64), sizes)
        everyones = np.empty(sizes.sum(), np.uint8)
        self.comm.Allgatherv(mine, [everyones, sizes])
        return [to_text(part.tobytes()) for part in np.split(everyones, np.cumsum(sizes)[:-1])]

    def channel(self, tag: int, sends: Buffers, receives: Buffers) -> "MpiChannel":
        requests = [self.comm.Recv_init(buffer, peer, tag) for peer, buffer in receives]
        requests += [self.comm.Send_init(buffer, peer, tag) for peer, buffer in sends]
        return MpiChannel(self, requests)

    def wait(self, requests: Sequence[MPI.Request]) -> None:
        """Return when all requests are complete; the time counts as waiting."""
        began = time.perf_counter()
        wait(requests)
        self.waited += time.perf_counter() - began

    def allreduce_sum(self, values: ArrayLike) -> np.ndarray:
        """Gathered and added in order of ranks: the same bits in every run."""
        mine = np.array(values, np.float64)
        everyones = np.empty((self.size, *mine.shape))
        self.wait([self.comm.Iallgather(mine, everyones)])
        return everyones.sum(axis=0)

    def combine(self, values: np.ndarray, how: str) -> None:
        operation = {"sum": MPI.SUM, "minimum": MPI.MIN, "maximum": MPI.MAX}[how]
        self.wait([self.comm.Iallreduce(MPI.IN_PLACE, values, operation)])

    def sum_in_place(self, array: np.ndarray) -> None:
        """Every rank adds up a share, in order of ranks, and gives it to the others."""
        flat = array.reshape(-1)
        bounds = [split(flat.size, self.size, rank) for rank in range(self.size)]
        sizes, starts = ([stop - start for start, stop in bounds], [start for start, _ in bounds])
        first, last = bounds[self.rank]
        mine = np.empty((self.size, last - first), array.dtype)
        self.wait([self.comm.Ialltoallv([flat, (sizes, starts)], mine)])
        total = mine[0]
        for other in mine[1:]:
            total += other
        self.wait([self.comm.Iallgatherv(total, [flat, (sizes, starts)])])

    def gather(self, value: T, patience: float = math.inf) -> list[T]:
        """Pickled; when all are there, so that nobody spins meanwhile."""
        began, backoff, here = time.monotonic(), Backoff(), self.comm.Ibarrier()
        while not here.Test():
            if time.monotonic() - began > patience:
                raise TimeoutError(f"other ranks have not come within {patience:g} seconds")
            backoff.pause()
        return self.comm.allgather(value)

    def close(self) -> None:
        """Free the communicator; channels are closed before."""
        self.comm.Free()


class MpiChannel(Channel):
    """Persistent requests that are started together."""

    def __init__(self, communicator: MpiCommunicator, requests: Sequence[MPI.Prequest]) -> None:
        self._communicator, self._requests = communicator, list(requests)

    def start(self) -> None:
        MPI.Prequest.Startall(self._requests)

    def wait(self) -> None:
        self._communicator.wait(self._requests)

    def close(self) -> None:
        """Free the requests."""
        for request in self._requests:
            request.Free()
        self._requests.clear()
