"""What one-sided updates are measured against: the same chunks by Rput and Rget alone."""
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.mpi.waiting import wait_spinning
from hpclcae.parameter_server.chunks import Shards


class RawWindow:
    """The chunks of a network in memory of the second rank, for Rput and Rget of the first.

    Both make it, and close it.
    """

    def __init__(self, comm: MPI.Intracomm, config: Config) -> None:
        sizes = [chunk.size for chunk in Shards(Layout(config), 1).chunks[0]]
        self._pieces = np.split(np.ones(sum(sizes), config.train.dtype), np.cumsum(sizes)[:-1])
        size = sum(piece.nbytes for piece in self._pieces)
        self._win = MPI.Win.Allocate(size if comm.rank == 1 else 0, 1, MPI.INFO_NULL, comm)
        if comm.rank == 1:
            memory = self._win.tomemory()
            np.frombuffer(memory, np.uint8)[:] = 0  # type: ignore[call-overload]
        self._win.Lock_all()
        comm.Barrier()

    def push(self) -> None:
        """Put everything, and know that it is there."""
        self._all(self._win.Rput)
        self._win.Flush(1)

    def fetch(self) -> None:
        """Get everything."""
        self._all(self._win.Rget)

    def _all(self, act: Callable[..., MPI.Request]) -> None:
        requests, at = [], 0
        for piece in self._pieces:
            requests.append(act([piece, MPI.BYTE], 1, [at, piece.nbytes, MPI.BYTE]))
            at += piece.nbytes
        wait_spinning(requests)

    def meet(self, name: str) -> None:
        """The other rank has nothing to do for it."""

    def close(self) -> None:
        """Free the memory."""
        self._win.Unlock_all()
        self._win.Free()
