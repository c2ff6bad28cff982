"""Which MPI library would be used; asking does not start MPI."""
import mpi4py

# before MPI is imported: this process may be one of a job that never meets
mpi4py.rc.initialize = False

from mpi4py import MPI  # noqa: E402


def library() -> str:
    """Name and version of the MPI library, on one line."""
    return " ".join(MPI.Get_library_version().splitlines()[0].replace(",", " ").replace(
        "\0", " ").split())
