"""A parameter server: it takes messages one after the other and does what they say, or waits until it may.

The decisions are parameter_store.Store's. With one-sided sums (one_sided.py) workers read and add to the server's
memory by themselves; then only the seeds, the marks and the end come as messages, and looking for them is what lets
MPI make progress for the others.
"""
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from hpclcae.parallel.halo import Patience, wait
from hpclcae.parallel.messages import (CHUNKS, CLOSE, FETCH, HEADER, MARK, MARKED, PUSH, SEED, TO_SERVER, VERSIONS,
                                       Header)
from hpclcae.parameter_store import Store, runs
from hpclcae.topology import Role


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
        checkpoint(clocks) is called when every worker that still runs has marked: the store then lies between two
        steps of every replica; clocks (replicas,) are the steps that they have made.
    check : callable
        Called while there is nothing to do.
    synchronise : callable
        Makes the store's memory and what workers see of it in a window the same; called before an answer.
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
        self._letter = np.zeros(HEADER, np.uint8)
        self._waiting: list[_Fetch] = []
        self._answers: dict[int, tuple[list[MPI.Request], np.ndarray]] = {}
        self.wait_seconds = 0.0

    def run(self) -> None:
        """Serve until every worker has closed its line."""
        status = MPI.Status()
        while self._running:
            patience, began = Patience(), time.monotonic()
            while (message := self._comm.Improbe(MPI.ANY_SOURCE, TO_SERVER, status)) is None:
                self._check()
                if self._visited():
                    patience = Patience()
                patience.pause()
            self.wait_seconds += time.monotonic() - began
            count = status.Get_count(MPI.BYTE)
            if count > self._letter.size:
                self._letter = np.zeros(count, np.uint8)
            letter = self._letter[:count]
            message.Recv(letter)
            self._take(status.Get_source(), Header.read(letter), letter[HEADER:])
        for requests, _ in self._answers.values():
            wait(requests)

    def _take(self, worker: int, header: Header, rest: np.ndarray) -> None:
        """Do what one message says; `rest` is overwritten by the next one."""
        replica = self._roles[worker].replica
        if header.kind == PUSH:
            self._store.push(header.chunk, replica, header.clock, header.base, header.progress,
                             rest.view(self._store.dtype))
        elif header.kind == FETCH:
            have, wanted = rest.copy().view(np.int64).reshape(2, -1)
            self._waiting.append(_Fetch(worker, header, have, wanted))
        elif header.kind == SEED:
            self._store.seed(header.chunk, rest.view(self._store.dtype))
        else:
            self._clocks[replica] = header.clock
            if header.kind == CLOSE:
                self._running.discard(worker)
            elif header.kind == MARK:
                self._marked[worker] = bool(header.base)
                self._store.stand(replica, header.clock)
            if header.kind == CLOSE or header.base:
                self._store.close(replica)
            self._snapshot_if_all_stand()
        self._answer()

    def _answer(self) -> None:
        """Answer the fetches that may be answered now, the oldest first."""
        # Who stands at a mark makes no pushes: nobody who has still to come there may wait for them.
        standing = bool(self._marked) and not self._store.missing
        if self._waiting:
            self._synchronise()
        for fetch in list(self._waiting):
            replica = self._roles[fetch.worker].replica
            if self._store.may_fetch(replica, fetch.header.pushes, fetch.header.chunk, fetch.wanted) or (
                    standing and self._store.config.parallel.consistency == "bounded"):
                self._waiting.remove(fetch)
                self._send(fetch)

    def _send(self, fetch: _Fetch) -> None:
        """Versions, then copies of the chunks that changed: the originals may change before they have left."""
        store, first, count = self._store, fetch.header.chunk, len(fetch.have)
        replica = self._roles[fetch.worker].replica
        if fetch.worker not in self._answers:
            numbers = store.bounds[first + count] - store.bounds[first]
            self._answers[fetch.worker] = [], np.empty(8 * (1 + count) + numbers * store.dtype.itemsize, np.uint8)
        requests, buffer = self._answers[fetch.worker]
        wait(requests)
        requests.clear()
        head = buffer[:8 * (1 + count)].view(np.int64)
        head[0], head[1:] = store.newest, store.versions[first:first + count]
        requests.append(self._comm.Isend(head, fetch.worker, VERSIONS))
        copies, at = buffer[8 * (1 + count):].view(store.dtype), 0
        for start, end in runs(store.changed(replica, fetch.header.clock, first, fetch.have)):
            piece = store.memory[store.bounds[first + start]:store.bounds[first + end]]
            copies[at:at + piece.size] = piece
            requests.append(self._comm.Isend(copies[at:at + piece.size], fetch.worker, CHUNKS))
            at += piece.size

    def _snapshot_if_all_stand(self) -> None:
        """When every worker that runs has marked: take the checkpoint, then let them go on."""
        if not self._marked or not self._running <= self._marked.keys():
            return
        self._checkpoint(self._clocks)
        answer = np.array([all(self._marked.values()), *self._clocks], np.int64)
        for worker in sorted(self._marked):
            self._comm.Send(answer, worker, MARKED)
        self._marked.clear()
