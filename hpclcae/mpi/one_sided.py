"""The one-sided line to the servers: workers read and add to the servers' memory with MPI's remote
memory access.

Every server has one window, on a communicator of its own: it and the workers that hold chunks
there. Bytes of it:

    | started (int64, one a chunk) | finished (int64, one a chunk) | visits begun, ended (int64) | parameters |

All access is of the accumulate family (Accumulate, Get_accumulate with NO_OP), which MPI makes
atomic number by number and allows to overlap; nothing else touches the window while training runs.
That a chunk is never read half old, half new is our part (a sequence lock):

* Push: started + 1 (which tells the staleness), wait; add the gradient; when that has arrived
  (flush), finished + 1.
* Fetch: read `finished`; read the chunk; read `started`. If the two are equal, nobody wrote in
  between; if not, again.

Where ranks share no memory, MPI moves data only while the server calls it (the self-test finds
out). Workers count their visits, so the server knows when somebody is there and looks after MPI
without naps until they have gone.

notes/rma-protocol.md draws it, and says which rule of the standard each step rests on.
"""
import time
from collections.abc import Sequence

import numpy as np
from mpi4py import MPI

from hpclcae.config import Config
from hpclcae.model.optimizers import OptimizerKernel
from hpclcae.mpi.messages import FETCH, HEADER, TO_SERVER, VERSIONS, Header, MessageConnection
from hpclcae.mpi.waiting import Backoff, wait, wait_spinning
from hpclcae.mpi.window import Window
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.store import STALENESS_BINS
from hpclcae.utils.errors import InputError

#: A chunk that somebody writes to whenever it is read is given up after this long.
TORN_SECONDS = 60.0


class RmaConnection(MessageConnection):
    """One block's line to the servers through their windows; the seeds and the end go as messages.

    Parameters are those of MessageConnection, and the windows of the servers that hold the block's
    chunks.
    """

    def __init__(self, comm: MPI.Intracomm, servers: Sequence[int], shards: Shards, block: int,
                 config: Config, windows: dict[int, Window]) -> None:
        super().__init__(comm, servers, shards, block, config)
        self._config, self.windows = config, windows
        self._rule = OptimizerKernel(config.update, self._dtype)
        # pushes that may not have arrived
        self._open: dict[int, list[int]] = {server: [] for server in windows}
        self._started = np.zeros(len(self.chunks), np.int64)
        self._finished = np.zeros(len(self.chunks), np.int64)
        self.staleness = np.zeros(STALENESS_BINS, np.int64)
        self._joined = self._visiting = False
        self.torn = 0

    def factor(self, index: int, progress: float) -> float:
        """See Line: what the server adds is the whole update."""
        if self._config.parallel.elastic:
            return 1.0
        return -self._rule.rate(progress) / self.chunks[index].fan_in

    # ---- fetches ---------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        """See Line."""
        if not self._joined:
            self._join()
        self._into = into
        for server in self.spans:
            self.windows[server].visit(False)
        wait_spinning(self._read_counters())
        self._versions = self._finished.copy()
        self._todo = have != self._versions
        self._visiting = True
        self._coming = self._read_chunks()
        if MPI.Request.Testall(self._coming):  # memory that ranks share is read at once
            self._look_for_torn_chunks()

    def finish_fetch(self) -> np.ndarray:
        """See Line.

        Raises
        ------
        InputError
            Others write to a chunk whenever it is read.
        """
        patience, deadline = Backoff(), time.monotonic() + TORN_SECONDS
        while True:
            wait_spinning(self._coming)
            if not self._visiting or self._look_for_torn_chunks():
                return self._versions
            if time.monotonic() > deadline:
                raise InputError(f"{int(self._todo.sum())} chunks were written to whenever they "
                                 f"were read, for {TORN_SECONDS:g} s: use fewer replicas, a larger "
                                 "parallel.push_every, or parallel.transport = 'messages'")
            self.torn += int(self._todo.sum())
            patience.pause()
            wait_spinning(self._read_counters())
            self._versions[self._todo] = self._finished[self._todo]
            self._coming = self._read_chunks()

    def _look_for_torn_chunks(self) -> bool:
        """Of what has been read, keep to do what was written to meanwhile.

        Returns whether all is good.
        """
        wait_spinning(self._read_counters())
        self._todo &= self._started != self._versions
        if self._todo.any():
            return False
        for server in self.spans:
            self.windows[server].visit(True)
        self._visiting = False
        return True

    def _join(self) -> None:
        """Ask the servers for nothing: they answer when all seeds have come."""
        nothing = np.zeros(HEADER, np.uint8)
        Header(FETCH).write(nothing)
        newest = [np.empty(1, np.int64) for _ in self.spans]
        wait([*(self._comm.Irecv(answer, self._ranks[server], VERSIONS) for server,
                answer in zip(self.spans, newest)),
              *(self._comm.Isend(nothing, self._ranks[server], TO_SERVER)
                for server in self.spans)])
        self._joined = True

    def _read_counters(self) -> list[MPI.Request]:
        requests = []
        for server, (numbers, first) in self.spans.items():
            mine = slice(numbers.start, numbers.stop)
            requests += self.windows[server].read_counters(first, len(numbers), self._started[mine],
                                                           self._finished[mine])
        return requests

    def _read_chunks(self) -> list[MPI.Request]:
        """Begin to read the chunks that are still to come, one by one: writers wait for one access
        at most."""
        requests = []
        for index in np.flatnonzero(self._todo).tolist():
            server, number = self.place[index]
            chunk = self.chunks[index]
            requests.append(self.windows[server].read(number, self._into[chunk.start:chunk.stop]))
            self.fetched_bytes += chunk.size * self._dtype.itemsize
        return requests

    # ---- pushes ----------------------------------------------------------------------------------

    def push(self, index: int, clock: int, base: int, progress: float) -> None:
        """See Line."""
        server, number = self.place[index]
        self._finish(server)
        staleness = max(0, self.windows[server].start(number) - base)
        self.staleness[min(staleness, STALENESS_BINS - 1)] += 1
        if self._config.update.staleness_scaled:
            self.buffers[index] /= 1 + staleness
        self._sent[index] = self.windows[server].add(number, self.buffers[index])
        self._open[server].append(index)
        self.pushed_bytes += self.buffers[index].nbytes
        if self.windows[server].direct:  # it has arrived already: nobody shall wait for it
            self._finish(server)

    def _finish(self, server: int) -> None:
        """Say of the last pushes to a server that they have arrived: they had the time of a row to
        do so."""
        if self._open[server]:
            self.windows[server].finish([self.place[index][1] for index in self._open[server]])
            wait_spinning([self._sent[index] for index in self._open[server]])
            self._open[server].clear()

    def settle(self) -> None:
        """See Line."""
        for server, window in self.windows.items():
            self._finish(server)
            window.win.Flush(0)

    def close(self, clock: int = 0) -> None:
        """See Line."""
        super().close(clock)
        for window in self.windows.values():
            window.close()
