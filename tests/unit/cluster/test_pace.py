"""Slow replicas are named, with what they are slow in."""
import json
import random

import pytest

from hpclcae import config as configuration
from hpclcae.cluster import pace
from hpclcae.cluster.pace import Lookout, describe, paces
from hpclcae.cluster.status import describe as describe_run, run_status
from hpclcae.utils.timers import Timers


def config(replicas, *changes):
    return configuration.loads("", [f"parallel.replicas={replicas}", "parallel.servers=1",
                                    *changes])


def write(run, replica, lines=12, noise=0.02, **parts):
    """Metrics of a replica that spends so many seconds a step in each part; a line every 5."""
    dice, name = random.Random(replica), f"metrics-replica{replica}.jsonl"
    with (run / (name if replica else "metrics.jsonl")).open("w") as file:
        for line in range(1, lines + 1):
            timers = {part.replace("_", " "): 5 * seconds * (1 + noise * dice.random())
                      for part, seconds in parts.items()}
            file.write(json.dumps({"step": 5 * line, "timers": timers}) + "\n")


def test_the_replica_that_is_slow_is_named_with_the_part(tmp_path):
    for replica in range(5):
        write(tmp_path, replica, fetch=0.01, forward=0.05, exchange=0.065 if replica == 3 else 0.02)
    found = paces(tmp_path, config(5))
    assert [one.is_slow for one in found] == [False, False, False, True, False]
    assert str(found[3]) == "replica 3 is 1.6 times slower than the median, in: exchange"
    assert found[0].seconds == pytest.approx(0.08, rel=0.05)
    text = describe(found).splitlines()
    assert text[0].split() == ["replica", "ms", "a", "step", "deviation", "of", "the", "median",
                               "fetch", "forward", "exchange"]
    assert len(text) == 2 + 5 + 1 and text[-1] == str(found[3])


@pytest.mark.parametrize("change, slow", [
    ("parallel.consistency=asynchronous", [True, False]),
    ("parallel.consistency=synchronous", [False, True])])
def test_who_waits_for_the_slow_one_is_not_slow(tmp_path, change, slow):
    """In synchronous training both take as long; the first one waits in its fetches."""
    write(tmp_path, 0, fetch=0.3, forward=0.1)
    write(tmp_path, 1, fetch=0.01, forward=0.15)
    assert [one.is_slow for one in paces(tmp_path, config(2, change))] == slow


def test_what_varies_as_much_as_it_differs_is_not_named(tmp_path):
    write(tmp_path, 0, forward=0.1)
    write(tmp_path, 1, forward=0.1, noise=1.5)
    found = paces(tmp_path, config(2))
    assert found[1].times > pace.SLOW and not found[1].is_slow


def test_few_damaged_or_no_metrics_say_nothing(tmp_path):
    write(tmp_path, 0, forward=0.1)
    assert paces(tmp_path, config(2)) == []
    write(tmp_path, 1, lines=2, forward=0.1)
    assert paces(tmp_path, config(2)) == []
    (tmp_path / "metrics-replica1.jsonl").write_bytes(
        b'{"step": 5, "timers": 7}\n{"step": 6, "timers": {"forward": "x"}}\n\0\0\n' * 9)
    assert paces(tmp_path, config(2)) == []
    assert paces(tmp_path / "none", config(2)) == []


def test_the_log_tells_what_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "LOOK_SECONDS", -1.0)
    monkeypatch.setattr(pace, "LOOK_SHARE", 0.0)
    lookout = Lookout(tmp_path, config(3))
    for replica in range(3):
        write(tmp_path, replica, forward=0.1 if replica else 0.3)
    slow = "replica 0 is 3.0 times slower than the median, in: forward"
    assert lookout.news() == [slow] and lookout.news() == []
    write(tmp_path, 0, forward=0.1)
    assert lookout.news() == ["replica 0 is as fast as the others again"]


def test_status_has_the_table(tmp_path):
    (tmp_path / "configuration.toml").write_text(
        "[parallel]\nservers = 1\nreplicas = 2\n")
    for replica in range(2):
        write(tmp_path, replica, forward=0.2 if replica else 0.1)
    said = describe_run(run_status(tmp_path))
    assert said.endswith("replica 1 is 2.0 times slower than the median, in: forward")


def test_waiting_for_other_blocks_is_a_part_of_its_own():
    class Communicator:
        waited = 3.0
    timers, communicator = Timers(), Communicator()
    with timers("forward", communicator):
        communicator.waited += 0.25
    assert timers.seconds["exchange"] == 0.25
    assert timers.seconds["forward"] == pytest.approx(-0.25, abs=0.1)
