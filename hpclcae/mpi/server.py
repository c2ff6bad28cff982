"""The loop of a parameter server: one message after the other, each answered when it may be.

The decisions are parameter_server.store.Store's. With one-sided sums (one_sided.py) workers read
and add to the server's memory by themselves; then only the first parameters, the barrier and the
end come as messages, and looking for them is what lets MPI make progress for the others.
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
from hpclcae.mpi.window import Window
from hpclcae.parameter_server.barrier import Barrier
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
        checkpoint(clocks) is called when every worker that still runs has come to the barrier: the
        store then lies between two steps of every replica; clocks (replicas,) are the steps that
        they have made.
    check : callable
        Called while there is nothing to do.
    window : Window or None
        The store's memory, where workers read and add to it by themselves.
    """

    def __init__(self, comm: MPI.Intracomm, roles: Sequence[Role], store: Store,
                 checkpoint: Callable[[np.ndarray], None], check: Callable[[], None],
                 window: Window | None) -> None:
        self._comm, self._store, self._roles = comm, store, roles
        self._checkpoint, self._check, self._window = checkpoint, check, window
        workers = [rank for rank, role in enumerate(roles) if role.server is None]
        replicas = max(roles[rank].replica for rank in workers) + 1
        self._barrier = Barrier(workers, replicas)
        self._messages = {worker: np.empty(self._longest_message(worker), np.uint8)
                          for worker in workers}
        self._waiting: list[_Fetch] = []
        self._answers: dict[int, tuple[deque[MPI.Request], np.ndarray]] = {}
        self.wait_seconds = 0.0

    def run(self) -> None:
        """Serve until every worker has closed its connection."""
        workers, statuses = list(self._messages), [MPI.Status() for _ in self._messages]
        # One message of each worker is on its way: nobody waits for one that has stopped in the
        # middle of a message.
        requests = [self._receive(worker) for worker in workers]
        while self._barrier.running:
            backoff, began = Backoff(), time.monotonic()
            while not (arrived := MPI.Request.Testsome(requests, statuses)):
                self._check()
                accessed = self._window is not None and self._window.being_accessed()
                if accessed or self._sends_go_on():
                    backoff = Backoff()
                backoff.pause()
            self.wait_seconds += time.monotonic() - began
            for number, status in zip(arrived, statuses):
                worker = workers[number]
                message = self._messages[worker][:status.Get_count(MPI.BYTE)]
                self._take(worker, Header.read(message), message[HEADER:])
                if worker in self._barrier.running:
                    requests[number] = self._receive(worker)
        for sent, _ in self._answers.values():
            wait_stream(sent)

    def _longest_message(self, worker: int) -> int:
        """Bytes of a worker's longest message: a chunk's gradient, or two versions of each."""
        sizes = [chunk.size for chunk in self._store.chunks
                 if chunk.block == self._roles[worker].block]
        return HEADER + max(16 * len(sizes), max(sizes, default=0) * self._store.dtype.itemsize)

    def _receive(self, worker: int) -> MPI.Request:
        """Let the next message of a worker come."""
        return self._comm.Irecv(self._messages[worker], worker, TO_SERVER)

    def _sends_go_on(self) -> bool:
        """Whether an answer has gone a little further since the last look."""
        before = sum(len(sent) for sent, _ in self._answers.values())
        for sent, _ in self._answers.values():
            while sent and sent[0].Test():
                sent.popleft()
        return before > sum(len(sent) for sent, _ in self._answers.values())

    def _take(self, worker: int, header: Header, rest: np.ndarray) -> None:
        """Do what one message says; `rest` is overwritten by the next one."""
        store, replica, block = self._store, self._roles[worker].replica, self._roles[worker].block
        if header.kind == PUSH:
            store.push(header.chunk, replica, header.clock, header.base, header.learning_rate,
                       rest.view(store.dtype))
        elif header.kind == FETCH:
            have, wanted = rest.copy().view(np.int64).reshape(2, -1)
            self._waiting.append(_Fetch(worker, header, have, wanted))
        elif header.kind == INITIALISE:
            store.initialise(header.chunk, rest.view(store.dtype))
        else:
            if header.kind == BARRIER:
                self._barrier.arrive(worker, replica, header.clock, bool(header.final))
                store.pause(replica, block, header.clock)
            else:
                self._barrier.leave(worker, replica, header.clock)
            if header.kind == CLOSE or header.final:
                store.close(replica, block)
            self._release_if_complete()
        self._answer()

    def _answer(self) -> None:
        """Answer the fetches that may be answered now, the oldest first."""
        if self._waiting and self._window:
            self._window.synchronise()  # what workers see of the store's memory
        store = self._store
        for fetch in list(self._waiting):
            header, replica = fetch.header, self._roles[fetch.worker].replica
            first, count = header.chunk, len(fetch.have)
            if store.try_fetch(replica, header.pushes, first, fetch.wanted):
                self._waiting.remove(fetch)
                changed = store.take_changed(replica, header.clock, first, fetch.have)
                self._send(fetch, store.versions[first:first + count], changed)
            elif store.blocked_by_paused_worker(first, fetch.wanted):
                self._waiting.remove(fetch)  # the worker is to pause, and to ask again afterwards
                self._send(fetch, fetch.have, np.zeros(count, bool))

    def _send(self, fetch: _Fetch, versions: np.ndarray, changed: np.ndarray) -> None:
        """Versions, then copies of the chunks that changed.

        The originals may change before they have left.
        """
        store, first, count = self._store, fetch.header.chunk, len(fetch.have)
        if fetch.worker not in self._answers:
            elements = store.bounds[first + count] - store.bounds[first]
            size = 8 * (1 + count) + elements * store.dtype.itemsize
            self._answers[fetch.worker] = deque(), np.empty(size, np.uint8)
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

    def _release_if_complete(self) -> None:
        """When every worker that runs has come to the barrier: take the checkpoint, let them go."""
        if not self._barrier.complete:
            return
        self._store.all_paused()
        self._checkpoint(self._barrier.clocks)
        released, over = self._barrier.release()
        answer = np.array([over, *self._barrier.clocks], np.int64)
        for worker in sorted(released):
            self._comm.Send(answer, worker, RELEASED)
