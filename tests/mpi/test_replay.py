"""``hpclcae launch`` and ``hpclcae replay``: what several ranks did, in one process, to the bit."""
import json
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.checkpoint.event_log import logs
from hpclcae.parameter_server.store import EVENT, PUSHED
from tests.support.mpi import MPIEXEC
from tests.support.processes import RUN

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")

TINY = RUN / "tiny.toml"


def words_of(dataset, out, *changes, steps=8):
    """Arguments of train: a few steps in float64, with a checkpoint in between, and a log."""
    settings = [f"data.train={dataset}", f"train.steps={steps}", "train.batch=10",
                "train.checkpoint_every=3",
                "train.dtype=float64", "parallel.log_events=true", *changes]
    return [TINY, "--out", out, *(word for change in settings for word in ("--set", change))]


@pytest.fixture
def launch(hpclcae):
    def run(*words):
        job = hpclcae("launch", *words, timeout=120)
        assert job.returncode == 0, job.stderr
        return job
    return run


@pytest.mark.parametrize("servers, replicas, grid, changes", [
    (1, 2, "1x1", ["update.rule=sgd"]), (2, 3, "1x1", ["update.rule=adam", "update.rate=0.01"]),
    (1, 3, "1x1", ["update.rule=adam", "update.rate=0.01", "parallel.consistency=bounded",
                   "parallel.staleness=1"]),
    (2, 2, "2x1", ["update.rule=sgd", "parallel.overlap=false"]),
    (2, 2, "2x1", ["update.rule=adam", "update.rate=0.01", "parallel.consistency=bounded",
                   "parallel.overlap=false"]),
    (2, 3, "1x1", ["update.rule=momentum", "parallel.fetch_every=2", "parallel.push_every=3",
                   "train.dtype=float32"]),
    (2, 3, "1x1", ["update.rule=sgd", "parallel.elastic=0.3", "parallel.warm_start=4"]),
    (1, 3, "1x1", ["update.rule=adagrad", "parallel.consistency=synchronous"]),
    (2, 3, "1x1", ["update.rule=adam", "update.rate=0.01", "parallel.consistency=synchronous",
                   "parallel.backup=1"]),
    (1, 2, "2x1", ["update.rule=momentum", "parallel.consistency=synchronous",
                   "parallel.backup=1"]),], ids=lambda value: " ".join(value)
                         if isinstance(value, list) else str(value))
def test_the_replay_ends_with_the_bits_of_the_run(launch, hpclcae, tiny_dataset, tmp_path, servers,
                                                  replicas, grid, changes):
    run = tmp_path / "run"
    launch(*words_of(tiny_dataset, run, *changes), "--servers", servers, "--replicas", replicas,
           "--grid", grid)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    job = hpclcae("replay", run)
    assert job.returncode == 0, job.stdout + job.stderr
    assert f"{run / 'checkpoints/step-00000008'}: all " in job.stdout
    assert "the same, bit for bit" in job.stdout
    assert f"{replicas} replicas of {grid} blocks, {servers} servers" in job.stdout
    assert "not reached" not in job.stdout
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    roles = [rank["role"] for rank in json.loads((run / "parallel.json").read_text())]
    assert sum(role.startswith("server") for role in roles) == servers


def test_a_log_or_a_checkpoint_that_was_changed_is_noticed(launch, hpclcae, tiny_dataset, tmp_path):
    run = tmp_path / "run"
    launch(*words_of(tiny_dataset, run, "update.rule=sgd"), "--servers", "1", "--replicas", "2")
    path = logs(run)[0] / "server-0.bin"
    events = np.fromfile(path, EVENT)
    changed = events.copy()
    changed["version"][np.flatnonzero(events["kind"] == PUSHED)[7]] += 1
    changed.tofile(path)
    job = hpclcae("replay", run)
    assert job.returncode == 1 and "the log does not fit: event " in job.stderr
    assert "Traceback" not in job.stderr
    events.tofile(path)
    with checkpoint.opened(run) as file:
        name = file.filename
        source = file["stage2/encode"].virtual_sources()[0]
    with h5py.File(f"{name.rpartition('/')[0]}/{source.file_name}", "r+") as shard:
        shard[source.dset_name][0, 0, 0, 0, 0, 0] += 1e-12
    job = hpclcae("replay", run)
    assert job.returncode == 1 and "Traceback" not in job.stderr
    assert "stage2/encode of block 0, tiles [0:" in job.stdout
    assert "differs by up to 1e-12" in job.stdout
    assert "hpclcae replay: 1 of " in job.stderr


def test_a_run_that_was_resumed_is_replayed_in_its_parts(launch, hpclcae, tiny_dataset, tmp_path):
    run = tmp_path / "run"
    words = [*words_of(tiny_dataset, run, "update.rule=adam", "update.rate=0.01", steps=14),
             "--servers", "2", "--replicas", "2"]
    launch(*words, "--stop-at", "5")
    launch(*words, "--resume")
    assert not (run / "checkpoints/step-00000005").exists()  # newer ones have taken its place
    for start, goal in ((None, "checkpoints/step-00000014"),
                        ("0", "events/from-00000005/step-00000005")):
        job = hpclcae("replay", run, *(["--from", start] if start else []))
        assert job.returncode == 0, job.stdout + job.stderr
        assert f"{run / goal}: all " in job.stdout


def test_a_run_that_diverged_is_led_to_the_step_where_it_did(hpclcae, tiny_dataset, tmp_path):
    run = tmp_path / "run"
    job = hpclcae("launch", *words_of(tiny_dataset, run, "update.rule=sgd", "update.rate=100"),
                  "--servers", "2", "--replicas", "2", timeout=120)
    assert job.returncode == 1 and "is likely too large for rule 'sgd'" in job.stderr
    again = hpclcae("replay", run)
    assert again.returncode == 1 and "Traceback" not in again.stderr
    assert "the objective of stage 1 is" in again.stderr and "the largest weight" in again.stderr
    assert " of block 0, tiles [" in again.stderr


def test_term_ends_a_launched_run_with_a_checkpoint(tiny_dataset, tmp_path):
    run = tmp_path / "run"
    words = words_of(tiny_dataset, run, "train.checkpoint_every=1000000",
                     "parallel.log_events=false", steps=1000000)
    job = subprocess.Popen([sys.executable, "-m", "hpclcae", "launch", *map(str, words),
                            "--servers", "1", "--replicas", "2"], stderr=subprocess.PIPE, text=True)
    try:
        while not all((run / name).exists() and (run / name).stat().st_size
                      for name in ("metrics.jsonl", "metrics-replica1.jsonl")):
            with pytest.raises(subprocess.TimeoutExpired):
                job.wait(0.1)
        job.send_signal(signal.SIGTERM)
        _, said = job.communicate(timeout=60)
        assert job.returncode == 0, said
    finally:
        job.kill()
        job.wait()
    found = checkpoint.saved(run / "checkpoints")
    assert len(found) == 1 and 0 < checkpoint.step_of(found[0]) < 1000000


def test_a_launched_run_that_fails_says_so_once(hpclcae, tmp_path):
    job = hpclcae("launch", *words_of(tmp_path / "none.h5", tmp_path / "run"), "--servers", "1",
                  timeout=60)
    assert job.returncode == 1
    ours = [line for line in job.stderr.splitlines() if "none.h5" in line]
    assert len(ours) == 1 and ours[0].startswith("hpclcae train: ")
    assert "Traceback" not in job.stderr
