"""Worlds: the processes of one server, or of one life of a replica, started and ended together."""
import contextlib
import os
import signal
import subprocess
from pathlib import Path

from hpclcae.cluster.mpiexec import end_with_parent, find_mpiexec, settings_of
from hpclcae.survive.part import Part


class World:
    """One process, or one mpiexec with its ranks; a failure in it is seen by nobody else's MPI.

    Parameters
    ----------
    program : list of str
        What each of its processes runs.
    ranks : int
    """

    def __init__(self, part: Part, program: list[str], ranks: int) -> None:
        self.part, self.ranks = part, ranks
        command, settings = program, part.variables()
        if ranks > 1:
            mpiexec = find_mpiexec()
            command = [mpiexec, "-n", str(ranks), *program]
            settings |= settings_of(mpiexec)
        self._process = subprocess.Popen(
            command, env=os.environ | settings, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=end_with_parent)
        self.pids = {self._process.pid}

    @property
    def code(self) -> int | None:
        """The exit code; None as long as it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """Of the process that was started, mpiexec where there are several ranks."""
        return self._process.pid

    def kill(self) -> None:
        """End all of its processes at once, also those that are stopped; and wait for that."""
        orphans = {pid for pid in self.pids if self._is_ours(pid)}
        for pid in sorted(orphans | descendants(self._process.pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _is_ours(self, pid: int) -> bool:
        """Whether a number that one of its processes had is still that process."""
        with contextlib.suppress(OSError):
            return self.part.token.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        return False


def descendants(ancestor: int) -> set[int]:
    """A process and all that it has started and that still run; only itself without /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, new = set[int](), [ancestor]
    while new:
        pid = new.pop()
        found.add(pid)
        new += children.get(pid, [])
    return found
