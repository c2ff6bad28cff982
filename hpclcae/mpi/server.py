"""A parameter server: it takes messages one after the other and does what they say, or waits until
it may.

The decisions are parameter_store.Store's. With one-sided sums (one_sided.py) workers read and add
to the server's memory by themselves; then only the seeds, the marks and the end come as messages,
and looking for them is what lets MPI make progress for the others.
"""
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.messages import (BARRIER, CHUNKS, CLOSE, FETCH, HEADER, INITIALISE, PUSH, RELEASED,
                                  TO_SERVER, VERSIONS, Header)
from hpclcae.mpi.waiting import Backoff, wait_stream
from hpclcae.parameter_server.roles import Role
from hpclcae.parameter_server.store import Store


@dataclass
class _Fetch:
    """A fetch that waits for its answer."""
    worker: int
    header: Header
    have: np.ndarray
    wanted: np.ndarray


class Server:
    """The loop of one server.

    Parameters
    ----------
    comm : Intracomm
        All ranks of the job; it carries nothing else.
    roles : sequence of Role
        Of every rank.
    store : Store
    checkpoint : callable
        checkpoint(clocks) is called when every worker that still runs has marked: the store then
        lies between two steps of every replica; clocks (replicas,) are the steps that they have
        made.
    check : callable
        Called while there is nothing to do.
    synchronise : callable
        Makes the store's memory and what workers see of it in a window the same; called before an
        answer.
    visited : callable
        Whether workers are busy with the server's window: then it looks after MPI without naps.
    """

    def __init__(self, comm: MPI.Intracomm, roles: Sequence[Role], store: Store,
                 checkpoint: Callable[[np.ndarray], None], check: Callable[[], None],
                 synchronise: Callable[[], None], visited: Callable[[], bool]) -> None:
        self._comm, self._store, self._roles = comm, store, roles
        self._checkpoint, self._check, self._synchronise = checkpoint, check, synchronise
        self._visited = visited
        self._running = {rank for rank, role in enumerate(roles) if role.server is None}
        self._clocks = np.zeros(max(roles[rank].replica for rank in self._running) + 1, np.int64)
        self._marked: dict[int, bool] = {}  # workers that stand, and whether it is for ever
        self._letters = {worker: np.empty(self._longest_letter(worker), np.uint8)
                         for worker in sorted(self._running)}
        self._waiting: list[_Fetch] = []
        self._answers: dict[int, tuple[deque[MPI.Request], np.ndarray]] = {}
        self.wait_seconds = 0.0

    def run(self) -> None:
        """Serve until every worker has closed its line."""
        workers, statuses = list(self._letters), [MPI.Status() for _ in self._letters]
        # One letter of each worker is on its way: nobody waits for one that has stopped in the
        # middle of a letter.
        requests = [self._receive(worker) for worker in workers]
        while self._running:
            patience, began = Backoff(), time.monotonic()
            while not (arrived := MPI.Request.Testsome(requests, statuses)):
                self._check()
                if self._visited() or self._sends_go_on():
                    patience = Backoff()
                patience.pause()
            self.wait_seconds += time.monotonic() - began
            for place, status in zip(arrived, statuses):
                worker = workers[place]
                letter = self._letters[worker][:status.Get_count(MPI.BYTE)]
                self._take(worker, Header.read(letter), letter[HEADER:])
                if worker in self._running:
                    requests[place] = self._receive(worker)
        for sent, _ in self._answers.values():
            wait_stream(sent)

    def _longest_letter(self, worker: int) -> int:
        """Bytes of the longest message of a worker: the gradient of a chunk, or two versions of
        each."""
        sizes = [chunk.size for chunk in self._store.chunks
                 if chunk.block == self._roles[worker].block]
        return HEADER + max(16 * len(sizes), max(sizes, default=0) * self._store.dtype.itemsize)

    def _receive(self, worker: int) -> MPI.Request:
        """Let the next message of a worker come."""
        return self._comm.Irecv(self._letters[worker], worker, TO_SERVER)

    def _sends_go_on(self) -> bool:
        """Whether an answer has gone a little further since the last look."""
        before = sum(len(sent) for sent, _ in self._answers.values())
        for sent, _ in self._answers.values():
            while sent and sent[0].Test():
                sent.popleft()
        return before > sum(len(sent) for sent, _ in self._answers.values())

    def _take(self, worker: int, header: Header, rest: np.ndarray) -> None:
        """Do what one message says; `rest` is overwritten by the next one."""
        replica, block = self._roles[worker].replica, self._roles[worker].block
        if header.kind == PUSH:
            self._store.push(header.chunk, replica, header.clock, header.base, header.progress,
                             rest.view(self._store.dtype))
        elif header.kind == FETCH:
            have, wanted = rest.copy().view(np.int64).reshape(2, -1)
            self._waiting.append(_Fetch(worker, header, have, wanted))
        elif header.kind == INITIALISE:
            self._store.seed(header.chunk, rest.view(self._store.dtype))
        else:
            self._clocks[replica] = header.clock
            if header.kind == CLOSE:
                self._running.discard(worker)
            elif header.kind == BARRIER:
                self._marked[worker] = bool(header.base)
                self._store.stand(replica, block, header.clock)
            if header.kind == CLOSE or header.base:
                self._store.close(replica, block)
            self._snapshot_if_all_stand()
        self._answer()

    def _answer(self) -> None:
        """Answer the fetches that may be answered now, the oldest first."""
        if self._waiting:
            self._synchronise()
        for fetch in list(self._waiting):
            replica = self._roles[fetch.worker].replica
            first, count = fetch.header.chunk, len(fetch.have)
            if self._store.try_fetch(replica, fetch.header.pushes, first, fetch.wanted):
                self._waiting.remove(fetch)
                changed = self._store.changed(replica, fetch.header.clock, first, fetch.have)
                self._send(fetch, self._store.versions[first:first + count], changed)
            # the worker is to stand, and to ask again afterwards
            elif self._store.in_vain(first, fetch.wanted):
                self._waiting.remove(fetch)
                self._send(fetch, fetch.have, np.zeros(count, bool))

    def _send(self, fetch: _Fetch, versions: np.ndarray, changed: np.ndarray) -> None:
        """Versions, then copies of the chunks that changed: the originals may change before they
        have left."""
        store, first, count = self._store, fetch.header.chunk, len(fetch.have)
        if fetch.worker not in self._answers:
            numbers = store.bounds[first + count] - store.bounds[first]
            self._answers[fetch.worker] = (
                deque(), np.empty(8 * (1 + count) + numbers * store.dtype.itemsize, np.uint8))
        sent, buffer = self._answers[fetch.worker]
        wait_stream(sent)
        sent.clear()
        head = buffer[:8 * (1 + count)].view(np.int64)
        head[0], head[1:] = store.newest, versions
        sent.append(self._comm.Isend(head, fetch.worker, VERSIONS))
        copies, at = buffer[8 * (1 + count):].view(store.dtype), 0
        for number in np.flatnonzero(changed):
            values = store.values[first + number]
            copy = copies[at:at + values.size]
            copy[:] = values
            sent.append(self._comm.Isend(copy, fetch.worker, CHUNKS))
            at += values.size

    def _snapshot_if_all_stand(self) -> None:
        """When every worker that runs has marked: take the checkpoint, then let them go on."""
        if not self._marked or not self._running <= self._marked.keys():
            return
        self._store.all_paused()
        self._checkpoint(self._clocks)
        answer = np.array([all(self._marked.values()), *self._clocks], np.int64)
        for worker in sorted(self._marked):
            self._comm.Send(answer, worker, RELEASED)
        self._marked.clear()
