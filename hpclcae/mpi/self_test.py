"""Whether one-sided updates work with this machine and MPI library: tried out before each job."""
import time

import numpy as np

from hpclcae.mpi.access import RemoteAccess, SharedAccess, access_to
from hpclcae.mpi.memory import Mailroom, ServerMemory
from hpclcae.mpi.waiting import Backoff
from hpclcae.parameter_server.header import HEADER, Header

_MAILS = 16            # that each worker sends to the first and to the last chunk
_ABSENT_SECONDS = 0.3  # that a server stays away from MPI at first, to see whether workers on
#                        other nodes get on without it
_SECONDS = 60.0        # that all of it may take


def self_test(memories: dict[int, ServerMemory]) -> bool:
    """Whether mail that several workers send at once is applied once, and never seen half-way.

    Every member of the memories calls it, and it leaves them at zero. All workers send numbers to
    the first and the last of their chunks at every server, more than there are slots, and read the
    chunks meanwhile.
    """
    return all([_test(memory) for memory in memories.values()])


def _test(memory: ServerMemory) -> bool:
    comm = memory.comm
    good = np.array([memory.unified], np.int64)
    if comm.rank == 0:
        good[0] &= _serve(memory)
    else:
        good[0] &= _work(memory)
    verdicts = np.empty((comm.size, 1), np.int64)
    comm.Allgather(good, verdicts)
    direct = np.array([memory.direct], np.int64)
    comm.Bcast(direct, 0)
    memory.direct = bool(direct[0])
    memory.clear()
    return bool(verdicts.all())


def _tested(memory: ServerMemory, worker: int) -> list[int]:
    """Chunks of the server that a worker, by its rank less one, sends numbers to."""
    span = memory.spans[worker]
    return sorted({span.first, span.first + len(span.chunk_range) - 1})


def _serve(memory: ServerMemory) -> bool:
    room, lay, workers = Mailroom(memory), memory.map, len(memory.order)
    if memory.win:  # first mail of those elsewhere, without a call of MPI
        size = lay.across * (workers - memory.shared)
        posted = memory.at(lay.posted + 8 * lay.across * memory.shared,
                           8 * size).view(np.int64).reshape(-1, lay.across)
        deadline = time.monotonic() + _ABSENT_SECONDS
        while not (posted > 0).any(1).all() and time.monotonic() < deadline:
            time.sleep(_ABSENT_SECONDS / 100)
        memory.direct = bool((posted > 0).any(1).all())
    senders = np.zeros(memory.count, np.int64)  # workers that send numbers to each chunk
    for worker in range(workers):
        senders[_tested(memory, worker)] += 1
    todo, versions = _MAILS * int(senders.sum()), np.zeros(memory.count, np.int64)
    deadline = time.monotonic() + _SECONDS
    while todo and time.monotonic() < deadline:
        memory.comm.Iprobe()  # looking for messages is what lets MPI move data, as in server.py
        for worker, slot in room.complete():
            header, rest = Header.read(room.mail(worker, slot))
            index = header.chunk
            values = rest.view(memory.dtype)
            chunk = memory.at(int(lay.chunks[index]), values.nbytes).view(memory.dtype)
            versions[index] += 1
            with room.lock.changing(index, int(versions[index])):
                chunk += values
            room.free(worker, slot)
            todo -= 1
    expected = np.repeat(senders * (_MAILS * (_MAILS + 1) // 2),
                         np.diff(lay.chunks) // memory.dtype.itemsize)
    return todo == 0 and bool((memory.values == expected).all())


def _work(memory: ServerMemory) -> bool:
    access = access_to(memory)
    sizes, good = np.diff(memory.map.chunks) // memory.dtype.itemsize, True
    deadline = time.monotonic() + _SECONDS
    mail = np.zeros(HEADER + memory.map.slots[memory.row].bytes, np.uint8)
    for number in range(1, _MAILS + 1):
        for index in _tested(memory, memory.comm.rank - 1):
            size = int(sizes[index])
            access.wait_for_message(index)
            message = mail[:HEADER + size * memory.dtype.itemsize]
            Header(0, index, clock=number).write(message)
            message[HEADER:].view(memory.dtype)[:] = number
            backoff = Backoff()
            while (slot := access.outbox.claim()) is None:
                access.finish()
                if time.monotonic() > deadline:
                    return False
                backoff.pause()
            access.send(slot, message, index)
            access.finish()
            access.wait_for_message(index)
            good &= _is_whole(access, index, np.full(size, -1, memory.dtype), deadline)
    access.flush()
    backoff = Backoff()
    while not access.outbox.taken(access.outbox.last):
        if time.monotonic() > deadline:
            return False
        backoff.pause()
    return good


def _is_whole(access: SharedAccess | RemoteAccess, index: int, into: np.ndarray,
              deadline: float) -> bool:
    """Whether a chunk, read now, holds the same number everywhere."""
    reader, backoff = access.reader(index, np.array([-1]), np.zeros(1, np.int64), [into]), Backoff()
    while not reader.advance():
        if time.monotonic() > deadline:
            return False
        backoff.pause()
    return bool((into == into[0]).all())
