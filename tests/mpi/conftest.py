"""MPI libraries to run under: the installed one, also without shared memory, and Open MPI."""
import pytest

from tests.support.mpi import installed, openmpi, unshared  # noqa: F401


@pytest.fixture
def library(request):
    """The library that a test asks for by name: installed, unshared or openmpi."""
    return request.getfixturevalue(request.param)
