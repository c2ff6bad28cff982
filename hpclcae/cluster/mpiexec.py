"""The command ``hpclcae launch``: as many processes of ``hpclcae train`` as the configuration
wants, on this machine.

It finds mpiexec, prints the line and runs it. In place of typing the line yourself you get the
number of ranks, what Open MPI has to be told, and signals: USR1, TERM and Ctrl-C that come to this
command are passed on to every rank (mpiexec itself would kill them at TERM). On a cluster use
slurm/train.sbatch.

Ranks are parallel.servers + parallel.replicas x blocks. With parallel.grid = "auto" the replicas
share the cores; servers sleep most of the time and are not counted.
"""
import argparse
import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from hpclcae import config as configuration
from hpclcae.commands import train
from hpclcae.config import Config
from hpclcae.parameter_server.roles import blocks_of
from hpclcae.partition.blocks import Grid
from hpclcae.partition.cost import choose_grid, fitting_grids
from hpclcae.utils.errors import InputError

#: Open MPI refuses more ranks than cores unless it is told (version 5, version 4); MPICH does not
#: know the names.
OVERSUBSCRIBE = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
                 "OMPI_MCA_rmaps_base_oversubscribe": "1"}
#: It also refuses to run as root, as a container does.
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    train.configure(parser)
    parser.add_argument("--ranks", type=int, metavar="N",
                        help="processes (default: what the configuration and the cores of this "
                        "machine ask for)")
    parser.add_argument("--dry-run", action="store_true", help="print the line only")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code is that of the job."""
    config = configuration.load(args.configuration, train.changes(args))
    cores = len(os.sched_getaffinity(0)) if hasattr(os,
                                                    "sched_getaffinity") else os.cpu_count() or 1
    ranks = ranks_for(config, cores, args.ranks)
    program = [sys.executable, "-m", "hpclcae", "train", *train_words(args)]
    command = [find_mpiexec(), "-n", str(ranks), *program] if ranks > 1 else program
    settings = settings_of(command[0]) if ranks > 1 else {}
    print(shlex.join([*(f"{name}={value}" for name, value in settings.items()), *command]),
          flush=True)
    return 0 if args.dry_run else run_job(command, program, settings)


def ranks_for(config: Config, cores: int, ranks: int | None = None) -> int:
    """How many processes to start; `ranks`, if given, must fit.

    Raises
    ------
    InputError
        Names what does not fit.
    """
    parallel = config.parallel
    fixed = None if parallel.grid == "auto" else Grid.parse(parallel.grid).size
    if ranks is None:
        blocks = fixed or next(n for n in range(max(1, cores // parallel.replicas), 0, -1)
                               if fitting_grids(config, n))
        ranks = parallel.servers + parallel.replicas * blocks
    choose_grid(config, blocks_of(ranks, parallel.servers, parallel.replicas, fixed), parallel.grid)
    return ranks


def train_words(args: argparse.Namespace) -> list[str]:
    """The arguments of hpclcae train again, as words."""
    words = [args.configuration, "--out", str(args.out)]
    for change in args.changes:
        words += ["--set", change]
    words += ["--resume"] if args.resume else []
    for name in ("stop_at", "grid", "servers", "replicas"):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return words


def find_mpiexec() -> str:
    """The mpiexec beside Python's executable, where wheels of MPI libraries put it, or else that of
    PATH.

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
    """What the environment must say for this mpiexec to start any number of ranks here: Open MPI
    wants to be told."""
    said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, timeout=60).stdout
    if "Open MPI" not in said and "OpenRTE" not in said:
        return {}
    wanted = OVERSUBSCRIBE | (AS_ROOT if os.geteuid() == 0 else {})
    return {name: value for name, value in wanted.items() if name not in os.environ}


def run_job(command: list[str], program: list[str], settings: dict[str, str]) -> int:
    """Run a command that starts processes of `program`, and pass signals on to these; returns the
    exit code.

    The job has a session of its own, so that a Ctrl-C on the terminal comes only once, from here.
    """
    with subprocess.Popen(command, env=os.environ | settings, stdin=subprocess.DEVNULL,
                          start_new_session=True, preexec_fn=_end_with_parent) as job:
        def pass_on(number: int, frame: FrameType | None) -> None:
            for process in processes(job.pid, program) or [job.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
        before = {number: signal.signal(number, pass_on) for number in PASSED_ON
                  if signal.getsignal(number) is not signal.SIG_IGN}  # nohup
        try:
            code = job.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    """Called in the new process: if even this command is killed, no job is left behind (on Linux).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def processes(ancestor: int, program: list[str]) -> list[int]:
    """The processes that run `program` among one and all that it has started.

    None where there is no /proc.
    """
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it may have ended meanwhile
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[
                    :-1] == program:
                found.append(pid)

    def descends(pid: int) -> bool:
        while pid not in (ancestor, 0):
            pid = parents.get(pid, 0)
        return pid == ancestor
    return [pid for pid in found if descends(pid)]
