"""The loop of a parameter server: one message or mail after the other, answered when it may be.

The decisions are parameter_server.store.Store's. With one-sided updates (mailbox.py) gradients come
as mail in the server's memory, and workers read the chunks by themselves; then only the first
parameters, the barrier and the end come as messages. Looking for them is what lets MPI make
progress for workers on other nodes.
"""
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.answers import Answers
from hpclcae.mpi.memory import Mailroom
from hpclcae.mpi.messages import CHUNKS, RELEASED, TO_SERVER, VERSIONS
from hpclcae.mpi.waiting import Backoff, wait_stream
from hpclcae.parameter_server.barrier import Barrier
from hpclcae.parameter_server.header import (BARRIER, CLOSE, FETCH, FETCHED, HEADER, INITIALISE,
                                             PUSH, Header)
from hpclcae.parameter_server.roles import Role
from hpclcae.parameter_server.store import Store, compensates


@dataclass
class _Fetch:
    """A fetch that waits for its answer; `mailbox`: the worker's row there, if it came as mail."""
    worker: int
    header: Header
    have: np.ndarray
    wanted: np.ndarray
    mailbox: int | None


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
    answers : Answers
        On the same communicator; sends chunks of the store.
    mailroom : Mailroom or None
        Where mail comes from.
    senders : sequence of int
        Rank of the worker of every row of the mailroom.
    """

    def __init__(self, comm: MPI.Intracomm, roles: Sequence[Role], store: Store,
                 checkpoint: Callable[[np.ndarray], None], check: Callable[[], None],
                 answers: Answers, mailroom: Mailroom | None = None,
                 senders: Sequence[int] = ()) -> None:
        self._comm, self._store, self._roles = comm, store, roles
        self._checkpoint, self._check = checkpoint, check
        self._mailroom, self._senders = mailroom, senders
        workers = [rank for rank, role in enumerate(roles) if role.server is None]
        replicas = max(roles[rank].replica for rank in workers) + 1
        self._barrier = Barrier(workers, replicas)
        self._messages = {worker: np.empty(self._longest_message(worker), np.uint8)
                          for worker in workers}
        self._waiting: list[_Fetch] = []
        self._answers: dict[int, tuple[deque[MPI.Request], np.ndarray]] = {}
        self._chunks = answers
        self.wait_seconds = 0.0

    def run(self) -> None:
        """Serve until every worker has closed its connection."""
        workers = list(self._messages)
        # One message of each worker is on its way: nobody waits for one that has stopped in the
        # middle of a message.
        requests = [self._receive(worker) for worker in workers]
        while self._barrier.running:
            backoff, began = Backoff(), time.monotonic()
            while True:
                arrived, mail = MPI.Request.Testsome(requests), self._find_mail()
                if arrived or mail:
                    break
                self._check()
                if self._store.is_due:
                    self._answer()
                if self._mailroom and self._mailroom.is_needed() or self._sends_go_on():
                    backoff = Backoff()
                backoff.pause()
            self.wait_seconds += time.monotonic() - began
            for number in arrived or ():
                worker = workers[number]
                self._take(worker, self._messages[worker])
                if worker in self._barrier.running:
                    requests[number] = self._receive(worker)
            for row, slot in mail:
                self._take_mail(row, slot)
        for sent, _ in self._answers.values():
            wait_stream(sent)

    def _find_mail(self) -> list[tuple[int, int]]:
        """Row and slot of mail that is there, one of each worker."""
        return self._mailroom.complete() if self._mailroom else []

    def _take_mail(self, row: int, slot: int) -> None:
        """Take mail, and free its slot."""
        assert self._mailroom
        self._take(self._senders[row], self._mailroom.mail(row, slot), row)
        self._mailroom.free(row, slot)

    def _longest_message(self, worker: int) -> int:
        """Bytes of a worker's longest message: what is pushed of a chunk, or two versions of each.
        """
        each = self._store.dtype.itemsize * (1 + compensates(self._store.config))
        sizes = [chunk.size * each for chunk in self._store.chunks
                 if chunk.block == self._roles[worker].block]
        return HEADER + max(16 * len(sizes), max(sizes, default=0))

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

    def _take(self, worker: int, message: np.ndarray, mailbox: int | None = None) -> None:
        """Do what one message or mail says; it is overwritten by the next one."""
        store, replica, block = self._store, self._roles[worker].replica, self._roles[worker].block
        header, rest = Header.read(message)
        if header.kind == PUSH:
            gradient, *then = np.split(rest.view(store.dtype), 1 + compensates(store.config))
            store.push(header.chunk, replica, header.clock, header.base, header.learning_rate,
                       gradient, *then)
        elif header.kind == FETCH:
            have, wanted = rest.copy().view(np.int64).reshape(2, -1)
            self._waiting.append(_Fetch(worker, header, have, wanted, mailbox))
        elif header.kind == FETCHED:
            have, got = rest.view(np.int64).reshape(2, -1)
            store.note_fetch(replica, header.clock, header.chunk, have, got)
        elif header.kind == INITIALISE:
            [size] = store.values[header.chunk].shape
            store.initialise(header.chunk, rest.view(store.dtype)[:size])
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
        store = self._store
        for fetch in list(self._waiting):
            header, replica = fetch.header, self._roles[fetch.worker].replica
            first, count = header.chunk, len(fetch.have)
            granted = store.try_fetch(replica, header.pushes, first, fetch.wanted)
            if not granted and not store.blocked_by_paused_worker(first, fetch.wanted):
                continue
            self._waiting.remove(fetch)
            if fetch.mailbox is not None:  # it reads, and says what (FETCHED)
                assert self._mailroom
                self._mailroom.answer(fetch.mailbox, store.newest, granted)
            elif granted:
                changed = store.take_changed(replica, header.clock, first, fetch.have)
                self._send(fetch, store.versions[first:first + count], changed)
            else:  # the worker is to pause, and to ask again afterwards
                self._send(fetch, fetch.have, np.zeros(count, bool))

    def _send(self, fetch: _Fetch, versions: np.ndarray, changed: np.ndarray) -> None:
        """Versions, then the chunks that changed."""
        store, first, count = self._store, fetch.header.chunk, len(fetch.have)
        if fetch.worker not in self._answers:
            self._answers[fetch.worker] = deque(), np.empty(1 + count, np.int64)
        sent, head = self._answers[fetch.worker]
        wait_stream(sent)
        sent.clear()
        head = head[:1 + count]
        head[0], head[1:] = store.newest, versions
        sent.append(self._comm.Isend(head, fetch.worker, VERSIONS))
        for number in np.flatnonzero(changed).tolist():
            sent.append(self._chunks.send(first + number, fetch.worker, CHUNKS))

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
