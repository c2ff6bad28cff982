"""bench halo and bench scaling under mpiexec."""
import json
import os

import pytest

from hpclcae import config as configuration
from hpclcae.bench.halo import least_bytes
from hpclcae.partition.blocks import Grid
from tests.support.mpi import ENVIRONMENT, MPIEXEC, mpiexec
from tests.support.processes import RUN

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_rank_prints_what_all_send(tmp_path):
    path = tmp_path / "rows.jsonl"
    job = mpiexec(4, "-m", "hpclcae", "bench", "halo", RUN / "tiny.toml", "--grid", "4x1",
                  "--steps", 2, "--json", path)
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("images/s: prepare") == 1
    found = {row["metric"]: row["value"] for row in rows_of(path)}
    assert len(found) == len(rows_of(path))
    least = least_bytes(configuration.load(RUN / "tiny.toml"), Grid(4, 1))
    assert len(least) > 20
    for (stage, what), size in least.items():
        assert found[f"stage {stage + 1}, {what}: sent a step"] == size


def test_a_grid_that_does_not_fit_ends_all_ranks_with_one_message():
    job = mpiexec(2, "-m", "hpclcae", "bench", "halo", RUN / "tiny.toml", "--grid", "3x1",
                  timeout=30)
    assert job.returncode != 0 and "Traceback" not in job.stderr
    [line] = [line for line in job.stderr.splitlines() if "hpclcae" in line]
    assert line.startswith("hpclcae bench halo: grid 3x1 has 3 blocks")


def test_scaling_starts_the_jobs_itself(hpclcae, tmp_path):
    path = tmp_path / "rows.jsonl"
    done = hpclcae("bench", "scaling", RUN / "tiny.toml", "--ranks", 1, 4, "--repeat", 1, "--steps",
                   1, "--set", "train.batch=2", "--json", path, timeout=120, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "4 ranks over 1: speed-up" in {row["metric"] for row in rows_of(path)}
    assert "run/tiny.toml train.batch=2; efficiency is of" in done.stdout


def test_scaling_says_why_a_job_failed_and_leaves_nothing(hpclcae, tmp_path):
    done = hpclcae("bench", "scaling", RUN / "tiny.toml", "--ranks", 5, "--repeat", 1, "--set",
                   "data.size=4", env=os.environ | ENVIRONMENT)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("hpclcae bench scaling: 5 ranks: hpclcae bench halo: ")
