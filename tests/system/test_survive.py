"""``hpclcae launch --survive``: processes are killed for good, and the training goes on.

Nothing here waits for a time: each failure comes when the supervisor says that the job is where it
is to be hit.
"""
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from hpclcae import checkpoint
from hpclcae.experiments.figures import drawings
from hpclcae.survive.chaos import verify
from hpclcae.survive.history import events
from hpclcae.survive.supervisor import CONTACT
from hpclcae.survive.tool import ask
from hpclcae.utils.errors import InputError
from tests.support.mpi import MPIEXEC
from tests.support.processes import RUN

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")
LIMIT = 120  # seconds


class Job:
    """A surviving job, from outside."""

    def __init__(self, dataset, run, *words, **settings):
        settings = {"data.train": dataset, "train.batch": 5, "train.checkpoint_every": 40,
                    "update.rule": "sgd", "parallel.log_events": "true"} | settings
        changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.run, self.said = run, run.with_suffix(".log")
        with self.said.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hpclcae", "launch", "--survive", RUN / "tiny.toml", "--out",
                 run, *changes, *map(str, words)], stdout=log, stderr=subprocess.STDOUT)
        self.end = time.monotonic() + LIMIT

    def wait_until(self, condition):
        """Ask until something holds; returns what the supervisor said then."""
        who = None
        while time.monotonic() < self.end and self.process.poll() is None:
            with contextlib.suppress(InputError):
                who = ask(self.run, kind="who")
                if condition(who):
                    return who
            time.sleep(0.05)
        raise AssertionError(f"{who} {self.said.read_text()}")

    def token(self):
        return json.loads((self.run / CONTACT).read_text())["token"]

    def ended(self):
        """Exit code, and what it said."""
        code = self.process.wait(max(1, self.end - time.monotonic()))
        return code, self.said.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def trains(who, life=1, replica=1, steps=3):
    seat = who["seats"][replica]
    return seat["state"] == "training" and seat["life"] >= life and seat["step"] >= steps


def test_replicas_and_servers_are_killed_and_every_update_counts_once(hpclcae, tiny_dataset,
                                                                      tmp_path):
    """A rank of a replica of two blocks, then a server, and what has taken over is the same."""
    run = tmp_path / "run"
    with Job(tiny_dataset, run, "--servers", 2, "--replicas", 2, "--grid", "2x1",
             **{"train.steps": 120, "parallel.copies": 1}) as job:
        who = job.wait_until(trains)
        token = job.token()
        os.kill(who["seats"][1]["pids"]["1"], signal.SIGKILL)
        who = job.wait_until(lambda who: trains(who, life=2) and all(
            server["there"] and server["copies"] for server in who["servers"]))
        os.kill(who["servers"][0]["pid"], signal.SIGKILL)
        code, said = job.ended()
    assert code == 0, said
    kinds = Counter(row["kind"] for row in events(run))
    assert kinds == {"replica": 1, "join": 1, "server": 1}, said
    assert "server 1 takes over shard 0" in said
    assert checkpoint.load_state(checkpoint.find(run)).cursors == (120, 120)
    lines = list(verify(run, token))
    assert any("counted exactly once" in line for line in lines)
    replayed = hpclcae("replay", run, timeout=120)
    assert replayed.returncode == 0, replayed.stderr
    assert "the same, bit for bit" in replayed.stdout and "replica 1, 2 lives" in replayed.stdout
    told = hpclcae("status", run, timeout=60)
    assert "failures of replicas: 1, to train" in told.stdout, told.stdout
    assert "of servers: 1; replicas trained" in told.stdout
    if importlib.util.find_spec("matplotlib"):
        assert drawings(str(run))["survival.png"]().axes


def test_a_server_without_a_copy_costs_what_came_after_the_last_checkpoint(tiny_dataset, tmp_path):
    run = tmp_path / "run"
    with Job(tiny_dataset, run, "--servers", 2, "--replicas", 2, "--grid", "1x1",
             **{"train.steps": 120, "train.checkpoint_every": 10}) as job:
        who = job.wait_until(lambda who: trains(who) and checkpoint.saved(run / "checkpoints"))
        os.kill(who["servers"][1]["pid"], signal.SIGKILL)
        code, said = job.ended()
    assert code == 0, said
    assert "the job goes on from the last checkpoint" in said
    assert checkpoint.load_state(checkpoint.find(run)).cursors == (120, 120)
    assert len(list(verify(run))) == 3  # and two jobs in the event logs


