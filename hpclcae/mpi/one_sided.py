"""The one-sided connection: workers read and add to servers' memory by MPI's remote memory access.

That a chunk is never read half old, half new is our part (a sequence lock), since MPI makes an
accumulate atomic only element by element:

* Push: started + 1 (which tells the staleness), wait; add the gradient; when that has arrived
  (flush), finished + 1.
* Fetch: read `finished`; read the chunk; read `started`. If the two are equal, nobody wrote in
  between; if not, again.

window.py has the memory; notes/rma-protocol.md draws it, and says which rule of the standard each
step rests on.
"""
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

from hpclcae.config import Config
from hpclcae.mpi.messages import MessageConnection
from hpclcae.mpi.waiting import Backoff, wait, wait_spinning
from hpclcae.mpi.window import Window
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.store import STALENESS_BINS
from hpclcae.utils.errors import InputError

#: A chunk that somebody writes to whenever it is read is given up after this long.
TORN_SECONDS = 60.0


class RmaConnection(ServerConnection):
    """One block's connection to the servers through their windows.

    Parameters
    ----------
    messages : MessageConnection
        For what is no access to memory: the first parameters, the barrier, the end.
    windows : dict of int to Window
        Of the servers that hold the block's chunks.

    Attributes
    ----------
    torn : int
        Chunks that had to be read again.
    """

    def __init__(self, messages: MessageConnection, config: Config,
                 windows: dict[int, Window]) -> None:
        self._messages, self._config, self.windows = messages, config, windows
        self.chunks, self.buffers = messages.chunks, messages.buffers
        self._spans, self._held = messages.spans, messages.held
        self._adding = [MPI.REQUEST_NULL] * len(self.chunks)
        #: Pushes that may not have arrived, by server.
        self._open: dict[int, list[int]] = {server: [] for server in windows}
        self._started = np.zeros(len(self.chunks), np.int64)
        self._finished = np.zeros(len(self.chunks), np.int64)
        self.staleness = np.zeros(STALENESS_BINS, np.int64)
        self.newest = self.fetched_bytes = self.pushed_bytes = self.torn = 0
        self._initialised = self._accessing = False

    def initialise(self, parameters: np.ndarray) -> None:
        self._messages.initialise(parameters)

    def factor(self, index: int, learning_rate: float) -> float:
        """What the server adds is the whole update."""
        if self._config.parallel.elastic:
            return 1.0
        return -learning_rate / self.chunks[index].fan_in

    # ---- fetches ---------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        if not self._initialised:
            self._messages.await_initialised()
            self._initialised = True
        self._into = into
        for server in self._spans:
            self.windows[server].begin_access()
        wait_spinning(self._read_counters())
        self._versions = self._finished.copy()
        self._todo = have != self._versions
        self._accessing = True
        self._coming = self._read_chunks()
        if MPI.Request.Testall(self._coming):  # memory that ranks share is read at once
            self._look_for_torn_chunks()

    def finish_fetch(self) -> np.ndarray:
        """See ServerConnection.

        Raises
        ------
        InputError
            Others write to a chunk whenever it is read.
        """
        backoff, deadline = Backoff(), time.monotonic() + TORN_SECONDS
        while True:
            wait_spinning(self._coming)
            if not self._accessing or self._look_for_torn_chunks():
                return self._versions
            if time.monotonic() > deadline:
                raise InputError(f"{int(self._todo.sum())} chunks were written to whenever they "
                                 f"were read, for {TORN_SECONDS:g} s: use fewer replicas, a larger "
                                 "parallel.push_every, or parallel.transport = 'messages'")
            self.torn += int(self._todo.sum())
            backoff.pause()
            wait_spinning(self._read_counters())
            self._versions[self._todo] = self._finished[self._todo]
            self._coming = self._read_chunks()

    def _look_for_torn_chunks(self) -> bool:
        """Of what has been read, keep to do what was written to meanwhile; whether all is good."""
        wait_spinning(self._read_counters())
        self._todo &= self._started != self._versions
        if self._todo.any():
            return False
        for server in self._spans:
            self.windows[server].end_access()
        self._accessing = False
        return True

    def _read_counters(self) -> list[MPI.Request]:
        requests = []
        for server, span in self._spans.items():
            requests += self.windows[server].read_counters(
                span.first, len(span.chunk_range), self._started[span.mine],
                self._finished[span.mine])
        return requests

    def _read_chunks(self) -> list[MPI.Request]:
        """Begin to read the chunks that are still to come.

        One by one: writers wait for one access at most.
        """
        requests = []
        for index in np.flatnonzero(self._todo).tolist():
            (server, number), chunk = self._held[index], self.chunks[index]
            piece = self._into[chunk.start:chunk.stop]
            requests.append(self.windows[server].read(number, piece))
            self.fetched_bytes += piece.nbytes
        return requests

    # ---- pushes ----------------------------------------------------------------------------------

    def push(self, index: int, clock: int, base: int, learning_rate: float) -> None:
        server, number = self._held[index]
        window, gradient = self.windows[server], self.buffers[index]
        self._finish(server)
        staleness = max(0, window.start(number) - base)
        self.staleness[min(staleness, STALENESS_BINS - 1)] += 1
        if self._config.update.staleness_scaled:
            gradient /= 1 + staleness
        self._adding[index] = window.add(number, gradient)
        self._open[server].append(index)
        self.pushed_bytes += gradient.nbytes
        if window.direct:  # it has arrived already: nobody shall wait for it
            self._finish(server)

    def _finish(self, server: int) -> None:
        """Say of the last pushes to a server that they have arrived: a row's time was enough."""
        if self._open[server]:
            self.windows[server].finish([self._held[index][1] for index in self._open[server]])
            wait_spinning([self._adding[index] for index in self._open[server]])
            self._open[server].clear()

    def wait_for_buffer(self, index: int) -> None:
        wait([self._adding[index]])

    def flush(self) -> None:
        for server, window in self.windows.items():
            self._finish(server)
            window.win.Flush(0)

    # ---- the barrier, and the end ----------------------------------------------------------------

    def barrier(self, clock: int, final: bool,
                meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        return self._messages.barrier(clock, final, meanwhile)

    def close(self, clock: int) -> None:
        self._messages.close(clock)
        for window in self.windows.values():
            window.close()
