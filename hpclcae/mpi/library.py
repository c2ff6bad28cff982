"""The MPI library: which one there is, without starting it, and starting it.

Nothing here imports MPI before it is asked to, so a machine without a library gets one line.
"""
from typing import TYPE_CHECKING

from hpclcae.cluster.launcher import launched
from hpclcae.mpi import shared_memory
from hpclcae.utils.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI


def library() -> str:
    """Name and version of the MPI library, on one line; it is not started.

    Raises
    ------
    InputError
        No MPI library can be loaded.
    """
    load()
    from mpi4py import MPI
    return " ".join(MPI.Get_library_version().splitlines()[0].replace(",", " ").replace(
        "\0", " ").split())


def load() -> None:
    """Load the MPI library without starting it: this process may be one of a job that never meets.

    Raises
    ------
    InputError
        No MPI library can be loaded.
    """
    try:
        import mpi4py
        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        from mpi4py import MPI  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(f"no MPI library can be loaded ({' '.join(str(error).split())}): load the "
                         "cluster's MPI, or pip install 'hpclcae[mpich]'; one process without "
                         "mpiexec or srun needs none") from error


def start() -> "MPI.Intracomm":
    """Start MPI and return all processes of the job.

    Raises
    ------
    InputError
        No library can be loaded; it would die of a small /dev/shm; or it sees fewer processes than
        the launcher started, so each of them would take itself for the whole job.
    """
    load()
    from mpi4py import MPI
    if not MPI.Is_initialized():
        shared_memory.check_start(MPI.get_vendor()[0])
        MPI.Init_thread()
    world, said = MPI.COMM_WORLD, launched()
    if world.size < said.size:
        raise StrangersError(
            f"{said.by} started {said.size} processes, and MPI ({library()}) sees {world.size}: "
            "each would do the whole work alone. Start them with the mpiexec of this library "
            "('hpclcae launch' finds it), or with the srun --mpi=... that it understands ('srun "
            "--mpi=list'; pmi2 for MPICH, pmix for Open MPI)")
    world.Barrier()
    shared_memory.forget_names()
    return world


class StrangersError(InputError):
    """Processes of one job do not know of each other; each of them sees it."""
