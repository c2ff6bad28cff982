"""Training with parameter servers, as a user starts it: whole commands under mpiexec."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.checkpoint.event_log import logs
from hpclcae.parameter_server.store import EVENT, PUSHED
from tests.support.mpi import ENVIRONMENT, MPIEXEC, mpiexec, train
from tests.support.saving import assert_same, datasets

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")
STEPS = 6  # of `train`


def settings(*changes):
    return [word for change in changes for word in ("--set", change)]


def served(dataset, out, *words, servers=1, replicas=2, grid="2x1"):
    """Number of ranks and the words of a job with servers."""
    rows, cols = map(int, grid.split("x"))
    return (servers + replicas * rows * cols, [*train(dataset, out), "--servers", servers,
                                               "--replicas", replicas, "--grid", grid, *words])


def trained(dataset, out, *words, **roles):
    """Run a job; it must end well. What its workers and its servers say at the end."""
    ranks, command = served(dataset, out, *words, **roles)
    job = mpiexec(ranks, *command, timeout=90)
    assert job.returncode == 0, job.stderr
    assert "Traceback" not in job.stderr
    told = json.loads((out / "parallel.json").read_text())
    assert len(told) == ranks
    return ([one for one in told if one["role"].startswith("replica")],
            [one for one in told if one["role"].startswith("server")])


def newest_step(out):
    """The step of a run's last checkpoint, which can be read."""
    newest = checkpoint.find(out)
    assert datasets(newest)
    return checkpoint.load_state(newest).step


# ---- every way of serving ------------------------------------------------------------------------

WAYS = {"one-sided": ("rma", 2, ["update.rule=sgd", "parallel.transport=rma"]),
        "messages": ("messages", 2, ["update.rule=sgd", "parallel.transport=messages"]),
        "a rule of the server's": ("rma", 2, ["update.rule=adam", "update.rate=0.01"]),
        "bounded": ("rma", 2, ["parallel.consistency=bounded", "parallel.staleness=1"]),
        "windows of our own": ("rma", 2, ["update.rule=sgd", "parallel.window=create",
                                          "train.dtype=float64"]),
        "not overlapped": ("rma", 2, ["update.rule=sgd", "parallel.overlap=false",
                                      "update.staleness_scaled=true"]),
        "warm start": ("rma", 2, ["parallel.warm_start=2", "update.clip=0.1"]),
        "bounded warm start": ("rma", 2, ["parallel.consistency=bounded",
                                          "parallel.staleness=0", "parallel.warm_start=3"]),
        "three replicas": ("rma", 3, ["update.delay_compensation=0.1"])}


@pytest.mark.parametrize("way", WAYS)
def test_every_push_of_every_step_counts(tiny_dataset, tmp_path, way):
    transport, replicas, changes = WAYS[way]
    workers, [server] = trained(tiny_dataset, tmp_path / "run", *settings(*changes),
                                replicas=replicas)
    assert newest_step(tmp_path / "run") == STEPS
    assert {one["transport"] for one in (*workers, server)} == {transport}
    assert [one["steps"] for one in workers] == [STEPS] * 2 * replicas
    pushes = replicas * STEPS
    assert server["pushes"] == pushes * server["chunks"] and server["versions"] == [pushes, pushes]
    assert sum(one["pushed_bytes"] for one in workers) == pushes * server["bytes"]
    assert sum(server["staleness"]) == server["pushes"]
    assert all(one["seconds"] > 0 and one["cpu_seconds"] > 0 and one["node"]
               for one in (*workers, server))
    metrics = sorted(path.name for path in (tmp_path / "run").glob("metrics*.jsonl"))
    assert metrics == sorted(["metrics.jsonl",
                              *(f"metrics-replica{r}.jsonl" for r in range(1, replicas))])


@pytest.mark.parametrize("transport, quorum", [("rma", 0), ("messages", 1)])
def test_an_outer_optimizer_counts_every_step_and_is_replayed(hpclcae, tiny_dataset, tmp_path,
                                                              transport, quorum):
    """Rounds of four steps, and of the two that are left at the end."""
    words = settings("parallel.outer_rate=0.7", "parallel.fetch_every=4", "parallel.push_every=4",
                     f"parallel.quorum={quorum}", "parallel.grace=0.01", "update.rule=adam",
                     "update.rate=0.01", f"parallel.transport={transport}",
                     "parallel.log_events=true")
    workers, servers = trained(tiny_dataset, tmp_path / "run", *words, servers=2, replicas=2)
    assert newest_step(tmp_path / "run") == STEPS
    assert {one["transport"] for one in workers} == {transport}
    pushed = sum(server["bytes"] for server in servers)
    assert sum(one["pushed_bytes"] for one in workers) == 2 * 2 * pushed  # replicas, rounds
    for server in servers:
        assert server["dropped"] == 0 and sum(server["staleness"]) == 2 * 2 * server["chunks"]
        if not quorum:
            assert server["versions"] == [2, 2]
    replayed = hpclcae("replay", tmp_path / "run")
    assert replayed.returncode == 0 and "are the same, bit for bit" in replayed.stdout


