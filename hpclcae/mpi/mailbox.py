"""The one-sided connection: mail is written into a server's memory, chunks are read out of it.

Where the server is on the same node, the gradient is written into a slot of its memory while the
sweep goes on, and nothing has to be sent; a fetch copies chunks when they are needed. Elsewhere
mail leaves with Rput while the next chunk is computed, and chunks come with Rget.

parameter_server/mailbox.py has the protocol, memory.py the memory; the server (server.py) decides
what happens, with the same Store as for messages.
"""
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI
from mpi4py.util import dtlib

from hpclcae.config import Config
from hpclcae.mpi.memory import ServerMemory, WindowWords
from hpclcae.mpi.messages import FETCH, FETCHED, PUSH, Header, MessageConnection, gradient_in
from hpclcae.mpi.waiting import Backoff, wait
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.mailbox import HEADER, LINE, Outbox, SequenceLock
from hpclcae.utils.errors import InputError

#: A chunk that the server writes to whenever it is read is given up after this long.
TORN_SECONDS = 60.0
_NO, _YES = np.zeros(1, np.int64), np.ones(1, np.int64)
_NOTE = -1  # in place of a chunk's number


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


class MailboxConnection(ServerConnection):
    """One block's connection to the servers through their memories.

    Parameters
    ----------
    messages : MessageConnection
        For the first parameters, the barrier and the end.
    memories : dict of int to ServerMemory
        Of the servers that hold the block's chunks.

    Attributes
    ----------
    torn : int
        Chunks that had to be read again.
    """

    def __init__(self, messages: MessageConnection, config: Config,
                 memories: dict[int, ServerMemory]) -> None:
        self._messages, self._memories = messages, memories
        self.chunks, self._spans, self._held = messages.chunks, messages.spans, messages.held
        self._dtype = messages.dtype
        self.access: dict[int, SharedAccess | RemoteAccess] = {
            server: SharedAccess(memory) if memory.bytes is not None else RemoteAccess(memory)
            for server, memory in memories.items()}
        #: Slots that chunks are being written into.
        self._slots: dict[int, int] = {}
        # Asynchronously nobody waits for leave to fetch.
        self._asks, self._asked = config.parallel.consistency != "asynchronous", 0
        self._notes = {server: np.zeros(HEADER + 16 * len(span.chunk_range), np.uint8)
                       for server, span in self._spans.items()}
        self._marks: dict[int, int] = {}  # servers whose chunks are still to come: last ticket
        self._readers: dict[int, SharedReader | RemoteReader] = {}
        self.newest = self.fetched_bytes = self.pushed_bytes = self.torn = 0
        self._initialised = False

    @property
    def shared(self) -> bool:
        """Whether all servers are on this node."""
        return all(access.shared for access in self.access.values())

    def initialise(self, parameters: np.ndarray) -> None:
        self._messages.initialise(parameters)

    # ---- fetches ---------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        if not self._initialised:
            self._messages.await_initialised()
            self._initialised = True
        self._into, self._clock = into, clock
        self._have, self._wanted = have.copy(), wanted.copy()
        self._versions = have.copy()
        if self._asks:
            self._asked += 1
            for server in self._spans:
                self._send_note(server, FETCH, wanted, pushes)
        for server, access in self.access.items():
            access.finish()
            self._marks[server] = access.outbox.last
        self._go_on(waited_for=False)

    def _go_on(self, waited_for: bool) -> bool:
        """Read what may be read; returns whether it flows, and would suffer from a nap.

        waited_for : bool
            Before that nothing is copied on this node: later is fresher.
        """
        flows = False
        for server in list(self._marks):
            access = self.access[server]
            if access.shared and not waited_for or not self._may_read(server):
                continue
            reader = self._readers[server]
            if reader.advance():
                self._versions[self._spans[server].mine] = reader.versions
                self.torn += reader.torn
                del self._readers[server], self._marks[server]
                self._send_note(server, FETCHED, self._versions)
            elif reader.torn and time.monotonic() - reader.began > TORN_SECONDS:
                raise InputError(f"chunks were written to whenever they were read, for "
                                 f"{TORN_SECONDS:g} s: use fewer replicas, a larger "
                                 "parallel.push_every, or parallel.transport = 'messages'")
            else:
                flows = flows or reader.is_flowing
        return flows

    def _may_read(self, server: int) -> bool:
        """Whether what this block pushed is in a server's chunks, and nobody has to be waited for.

        Then there is a reader for them.
        """
        if server in self._readers:
            return True
        access, span = self.access[server], self._spans[server]
        if self._asks:
            newest, number = access.answer()
            if abs(number) < self._asked:
                return False
            self.newest = max(self.newest, newest)
            if number < 0:  # a worker that the round lacks pauses: so shall this one
                del self._marks[server]
                return False
        elif not access.outbox.taken(self._marks[server]):
            return False
        pieces = [self._into[chunk.start:chunk.stop] for chunk in self.chunks[span.mine]]
        self._readers[server] = access.reader(span.first, self._have[span.mine],
                                              self._wanted[span.mine], pieces)
        return True

    def finish_fetch(self) -> np.ndarray:
        """See ServerConnection.

        Raises
        ------
        InputError
            Chunks are written to whenever they are read.
        """
        backoff = Backoff()
        while True:
            flows = self._go_on(waited_for=True)
            if not self._marks:
                break
            if flows:
                os.sched_yield()
            else:
                backoff.pause()
        for index in np.flatnonzero(self._versions != self._have).tolist():
            self.fetched_bytes += self.chunks[index].size * self._dtype.itemsize
        return self._versions

    # ---- pushes ----------------------------------------------------------------------------------

    def buffer(self, index: int) -> np.ndarray:
        """A slot of the server's, or memory of this rank's.

        One slot is left to go round with mail that is copied: whoever fills all others never waits
        for itself.
        """
        access = self.access[self._held[index][0]]
        if access.shared and len(access.outbox.filling) + 1 < access.outbox.slots:
            slot = self._claim(access)
            self._slots[index] = slot
            return gradient_in(access.slot(slot), self.chunks[index].size, self._dtype)
        access.wait_for_message(index)
        return self._messages.buffer(index)

    def _claim(self, access: SharedAccess | RemoteAccess) -> int:
        """A free slot; waits for one if all are full."""
        slot = access.outbox.claim()
        if slot is None:
            access.finish()
            backoff = Backoff()
            while (slot := access.outbox.claim()) is None:
                backoff.pause()
        return slot

    def push(self, index: int, clock: int, base: int, learning_rate: float,
             then: np.ndarray | None = None) -> None:
        server, number = self._held[index]
        access, size = self.access[server], self.chunks[index].size
        header = Header(PUSH, number, clock, base, learning_rate=learning_rate)
        slot = self._slots.pop(index, None)
        mail = self._messages.messages[index] if slot is None else access.slot(slot)
        each = size * self._dtype.itemsize
        header.write(mail, each if then is None else 2 * each)
        if then is not None:
            mail[HEADER + each:HEADER + 2 * each].view(self._dtype)[:] = then
        if slot is None:
            access.send(self._claim(access), mail, index)
        else:
            access.outbox.post(slot)
        self.pushed_bytes += each
        self._go_on(waited_for=False)

    def _send_note(self, server: int, kind: int, versions: np.ndarray, pushes: int = 0) -> None:
        """Send two versions of each chunk: those that were there before the fetch, and others."""
        access, note, span = self.access[server], self._notes[server], self._spans[server]
        access.wait_for_message(_NOTE)
        Header(kind, span.first, self._clock, pushes=pushes).write(note)
        note[HEADER:].view(np.int64)[:] = np.concatenate([self._have[span.mine],
                                                          versions[span.mine]])
        access.send(self._claim(access), note, _NOTE)

    def flush(self) -> None:
        for access in self.access.values():
            access.flush()

    def _drain(self) -> None:
        """Return when the servers have taken all mail."""
        self.flush()
        for access in self.access.values():
            backoff = Backoff()
            while not access.outbox.taken(access.outbox.last):
                backoff.pause()

    # ---- the barrier, and the end ----------------------------------------------------------------

    def barrier(self, clock: int, final: bool,
                meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        self._drain()
        return self._messages.barrier(clock, final, meanwhile)

    def close(self, clock: int) -> None:
        self._drain()
        self._messages.close(clock)
        for memory in self._memories.values():
            memory.close()
