"""The one-sided line to the servers: workers read and add to the servers' memory with MPI's remote memory access.

Every server has one window, on a communicator of its own: it and the workers that hold chunks there. Bytes of it:

    | started (int64, one a chunk) | finished (int64, one a chunk) | visits begun, ended (int64) | parameters |

All access is of the accumulate family (Accumulate, Get_accumulate with NO_OP), which MPI makes atomic number by number
and allows to overlap; nothing else touches the window while training runs. That a chunk is never read half old,
half new is our part (a sequence lock):

* Push: started + 1 (which tells the staleness), wait; add the gradient; when that has arrived (flush), finished + 1.
* Fetch: read `finished`; read the chunk; read `started`. If the two are equal, nobody wrote in between; if not, again.

Where ranks share no memory, MPI moves data only while the server calls it (the self-test finds out). Workers count
their visits, so the server knows when somebody is there and looks after MPI without naps until they have gone.

notes/rma-protocol.md draws it, and says which rule of the standard each step rests on.
"""
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI
from mpi4py.util import dtlib

from hpclcae.config import Config
from hpclcae.errors import InputError
from hpclcae.parallel.halo import MpiMessenger, Patience, wait
from hpclcae.parallel.messages import FETCH, HEADER, TO_SERVER, VERSIONS, Header, MessageLine
from hpclcae.parameter_store import STALENESS_BINS
from hpclcae.shards import Chunk, Shards
from hpclcae.topology import Role
from hpclcae.update_rules import Rule

#: A chunk that somebody writes to whenever it is read is given up after this long.
TORN_SECONDS = 60.0
_ONE = np.ones(1, np.int64)
_TESTS = 16            # rounds of the self-test
_ABSENT_SECONDS = 0.3  # that a server stays away in it at most, to see whether all workers get on without it


def hurry(requests: Sequence[MPI.Request]) -> None:
    """Wait without naps: a transfer may need many small acts of MPI on both sides."""
    requests = list(requests)
    while not MPI.Request.Testall(requests):
        os.sched_yield()


