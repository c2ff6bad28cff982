"""A server's memory, as it and its workers reach it; mailbox.MemoryMap says what is in it.

Workers on the server's node reach it as their own: MPI's shared memory, which they load from and
store to. The others reach it through a window, with Rput and Rget for mail and chunks, and with
operations of the accumulate family, which are atomic, for the words that both sides look at.
notes/rma-protocol.md names the rule of the standard for every access.
"""
from collections.abc import Sequence

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.communicator import MpiCommunicator
from hpclcae.mpi.waiting import wait_spinning
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.header import pushed_bytes
from hpclcae.parameter_server.mailbox import (EVERYTHING, LINE, Inbox, MemoryMap, SequenceLock,
                                              SharedWords, Slots, Words, slots_for)
from hpclcae.parameter_server.roles import Role


class WindowWords(Words):
    """Words that are read and written through a window.

    Parameters
    ----------
    win : Win
    offset, count : int
        Where they lie in the memory of rank 0, and how many.
    """

    def __init__(self, win: MPI.Win, offset: int, count: int) -> None:
        self._win, self._offset = win, offset
        self._values = np.zeros(count, np.int64)  # stay where they are until they have arrived

    def read(self, part: slice = EVERYTHING) -> np.ndarray:
        found = np.empty(self._values[part].size, np.int64)
        wait_spinning([self.begin_read(part, found)])
        return found

    def begin_read(self, part: slice, into: np.ndarray) -> MPI.Request:
        """Begin to read some of them."""
        offset = self._offset + 8 * (part.start or 0)
        return self._win.Rget_accumulate([into, 0, MPI.INT64_T], [into, into.size, MPI.INT64_T], 0,
                                         [offset, into.size, MPI.INT64_T], MPI.NO_OP)

    def write(self, index: int, value: int) -> None:
        self._win.Flush(0)
        self._values[index] = value
        self._win.Accumulate([self._values[index:index + 1], 1, MPI.INT64_T], 0,
                             [self._offset + 8 * index, 1, MPI.INT64_T], MPI.REPLACE)


class OwnWindowWords(WindowWords):
    """The same in the server's own memory, where nothing but these words needs a flush."""

    def __init__(self, win: MPI.Win, offset: int, count: int) -> None:
        super().__init__(win, offset, count)
        self._win.Sync()

    def write(self, index: int, value: int) -> None:
        self._win.Sync()
        super().write(index, value)
        self._win.Flush(0)


class AllWords(Words):
    """The same words in several places; read in the first."""

    def __init__(self, *places: Words) -> None:
        self._places = places

    def read(self, part: slice = EVERYTHING) -> np.ndarray:
        return self._places[0].read(part)

    def write(self, index: int, value: int) -> None:
        for place in self._places:
            place.write(index, value)