@pytest.mark.parametrize("backup", [0, 1])
def test_synchronous_replicas_make_one_update_a_step(tiny_dataset, tmp_path, backup):
    words = settings("parallel.consistency=synchronous", f"parallel.backup={backup}",
                     "parallel.log_events=true", "train.checkpoint_every=4")
    workers, servers = trained(tiny_dataset, tmp_path / "run", *words, servers=2, replicas=3,
                               grid="1x1")
    assert newest_step(tmp_path / "run") == STEPS
    for server in servers:
        assert server["pushes"] == sum(server["staleness"][:1]) and server["chunks"] > 0
        events = np.fromfile(logs(tmp_path / "run")[0] / f"{server['role'].replace(' ', '-')}.bin",
                             EVENT)
        pushed = events[events["kind"] == PUSHED]
        assert server["dropped"] == (pushed["version"] < 0).sum()
        for chunk in range(server["chunks"]):  # whatever was computed has been applied or dropped
            mine = pushed[pushed["chunk"] == chunk]
            versions = set(mine["version"].tolist()) - {-1}
            assert versions == set(range(1, len(versions) + 1))
            assert server["versions"][0] <= len(versions)
            assert len({*mine[["replica", "clock"]].tolist()}) == len(mine)
        assert server["pushes"] == len(
            {*pushed[pushed["version"] > 0][["chunk", "version"]].tolist()})
        if not backup:
            assert server["pushes"] == STEPS * server["chunks"] and server["dropped"] == 0
            assert len(pushed) == sum(one["steps"] for one in workers) * server["chunks"]


