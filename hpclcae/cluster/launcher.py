"""How many processes a launcher started, and which of them this one is.

Read from the environment, without MPI. What a shell was started with stays in its environment, and
launchers start each other, so several may speak at once: the one that is nearest counts.
"""
import os
from collections.abc import Mapping
from typing import NamedTuple

#: (name, size, rank) of launchers that start the processes of one job themselves: Open MPI's,
#: MVAPICH's. MPICH's mpiexec is told from SLURM's PMI by what only it sets.
_MPIEXECS = (("mpiexec", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
             ("mpiexec", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"))
_PMI = ("PMI_SIZE", "PMI_RANK")
_MPICH = "MPI_LOCALNRANKS"
#: srun, with PMI or without; Flux.
_SCHEDULERS = (("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
               ("flux run", "FLUX_JOB_SIZE", "FLUX_TASK_RANK"))
_PTY = "SLURM_PTY_PORT"  # of `srun --pty bash`: tasks of its step are no ranks of what is typed
#: How many of the processes are on this node, and which of them this one is.
_LOCAL = (("MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
          ("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"))


class Launched(NamedTuple):
    """What the launcher says.

    size, rank : int
        Number of processes, and this one's; (1, 0) where no launcher is at work.
    by : str
        The launcher, and the variable that says it; "" if there is none.
    """
    size: int
    rank: int
    by: str = ""


def launched(environment: Mapping[str, str] = os.environ) -> Launched:
    """What the launcher of this process says.

    An mpiexec inside of an srun counts, not the srun; PMI_SIZE=1 that `srun --pty bash` leaves in a
    shell is outdone by the launcher that is called there. SLURM_NTASKS is no launcher's word: a
    batch script has it, too.
    """
    mpiexecs, schedulers = [*_MPIEXECS], [*_SCHEDULERS]
    (mpiexecs if _MPICH in environment else schedulers).append(("mpiexec", *_PMI))
    if _PTY in environment and _has_terminal():
        schedulers = []
    for launchers in (mpiexecs, schedulers):
        found = [Launched(int(environment[size]), int(environment[rank]), f"{by} ({size})")
                 for by, size, rank in launchers
                 if _is_number(environment, size) and _is_number(environment, rank)]
        if found:
            return max(found, key=lambda said: said.size)
    return Launched(1, 0)


def on_this_node(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """How many processes of the job are on this node, and which of them this one is.

    (1, 0) where the launcher does not say it.
    """
    for size, rank in _LOCAL:
        if _is_number(environment, size) and _is_number(environment, rank):
            return int(environment[size]), int(environment[rank])
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")  # for instance 4(x2),3
    counts = [int(part.partition("(")[0]) for part in tasks.split(",")
              if part.partition("(")[0].isdecimal()]
    rank = environment.get("SLURM_LOCALID", "0")
    return (max(counts), int(rank)) if counts and rank.isdecimal() else (1, 0)


def _is_number(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").isdecimal()


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal; tasks of srun do not, but for that of --pty."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
