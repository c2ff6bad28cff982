"""A worker's two ways to a server's memory: loads and stores where it is shared, or a window.

Both have slots to send mail with (`outbox`, `send`, `finish`), the answers to fetches, and readers
of chunks. memory.py has the memory.
"""
import time
from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI
from mpi4py.util import dtlib

from hpclcae.mpi.memory import ServerMemory, WindowWords
from hpclcae.mpi.waiting import wait
from hpclcae.parameter_server.mailbox import LINE, Outbox, SequenceLock

_NO, _YES = np.zeros(1, np.int64), np.ones(1, np.int64)


class SharedAccess:
    """A worker's way to the memory of a server on its node: loads and stores."""

    def __init__(self, memory: ServerMemory) -> None:
        lay, row = memory.map, memory.row
        self._memory, self._slots = memory, lay.slots[row]
        posted, taken = (memory.words(start + 8 * lay.across * row, lay.across)
                         for start in (lay.posted, lay.taken))
        self.outbox = Outbox(posted, taken, self._slots.count)
        self._answer = memory.words(lay.answers + LINE * row, 2)
        self._lock = SequenceLock(memory.words(lay.started[0], memory.count),
                                  memory.words(lay.finished[0], memory.count))
        self.shared = True

    def slot(self, slot: int) -> np.ndarray:
        """The bytes of a slot."""
        memory = self._memory
        return memory.at(memory.map.slot(memory.row, slot), self._slots.bytes)

    def send(self, slot: int, message: np.ndarray, index: int) -> None:
        """Write a message (n,) of uint8 into a slot, and post it."""
        self.slot(slot)[:message.size] = message
        self.outbox.post(slot)

    def finish(self) -> None:
        """What was sent has arrived."""

    def flush(self) -> None:
        """The same."""

    def wait_for_message(self, index: int) -> None:
        """What was sent has left."""

    def answer(self) -> tuple[int, int]:
        """The newest step, and the number of the last answer, as Mailroom.answer has written them.
        """
        [number] = self._answer.read(slice(1, 2)).tolist()
        [newest] = self._answer.read(slice(0, 1)).tolist()
        return newest, number

    def reader(self, first: int, have: np.ndarray, wanted: np.ndarray,
               pieces: Sequence[np.ndarray]) -> "SharedReader":
        """Begin to read chunks (SharedReader)."""
        return SharedReader(self._memory, self._lock, first, have, wanted, pieces)


class SharedReader:
    """Reads chunks out of memory that ranks share.

    Parameters
    ----------
    first : int
        Number of the first chunk at the server.
    have : ndarray of int64 (chunks,)
        Versions that are there already.
    wanted : ndarray of int64 (chunks,)
        Versions that they must at least get.
    pieces : sequence of ndarray (n,)
        Where the chunks go.

    Attributes
    ----------
    versions : ndarray of int64 (chunks,)
    torn : int
        Chunks that were being written to, and had to be read again.
    began : float
        Moment.
    """
    is_flowing = False  # whether it gets on only if it is looked after without naps

    def __init__(self, memory: ServerMemory, lock: SequenceLock, first: int, have: np.ndarray,
                 wanted: np.ndarray, pieces: Sequence[np.ndarray]) -> None:
        self._memory, self._lock, self._first = memory, lock, first
        self._have, self._wanted = have.tolist(), wanted.tolist()
        self._pieces, self.versions = pieces, have.copy()
        self._todo, self.torn, self.began = list(range(len(have))), 0, time.monotonic()

    def advance(self) -> bool:
        """Read what can be read now; returns whether all is there."""
        self._todo = [number for number in self._todo if not self._read(number)]
        self.torn += len(self._todo)
        return not self._todo

    def _read(self, number: int) -> bool:
        piece, chunks = self._pieces[number], self._memory.map.chunks

        def copy() -> None:
            start = int(chunks[self._first + number])
            piece[:] = self._memory.at(start, piece.nbytes).view(piece.dtype)
        version = self._lock.read(self._first + number, self._have[number], copy)
        if version is None or version < self._wanted[number]:
            return False
        self.versions[number] = version
        return True


