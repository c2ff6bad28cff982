"""The MPI library: which one there is, without starting it, and starting it.

Nothing here imports MPI before it is asked to, so a machine without a library gets one line.
"""
import os
import warnings
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
        No library can be loaded; it would die of its launcher or of a small /dev/shm; or it sees
        fewer processes than the launcher started, so each would take itself for the whole job.
    """
    load()
    from mpi4py import MPI
    vendor, version = MPI.get_vendor()
    name = f"{vendor} {'.'.join(map(str, version))}"
    if not MPI.Is_initialized():
        _check_launcher(vendor, name)
        shared_memory.check_start(vendor)
        with warnings.catch_warnings():  # mpi4py suspects what is found out below
            warnings.simplefilter("ignore", RuntimeWarning)
            MPI.Init_thread()
    world = MPI.COMM_WORLD
    if world.size < launched().size:
        raise _strangers(f"MPI ({name}) sees {world.size}")
    world.Barrier()
    shared_memory.forget_names()
    return world


def _check_launcher(vendor: str, name: str) -> None:
    """Refuse what MPICH ends the process for, with a page of text."""
    if vendor != "MPICH":
        return
    pmi = os.environ.get("PMI_FD", "")
    if pmi.isdecimal() and not os.path.exists(f"/dev/fd/{pmi}"):
        raise InputError(f"PMI_FD={pmi} is no open file: it is left over from a launcher that has "
                         "ended; unset PMI_FD PMI_RANK PMI_SIZE")
    if (not pmi and "PMI_PORT" not in os.environ and "PMIX_NAMESPACE" in os.environ
            and not shared_memory.maps("pmix")):
        raise _strangers(f"MPI ({name}) does not understand it (it speaks PMIx)")


def _strangers(seen: str) -> InputError:
    said = launched()
    return InputError(
        f"{said.by} started {said.size} processes, and {seen}: each would do the whole work alone. "
        "Start them with the mpiexec of this library ('hpclcae launch' finds it), or with the srun "
        "--mpi=... that it understands ('srun --mpi=list'; pmi2 for MPICH, pmix for Open MPI)")
