"""All blocks of a grid in one process, each in a thread: any grid can be tested without MPI.

Threads exchange copies through mailboxes. Nothing can hang for want of a message: when every block
that still runs waits, nobody is left to send, and all end with an error that says who waits for
whom.
"""
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from hpclcae.partition.communicator import Buffers, Communicator

T = TypeVar("T")
_SUM = -1  # tag of allreduce_sum; those of exchanges are not negative


class BlocksStuck(RuntimeError):
    """Every block waits for a message that nobody will send."""


def run_blocks(blocks: int, program: Callable[[Communicator], T]) -> list[T]:
    """Run program(communicator) for every block at the same time; returns what they return, in
    order of ranks.

    Raises
    ------
    BlocksStuck
        The blocks wait for each other.
    BaseException
        Whatever one block raises ends all of them at their next message, and is raised here.
    """
    office = _PostOffice(blocks)
    results: dict[int, T] = {}

    def run(rank: int) -> None:
        try:
            results[rank] = program(ThreadCommunicator(office, rank))
        except BaseException as error:  # whatever it is, it is raised in the thread that called
            office.stop(error)
        finally:
            office.leave()
    threads = [threading.Thread(target=run, args=(rank,), name=f"block {rank}")
               for rank in range(blocks)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:  # Ctrl-C, or no more threads
        office.stop(error)
        raise
    if office.error is not None:
        raise office.error
    return [results[rank] for rank in range(blocks)]


class ThreadCommunicator:
    """One block's line to the others of its process."""

    def __init__(self, office: "_PostOffice", rank: int) -> None:
        self._office, self.rank, self.size = office, rank, office.blocks

    def channel(self, tag: int, sends: Buffers, receives: Buffers) -> "ThreadChannel":
        """See exchange.Communicator."""
        return ThreadChannel(self._office, self.rank, tag, sends, receives)

    def allreduce_sum(self, values: ArrayLike) -> np.ndarray:
        """See exchange.Communicator. Block 0 adds in order of ranks and tells the others."""
        mine = np.array(values, np.float64)
        if self.rank:
            self._office.send(self.rank, 0, _SUM, mine)
            return self._office.receive(self.rank, 0, _SUM)
        total = np.array([mine, *(self._office.receive(0, rank, _SUM)
                                  for rank in range(1, self.size))]).sum(axis=0)
        for rank in range(1, self.size):
            self._office.send(0, rank, _SUM, total)
        return total

    def close(self) -> None:
        """Nothing to release."""


class ThreadChannel:
    """Buffers that go to and come from fixed blocks."""

    def __init__(self, office: "_PostOffice", rank: int, tag: int, sends: Buffers,
                 receives: Buffers) -> None:
        self._office, self._rank, self._tag, self._sends, self._receives = office, rank, tag, sends, receives

    def start(self) -> None:
        """See exchange.Channel."""
        for peer, buffer in self._sends:
            self._office.send(self._rank, peer, self._tag, buffer)

    def wait(self) -> None:
        """See exchange.Channel."""
        for peer, buffer in self._receives:
            letter = self._office.receive(self._rank, peer, self._tag)
            assert letter.shape == buffer.shape and letter.dtype == buffer.dtype, (letter.shape,
                                                                                   buffer.shape)
            buffer[...] = letter

    def close(self) -> None:
        """Nothing to release."""


class _Stopped(BaseException):
    """Ends a block whose fellow has failed."""


class _PostOffice:
    """A mailbox for every block; one lock for all."""

    def __init__(self, blocks: int) -> None:
        self.blocks, self.error = blocks, None  # type: int, BaseException | None
        lock = threading.Lock()
        self._arrived = [threading.Condition(lock) for _ in range(blocks)]
        self._lock, self._running = lock, blocks
        self._letters: list[dict[tuple[int, int], deque[np.ndarray]]] = [defaultdict(deque)
                                                                         for _ in range(blocks)]
        self._awaited: dict[int, tuple[int, int]] = {}  # block that waits -> (sender, tag)

    def send(self, sender: int, to: int, tag: int, content: np.ndarray) -> None:
        """Leave a copy in a mailbox."""
        with self._lock:
            self._letters[to][sender, tag].append(content.copy())
            if self._awaited.get(to) == (sender, tag):
                del self._awaited[to]
                self._arrived[to].notify()

    def receive(self, me: int, sender: int, tag: int) -> np.ndarray:
        """Take the oldest letter of that sender and tag, when there is one."""
        with self._lock:
            letters = self._letters[me][sender, tag]
            if not letters and self.error is None:
                self._awaited[me] = sender, tag
                self._check_somebody_runs()
                while me in self._awaited:
                    self._arrived[me].wait()
            if self.error is not None:
                raise _Stopped
            return letters.popleft()

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
            waits = [f"{me} for {sender} (tag {tag})" for me,
                     (sender, tag) in sorted(self._awaited.items())]
            self._stop(BlocksStuck("blocks wait for messages that nobody will send: "
                                   f"{', '.join(waits)}"))

    def _stop(self, error: BaseException) -> None:
        if self.error is None and not isinstance(error, _Stopped):
            self.error = error
        self._awaited.clear()
        for condition in self._arrived:
            condition.notify_all()
