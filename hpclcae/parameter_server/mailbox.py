"""Mail from workers to a server, in memory that both reach: slots, and a lock for its readers.

A worker has a ring of slots at every server, large enough for the gradient of any of its chunks. A
slot goes round through these states; two words tell which, each with one writer:

    free ---claim---> filling ---post---> full ---take---> being applied ---free---> free
    |<----------- the worker may write ---------->|<------- the server may read ------->|
    posted == taken                       posted > taken                   posted == taken

* `posted`, written by the worker: the ticket of the mail in the slot. It is written last, when all
  of the mail is there. Tickets count a worker's mail: 1, 2, 3, ...
* `taken`, written by the server: the ticket of the mail that was last taken out of the slot. The
  worker reads it where it lies; the server is not asked.

A server takes the mail of one worker in the order of tickets, so a worker may fill several slots at
a time and post them in any order.

Readers of a chunk need nobody's leave. The server is the only one who writes; it counts what it
begins and what it has ended (`SequenceLock`), and a reader sees by the two whether to read again.

What is written here in pure Python is all of the protocol; mpi/memory.py has the memory. Tests run
it through every order in which its steps can happen.
"""
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

LINE = 64  # bytes of a cache line: what different ranks write lies in different ones
HEADER = 64  # bytes of a mail before what belongs to it
EVERYTHING = slice(None)


class Words(Protocol):
    """A row of int64, each with one writer, in memory that server and worker reach."""

    def read(self, part: slice = EVERYTHING) -> np.ndarray:
        """A copy; what was written before one of them is seen by whatever is read afterwards."""

    def write(self, index: int, value: int) -> None:
        """Set one; whoever sees it sees all that was written before."""


class SharedWords(Words):
    """Words that are read and written where they lie.

    Parameters
    ----------
    words : ndarray of int64 (n,)
    synchronise : callable
        Keeps what comes before it in memory from what comes after it.
    """

    def __init__(self, words: np.ndarray, synchronise: Callable[[], object]) -> None:
        self._words, self._synchronise = words, synchronise

    def read(self, part: slice = EVERYTHING) -> np.ndarray:
        found = self._words[part].copy()
        self._synchronise()
        return found

    def write(self, index: int, value: int) -> None:
        self._synchronise()
        self._words[index] = value


class Outbox:
    """A worker's side of its slots at one server.

    Parameters
    ----------
    posted, taken : Words
        One for each slot.
    """

    def __init__(self, posted: Words, taken: Words, slots: int) -> None:
        self._posted, self._taken, self.slots = posted, taken, slots
        self._tickets = np.zeros(slots, np.int64)  # of the mail that each slot last had
        self._known = np.zeros(slots, np.int64)    # what `taken` was when it was last read
        self.filling: set[int] = set()
        self.last = 0  # ticket

    def claim(self) -> int | None:
        """A slot to fill, which is free; None: there is none at this moment."""
        for look in (False, True):
            if look:
                self._look()
            for slot in np.flatnonzero(self._known == self._tickets).tolist():
                if slot not in self.filling:
                    self.filling.add(slot)
                    return slot
        return None

    def post(self, slot: int) -> None:
        """All of the mail is there: the server may take it."""
        self.last += 1
        self._tickets[slot] = self.last
        self.filling.remove(slot)
        self._posted.write(slot, self.last)

    def taken(self, ticket: int) -> bool:
        """Whether the server has taken all mail up to a ticket."""
        for look in (False, True):
            if look:
                self._look()
            if ((self._known == self._tickets) | (self._tickets > ticket)).all():
                return True
        return False

    def _look(self) -> None:
        self._known = self._taken.read(slice(self.slots))