def test_elastic_averaging_pushes_when_it_fetches(tiny_dataset, tmp_path):
    words = settings("parallel.elastic=0.2", "parallel.fetch_every=2", "parallel.push_every=2")
    _, [server] = trained(tiny_dataset, tmp_path / "run", *words)
    assert newest_step(tmp_path / "run") == STEPS
    # at first there is nothing to pull
    assert server["pushes"] == 2 * (STEPS // 2 - 1) * server["chunks"]


def test_push_every_second_step(tiny_dataset, tmp_path):
    words = settings("update.rule=sgd", "parallel.fetch_every=3", "parallel.push_every=2")
    _, [server] = trained(tiny_dataset, tmp_path / "run", *words)
    assert server["pushes"] == 2 * STEPS // 2 * server["chunks"]


# ---- checkpoints ---------------------------------------------------------------------------------

def test_synchronous_training_goes_on_to_the_same_bits(tiny_dataset, tmp_path):
    """5 + 5 steps against 10, with the servers' memory of a rule in the checkpoint."""
    words = settings("train.dtype=float64", "train.steps=10", "parallel.consistency=synchronous",
                     "update.rule=adam", "update.rate=0.01")
    trained(tiny_dataset, tmp_path / "parts", *words, "--stop-at", 5)
    assert newest_step(tmp_path / "parts") == 5
    trained(tiny_dataset, tmp_path / "parts", *words, "--resume")
    trained(tiny_dataset, tmp_path / "whole", *words)
    assert newest_step(tmp_path / "parts") == newest_step(tmp_path / "whole") == 10
    assert_same(*(datasets(checkpoint.find(tmp_path / run)) for run in ("parts", "whole")))


def test_checkpoints_on_the_way_change_no_bits_of_synchronous_training(tiny_dataset, tmp_path):
    """All replicas pause after the same step.

    A job that was killed goes on from there to the same numbers.
    """
    words = settings("train.dtype=float64", "train.steps=10", "parallel.consistency=synchronous",
                     "update.rule=adam", "update.rate=0.01", "train.keep=9")
    trained(tiny_dataset, tmp_path / "whole", *words, replicas=3, grid="1x1")
    _, [server] = trained(tiny_dataset, tmp_path / "parts", *words, "--set",
                          "train.checkpoint_every=3", replicas=3, grid="1x1")
    assert server["pushes"] == 10 * server["chunks"]
    assert_same(*(datasets(checkpoint.find(tmp_path / run)) for run in ("parts", "whole")))
    saved = checkpoint.saved(tmp_path / "parts/checkpoints")
    cursors = [checkpoint.load_state(path).cursors for path in saved]
    assert cursors == [(step,) * 3 for step in (3, 6, 9, 10)]
    for path in saved[2:]:
        shutil.rmtree(path)
    trained(tiny_dataset, tmp_path / "parts", *words, "--resume", replicas=3, grid="1x1")
    assert_same(*(datasets(checkpoint.find(tmp_path / run)) for run in ("parts", "whole")))


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_a_run_goes_on_with_other_servers_and_replicas_and_without(hpclcae, tiny_dataset, tmp_path,
                                                                   rule):
    words = settings(f"update.rule={rule}", "train.steps=12")
    trained(tiny_dataset, tmp_path / "run", *words, "--stop-at", 4)
    before = datasets(checkpoint.find(tmp_path / "run"))
    workers, _ = trained(tiny_dataset, tmp_path / "run", *words, "--stop-at", 8, "--resume",
                         servers=3, replicas=1, grid="1x1")
    assert newest_step(tmp_path / "run") == 8 and workers[0]["steps"] == 4
    done = hpclcae(*train(tiny_dataset, tmp_path / "run")[2:], *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert newest_step(tmp_path / "run") == 12
    after = datasets(checkpoint.find(tmp_path / "run"))
    moved = [name for name in before if name.startswith("stage")
             and not np.array_equal(before[name], after[name])]
    assert len(moved) == 6


# ---- what cannot work ----------------------------------------------------------------------------

@pytest.mark.parametrize("ranks, words, parts", [
    (4, [], ["4 processes were launched", "1 servers", "2 replicas", "need 3, 5, 7, 9"]),
    (3, ["--grid", "2x1"], ["of 2 blocks", "need 5:"]),
    (2, ["--servers", 2, "--replicas", 1], ["2 processes were launched", "need 3, 4"]),
    (3, settings("parallel.placement=apart"), ["'apart'", "would have servers and workers"]),
    (3, settings("update.rate=1000", "update.rule=sgd"),
     ["update.rate = 1000 is likely too large"]),
    (3, settings("update.rate=1000", "update.rule=momentum"),
     ["update.rate = 1000 is likely too large"]),
    (3, settings("data.train=nowhere.h5"), ["nowhere.h5 is not a file"])])
def test_what_cannot_work_ends_all_ranks_with_one_message(tiny_dataset, tmp_path, ranks, words,
                                                          parts):
    with nothing_left(tmp_path):
        job = mpiexec(ranks, *train(tiny_dataset, tmp_path / "run"), "--servers", 1, "--replicas",
                      2, *words, timeout=40)
    assert job.returncode != 0
    ours = [line for line in job.stderr.splitlines() if "hpclcae" in line or "rank " in line
            and " of " in line]
    assert len(ours) == 1 and all(part in ours[0] for part in parts), job.stderr
    assert "Traceback" not in job.stderr


def test_one_process_says_how_to_start_servers(hpclcae, tiny_dataset, tmp_path):
    done = hpclcae(*train(tiny_dataset, tmp_path / "run")[2:], "--servers", 1, "--replicas", 2)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "1 parameter servers and 2 replicas" in done.stderr and "hpclcae launch" in done.stderr


# ---- processes: signals, a slow one, a lost one --------------------------------------------------

def ranks_of(text):
    """Process of each rank whose command line holds `text`, by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            entries = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            variables = dict(entry.partition("=")[::2] for entry in entries)
        except OSError:  # it has ended
            continue
        if any(text in word for word in words) and Path(words[0]).name.startswith("python"):
            rank = variables.get("PMI_RANK", variables.get("OMPI_COMM_WORLD_RANK"))
            if rank is not None:
                found[int(rank)] = int(process.name)
    return found


def until(condition, seconds=60):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not (held := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return held


@contextmanager
def nothing_left(folder):
    """No rank that works in `folder` is left at the end."""
    yield
    until(lambda: not ranks_of(str(folder)), 10)


@contextmanager
def running(folder, ranks, command):
    """A job that trains; at the end nothing of it is left."""
    with nothing_left(folder):
        with subprocess.Popen([MPIEXEC, "-n", str(ranks), sys.executable, *map(str, command)],
                              text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
                              start_new_session=True) as job:
            try:
                yield job
            finally:
                if job.poll() is None:
                    for process in ranks_of(str(folder)).values():
                        os.kill(process, signal.SIGCONT)
                    os.killpg(job.pid, signal.SIGKILL)


def lines(path):
    """How many lines a file has by now."""
    return path.read_text().count("\n") if path.exists() else 0


ENDLESS = settings("train.steps=1000000", "train.checkpoint_every=1000000", "train.log_every=1",
                   "update.schedule=constant", "update.rate=0.001")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds ranks in /proc")


def end(job, folder, by_mpiexec=False):
    """Ask all ranks to end, as srun does, or as mpiexec passes it on; the job must end well."""
    for process in [job.pid] if by_mpiexec else ranks_of(str(folder)).values():
        os.kill(process, signal.SIGTERM)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    return said


@LINUX
@pytest.mark.parametrize("transport, rule", [("rma", "sgd"), ("messages", "momentum")])
def test_asked_to_end_it_writes_a_checkpoint(tiny_dataset, tmp_path, transport, rule):
    run = tmp_path / "run"
    words = settings(f"update.rule={rule}", f"parallel.transport={transport}")
    ranks, command = served(tiny_dataset, run, *ENDLESS, *words, grid="1x1")
    with running(tmp_path, ranks, command) as job:
        until(lambda: lines(run / "metrics.jsonl") > 3
              and lines(run / "metrics-replica1.jsonl") > 3)
        first = ranks_of(str(tmp_path))[0]
        os.kill(first, signal.SIGUSR1)
        until(lambda: checkpoint.saved(run / "checkpoints"))
        seen = lines(run / "metrics.jsonl")
        until(lambda: lines(run / "metrics.jsonl") > seen + 3)  # it goes on
        end(job, tmp_path, transport == "rma")
    steps = [checkpoint.load_state(path).step for path in checkpoint.saved(run / "checkpoints")]
    assert len(steps) == 2 and steps[0] < steps[1] == newest_step(run)
    assert json.loads((run / "parallel.json").read_text())


@LINUX
@pytest.mark.parametrize("replicas, grid", [(3, "1x1"), (2, "2x1")])
def test_whenever_it_is_asked_synchronous_training_keeps_its_bits(tiny_dataset, tmp_path, replicas,
                                                                  grid):
    """The leader pauses before the others hear of it: what they computed ahead counts once."""
    words = [*ENDLESS, *settings("train.dtype=float64", "parallel.consistency=synchronous",
                                 "update.rule=momentum", "train.keep=9")]
    run = tmp_path / "asked"
    ranks, command = served(tiny_dataset, run, *words, replicas=replicas, grid=grid)
    with running(tmp_path, ranks, command) as job:
        until(lambda: lines(run / "metrics.jsonl") > 3)
        first = ranks_of(str(tmp_path))[0]
        for number in range(5):
            os.kill(first, signal.SIGUSR1)
            until(lambda: len(checkpoint.saved(run / "checkpoints")) > number)
        seen = lines(run / "metrics.jsonl")
        until(lambda: lines(run / "metrics.jsonl") > seen + 3)
        end(job, tmp_path)
    last = newest_step(run) + 3
    for folder, resume in ((run, ["--resume"]), (tmp_path / "whole", [])):
        trained(tiny_dataset, folder, *words, "--stop-at", last, *resume, replicas=replicas,
                grid=grid)
        assert newest_step(folder) == last
    for path in checkpoint.saved(run / "checkpoints"):
        assert len({*checkpoint.load_state(path).cursors}) == 1
    assert_same(*(datasets(checkpoint.find(folder)) for folder in (run, tmp_path / "whole")))


@LINUX
def test_a_replica_that_stands_still_does_not_hold_up_the_others(tiny_dataset, tmp_path):
    """One of three is stopped in the middle of training, and goes on later."""
    run = tmp_path / "run"
    metrics = [run / "metrics.jsonl", run / "metrics-replica1.jsonl",
               run / "metrics-replica2.jsonl"]
    ranks, command = served(tiny_dataset, run, *ENDLESS, *settings("update.rule=momentum"),
                            replicas=3, grid="1x1")
    with running(tmp_path, ranks, command) as job:
        until(lambda: all(lines(path) > 3 for path in metrics))
        slow = ranks_of(str(tmp_path))[2]
        os.kill(slow, signal.SIGSTOP)
        before = [lines(path) for path in metrics]
        until(lambda: all(lines(path) > seen + 10 for path, seen in zip(metrics[:2], before)))
        assert lines(metrics[2]) <= before[2] + 1  # one that was being written
        os.kill(slow, signal.SIGCONT)
        until(lambda: lines(metrics[2]) > before[2] + 3)
        end(job, tmp_path)
    assert newest_step(run) > 0


@LINUX
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_rank_ends_the_job(tiny_dataset, tmp_path, lost):
    """A leader, a replica or the server is killed: the job fails, and what was saved can be read.
    """
    run = tmp_path / "run"
    ranks, command = served(tiny_dataset, run, *ENDLESS,
                            *settings("update.rule=sgd", "train.checkpoint_every=3"), grid="1x1")
    with running(tmp_path, ranks, command) as job:
        until(lambda: checkpoint.saved(run / "checkpoints"))
        os.kill(ranks_of(str(tmp_path))[lost], signal.SIGKILL)
        job.communicate(timeout=30)
        assert job.returncode != 0
    assert newest_step(run) > 0