def test_replicas_leave_and_join_and_too_few_end_with_a_checkpoint(hpclcae, tiny_dataset, tmp_path):
    run = tmp_path / "run"
    with Job(tiny_dataset, run, "--servers", 1, "--replicas", 2, "--grid", "1x1", "--least", 2,
             "--start", 1, **{"train.steps": 100_000, "train.checkpoint_every": 100_000}) as job:
        job.wait_until(lambda who: trains(who, replica=0))
        assert hpclcae("leave", run, "--replica", "1").returncode == 1
        assert hpclcae("join", run).returncode == 0
        job.wait_until(trains)
        refused = hpclcae("leave", run, "--replica", "0")
        assert refused.returncode == 1 and "--least says 2" in refused.stderr
        killed = [None]  # as soon as they are born: before they have made a step
        while job.process.poll() is None:
            with contextlib.suppress(InputError, ProcessLookupError):
                pid = ask(run, kind="who")["seats"][1]["pid"]
                if pid not in killed:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < job.end, job.said.read_text()
        code, said = job.ended()
    assert code == 1, said
    assert said.strip().splitlines()[-1].startswith("hpclcae launch: 1 replicas are left")
    assert "--resume" in said
    cursors = checkpoint.load_state(checkpoint.find(run)).cursors
    assert cursors[0] >= 3
    assert not (run / CONTACT).exists() and list(verify(run))


@pytest.mark.parametrize("words, said", [
    (["--servers", "0"], "parallel.servers = 0"),
    (["--servers", "1", "--set", "parallel.copies=1"], "parallel.copies = 1"),
    (["--servers", "1", "--set", "parallel.consistency=synchronous"], "synchronous")])
def test_what_cannot_survive_is_refused(hpclcae, tiny_dataset, tmp_path, words, said):
    job = hpclcae("launch", "--survive", RUN / "tiny.toml", "--out", tmp_path / "run", "--set",
                  f"data.train={tiny_dataset}", *words)
    assert job.returncode == 1 and said in job.stderr
    assert len(job.stderr.strip().splitlines()) == 1


def test_tools_say_that_no_job_runs(hpclcae, tmp_path):
    for words in (["join"], ["leave", "--replica", "0"], ["chaos"]):
        job = hpclcae(words[0], tmp_path, *words[1:])
        assert job.returncode == 1 and "no surviving job runs" in job.stderr


def test_chaos_lets_ranks_fail_and_checks_what_must_hold(tiny_dataset, tmp_path):
    run = tmp_path / "run"
    with Job(tiny_dataset, run, "--servers", 2, "--replicas", 2, "--grid", "1x1",
             **{"train.steps": 100_000, "parallel.copies": 1}) as job:
        job.wait_until(trains)
        words = ["chaos", run, "--mtbf", "0.5", "--kinds", "kill,server", "--seed", "2",
                 "--episodes", "3"]
        with subprocess.Popen([sys.executable, "-m", "hpclcae", *words], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as chaos:
            try:
                told = [chaos.stdout.readline() for _ in range(3)]
                assert all(": replaced, recovered after" in line for line in told), told
                job.process.send_signal(signal.SIGTERM)  # it ends, and then all is looked at
                job.ended()
                told, _ = chaos.communicate(timeout=LIMIT)
            finally:
                chaos.kill()
    assert chaos.returncode == 0, told
    for holds in ("no process is left over", "counted exactly once", "the same, bit for bit"):
        assert holds in told


def test_goodput_is_measured_with_ranks_that_are_killed(hpclcae, tiny_dataset, tmp_path):
    rows = tmp_path / "rows.jsonl"
    words = [word for key, value in {"data.train": tiny_dataset, "train.batch": 5,
                                     "train.steps": 40, "train.checkpoint_every": 10,
                                     "update.rule": "sgd"}.items()
             for word in ("--set", f"{key}={value}")]
    job = hpclcae("bench", "goodput", RUN / "tiny.toml", *words, "--mtbf", 0.2, "--episodes",
                  2, "--limit", LIMIT, "--json", rows, timeout=3 * LIMIT)
    assert job.returncode == 0, job.stderr
    found = {row["metric"]: row["value"] for row in map(json.loads, rows.read_text().splitlines())}
    assert found.pop("one world, undisturbed: goodput") == 1
    assert len(found) == 15 and all(value > 0 for value in found.values())
    objectives = [value for name, value in found.items() if name.endswith("objective")]
    assert len(objectives) == 4 and max(objectives) < 1.2 * min(objectives)
    killed = [int(line.split()[-2]) for line in job.stderr.splitlines() if line.endswith("killed")]
    assert killed == [0, 2, 0, 2], job.stderr  # while they start: nothing here waits for a time


def test_goodput_ends_with_the_reason_where_nothing_was_killed(hpclcae, tmp_path):
    job = hpclcae("bench", "goodput", RUN / "tiny.toml", "--set", "data.train=nowhere.h5",
                  timeout=LIMIT)
    assert job.returncode == 1 and "nowhere.h5" in job.stderr.strip().splitlines()[-1]
