"""Starting a job with mpiexec on this machine, and passing signals on to all of its ranks."""
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from hpclcae.cluster.watch import RankWatch
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import take_early

#: Open MPI refuses more ranks than cores unless it is told (version 5, version 4); MPICH does not
#: know the names.
OVERSUBSCRIBE = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
                 "OMPI_MCA_rmaps_base_oversubscribe": "1"}
#: It also refuses to run as root, as a container does.
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ANSWER_SECONDS = 60
LOOK_SECONDS = 0.2  # between two looks whether all ranks listen to a USR1 that came early
HAS_PROC = Path("/proc/self/status").exists()
#: In a SLURM job MPICH's mpiexec starts its helpers with srun, which waits for ever inside another
#: srun (the shell of `srun --pty bash`); here all ranks are on this machine.
ON_THIS_MACHINE = {"HYDRA_LAUNCHER": "fork", "HYDRA_RMK": "user"}
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def find_mpiexec() -> str:
    """The mpiexec beside Python's executable, or else that of PATH.

    Wheels of MPI libraries put it beside Python.

    Raises
    ------
    InputError
        There is none.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which("mpiexec",
                         path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if not found:
        raise InputError("there is no mpiexec, beside Python's executable or on PATH: load the "
                         "cluster's MPI, or pip install 'hpclcae[mpich]'")
    return found


def settings_of(mpiexec: str) -> dict[str, str]:
    """What the environment must say for this mpiexec to start any number of ranks here.

    Open MPI wants to be told more than MPICH, which only SLURM leads astray.
    """
    try:
        said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True,
                              timeout=ANSWER_SECONDS).stdout
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{mpiexec} --version says nothing for {ANSWER_SECONDS} s: is it an "
                         "mpiexec?") from error
    if "Open MPI" in said or "OpenRTE" in said:
        wanted = OVERSUBSCRIBE | (AS_ROOT if os.geteuid() == 0 else {})
    else:
        wanted = ON_THIS_MACHINE if "HYDRA" in said and "SLURM_JOB_ID" in os.environ else {}
    return {name: value for name, value in wanted.items() if name not in os.environ}


class Ended(NamedTuple):
    """How a job has ended.

    code : int
        Its exit code; 128 + the number of the signal that ended it.
    asked : bool
        It was told to, by a signal that came to this process.
    first : (int, int) or None
        Rank and process of the rank that ended first, if that is known.
    """
    code: int
    asked: bool = False
    first: tuple[int, int] | None = None


def run_job(command: list[str], program: list[str], settings: dict[str, str],
            ranks: int = 1) -> Ended:
    """Run a command that starts processes of `program`, and pass signals on to these.

    The job has a session of its own, so that a Ctrl-C on the terminal comes only once, from here.
    USR1 would end a process that does not listen yet: it waits until all ranks do.

    Parameters
    ----------
    command : list of str
        The program, or mpiexec and the program.
    program : list of str
        What every rank runs, as it stands in /proc.
    settings : dict
        Variables of the environment that are set for the job.
    ranks : int
        How many there will be.

    """
    asked = False
    with subprocess.Popen(command, env=os.environ | settings, stdin=subprocess.DEVNULL,
                          start_new_session=True, preexec_fn=end_with_parent) as job, \
            RankWatch(lambda: processes(job.pid, program), ranks) as watch:
        def pass_on(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            asked = asked or number not in (signal.SIGUSR1, signal.SIGALRM)
            found = processes(job.pid, program)
            early = HAS_PROC and (len(found) < ranks or not all(map(_heeds_usr1, found)))
            if early and number in (signal.SIGUSR1, signal.SIGALRM):
                signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS)
                return
            number = signal.SIGUSR1 if number == signal.SIGALRM else number
            for process in found or [job.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
        before = {number: signal.signal(number, pass_on) for number in (*PASSED_ON, signal.SIGALRM)
                  if signal.getsignal(number) is not signal.SIG_IGN}  # nohup
        try:
            if take_early():
                pass_on(signal.SIGUSR1, None)
            code = job.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
    return Ended(code if code >= 0 else 128 - code, asked, watch.first)


def _heeds_usr1(process: int) -> bool:
    """Whether a process has a handler for USR1."""
    with contextlib.suppress(OSError, StopIteration):  # it may have ended
        status = Path(f"/proc/{process}/status").read_text()
        mask = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(mask.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1)
    return False


def end_with_parent() -> None:
    """Called in the new process: if this one is killed, no job is left behind (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def processes(ancestor: int, program: list[str]) -> list[int]:
    """The processes that run `program` among one and all that it has started.

    None are found where there is no /proc.
    """
    return [pid for pid in descendants(ancestor) if arguments_of(pid) == program]


def descendants(ancestor: int) -> set[int]:
    """A process and all that it has started and that still run; only itself without /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it may have ended meanwhile
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, new = set[int](), [ancestor]
    while new:
        pid = new.pop()
        found.add(pid)
        new += children.get(pid, [])
    return found


def arguments_of(pid: int) -> list[str]:
    """The program of a process and its arguments; [] if there is none, or no /proc."""
    with contextlib.suppress(OSError):
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
        return content.decode(errors="replace").split("\0")[:-1]
    return []
