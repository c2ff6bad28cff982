"""The one-sided connection: mail is written into a server's memory, chunks are read out of it.

Where the server is on the same node, the gradient is written into a slot of its memory while the
sweep goes on, and nothing has to be sent; a fetch copies chunks when they are needed. Elsewhere
mail leaves with Rput while the next chunk is computed, and chunks come with Rget.

parameter_server/mailbox.py has the protocol, access.py the two ways to a server's memory; the
server (server.py) decides what happens, with the same Store as for messages.
"""
import os
import time
from collections.abc import Callable

import numpy as np

from hpclcae.config import Config
from hpclcae.mpi.access import RemoteAccess, RemoteReader, SharedAccess, SharedReader, access_to
from hpclcae.mpi.memory import ServerMemory
from hpclcae.mpi.messages import MessageConnection
from hpclcae.mpi.waiting import Backoff
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.header import (FETCH, FETCHED, HEADER, PUSH, Header, gradient_in)
from hpclcae.utils.errors import InputError

#: A chunk that the server writes to whenever it is read is given up after this long.
TORN_SECONDS = 60.0
#: A worker that ends with an error waits so long for servers, which may have ended, too.
GIVEN_UP_SECONDS = 5.0
_NOTE = -1  # in place of a chunk's number


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
        self.access = {server: access_to(memory) for server, memory in memories.items()}
        #: Slots that chunks are being written into.
        self._slots: dict[int, int] = {}
        # Asynchronously nobody waits for leave to fetch.
        self._asks, self._asked = config.parallel.waits, 0
        self._notes = {server: np.zeros(HEADER + 16 * len(span.chunk_range), np.uint8)
                       for server, span in self._spans.items()}
        self._marks: dict[int, int] = {}  # servers whose chunks are still to come: last ticket
        self._readers: dict[int, SharedReader | RemoteReader] = {}
        self.newest = self.fetched_bytes = self.pushed_bytes = self.torn = 0
        self._initialised = False

    def initialise(self, parameters: np.ndarray) -> None:
        self._messages.initialise(parameters)
        self._messages.renew_messages()  # most mail is written where the server has it

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

    def give_up(self) -> None:
        """Read what was asked for, and wait a little until the servers have taken all mail.

        The note of what was read tells a replay that this step was begun.
        """
        until, backoff = time.monotonic() + GIVEN_UP_SECONDS, Backoff()
        while self._marks and time.monotonic() < until:
            self._go_on(waited_for=True)
            backoff.pause()
        self.flush()
        for access in self.access.values():
            backoff = Backoff()
            while not access.outbox.taken(access.outbox.last) and time.monotonic() < until:
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
