"""``hpclcae launch``: a rank of a real job is killed, and training goes on by itself."""
import os
import signal
import subprocess
import sys
import time

import pytest

from hpclcae import checkpoint
from hpclcae.cluster.launcher import launched
from hpclcae.cluster.restarts import failures
from tests.support.mpi import ENVIRONMENT, MPIEXEC, train
from tests.support.saving import assert_same, datasets

pytestmark = [pytest.mark.skipif(MPIEXEC is None,
                                 reason="no mpiexec here: pip install 'hpclcae[mpich]'"),
              pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")]
LIMIT = 100.0


def launch(dataset, out, *words):
    """The words of a job of two blocks that saves often."""
    words_of_train = [str(word) for word in train(dataset, out)[3:]]
    return [sys.executable, "-m", "hpclcae", "launch", *words_of_train, "--grid", "2x1",
            "--set", "train.checkpoint_every=4", "--set", "train.log_every=1",
            *words]


def rank_process(rank, folder):
    """The process of a rank that trains in a folder, or None."""
    for path in (f"/proc/{name}" for name in os.listdir("/proc") if name.isdecimal()):
        try:
            with open(f"{path}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
            with open(f"{path}/environ", "rb") as file:
                environment = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        known = dict(word.split("=", 1) for word in environment if "=" in word)
        if "train" in words[3:4] and str(folder) in words and launched(known)[:2] == (2, rank):
            return int(path.rpartition("/")[2])
    return None


def kill_after(rank, run, step):
    """Kill a rank when the leader has written a line about a step."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and f'{{"step": {step},' in metrics.read_text():
            os.kill(rank_process(rank, run), signal.SIGKILL)
            return
        time.sleep(0.005)
    raise AssertionError(f"no step {step} in {LIMIT} s")


def test_a_killed_rank_is_named_and_the_job_goes_on_to_the_same_numbers(tiny_dataset, tmp_path):
    """Twice, in different steps; the third time is once too often."""
    run = tmp_path / "run"
    steps = ["--set", "train.steps=100000", "--set", "train.restarts=2"]
    command = launch(tiny_dataset, run, *steps)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=os.environ | ENVIRONMENT) as job:
        for rank, step in ((1, 9), (0, 40), (1, 80)):
            kill_after(rank, run, step)
        said, _ = job.communicate(timeout=LIMIT)
    assert job.returncode not in (0, 1)
    named = [line for line in said.splitlines() if line.startswith("hpclcae launch: ")]
    assert [line.split(" failed first")[0].split(", process")[0] for line in named] == [
        "hpclcae launch: rank 1 (replica 0 block 1", "hpclcae launch: rank 0 (replica 0 block 0",
        "hpclcae launch: rank 1 (replica 0 block 1"]
    assert "start 2 of at most 2" in named[1] and "given up" in named[2]
    noted = failures(run)
    assert [one["again"] for one in noted] == [True, True, False]
    assert all(before["step"] < after["step"] for before, after in zip(noted, noted[1:]))
    last = checkpoint.load_state(checkpoint.find(run)).step
    whole = tmp_path / "whole"
    words = launch(tiny_dataset, whole, *steps, "--stop-at", str(last))
    assert subprocess.run(words, env=os.environ | ENVIRONMENT, capture_output=True,
                          timeout=LIMIT).returncode == 0
    assert_same(datasets(checkpoint.find(run)), datasets(checkpoint.find(whole)))


def test_what_comes_back_is_not_started_again(tiny_dataset, tmp_path):
    """Wrong input that only the ranks find; they say it, and launch starts no other job."""
    words = launch(tiny_dataset, tmp_path / "run", "--set", "data.size=30")
    job = subprocess.run(words, env=os.environ | ENVIRONMENT, capture_output=True, text=True,
                         timeout=LIMIT)
    assert job.returncode != 0, job.stderr  # MPI decides which, where ranks end each other
    assert job.stdout.count("-m hpclcae train") == 1, job.stderr
    assert job.stderr.count("holds images of 24 x 24") == 1
    assert not (tmp_path / "run").exists()
