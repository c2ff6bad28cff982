"""Under mpiexec: MPI works, one process trains the same numbers, several are refused with one message.

Every job runs under a time limit, after which all that it started is killed.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpclcae import checkpoint
from tests.conftest import RUN, run_limited
from tests.unit.test_checkpoint import assert_same, datasets

BESIDE_PYTHON = str(Path(sys.executable).parent)  # where the wheels of MPICH and Open MPI put it
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([BESIDE_PYTHON, os.environ.get("PATH", "")]))
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")

#: Open MPI refuses to start as root, or more ranks than cores, unless it is told.
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def mpiexec(ranks, *words, timeout=120):
    """Run Python on several ranks."""
    return run_limited([MPIEXEC, "-n", str(ranks), sys.executable, *map(str, words)], timeout, env=ENVIRONMENT)


def train(dataset, out):
    return ["-m", "hpclcae", "train", RUN / "tiny.toml", "--out", out, "--set", f"data.train={dataset}",
            "--set", "train.steps=6"]


def test_two_ranks_add_their_numbers():
    job = mpiexec(2, "-c", "from mpi4py import MPI; w = MPI.COMM_WORLD; "
                           "total = w.allreduce(10 ** w.rank); w.rank or print(w.size, total)")
    assert job.returncode == 0, job.stderr
    assert job.stdout.splitlines() == ["2 11"]


def test_one_rank_trains_the_same_numbers_as_no_mpiexec(hpclcae, tiny_dataset, tmp_path):
    job = mpiexec(1, *train(tiny_dataset, tmp_path / "launched"))
    assert job.returncode == 0, job.stderr
    alone = hpclcae(*train(tiny_dataset, tmp_path / "alone")[2:])
    assert alone.returncode == 0, alone.stderr
    assert_same(*(datasets(checkpoint.find(tmp_path / run)) for run in ("launched", "alone")))


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_are_refused_with_one_message(tiny_dataset, tmp_path, ranks):
    job = mpiexec(ranks, *train(tiny_dataset, tmp_path / "run"))
    assert job.returncode != 0
    ours = [line for line in job.stderr.splitlines() if "hpclcae" in line]
    assert ours == [f"hpclcae train: it runs in one process, and {ranks} were launched: use mpiexec -n 1"]
    assert "Traceback" not in job.stderr and not (tmp_path / "run").exists()


def test_a_job_that_hangs_is_killed_with_all_its_ranks(tmp_path):
    """Both ranks wait for a message that nobody sends."""
    hanging = ("import os, pathlib; from mpi4py import MPI; w = MPI.COMM_WORLD; "
               f"pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); w.recv(source=1 - w.rank)")
    with pytest.raises(subprocess.TimeoutExpired):
        mpiexec(2, "-c", hanging, timeout=5)
    ranks = [int(path.name) for path in tmp_path.iterdir()]
    assert len(ranks) == 2
    for rank in ranks:
        ended = subprocess.run(["tail", "--pid", str(rank), "-f", "/dev/null"], timeout=30)  # waits until it is gone
        assert ended.returncode == 0
