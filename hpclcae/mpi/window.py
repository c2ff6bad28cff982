"""A server's memory, as the server and its workers see it with MPI's remote memory access.

Every server has one window, on a communicator of its own: it and the workers that hold chunks
there. Bytes of it:

    | started (int64, one a chunk) | finished (same) | accesses begun, ended (int64) | parameters |

All access is of the accumulate family (Accumulate, Get_accumulate with NO_OP), which MPI makes
atomic element by element and allows to overlap; nothing else touches the window while training
runs. one_sided.py says how a chunk is never read half old, half new.

Where ranks share no memory, MPI moves data only while the server calls it (the self-test finds
out). Workers count their accesses, so the server knows when somebody is there and looks after MPI
without naps until they have gone.
"""
import time
from collections.abc import Sequence

import numpy as np
from mpi4py import MPI
from mpi4py.util import dtlib

from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.mpi.waiting import wait, wait_spinning
from hpclcae.parameter_server.chunks import Chunk, Shards
from hpclcae.parameter_server.roles import Role

_ONE = np.ones(1, np.int64)
_TESTS = 16            # rounds of the self-test
_ABSENT_SECONDS = 0.3  # that a server stays away in it at most, to see whether all workers get on
#                        without it


class Window:
    """One server's memory, as the server and its workers see it.

    Parameters
    ----------
    comm : Comm
        The server (rank 0) and its workers; the window keeps it.
    chunks : sequence of Chunk
        Of the server, in its order.
    created : bool
        Memory of NumPy's (Win.Create) in place of MPI's (Win.Allocate, which ranks of a node
        share).
    """

    def __init__(self, comm: MPI.Intracomm, chunks: Sequence[Chunk], dtype: np.dtype,
                 created: bool) -> None:
        self.comm, self.count, self.dtype = comm, len(chunks), dtype
        self.direct = False  # whether all workers reach the memory without the server's help
        self.type = dtlib.from_numpy_dtype(dtype)
        self.bounds = np.cumsum([0, *(chunk.size for chunk in chunks)])
        self._start = _head(self.count)
        size = window_bytes(chunks, dtype) if comm.rank == 0 else 0
        info = MPI.Info.Create()
        info["accumulate_ops"], info["accumulate_ordering"] = "same_op_no_op", "none"
        if created:
            self._memory = np.zeros(size, np.uint8)
            self.win = MPI.Win.Create(self._memory, 1, info, comm)
        else:
            self.win = MPI.Win.Allocate(size, 1, info, comm)
            memory = self.win.tomemory()
            self._memory = np.frombuffer(memory, np.uint8)  # type: ignore[call-overload]
            self._memory[:] = 0
        info.Free()
        self.win.Lock_all()
        self.win.Sync()
        comm.Barrier()

    @property
    def values(self) -> np.ndarray:
        """The server's parameters (elements of all chunks,), in its own memory."""
        return self._memory[self._start:].view(self.dtype)

    @property
    def finished(self) -> np.ndarray:
        """The server's versions, in its own memory."""
        return self._memory[8 * self.count:16 * self.count].view(np.int64)

    def begin_access(self) -> None:
        """A worker says that it comes to read."""
        self._count_access(0)

    def end_access(self) -> None:
        """A worker says that it has read."""
        self._count_access(1)

    def _count_access(self, ended: int) -> None:
        self.win.Accumulate([_ONE, 1, MPI.INT64_T], 0,
                            [8 * (2 * self.count + ended), 1, MPI.INT64_T], MPI.SUM)

    def being_accessed(self) -> bool:
        """Whether a worker is reading or writing at this moment, and needs the server for it.

        Asked by the server.
        """
        if self.direct:
            return False
        size = 2 * self.count + 2
        counters = np.empty(size, np.int64)
        self.win.Get_accumulate([counters, 0, MPI.INT64_T], [counters, size, MPI.INT64_T], 0,
                                [0, size, MPI.INT64_T], MPI.NO_OP)
        self.win.Flush_local(0)
        started, finished = counters[:self.count], counters[self.count:2 * self.count]
        return bool(counters[-2] != counters[-1] or (started != finished).any())

    def synchronise(self) -> None:
        """Make the server's memory and what workers see of it the same."""
        self.win.Sync()

    def set_versions(self, versions: np.ndarray) -> None:
        """Set both counters of every chunk, in the server's own memory."""
        self._memory[:16 * self.count].view(np.int64)[:] = np.concatenate([versions, versions])

    def clear(self) -> None:
        """Set the server's memory to zero."""
        self._memory[:] = 0

    def read_counters(self, first: int, count: int, started: np.ndarray,
                      finished: np.ndarray) -> list[MPI.Request]:
        """Begin to read both counters of chunks first, first + 1, ..."""
        return [self.win.Rget_accumulate([started, 0, MPI.INT64_T], [into, count, MPI.INT64_T], 0,
                                         [8 * (at + first), count, MPI.INT64_T], MPI.NO_OP)
                for at, into in ((0, started), (self.count, finished))]

    def read(self, index: int, into: np.ndarray) -> MPI.Request:
        """Begin to read a chunk."""
        offset = self._start + int(self.bounds[index]) * self.dtype.itemsize
        return self.win.Rget_accumulate([into, 0, self.type], [into, into.size, self.type], 0,
                                        [offset, into.size, self.type], MPI.NO_OP)

    def start(self, index: int) -> int:
        """Announce a push; returns the pushes to the chunk that began before."""
        ticket = np.empty(1, np.int64)
        wait_spinning([self.win.Rget_accumulate([_ONE, 1, MPI.INT64_T], [ticket, 1, MPI.INT64_T], 0,
                                                [8 * index, 1, MPI.INT64_T], MPI.SUM)])
        return int(ticket[0])

    def add(self, index: int, values: np.ndarray) -> MPI.Request:
        """Begin to add to a chunk."""
        offset = self._start + int(self.bounds[index]) * self.dtype.itemsize
        return self.win.Raccumulate([values, values.size, self.type], 0,
                                    [offset, values.size, self.type], MPI.SUM)

    def finish(self, indices: Sequence[int]) -> None:
        """After what was added to these chunks has arrived, say so."""
        self.win.Flush(0)
        for index in indices:
            self.win.Accumulate([_ONE, 1, MPI.INT64_T], 0,
                                [8 * (self.count + index), 1, MPI.INT64_T], MPI.SUM)

    def close(self) -> None:
        """End the epoch and free the window; the server and all its workers call it."""
        self.win.Unlock_all()
        self.win.Free()
        self.comm.Free()