class ServerMemory:
    """The memory of one server; the server and all its workers make it together.

    Parameters
    ----------
    comm : Comm
        The server (rank 0) and its workers; the memory keeps it.
    shards : Shards
    server : int
    blocks : sequence of int
        Of the workers, in the order of their ranks in comm.

    Attributes
    ----------
    map : MemoryMap
        Whose workers are those on the server's node first, then the others.
    order : list of int
        Ranks in comm, less one, of the workers in that order.
    spans : list of ChunkSpan
        The chunks of every worker, in the order of ranks.
    shared : int
        How many of them are on the server's node.
    direct : bool
        Whether the others, too, reach the memory without the server's help (self_test.py).
    bytes : ndarray of uint8 (map.total,) or None
        The memory itself, where this rank loads and stores.
    win : Win or None
        Where this rank uses a window: the server's memory is that of rank 0.
    """

    def __init__(self, comm: MPI.Intracomm, shards: Shards, server: int,
                 blocks: Sequence[int]) -> None:
        parallel = shards.layout.config.parallel
        self.comm, self.dtype, self.direct = comm, shards.layout.dtype, False
        # These are kept as long as their windows: MPICH gives a window the number of its
        # communicator, and that of one that was freed goes to the next.
        self._comms = [comm]
        node: MPI.Intracomm = MPI.COMM_NULL  # type: ignore[assignment]
        if parallel.window == "allocate":
            node = comm.Split_type(MPI.COMM_TYPE_SHARED)  # type: ignore[assignment]
            self._comms.append(node)
        beside = np.zeros(1, np.int64)
        if node:
            beside[0] = node.allreduce(comm.rank, MPI.MIN) == 0
        everyone = np.empty(comm.size, np.int64)
        comm.Allgather(beside, everyone)
        self.order = np.argsort(1 - everyone[1:], kind="stable").tolist()
        self.shared = int(everyone[1:].sum())
        chunks, self.spans = shards.held_by(server), [shards.spans(block)[server]
                                                      for block in blocks]
        slots = [worker_slots(shards, server, blocks[worker]) for worker in self.order]
        self.map = MemoryMap([chunk.size for chunk in chunks], self.dtype, slots)
        self.count = len(chunks)
        self._together = MPI.WIN_NULL
        self.bytes: np.ndarray | None = None
        self.win: MPI.Win | None = None
        if node and beside[0] and self.shared:
            size = self.map.total if comm.rank == 0 else 0
            self._together = MPI.Win.Allocate_shared(size, 1, MPI.INFO_NULL, node)
            memory, _ = self._together.Shared_query(0)
            self.bytes = np.frombuffer(memory, np.uint8)[:self.map.total]  # type: ignore
            self._together.Lock_all()
        elif comm.rank == 0:
            self.bytes = np.zeros(self.map.total, np.uint8)
        self._open_window(comm.rank == 0 or not beside[0])
        self.clear()

    def _open_window(self, takes_part: bool) -> None:
        """For workers that are elsewhere, if there are any."""
        if self.shared == len(self.order):
            return
        apart: MPI.Intracomm = self.comm.Split(  # type: ignore[assignment]
            0 if takes_part else MPI.UNDEFINED, self.comm.rank)
        if not takes_part:
            return
        info = MPI.Info.Create()
        info["accumulate_ops"] = "same_op_no_op"
        self.win = MPI.Win.Create(self.bytes, 1, info, apart)
        info.Free()
        self._comms.append(apart)
        self.win.Lock_all()

    @property
    def unified(self) -> bool:
        """Whether loads and stores see the memory that MPI reads and writes (MPI_WIN_UNIFIED)."""
        windows = [win for win in (self._together, self.win) if win]
        return all(win.Get_attr(MPI.WIN_MODEL) == MPI.WIN_UNIFIED for win in windows)

    @property
    def row(self) -> int:
        """Where this worker is among the workers of `map`."""
        return self.order.index(self.comm.rank - 1)

    def synchronise(self) -> None:
        """Keep what comes before in memory from what comes after."""
        for win in (self._together, self.win):
            if win:
                win.Sync()

    def clear(self) -> None:
        """Set all of it to zero; all members call it, and nobody uses it meanwhile."""
        self.synchronise()
        self.comm.Barrier()
        if self.comm.rank == 0:
            assert self.bytes is not None
            self.bytes[:] = 0
        self.synchronise()
        self.comm.Barrier()

    def at(self, offset: int, size: int) -> np.ndarray:
        """Some of the memory, uint8 (size,), where this rank loads and stores."""
        assert self.bytes is not None
        return self.bytes[offset:offset + size]

    def words(self, offset: int, count: int) -> SharedWords:
        """Words in it, for loads and stores."""
        return SharedWords(self.at(offset, 8 * count).view(np.int64), self.synchronise)

    @property
    def values(self) -> np.ndarray:
        """The server's parameters (elements of all chunks,)."""
        first, last = int(self.map.chunks[0]), int(self.map.chunks[-1])
        return self.at(first, last - first).view(self.dtype)

    def close(self) -> None:
        """Free it; the server and all its workers call it."""
        for win in (self.win, self._together):
            if win:
                win.Unlock_all()
                win.Free()
        for comm in reversed(self._comms):
            comm.Free()


