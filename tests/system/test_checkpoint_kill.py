"""kill -9 at random moments: a restart finds a checkpoint that verifies, and goes on from it.

Some moments are in the middle of a checkpoint. The same when the run folder becomes read-only, or
is moved away, while the job runs. The seeds are fixed. HPCLCAE_KILLS=50 kills whole training jobs
that often instead of a few times.
"""
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.cluster.mpiexec import descendants
from tests.support.mpi import MPIEXEC
from tests.support.processes import RUN, run_limited
from tests.support.saving import assert_same, datasets

KILLS = int(os.environ.get("HPCLCAE_KILLS", "5"))

#: Children write checkpoints in a loop and are killed: half of them by themselves, at the nth thing
#: that they do to the disk, half after a while. The parent then looks at what is left.
WRITE_AND_KILL = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from hpclcae import checkpoint, config as configuration
from tests.support.saving import made, save

run, rounds = Path(sys.argv[1]), int(sys.argv[2])
state = made(configuration.load(sys.argv[3], ["train.keep_every=4"]))
first = state.parameters.vector.copy()
done = 0

def counted(function, limit):
    def call(*arguments, **named):
        global done
        done += 1
        if done == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

def child(step, limit):
    if limit:
        for name in ("fsync", "replace", "unlink", "mkdir", "rmdir", "open", "writev"):
            setattr(os, name, counted(getattr(os, name), limit))
    while True:
        step += 1
        np.multiply(first, np.float32(step), out=state.parameters.vector)
        save(run, replace(state, step=step, cursors=(step,)), 3)

generator = np.random.default_rng(20120629)
steps = []
for number in range(rounds):
    newest = checkpoint.saved(run / "checkpoints")
    step = checkpoint.step_of(newest[-1]) if newest else 0
    limit = int(generator.integers(1, 500)) if number % 2 else 0
    pid = os.fork()
    if not pid:
        try:
            child(step, limit)
        finally:
            os._exit(1)
    if not limit:
        time.sleep(float(generator.uniform(0.01, 0.25)))
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    for folder in checkpoint.saved(run / "checkpoints"):
        checkpoint.verify(folder)
    if folder := (checkpoint.saved(run / "checkpoints") or [None])[-1]:
        loaded, _ = checkpoint.load(folder)
        assert loaded.step >= step and loaded.cursors == (loaded.step,)
        assert np.array_equal(loaded.parameters.vector, first * np.float32(loaded.step)), folder
        steps.append(loaded.step)
    half = [path for path in (run / "checkpoints").rglob("*") if path.suffix == ".partial"
            or path.suffix == ".json" and path.name.startswith("shard")]
    print(number, limit, steps[-1:], len(half))
