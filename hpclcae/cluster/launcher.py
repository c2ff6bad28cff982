"""How many processes a launcher started, and which of them this one is.

Read from the environment, without MPI.
"""
import os
from collections.abc import Mapping

#: (size, rank) as set by MPICH's mpiexec and SLURM's PMI, Open MPI's mpirun, and srun without PMI.
_LAUNCHERS = (("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
              ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Number of processes and this one's rank; (1, 0) where no launcher is at work."""
    for size, rank in _LAUNCHERS:
        if size in environment and rank in environment:
            return int(environment[size]), int(environment[rank])
    return 1, 0
