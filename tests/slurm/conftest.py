"""Tests that need the cluster of tests/support/slurm_cluster.sh; skipped with one line where none answers."""
import subprocess

import pytest

from tests.support import slurm_jobs
from tests.support.slurm_jobs import FOLDER, cluster, command, idle, processes, until


@pytest.fixture(scope="session")
def slurm():
    """The cluster, or no test."""
    if not FOLDER:
        pytest.skip("no SLURM cluster (.ci/run starts one): bash tests/support/slurm_cluster.sh start FOLDER, then set "
                    "HPCLCAE_SLURM_CLUSTER to FOLDER and SLURM_CONF to FOLDER/slurm.conf")
    try:
        command("sinfo", timeout=10)
    except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"the SLURM cluster in {FOLDER} does not answer: {error}")
    return slurm_jobs


@pytest.fixture(autouse=True)
def nothing_is_left(slurm, tmp_path):
    """After each test, passed or not: no job, no process that works in its folder, all nodes idle."""
    yield
    left = command("squeue", "--noheader", "--format=%i").split()
    if left:
        command("scancel", "--signal=KILL", "--full", *left)
        command("scancel", *left)
    until(lambda: not command("squeue", "--noheader").strip(), 40, lambda: command("squeue"))
    for number, node in enumerate(slurm.NODES, 1):
        if "down" in command("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T"):
            cluster("node", str(number))
    until(idle, 40, lambda: command("sinfo"))
    until(lambda: not processes(str(tmp_path)), 10, lambda: "\n".join(processes(str(tmp_path))))
    assert not left, f"jobs {left} were still there"
