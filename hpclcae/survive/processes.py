"""Worlds: the processes of one server, or of one life of a replica, started and ended together."""
import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from hpclcae.cluster.mpiexec import descendants, end_with_parent
from hpclcae.survive.part import Part

LINGER_SECONDS = 5.0  # that a launcher may take to end processes on other nodes


class World:
    """One process, or what launches several; a failure in it is seen by nobody else's MPI.

    Parameters
    ----------
    command : list of str
        The program of its one process, or the launcher and the program.
    settings : dict
        Variables of the environment that are set for it.
    nodes : tuple of str
        Names of those that it runs on.
    ranks : int
    last_word : Signals
        What lets a launcher end processes on other nodes; SIGKILL: all of them are on this one.
    """

    def __init__(self, part: Part, command: list[str], settings: dict[str, str],
                 nodes: tuple[str, ...], ranks: int, is_here: bool = True,
                 last_word: signal.Signals = signal.SIGKILL) -> None:
        self.part, self.nodes, self.ranks = part, nodes, ranks
        self._is_here, self._last_word = is_here, last_word
        self._process = subprocess.Popen(
            command, env=os.environ | settings | part.variables(), stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=end_with_parent)
        self.pids = {self._process.pid}
        self._killed = 0.0

    @property
    def code(self) -> int | None:
        """The exit code; None as long as it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """Of the process that was started, the launcher where there is one."""
        return self._process.pid

    def kill(self) -> None:
        """End all of its processes at once, also those that are stopped.

        Here, and wait for that; on other nodes the launcher is told, which may not reach them: then
        they end by themselves, as the supervisor hears them no more.
        """
        if not self._killed:
            self._killed = time.monotonic()
            if not self._is_here:
                self._send(self._last_word)
                return
            orphans = {pid for pid in self.pids if self._is_ours(pid)}
            for pid in sorted(orphans | descendants(self._process.pid)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def ends_within(self, seconds: float) -> bool:
        """Whether it has ended, or does so soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.code is not None

    def see_off(self, now: float) -> bool:
        """Whether it has ended; a launcher that was told to end, and does not, is killed."""
        if self._killed and self.code is None and now - self._killed > LINGER_SECONDS:
            self._send(signal.SIGKILL)
        return self.code is not None

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _is_ours(self, pid: int) -> bool:
        """Whether a number that one of its processes had is still that process."""
        with contextlib.suppress(OSError):
            return self.part.token.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        return False