class Inbox:
    """A server's side of the slots of several workers.

    Parameters
    ----------
    posted, taken : Words
        `slots` for each worker, worker after worker.
    """

    def __init__(self, posted: Words, taken: Words, workers: int, slots: int) -> None:
        self._posted, self._taken = posted, taken
        self._workers, self._slots = workers, slots
        self._next = np.ones((workers, 1), np.int64)  # tickets
        self._seen = b""  # words in which there is nothing to read: an idle server's look is cheap

    def complete(self) -> list[tuple[int, int]]:
        """Worker and slot of mail that may be read now; of each worker its next at most."""
        words = self._posted.read()
        if (seen := words.tobytes()) == self._seen:
            return []
        posted = words.reshape(self._workers, self._slots)
        workers, slots = np.nonzero(posted == self._next)
        self._seen = b"" if workers.size else seen
        return list(zip(workers.tolist(), slots.tolist()))

    def free(self, worker: int, slot: int) -> None:
        """The mail in it has been taken: the worker may write again."""
        ticket = int(self._next[worker, 0])
        self._next[worker, 0] += 1
        self._seen = b""
        self._taken.write(worker * self._slots + slot, ticket)


class SequenceLock:
    """Two counters a chunk, both its version while nobody writes.

    Parameters
    ----------
    started, finished : Words
        The version that was begun last, and the one that was completed last.
    """

    def __init__(self, started: Words, finished: Words) -> None:
        self._started, self._finished = started, finished

    @contextmanager
    def changing(self, index: int, version: int) -> Iterator[None]:
        """While the server makes `version` of chunk `index`."""
        self._started.write(index, version)
        yield
        self._finished.write(index, version)

    def read(self, index: int, have: int, copy: Callable[[], None]) -> int | None:
        """Copy a chunk, if its version is not `have`; returns it, or None: it is being written to.
        """
        [version] = self._finished.read(slice(index, index + 1)).tolist()
        if version == have:
            return version
        copy()
        [begun] = self._started.read(slice(index, index + 1)).tolist()
        return version if begun == version else None


@dataclass(frozen=True)
class Slots:
    """One worker's slots at one server: how many, and bytes of each."""
    count: int
    bytes: int


class MemoryMap:
    """Where things lie in a server's memory, in bytes.

    | shared: started, finished | window: started, finished | posted | taken | answers | attention |
    parameters | slots of worker 0 | slots of worker 1 | ...

    Ranks that share the memory read the first two counters by loads, the others the second two by
    MPI: no word is reached in both ways.

    Parameters
    ----------
    sizes : sequence of int
        Elements of the server's chunks.
    slots : sequence of Slots
        Of every worker.

    Attributes
    ----------
    started, finished : tuple of int
        Where the counters begin: those that are shared, and those of the window.
    posted, taken : int
        Words of slots, `across` for every worker.
    answers : int
        Of every worker a line: the newest step, and the number of the last fetch that was answered.
    attention : int
        Of every worker a line: whether it needs the server to look after MPI.
    chunks : ndarray of int64 (chunks + 1,)
        Where chunks begin, and the end of the last one.
    total : int
    """

    def __init__(self, sizes: Sequence[int], dtype: np.dtype, slots: Sequence[Slots]) -> None:
        self.across = _lines(8 * max((one.count for one in slots), default=1)) // 8
        counters, rows = _lines(8 * len(sizes)), 8 * self.across * len(slots)
        self.started, self.finished = (0, 2 * counters), (counters, 3 * counters)
        self.posted = 4 * counters
        self.taken = self.posted + rows
        self.answers = self.taken + rows
        self.attention = self.answers + LINE * len(slots)
        first = self.attention + LINE * len(slots)
        self.chunks = first + np.cumsum([0, *sizes]) * dtype.itemsize
        ends = np.cumsum([_lines(int(self.chunks[-1])), *(one.count * one.bytes for one in slots)])
        self.slots, self._rings, self.total = list(slots), ends[:-1].tolist(), int(ends[-1])

    def slot(self, worker: int, slot: int) -> int:
        """Where a slot begins."""
        return self._rings[worker] + slot * self.slots[worker].bytes


def _lines(size: int) -> int:
    """Bytes of the cache lines that hold so many."""
    return -(-size // LINE) * LINE


def slots_for(sizes: Sequence[int], wanted: int) -> Slots:
    """A worker's slots at a server that holds its chunks.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of what is pushed of each chunk.
    wanted : int
        Slots (parallel.slots); never more than one for each chunk and one to spare.
    """
    # A fetch sends two versions of each chunk.
    largest = max(max(sizes, default=0), 16 * len(sizes))
    return Slots(min(wanted, len(sizes) + 1), HEADER + _lines(largest))
