"""slurm/survive.sbatch: nodes are lost in mid-run, and what ran on them goes on on the others.

The job has more steps than it will make: when all that is to happen has happened, it is told that
its time limit is near.
"""
import contextlib
import json
import re
import time

import pytest

from hpclcae import checkpoint
from hpclcae.survive.chaos import verify
from hpclcae.survive.history import events
from hpclcae.survive.supervisor import CONTACT
from hpclcae.survive.tool import ask
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN
from tests.support.slurm_jobs import HANGS, cluster, command, lost, submit

FOUR_NODES = ("--nodes=4", "--ntasks-per-node=1")


@pytest.fixture
def started(tiny_dataset, tmp_path):
    """Submit a job of four ranks on four nodes."""
    def start(**settings):
        values = {"data.train": tiny_dataset, "train.batch": 5, "train.steps": 1_000_000,
                  "train.checkpoint_every": 1_000_000, "train.log_every": 50,
                  "update.rule": "sgd", "parallel.servers": 2, "parallel.copies": 1,
                  "parallel.log_events": "true", **settings}
        words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        return submit("survive.sbatch", RUN / "tiny.toml", tmp_path / "run", *words,
                      log=tmp_path / "log", options=FOUR_NODES, HPCLCAE_REQUEUE="no")
    return start


def until(job, run, condition):
    """Ask until something holds; returns what the supervisor said then."""
    who, end = None, time.monotonic() + HANGS
    while time.monotonic() < end:
        with contextlib.suppress(InputError):
            who = ask(run, kind="who")
            if condition(who):
                return who
        time.sleep(0.1)
    raise AssertionError(f"{who} {job.state} {job.said}")


def all_train(who, steps=0):
    """Every replica has made so many steps, and every shard has a copy."""
    return all(seat["state"] == "training" and seat["step"] > steps for seat in who["seats"]) and (
        sorted(shard for server in who["servers"] for shard in server["copies"]) == [0, 1])


def used(who):
    return {node for each in who["seats"] for node in each["nodes"].values()} | {
        server["node"] for server in who["servers"]}


def finished(job, run, token, hpclcae):
    """End the job at its time limit; every update counts once, and the replay is the same."""
    for number in lost():  # or SLURM waits for it
        command("scontrol", "update", f"nodename=node{number}", "state=down", "reason=a test")
    command("scancel", "--batch", "--signal=USR1", job.number)
    assert job.ended() == "FAILED" and job.exit_code == 3, job.said
    assert "hpclcae launch ended with exit code 0 (time limit)" in job.said
    assert any("counted exactly once" in line for line in verify(run, token))
    assert len(checkpoint.saved(run / "checkpoints")) == 1
    replayed = hpclcae("replay", run, timeout=120)
    assert replayed.returncode == 0 and "the same, bit for bit" in replayed.stdout, replayed.stdout
    return replayed.stdout


def test_nodes_of_a_server_and_of_a_replica_are_lost(started, hpclcae, tmp_path):
    """One loses power, and SLURM does not know yet; the other is declared down."""
    run = tmp_path / "run"
    job = started(**{"parallel.replicas": 2, "parallel.grid": '"1x1"'})
    who = until(job, run, lambda who: all_train(who, 5))
    token = json.loads((run / CONTACT).read_text())["token"]
    assert used(who) == {"node1", "node2", "node3", "node4"}
    [server] = [one for one in who["servers"] if one["node"] != "node1"]
    cluster("crash", server["node"].removeprefix("node"))
    who = until(job, run, lambda who: all_train(who, 10) and any(
        one["life"] > 1 and one["node"] != server["node"] for one in who["servers"]))
    assert all(one["life"] == 1 for one in who["seats"])
    seat = next(one for one in who["seats"] if one["nodes"]["0"] != "node1")
    command("scontrol", "update", f"nodename={seat['nodes']['0']}", "state=down", "reason=a test")
    who = until(job, run, lambda who: all_train(who, seat["step"] + 10)
                and who["seats"][seat["replica"]]["life"] > 1)
    assert not used(who) & {server["node"], seat["nodes"]["0"]}
    assert f"replica {seat['replica']}, " in finished(job, run, token, hpclcae)
    kinds = [row["kind"] for row in events(run)]
    assert "server" in kinds and "replica" in kinds and "lost" not in kinds


def test_a_replica_of_several_nodes_loses_one_of_them(started, hpclcae, tmp_path):
    run = tmp_path / "run"
    job = started(**{"parallel.replicas": 1, "parallel.grid": '"2x1"'})
    who = until(job, run, lambda who: all_train(who, 5))
    token = json.loads((run / CONTACT).read_text())["token"]
    mine = {*who["seats"][0]["nodes"].values()}
    assert len(mine) == 2
    cluster("crash", max(mine).removeprefix("node"))
    who = until(job, run, lambda who: all_train(who, 10) and who["seats"][0]["life"] > 1)
    assert max(mine) not in who["seats"][0]["nodes"].values()
    assert re.search(r"replica 0, \d+ lives", finished(job, run, token, hpclcae))
