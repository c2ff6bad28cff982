"""All blocks of a grid in one process, each in a thread: any grid can be tested without MPI.

Threads exchange copies through mailboxes. Nothing can hang for want of a message: when every block
that still runs waits, nobody is left to send, and all end with an error that says who waits for
whom.
"""
import math
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from hpclcae.partition.communicator import Buffers, Channel, Communicator

T = TypeVar("T")
_SUM = -1  # tag of allreduce_sum; those of exchanges are not negative


class BlocksStuck(RuntimeError):
    """Every block waits for a message that nobody will send."""


def run_blocks(blocks: int, program: Callable[["ThreadCommunicator"], T]) -> list[T]:
    """Run program(communicator) for every block at the same time.

    Returns what they return, in order of ranks.

    Raises
    ------
    BlocksStuck
        The blocks wait for each other.
    BaseException
        Whatever one block raises ends all of them at their next message, and is raised here.
    """
    mailboxes = _Mailboxes(blocks)
    results: dict[int, T] = {}

    def run(rank: int) -> None:
        try:
            results[rank] = program(ThreadCommunicator(mailboxes, range(blocks), rank))
        except BaseException as error:  # whatever it is, it is raised in the thread that called
            mailboxes.stop(error)
        finally:
            mailboxes.leave()
    threads = [threading.Thread(target=run, args=(rank,), name=f"block {rank}")
               for rank in range(blocks)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:  # Ctrl-C, or no more threads
        mailboxes.stop(error)
        raise
    if mailboxes.error is not None:
        raise mailboxes.error
    return [results[rank] for rank in range(blocks)]


class ThreadCommunicator(Communicator):
    """From one block to the others of its process, or to some of them."""

    def __init__(self, mailboxes: "_Mailboxes", members: Sequence[int], rank: int) -> None:
        self._mailboxes, self._members = mailboxes, tuple(members)  # threads, by rank
        self.rank, self.size = rank, len(members)

    def split(self, color: int) -> "ThreadCommunicator":
        """To those who give the same color, in the order of ranks; every block calls it."""
        colors = np.zeros(self.size)
        colors[self.rank] = color
        same = np.flatnonzero(self.allreduce_sum(colors) == color).tolist()
        return ThreadCommunicator(self._mailboxes, [self._members[rank] for rank in same],
                                  same.index(self.rank))

    def channel(self, tag: int, sends: Buffers, receives: Buffers) -> "ThreadChannel":
        return ThreadChannel(self, tag, sends, receives)

    def allreduce_sum(self, values: ArrayLike) -> np.ndarray:
        """Block 0 adds in order of ranks and tells the others."""
        mine = np.array(values, np.float64)
        if self.rank:
            self.send(0, _SUM, mine)
            return self.receive(0, _SUM)
        others = range(1, self.size)
        total = np.array([mine, *(self.receive(rank, _SUM) for rank in others)]).sum(axis=0)
        for rank in others:
            self.send(rank, _SUM, total)
        return total

    def combine(self, values: np.ndarray, how: str) -> None:
        """Block 0 combines in order of ranks and tells the others."""
        operation = {"sum": np.add, "minimum": np.minimum, "maximum": np.maximum}[how]
        if self.rank:
            self.send(0, _SUM, values)
            values[...] = self.receive(0, _SUM)
            return
        for rank in range(1, self.size):
            operation(values, self.receive(rank, _SUM), out=values)
        for rank in range(1, self.size):
            self.send(rank, _SUM, values)

    def sum_in_place(self, array: np.ndarray) -> None:
        """Block 0 adds in order of ranks and tells the others."""
        if self.rank:
            self.send(0, _SUM, array)
            array[...] = self.receive(0, _SUM)
            return
        for rank in range(1, self.size):
            array += self.receive(rank, _SUM)
        for rank in range(1, self.size):
            self.send(rank, _SUM, array)

    def gather(self, value: T, patience: float = math.inf) -> list[T]:
        """Each tells every other one; nobody waits for one that does not come (`BlocksStuck`)."""
        mine = np.empty((), object)
        mine[()] = value
        for rank in set(range(self.size)) - {self.rank}:
            self.send(rank, _SUM, mine)
        everyone: list[T] = []
        for rank in range(self.size):
            everyone.append(value if rank == self.rank else self.receive(rank, _SUM).item())
        return everyone

    def send(self, rank: int, tag: int, content: np.ndarray) -> None:
        """Leave a copy for another block."""
        me = self._members[self.rank]
        self._mailboxes.send(me, self._members[rank], (self._members, tag), content)

    def receive(self, rank: int, tag: int) -> np.ndarray:
        """The oldest message of another block with that tag, when there is one."""
        me = self._members[self.rank]
        return self._mailboxes.receive(me, self._members[rank], (self._members, tag))

    def close(self) -> None:
        """Nothing to release."""


class ThreadChannel(Channel):
    """Buffers that go to and come from fixed blocks."""

    def __init__(self, communicator: ThreadCommunicator, tag: int, sends: Buffers,
                 receives: Buffers) -> None:
        self._communicator, self._tag = communicator, tag
        self._sends, self._receives = sends, receives

    def start(self) -> None:
        for peer, buffer in self._sends:
            self._communicator.send(peer, self._tag, buffer)

    def wait(self) -> None:
        for peer, buffer in self._receives:
            message = self._communicator.receive(peer, self._tag)
            assert message.shape == buffer.shape, (message.shape, buffer.shape)
            assert message.dtype == buffer.dtype, (message.dtype, buffer.dtype)
            buffer[...] = message

    def close(self) -> None:
        """Nothing to release."""


class Stopped(BaseException):
    """Ends a block whose fellow has failed."""


class _Mailboxes:
    """A mailbox for every thread; one lock for all."""

    def __init__(self, threads: int) -> None:
        self.error: BaseException | None = None
        lock = threading.Lock()
        self._arrived = [threading.Condition(lock) for _ in range(threads)]
        self._lock, self._running = lock, threads
        self._messages: list[dict[tuple[int, _Tag], deque[np.ndarray]]] = [
            defaultdict(deque) for _ in range(threads)]
        self._awaited: dict[int, tuple[int, _Tag]] = {}  # who waits -> (sender, tag)

    def send(self, sender: int, to: int, tag: "_Tag", content: np.ndarray) -> None:
        """Leave a copy in a mailbox."""
        with self._lock:
            self._messages[to][sender, tag].append(content.copy())
            if self._awaited.get(to) == (sender, tag):
                del self._awaited[to]
                self._arrived[to].notify()

    def receive(self, me: int, sender: int, tag: "_Tag") -> np.ndarray:
        """Take the oldest message of that sender and tag, when there is one."""
        with self._lock:
            messages = self._messages[me][sender, tag]
            if not messages and self.error is None:
                self._awaited[me] = sender, tag
                self._check_somebody_runs()
                while me in self._awaited:
                    self._arrived[me].wait()
            if self.error is not None:
                raise Stopped
            return messages.popleft()

    def stop(self, error: BaseException) -> None:
        """End all blocks; only the first error counts."""
        with self._lock:
            self._stop(error)

    def leave(self) -> None:
        """A block has come to its end."""
        with self._lock:
            self._running -= 1
            self._check_somebody_runs()

    def _check_somebody_runs(self) -> None:
        if self._running and len(self._awaited) == self._running:
            waits = [f"{me} for {sender} (tag {tag})"
                     for me, (sender, (_, tag)) in sorted(self._awaited.items())]
            self._stop(BlocksStuck("blocks wait for messages that nobody will send: "
                                   f"{', '.join(waits)}"))

    def _stop(self, error: BaseException) -> None:
        if self.error is None and not isinstance(error, Stopped):
            self.error = error
        self._awaited.clear()
        for condition in self._arrived:
            condition.notify_all()


_Tag = tuple[tuple[int, ...], int]  # members of the communicator, and the tag among them
