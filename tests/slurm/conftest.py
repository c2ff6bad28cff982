"""Tests that need the cluster of tests/support/slurm_cluster.sh; where none answers, test_cluster.py says so once."""
import pytest

from tests.support import slurm_jobs
from tests.support.slurm_jobs import cluster, command, idle, processes, until

WHY_NOT = slurm_jobs.why_not()
if WHY_NOT:
    collect_ignore = ["test_train.py", "test_other_jobs.py", "test_bad_input.py"]


@pytest.fixture(scope="session")
def slurm():
    """The cluster."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
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
