"""Servers in the same process: what the others are compared with, and what needs no MPI.

Replicas and their blocks are threads; one lock guards all stores. Tests, replays and simulations
drive a served trainer with it (training/local_job.py).
"""
import threading
from collections.abc import Callable, Sequence

import numpy as np

from hpclcae.parameter_server.barrier import Barrier
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.store import Store
from hpclcae.partition.threads import Stopped

LOOK_SECONDS = 0.01  # between two looks of a worker that waits at the barrier


class LocalServers:
    """All servers of a job.

    Parameters
    ----------
    shards : Shards
    stores : sequence of Store
        Of every server.
    checkpoint : callable
        checkpoint(clocks) is called when every worker that still runs pauses; clocks (replicas,)
        are the steps that the replicas have made.
    """

    def __init__(self, shards: Shards, stores: Sequence[Store],
                 checkpoint: Callable[[np.ndarray], None] = lambda clocks: None) -> None:
        self.shards, self.stores, self._checkpoint = shards, list(stores), checkpoint
        self.changed = threading.Condition()  # who holds it may use the stores
        replicas, blocks = shards.layout.config.parallel.replicas, shards.layout.grid.size
        self.barrier = Barrier([(r, b) for r in range(replicas) for b in range(blocks)], replicas)
        self.released: dict[tuple[int, int], tuple[np.ndarray, bool]] = {}
        self._stopped = False

    def connection(self, replica: int, block: int) -> "LocalConnection":
        """A worker's connection."""
        return LocalConnection(self, replica, block)

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until something holds or the time is over; the caller holds the lock.

        Raises
        ------
        Stopped
            `stop` was called.
        """
        self.changed.wait_for(lambda: self._stopped or condition(), timeout)
        self.check()

    def check(self) -> None:
        """Raise Stopped if `stop` was called."""
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """Wake everybody who waits, as somebody has failed."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def release_if_complete(self) -> None:
        """When every worker that runs pauses: take the checkpoint, let them go on."""
        if self.barrier.complete:
            for store in self.stores:
                store.all_paused()
            self._checkpoint(self.barrier.clocks)
            released, over = self.barrier.release()
            answer = self.barrier.clocks.copy(), over
            self.released |= dict.fromkeys(released, answer)
        self.changed.notify_all()


class LocalConnection(ServerConnection):
    """One block's connection to servers of the same process."""

    def __init__(self, servers: LocalServers, replica: int, block: int) -> None:
        self._servers, self._replica, self._block = servers, replica, block
        self._chunks, self._spans = servers.shards.chunks[block], servers.shards.spans(block)
        dtype = servers.shards.layout.dtype
        self._buffers = [np.empty(chunk.size, dtype) for chunk in self._chunks]
        self.newest = self.fetched_bytes = self.pushed_bytes = 0
        self._held = {index: (servers.stores[server], number)
                      for server, span in self._spans.items()
                      for index, number in span.at_server.items()}

    def initialise(self, parameters: np.ndarray) -> None:
        with self._servers.changed:
            for chunk, (store, number) in zip(self._chunks, self._held.values()):
                store.initialise(number, parameters[chunk.start:chunk.stop])
            self._servers.changed.notify_all()

    # ---- fetches ---------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        self._versions = np.empty(len(self._chunks), np.int64)
        self._request = into, have, wanted, pushes, clock
        with self._servers.changed:
            self._missing = [server for server in self._spans if not self._answer(server)]
            self._servers.changed.notify_all()  # this replica's clock may be what others wait for

    def finish_fetch(self) -> np.ndarray:
        with self._servers.changed:
            for server in self._missing:
                while not self._answer(server):  # the time makes it ready, too (Store.is_due)
                    self._servers.changed.wait(LOOK_SECONDS)
                    self._servers.check()
        return self._versions

    @property
    def is_answered(self) -> bool:
        """Whether `finish_fetch` would return at once; takes what servers have to give by now."""
        with self._servers.changed:
            self._missing = [server for server in self._missing if not self._answer(server)]
        return not self._missing

    def _answer(self, server: int) -> bool:
        """Copy what a server has; False while the replica has to wait."""
        into, have, wanted, pushes, clock = self._request
        span, store = self._spans[server], self._servers.stores[server]
        mine, first = span.mine, span.first
        if not store.try_fetch(self._replica, pushes, first, wanted[mine]):
            if not store.blocked_by_paused_worker(first, wanted[mine]):
                return False
            self._versions[mine] = have[mine]
            return True
        self._versions[mine] = store.versions[first:first + len(span.chunk_range)]
        for number in np.flatnonzero(store.take_changed(self._replica, clock, first, have[mine])):
            chunk = self._chunks[span.chunk_range[number]]
            into[chunk.start:chunk.stop] = store.values[first + number]
            self.fetched_bytes += store.values[first + number].nbytes
        self.newest = max(self.newest, store.newest)
        return True

    # ---- pushes ----------------------------------------------------------------------------------

    def buffer(self, index: int) -> np.ndarray:
        """The store has taken what it wanted before `push` returned."""
        return self._buffers[index]

    def push(self, index: int, clock: int, base: int, learning_rate: float,
             then: np.ndarray | None = None) -> None:
        self.deliver(index, clock, base, learning_rate, self._buffers[index], then)

    def deliver(self, index: int, clock: int, base: int, learning_rate: float,
                gradient: np.ndarray, then: np.ndarray | None = None) -> None:
        """Hand the store a gradient (n,), which it may change, as what `push` has sent."""
        store, number = self._held[index]
        self.pushed_bytes += gradient.nbytes
        with self._servers.changed:
            store.push(number, self._replica, clock, base, learning_rate, gradient, then)
            self._servers.changed.notify_all()

    def flush(self) -> None:
        """Nothing is ever under way."""

    # ---- the barrier, and the end ----------------------------------------------------------------

    def barrier(self, clock: int, final: bool,
                meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        servers, me = self._servers, (self._replica, self._block)
        with servers.changed:
            for store in servers.stores:
                store.pause(*me, clock)
                if final:
                    store.close(*me)
            servers.barrier.arrive(me, self._replica, clock, final)
            servers.release_if_complete()
            while me not in servers.released:
                servers.wait_for(lambda: me in servers.released, LOOK_SECONDS)
                meanwhile()
            return servers.released.pop(me)

    def close(self, clock: int) -> None:
        with self._servers.changed:
            for store in self._servers.stores:
                store.close(self._replica, self._block)
            self._servers.barrier.leave((self._replica, self._block), self._replica, clock)
            self._servers.release_if_complete()