class RemoteAccess:
    """A worker's way to the memory of a server on another node: MPI's remote memory access."""

    def __init__(self, memory: ServerMemory) -> None:
        assert memory.win
        lay, row, self._win = memory.map, memory.row, memory.win
        self._memory = memory
        posted, taken = (WindowWords(self._win, start + 8 * lay.across * row, lay.across)
                         for start in (lay.posted, lay.taken))
        self.outbox = Outbox(posted, taken, lay.slots[row].count)
        self._answer = WindowWords(self._win, lay.answers + LINE * row, 2)
        self._attention = lay.attention + LINE * row
        self.started = WindowWords(self._win, lay.started[1], memory.count)
        self.finished = WindowWords(self._win, lay.finished[1], memory.count)
        self._needs: set[str] = set()
        self._sent: dict[int, MPI.Request] = {}
        self._open: int | None = None  # slot of mail that may not have arrived
        self.shared = False

    def need(self, what: str, begins: bool) -> None:
        """Say whether this worker moves data for which the server has to look after MPI."""
        before = bool(self._needs)
        (self._needs.add if begins else self._needs.discard)(what)
        if bool(self._needs) != before and not self._memory.direct:
            self._win.Accumulate([_NO if before else _YES, 1, MPI.INT64_T], 0,
                                 [self._attention, 1, MPI.INT64_T], MPI.REPLACE)

    def slot(self, slot: int) -> np.ndarray:
        """There are no bytes to write to here."""
        raise AssertionError(slot)

    def send(self, slot: int, message: np.ndarray, index: int) -> None:
        """Begin to send a message (n,) of uint8 into a slot; `index`: of whose chunk it is."""
        self.need("mail", True)
        self._post()
        offset = self._memory.map.slot(self._memory.row, slot)
        self._sent[index] = self._win.Rput([message, MPI.BYTE], 0,
                                           [offset, message.size, MPI.BYTE])
        self._open = slot
        if self._memory.direct:
            self.finish()

    def finish(self) -> None:
        """Post what was sent last, when it has arrived: a row's time was enough."""
        self._post()
        self.need("mail", False)

    def _post(self) -> None:
        if self._open is not None:
            self.outbox.post(self._open)
            self._open = None

    def flush(self) -> None:
        """The same, and the word that it has arrived is there."""
        self.finish()
        self._win.Flush(0)

    def wait_for_message(self, index: int) -> None:
        """Return when what was sent of chunk `index` has left."""
        if index in self._sent:
            wait([self._sent.pop(index)])

    def answer(self) -> tuple[int, int]:
        """See SharedAccess.answer."""
        [number] = self._answer.read(slice(1, 2)).tolist()
        [newest] = self._answer.read(slice(0, 1)).tolist()
        return newest, number

    def reader(self, first: int, have: np.ndarray, wanted: np.ndarray,
               pieces: Sequence[np.ndarray]) -> "RemoteReader":
        """Begin to read chunks."""
        return RemoteReader(self, first, have, wanted, pieces)

    def begin_read(self, number: int, into: np.ndarray) -> MPI.Request:
        """Begin to read a chunk of the server."""
        kind = dtlib.from_numpy_dtype(into.dtype)
        return self._win.Rget([into, into.size, kind], 0,
                              [int(self._memory.map.chunks[number]), into.size, kind])


class RemoteReader:
    """Reads chunks through a window; see SharedReader. All that lack are read at a time.

    Steps: read `finished`; read the chunks; read `started`; again those that were written to.
    """
    is_flowing = True

    def __init__(self, access: RemoteAccess, first: int, have: np.ndarray, wanted: np.ndarray,
                 pieces: Sequence[np.ndarray]) -> None:
        self._access, self._first, self._pieces, self._wanted = access, first, pieces, wanted
        self.versions, self.torn, self.began = have.copy(), 0, time.monotonic()
        self._todo = np.ones(len(have), bool)
        self._requests: list[MPI.Request] = []
        self._next: Callable[[], None] = self._begin_chunks
        self._have, self._counters = have, np.empty(len(have), np.int64)
        access.need("chunks", True)
        self._look(access.finished, self._begin_chunks)

    def advance(self) -> bool:
        """Go on if what was asked for last is there; returns whether all is."""
        while self._requests and MPI.Request.Testall(self._requests):
            self._next()
        return not self._requests

    def _look(self, words: WindowWords, then: Callable[[], None]) -> None:
        part = slice(self._first, self._first + len(self._counters))
        self._requests, self._next = [words.begin_read(part, self._counters)], then

    def _begin_chunks(self) -> None:
        self._todo &= self._counters != self._have
        self.versions[self._todo] = self._counters[self._todo]
        self._requests = [self._access.begin_read(self._first + number, self._pieces[number])
                          for number in np.flatnonzero(self._todo).tolist()]
        self._next = lambda: self._look(self._access.started, self._compare)
        if not self._requests:
            self._end()

    def _compare(self) -> None:
        self._todo &= (self._counters != self.versions) | (self.versions < self._wanted)
        self.torn += int(self._todo.sum())
        if self._todo.any():
            self._have = np.where(self._todo, -1, self._have)
            self._look(self._access.finished, self._begin_chunks)
        else:
            self._end()

    def _end(self) -> None:
        self._requests = []
        self._access.need("chunks", False)


def access_to(memory: ServerMemory) -> SharedAccess | RemoteAccess:
    """The way to a server's memory that this worker has."""
    return SharedAccess(memory) if memory.bytes is not None else RemoteAccess(memory)