def _head(chunks: int) -> int:
    """Where the parameters begin, behind the counters of so many chunks."""
    return -(-(16 * chunks + 16) // 64) * 64


def window_bytes(chunks: Sequence[Chunk], dtype: np.dtype) -> int:
    """Memory of the window of a server that holds these chunks."""
    return _head(len(chunks)) + sum(chunk.size for chunk in chunks) * dtype.itemsize


def open_windows(world: MpiCommunicator, roles: Sequence[Role],
                 shards: Shards) -> dict[int, Window]:
    """The windows that this rank has a part in, by server; every rank calls it."""
    layout = shards.layout
    windows = {}
    servers = [rank for rank, role in enumerate(roles) if role.server is not None]
    for rank in servers:
        server = roles[rank].server
        assert server is not None
        chunks = shards.held_by(server)
        blocks = {chunk.block for chunk in chunks}
        members = [rank, *(r for r, role in enumerate(roles) if role.server is None
                           and role.block in blocks)]
        if world.rank in members:
            # Only the members call this, all in the order of servers, so nobody waits for ever.
            everyone = world.comm.Get_group()
            group = everyone.Incl(members)
            comm = world.comm.Create_group(group, server)
            group.Free()
            everyone.Free()
            windows[server] = Window(comm, chunks, layout.dtype,
                                     layout.config.parallel.window == "create")
    return windows


def self_test(windows: dict[int, Window]) -> bool:
    """Whether concurrent sums come out right here; leaves the windows at zero.

    Every member calls it. All workers add integers to the first and the last chunk of every server,
    again and again, as a push does it.
    """
    good = True
    for window in windows.values():
        comm, workers = window.comm, window.comm.size - 1
        tested = sorted({0, window.count - 1}) if window.count else []
        if comm.rank and window.count:
            for round_ in range(_TESTS):
                for index in tested:
                    size = int(window.bounds[index + 1] - window.bounds[index])
                    values = np.full(size, comm.rank + round_, window.dtype)
                    window.start(index)
                    wait([window.add(index, values)])
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