class Window:
    """One server's memory, as the server and its workers see it.

    Parameters
    ----------
    comm : Comm
        The server (rank 0) and its workers; the window keeps it.
    chunks : sequence of Chunk
        Of the server, in its order.
    created : bool
        Memory of NumPy's (Win.Create) in place of MPI's (Win.Allocate, which ranks of a node share).
    """

    def __init__(self, comm: MPI.Intracomm, chunks: Sequence[Chunk], dtype: np.dtype, created: bool) -> None:
        self.comm, self.count, self.dtype = comm, len(chunks), dtype
        self.direct = False  # whether all workers reach the memory without the server's help
        self.type = dtlib.from_numpy_dtype(dtype)
        self.bounds = np.cumsum([0, *(chunk.size for chunk in chunks)])
        self._start = -(-(16 * self.count + 16) // 64) * 64  # where the parameters begin
        size = self._start + int(self.bounds[-1]) * dtype.itemsize if comm.rank == 0 else 0
        info = MPI.Info.Create()
        info["accumulate_ops"], info["accumulate_ordering"] = "same_op_no_op", "none"
        if created:
            self._memory = np.zeros(size, np.uint8)
            self.win = MPI.Win.Create(self._memory, 1, info, comm)
        else:
            self.win = MPI.Win.Allocate(size, 1, info, comm)
            self._memory = np.frombuffer(self.win.tomemory(), np.uint8)  # type: ignore[call-overload]
            self._memory[:] = 0
        info.Free()
        self.win.Lock_all()
        self.win.Sync()
        comm.Barrier()

    @property
    def values(self) -> np.ndarray:
        """The server's parameters (numbers of all chunks,), in its own memory."""
        return self._memory[self._start:].view(self.dtype)

    @property
    def finished(self) -> np.ndarray:
        """The server's versions, in its own memory."""
        return self._memory[8 * self.count:16 * self.count].view(np.int64)

    def visit(self, ended: bool) -> None:
        """A worker says that it comes to read, or that it has read."""
        self.win.Accumulate([_ONE, 1, MPI.INT64_T], 0, [8 * (2 * self.count + ended), 1, MPI.INT64_T], MPI.SUM)

    def visited(self) -> bool:
        """Whether a worker is reading or writing at this moment, and needs the server for it; asked by the server."""
        if self.direct:
            return False
        size = 2 * self.count + 2
        counters = np.empty(size, np.int64)
        self.win.Get_accumulate([counters, 0, MPI.INT64_T], [counters, size, MPI.INT64_T], 0, [0, size, MPI.INT64_T],
                                MPI.NO_OP)
        self.win.Flush_local(0)
        started, finished = counters[:self.count], counters[self.count:2 * self.count]
        return bool(counters[-2] != counters[-1] or (started != finished).any())

    def set_versions(self, versions: np.ndarray) -> None:
        """Set both counters of every chunk, in the server's own memory."""
        self._memory[:16 * self.count].view(np.int64)[:] = np.concatenate([versions, versions])

    def clear(self) -> None:
        """Set the server's memory to zero."""
        self._memory[:] = 0

    def read_counters(self, first: int, count: int, started: np.ndarray, finished: np.ndarray) -> list[MPI.Request]:
        """Begin to read both counters of chunks first, first + 1, ..."""
        return [self.win.Rget_accumulate([started, 0, MPI.INT64_T], [into, count, MPI.INT64_T], 0,
                                         [8 * (at + first), count, MPI.INT64_T], MPI.NO_OP)
                for at, into in ((0, started), (self.count, finished))]

    def read(self, index: int, into: np.ndarray) -> MPI.Request:
        """Begin to read a chunk."""
        place = self._start + int(self.bounds[index]) * self.dtype.itemsize
        return self.win.Rget_accumulate([into, 0, self.type], [into, into.size, self.type], 0,
                                        [place, into.size, self.type], MPI.NO_OP)

    def start(self, index: int) -> int:
        """Announce a push; returns the pushes to the chunk that began before."""
        ticket = np.empty(1, np.int64)
        hurry([self.win.Rget_accumulate([_ONE, 1, MPI.INT64_T], [ticket, 1, MPI.INT64_T], 0,
                                        [8 * index, 1, MPI.INT64_T], MPI.SUM)])
        return int(ticket[0])

    def add(self, index: int, numbers: np.ndarray) -> MPI.Request:
        """Begin to add to a chunk."""
        place = self._start + int(self.bounds[index]) * self.dtype.itemsize
        return self.win.Raccumulate([numbers, numbers.size, self.type], 0, [place, numbers.size, self.type], MPI.SUM)

    def finish(self, indices: Sequence[int]) -> None:
        """After what was added to these chunks has arrived, say so."""
        self.win.Flush(0)
        for index in indices:
            self.win.Accumulate([_ONE, 1, MPI.INT64_T], 0, [8 * (self.count + index), 1, MPI.INT64_T], MPI.SUM)

    def close(self) -> None:
        """End the epoch and free the window; the server and all its workers call it."""
        self.win.Unlock_all()
        self.win.Free()
        self.comm.Free()


def open_windows(world: MpiMessenger, roles: Sequence[Role], held_by: Callable[[int], Sequence[Chunk]],
                 config: Config) -> dict[int, Window]:
    """The windows that this rank has a part in, by server; every rank calls it."""
    windows = {}
    servers = [rank for rank, role in enumerate(roles) if role.server is not None]
    for rank in servers:
        server = roles[rank].server
        assert server is not None
        chunks = held_by(server)
        blocks = {chunk.block for chunk in chunks}
        members = [rank, *(r for r, role in enumerate(roles) if role.server is None and role.block in blocks)]
        if world.rank in members:
            # Only the members call this, all in the order of servers, so nobody waits for ever.
            everyone = world.comm.Get_group()
            group = everyone.Incl(members)
            comm = world.comm.Create_group(group, server)
            group.Free()
            everyone.Free()
            windows[server] = Window(comm, chunks, np.dtype(config.train.dtype),
                                     config.parallel.window == "create")
    return windows


def self_test(windows: dict[int, Window]) -> bool:
    """Whether concurrent sums come out right on this machine; leaves the windows at zero. Every member calls it.

    All workers add integers to the first and the last chunk of every server, again and again, as a push does it.
    """
    good = True
    for window in windows.values():
        comm, workers = window.comm, window.comm.size - 1
        tested = sorted({0, window.count - 1}) if window.count else []
        if comm.rank and window.count:
            for round_ in range(_TESTS):
                for index in tested:
                    size = int(window.bounds[index + 1] - window.bounds[index])
                    numbers = np.full(size, comm.rank + round_, window.dtype)
                    window.start(index)
                    wait([window.add(index, numbers)])
                    window.finish([index])
            window.win.Flush(0)
        elif window.count:
            done, deadline = window.finished[tested], time.monotonic() + _ABSENT_SECONDS
            while (done < workers * _TESTS).any() and time.monotonic() < deadline:
                time.sleep(_ABSENT_SECONDS / 100)  # no call of MPI
                done = window.finished[tested]
            window.direct = bool((done == workers * _TESTS).all())
        comm.Barrier()
        verdict = np.array([True, window.direct])
        if comm.rank == 0:
            window.win.Sync()
            expected = sum(r + t for r in range(1, workers + 1) for t in range(_TESTS))
            for index in tested:
                values = window.values[window.bounds[index]:window.bounds[index + 1]]
                if (values != expected).any() or window.finished[index] != workers * _TESTS:
                    verdict[0] = False
            window.clear()
            window.win.Sync()
        comm.Bcast(verdict, 0)
        window.direct = bool(verdict[1])
        good = good and bool(verdict[0])
    return good


class OneSidedLine(MessageLine):
    """One block's line to the servers through their windows; the seeds and the end go as messages.

    Parameters are those of MessageLine, and the windows of the servers that hold the block's chunks.
    """

    def __init__(self, comm: MPI.Intracomm, servers: Sequence[int], shards: Shards, block: int, config: Config,
                 windows: dict[int, Window]) -> None:
        super().__init__(comm, servers, shards, block, config)
        self._config, self.windows = config, windows
        self._rule = Rule(config.update, self._dtype)
        self._open: dict[int, list[int]] = {server: [] for server in windows}  # pushes that may not have arrived
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

    # ---- fetches -------------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int, clock: int) -> None:
        """See Line."""
        if not self._joined:
            self._join()
        self._into = into
        for server in self.spans:
            self.windows[server].visit(False)
        hurry(self._read_counters())
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
        patience, deadline = Patience(), time.monotonic() + TORN_SECONDS
        while True:
            hurry(self._coming)
            if not self._visiting or self._look_for_torn_chunks():
                return self._versions
            if time.monotonic() > deadline:
                raise InputError(f"{int(self._todo.sum())} chunks were written to whenever they were read, for "
                                 f"{TORN_SECONDS:g} s: use fewer replicas, a larger parallel.push_every, or "
                                 "parallel.transport = 'messages'")
            self.torn += int(self._todo.sum())
            patience.pause()
            hurry(self._read_counters())
            self._versions[self._todo] = self._finished[self._todo]
            self._coming = self._read_chunks()

    def _look_for_torn_chunks(self) -> bool:
        """Of what has been read, keep to do what was written to meanwhile; returns whether all is good."""
        hurry(self._read_counters())
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
        wait([*(self._comm.Irecv(answer, self._ranks[server], VERSIONS) for server, answer in zip(self.spans, newest)),
              *(self._comm.Isend(nothing, self._ranks[server], TO_SERVER) for server in self.spans)])
        self._joined = True

    def _read_counters(self) -> list[MPI.Request]:
        requests = []
        for server, (numbers, first) in self.spans.items():
            mine = slice(numbers.start, numbers.stop)
            requests += self.windows[server].read_counters(first, len(numbers), self._started[mine],
                                                           self._finished[mine])
        return requests

    def _read_chunks(self) -> list[MPI.Request]:
        """Begin to read the chunks that are still to come, one by one: writers wait for one access at most."""
        requests = []
        for index in np.flatnonzero(self._todo).tolist():
            server, number = self.place[index]
            chunk = self.chunks[index]
            requests.append(self.windows[server].read(number, self._into[chunk.start:chunk.stop]))
            self.fetched_bytes += chunk.size * self._dtype.itemsize
        return requests

    # ---- pushes --------------------------------------------------------------------------------------

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
        """Say of the last pushes to a server that they have arrived: they had the time of a row to do so."""
        if self._open[server]:
            self.windows[server].finish([self.place[index][1] for index in self._open[server]])
            hurry([self._sent[index] for index in self._open[server]])
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