class Mailroom:
    """What a server does with its memory: it takes mail, answers fetches and guards its chunks.

    Parameters
    ----------
    memory : ServerMemory

    Attributes
    ----------
    lock : SequenceLock
    """

    def __init__(self, memory: ServerMemory) -> None:
        self._memory = memory
        lay, shared, workers = memory.map, memory.shared, len(memory.order)
        kinds = [(0, shared), (shared, workers)]  # rows on this node, and elsewhere
        self._inboxes: list[tuple[int, Inbox]] = []
        self._answers: list[Words] = []
        started: list[Words] = [memory.words(lay.started[0], memory.count)]
        finished: list[Words] = [memory.words(lay.finished[0], memory.count)]
        for (first, end), words in zip(kinds, (memory.words, self._own)):
            if first < end:
                row = 8 * lay.across
                many = (end - first) * lay.across
                self._inboxes.append((first, Inbox(words(lay.posted + row * first, many),
                                                   words(lay.taken + row * first, many),
                                                   end - first, lay.across)))
                self._answers += [words(lay.answers + LINE * number, 2)
                                  for number in range(first, end)]
        if memory.win:
            started.append(self._own(lay.started[1], memory.count))
            finished.append(self._own(lay.finished[1], memory.count))
            self._attention = self._own(lay.attention + LINE * shared,
                                        (workers - shared) * LINE // 8)
        self.lock = SequenceLock(AllWords(*started), AllWords(*finished))
        self._answered = [0] * workers

    def _own(self, offset: int, count: int) -> OwnWindowWords:
        assert self._memory.win
        return OwnWindowWords(self._memory.win, offset, count)

    def complete(self) -> list[tuple[int, int]]:
        """Worker (row of the map) and slot of mail that may be read, one of each worker."""
        return [(first + worker, slot) for first, inbox in self._inboxes
                for worker, slot in inbox.complete()]

    def mail(self, worker: int, slot: int) -> np.ndarray:
        """The bytes of a slot."""
        lay = self._memory.map
        return self._memory.at(lay.slot(worker, slot), lay.slots[worker].bytes)

    def free(self, worker: int, slot: int) -> None:
        """The mail in a slot has been taken."""
        first, inbox = next(one for one in reversed(self._inboxes) if one[0] <= worker)
        inbox.free(worker - first, slot)

    def answer(self, worker: int, newest: int, granted: bool) -> None:
        """Answer the oldest fetch of a worker that has no answer yet.

        granted : bool
            Otherwise it is to pause, and to ask again.
        """
        self._answered[worker] += 1
        number = self._answered[worker]
        self._answers[worker].write(0, newest)
        self._answers[worker].write(1, number if granted else -number)

    def is_needed(self) -> bool:
        """Whether a worker moves data at this moment that moves only while this server is in MPI.
        """
        memory = self._memory
        return bool(memory.win and not memory.direct and self._attention.read().any())


def worker_slots(shards: Shards, server: int, block: int) -> Slots:
    """The slots that a block of any replica has at a server."""
    parallel = shards.layout.config.parallel
    numbers = shards.spans(block)[server].chunk_range
    mine = [shards.chunks[block][number] for number in numbers]
    return slots_for(pushed_bytes(shards, mine), parallel.slots)


def memory_bytes(shards: Shards, server: int, blocks: Sequence[int]) -> int:
    """Bytes of the memory of a server whose workers have these blocks."""
    slots = [worker_slots(shards, server, block) for block in blocks]
    return MemoryMap([chunk.size for chunk in shards.held_by(server)], shards.layout.dtype,
                     slots).total


def open_memories(world: MpiCommunicator, roles: Sequence[Role],
                  shards: Shards) -> dict[int, ServerMemory]:
    """The memories that this rank has a part in, by server; every rank calls it."""
    memories = {}
    servers = [rank for rank, role in enumerate(roles) if role.server is not None]
    for rank in servers:
        server = roles[rank].server
        assert server is not None
        workers = workers_of(roles, shards, server)
        members = [rank, *workers]
        if world.rank in members and workers:
            # Only the members call this, all in the order of servers, so nobody waits for ever.
            everyone = world.comm.Get_group()
            group = everyone.Incl(members)
            comm = world.comm.Create_group(group, server)
            group.Free()
            everyone.Free()
            memories[server] = ServerMemory(comm, shards, server,
                                            [roles[worker].block for worker in workers])
    return memories


def workers_of(roles: Sequence[Role], shards: Shards, server: int) -> list[int]:
    """Ranks of the workers that hold chunks at a server."""
    blocks = {chunk.block for chunk in shards.held_by(server)}
    return [rank for rank, role in enumerate(roles) if role.server is None and role.block in blocks]
