"""Chunks on their way to workers by messages, straight from where the store has them."""
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from mpi4py import MPI

from hpclcae.parameter_server.store import Store


class Answers:
    """What was sent of a server's chunks.

    A chunk that is to change before all of it has left moves to other memory first, so nobody waits
    for a worker that takes its time. That is rare; a copy of everything that is sent would be as
    slow as sending it.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm
        self.store: Store | None = None
        self._under_way: dict[int, list[MPI.Request]] = defaultdict(list)
        #: Memory that chunks have left, by size, with what still goes out of it.
        self._left: dict[int, list[tuple[np.ndarray, list[MPI.Request]]]] = defaultdict(list)

    def send(self, index: int, worker: int, tag: int) -> MPI.Request:
        """Begin to send chunk `index`."""
        assert self.store
        request = self._comm.Isend(self.store.values[index], worker, tag)
        mine = self._under_way[index]
        mine[:] = [one for one in mine if not one.Test()]
        mine.append(request)
        return request

    @contextmanager
    def changing(self, index: int, version: int) -> Iterator[None]:
        """While the store makes `version` of chunk `index`."""
        if self._under_way[index] and not MPI.Request.Testall(self._under_way[index]):
            self._move(index)
        yield

    def _move(self, index: int) -> None:
        """Let the store have its chunk elsewhere."""
        assert self.store
        old = self.store.values[index]
        left = self._left[old.size]
        free = next((n for n, (_, sends) in enumerate(left) if MPI.Request.Testall(sends)), None)
        new = np.empty_like(old) if free is None else left.pop(free)[0]
        new[:] = old
        self.store.values[index] = new
        left.append((old, self._under_way.pop(index)))
