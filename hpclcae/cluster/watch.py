"""Which rank of a job on this machine ends first: the one that failed, when the job fails."""
import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from hpclcae.cluster.launcher import launched

LOOK_SECONDS = 0.1    # between two looks for ranks that have not started yet
GONE_SECONDS = 10.0   # that the others may take to end when mpiexec has


class RankWatch:
    """Looks after the ranks of a job while it runs. For Linux; elsewhere nobody is named.

    The system tells when a process ends (pidfd), so the order is the true one, as mpiexec takes
    milliseconds to end the others. Of those that end before this thread gets a core, any may be
    named.

    Parameters
    ----------
    find : callable
        Finds the processes of all ranks that there are.
    ranks : int

    Attributes
    ----------
    first : (int, int) or None
        Rank and process of the one that ended first.
    """

    def __init__(self, find: Callable[[], list[int]], ranks: int) -> None:
        self._find, self._ranks = find, ranks
        self.first: tuple[int, int] | None = None
        self._known: dict[int, tuple[int, int]] = {}  # process -> rank, pidfd
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rank watch", daemon=True)

    def __enter__(self) -> "RankWatch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._let_go()

    def _watch(self) -> None:
        poll, numbers = select.poll(), {}
        while not self._ended.is_set() and self.first is None:
            if len(self._known) < self._ranks:
                for process in set(self._find()) - self._known.keys():
                    with contextlib.suppress(OSError, AttributeError):  # it has ended; no Linux
                        descriptor = os.pidfd_open(process)
                        self._known[process] = _rank_of(process), descriptor
                        numbers[descriptor] = process
                        poll.register(descriptor, select.POLLIN)
            for descriptor, _ in poll.poll(1000 * LOOK_SECONDS):
                process = numbers[descriptor]
                self.first = self.first or (self._known[process][0], process)

    def _let_go(self) -> None:
        """Wait until all ranks have ended, or end them: they hold the lock of the run folder."""
        until = time.monotonic() + GONE_SECONDS
        for process, (_, descriptor) in self._known.items():
            left = max(0.0, until - time.monotonic())
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(1000 * left):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)


def _rank_of(process: int) -> int:
    """What the launcher told a process."""
    words = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    return launched(dict(word.split("=", 1) for word in words if "=" in word)).rank
