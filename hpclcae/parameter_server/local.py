"""The connection to servers that live in the same process."""
import threading
from collections.abc import Sequence

import numpy as np

from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.store import Store


class LocalConnection:
    """A line to stores in the same process, for tests and replays; replicas and blocks may be
    threads of it.

    Parameters
    ----------
    office : Condition
        Shared by all lines: who holds it may use the stores; it is notified when they change.
    """

    def __init__(self, office: threading.Condition, stores: Sequence[Store], shards: Shards,
                 replica: int, block: int) -> None:
        self._office, self._stores, self._replica, self._block = office, stores, replica, block
        self._chunks, self._spans = shards.chunks[block], shards.spans(block)
        dtype = stores[0].dtype
        self.buffers = [np.empty(chunk.size, dtype) for chunk in self._chunks]
        self.newest = self.fetched_bytes = self.pushed_bytes = 0
        self.staleness = np.zeros(0, np.int64)
        self._place = {index: (server, first + index - numbers[0])
                       for server, (numbers, first) in self._spans.items() for index in numbers}

    def factor(self, index: int, progress: float) -> float:
        """See Line."""
        return 1.0

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        """See Line."""
        self._versions = np.empty(len(self._chunks), np.int64)
        self._request = into, have, wanted, pushes, clock
        with self._office:
            self._missing = [server for server in self._spans if not self._answer(server)]
            self._office.notify_all()  # this replica's clock may be what another one waits for

    def finish_fetch(self) -> np.ndarray:
        """See Line."""
        with self._office:
            for server in self._missing:
                self._office.wait_for(lambda: self._answer(server))
        return self._versions

    def _answer(self, server: int) -> bool:
        """Copy what a server has, unless the replica has to wait."""
        into, have, wanted, pushes, clock = self._request
        numbers, first = self._spans[server]
        store, mine = self._stores[server], slice(numbers.start, numbers.stop)
        if not store.try_fetch(self._replica, pushes, first, wanted[mine]):
            return False
        self._versions[mine] = store.versions[first:first + len(numbers)]
        for number in np.flatnonzero(store.changed(self._replica, clock, first, have[mine])):
            chunk = self._chunks[numbers.start + number]
            into[chunk.start:chunk.stop] = store.values[first + number]
        self.newest = max(self.newest, store.newest)
        return True

    def push(self, index: int, clock: int, base: int, progress: float) -> None:
        """See Line."""
        server, number = self._place[index]
        with self._office:
            self._stores[server].push(number, self._replica, clock, base, progress,
                                      self.buffers[index])
            self._office.notify_all()

    def reuse(self, index: int) -> None:
        """See Line."""

    def settle(self) -> None:
        """See Line."""

    def close(self) -> None:
        """See Line."""
        with self._office:
            for store in self._stores:
                store.close(self._replica, self._block)
            self._office.notify_all()