checkpoint.clean(run)
assert not list(run.rglob("*.partial")) and not list(run.rglob("shard-*.json"))
assert all((folder / "manifest.json").exists() for folder in (run / "checkpoints").glob("step-*"))
"""


def test_fifty_kills_in_the_middle_of_checkpoints_lose_nothing_that_was_committed(tmp_path):
    process = run_limited([sys.executable, "-c", WRITE_AND_KILL, str(tmp_path), "50",
                           str(RUN / "tiny.toml")], 240)
    assert process.returncode == 0, process.stderr[-3000:]
    rounds = [[int(n) for n in re.findall(r"\d+", line)] for line in process.stdout.splitlines()]
    assert len(rounds) == 50
    assert sum(row[-1] > 0 for row in rounds) >= 10, "hardly any kill was in the middle of a write"
    steps = [row[2] for row in rounds if len(row) == 4]
    assert steps == sorted(steps) and len(set(steps)) >= 10, "hardly any progress between kills"


# ---- whole training jobs -------------------------------------------------------------------------

SERVERS = ["parallel.servers=2", "parallel.replicas=2"]


def command(dataset, out, changes, ranks):
    sets = [word for change in (f"data.train={dataset}", *changes) for word in ("--set", change)]
    launcher = [MPIEXEC, "-n", str(ranks)] if ranks else []
    return [*launcher, sys.executable, "-m", "hpclcae", "train", str(RUN / "tiny.toml"), "--out",
            str(out), "--resume", *sets]


def kill_after(words, out, seconds):
    """Start a job, and kill all of it so many seconds after it has written something.

    Returns whether it was still running.
    """
    newest = checkpoint.saved(out / "checkpoints")[-1:]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 60
            while checkpoint.saved(out / "checkpoints")[-1:] == newest and process.poll() is None:
                assert time.monotonic() < deadline, "the job writes no checkpoint"
                time.sleep(0.01)
            time.sleep(seconds)
        finally:
            ended = process.poll() is not None
            for pid in descendants(process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        assert not ended or process.returncode == 0, process.stderr.read()[-2000:]
    return not ended


JOBS = pytest.mark.parametrize("changes, ranks", [([], 0), ([], 2), (SERVERS, 4)],
                               ids=["one process", "two blocks", "servers"])
ENDLESS = ["train.steps=1000000", "update.schedule=constant"]


@JOBS
def test_a_job_that_is_killed_again_and_again_comes_to_its_end(tiny_dataset, tmp_path, changes,
                                                               ranks):
    if ranks and MPIEXEC is None:
        pytest.skip("no mpiexec here: pip install 'hpclcae[mpich]' brings one")
    generator = np.random.default_rng(20120629)
    out = tmp_path / "killed"
    changes = ["train.checkpoint_every=1", "train.log_every=1", *changes]
    endless = command(tiny_dataset, out, [*ENDLESS, *changes], ranks)
    for _ in range(KILLS):
        assert kill_after(endless, out, float(generator.uniform(0, 0.3)))
        for folder in checkpoint.saved(out / "checkpoints"):
            checkpoint.verify(folder)
    steps = max(checkpoint.load_state(checkpoint.find(out)).cursors) + 5
    last = ["update.schedule=constant", f"train.steps={steps}", *changes]
    job = run_limited(command(tiny_dataset, out, last, ranks), 120)
    assert job.returncode == 0, job.stderr
    assert checkpoint.step_of(checkpoint.find(out)) == steps
    checkpoint.verify(checkpoint.find(out))
    assert not list(out.rglob("*.partial"))
    state = checkpoint.load_state(checkpoint.find(out))
    assert state.cursors == (steps,) * len(state.cursors)
    if changes[2:]:
        return  # who was faster decides, so the numbers are others
    whole = run_limited(command(tiny_dataset, tmp_path / "whole", last, ranks), 120)
    assert whole.returncode == 0, whole.stderr
    assert_same(*(datasets(checkpoint.find(folder)) for folder in (out, tmp_path / "whole")))


# ---- a run folder that goes away under a job -----------------------------------------------------

#: $1: run folder, whose checkpoints lie on a disk of their own; $2: where they are copied to; then
#: the job. The disk is busy while a file is written.
BECOMES_READ_ONLY = """
set -e
run=$1 kept=$2
shift 2
mkdir -p "$run/checkpoints"
mount -t tmpfs tmpfs "$run/checkpoints"
"$@" &
until [ -n "$(find "$run/checkpoints" -name manifest.json)" ]; do kill -0 $!; sleep 0.02; done
until mount -o remount,ro "$run/checkpoints" 2>&-; do kill -0 $!; sleep 0.005; done
status=0
wait $! || status=$?
cp -r "$run/checkpoints" "$kept"
exit $status
"""


def assert_goes_on(dataset, out, changes, ranks):
    """All checkpoints are whole, and the job comes to its end from the newest."""
    for folder in checkpoint.saved(out / "checkpoints"):
        checkpoint.verify(folder)
    steps = max(checkpoint.load_state(checkpoint.find(out)).cursors) + 3
    last = ["update.schedule=constant", f"train.steps={steps}", *changes]
    job = run_limited(command(dataset, out, last, ranks), 120)
    assert job.returncode == 0, job.stderr
    assert checkpoint.step_of(checkpoint.find(out)) == steps


@JOBS
def test_a_run_folder_that_becomes_read_only_ends_the_job_and_loses_nothing(tiny_dataset, tmp_path,
                                                                            changes, ranks):
    if ranks and MPIEXEC is None:
        pytest.skip("no mpiexec here: pip install 'hpclcae[mpich]' brings one")
    own_mounts = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*own_mounts, "mount", "-t", "tmpfs", "tmpfs", tmp_path],
                       capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here, so no disk to make read-only")
    out, kept = tmp_path / "run", tmp_path / "kept"
    changes = ["train.checkpoint_every=3", *changes]
    kept.mkdir()
    job = run_limited([*own_mounts, "sh", "-c", BECOMES_READ_ONLY, "sh", out, kept,
                       *command(tiny_dataset, out, [*ENDLESS, *changes], ranks)], 120)
    assert job.returncode == 1, job.stderr
    newest = checkpoint.find(kept).name
    said = re.compile(rf"the checkpoint of step \d+ cannot be written: {out}/checkpoints/\S+: "
                      f"Read-only file system; {newest} is complete, and --resume goes on from it")
    assert any(said.search(line) for line in job.stderr.splitlines()), job.stderr
    assert "Traceback" not in job.stderr
    assert_goes_on(tiny_dataset, kept, changes, ranks)


@JOBS
def test_a_run_folder_that_is_moved_away_ends_the_job_and_loses_nothing(tiny_dataset, tmp_path,
                                                                        changes, ranks):
    if ranks and MPIEXEC is None:
        pytest.skip("no mpiexec here: pip install 'hpclcae[mpich]' brings one")
    out, moved = tmp_path / "run", tmp_path / "moved"
    changes = ["train.checkpoint_every=3", *changes]
    with subprocess.Popen(command(tiny_dataset, out, [*ENDLESS, *changes], ranks),
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as job:
        try:
            deadline = time.monotonic() + 60
            while not checkpoint.saved(out / "checkpoints"):
                assert job.poll() is None, "the job has ended"
                assert time.monotonic() < deadline, "the job writes no checkpoint"
                time.sleep(0.01)
            out.rename(moved)
            _, errors = job.communicate(timeout=60)
        finally:
            for pid in descendants(job.pid) if job.poll() is None else ():
                os.kill(pid, signal.SIGKILL)
    assert job.returncode == 1, errors
    lines = [line for line in errors.splitlines() if str(out) in line]
    assert lines and all("moved while the job ran" in line for line in lines), errors
    assert "Traceback" not in errors
    assert_goes_on(tiny_dataset, moved, changes, ranks)
