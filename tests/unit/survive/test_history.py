"""Who was away, from the log of a surviving job."""
import json
import math

import pytest

from hpclcae.survive import history

ROWS = [
    {"seconds": 1.0, "kind": "join", "who": "replica 1", "took": 1.0},
    {"seconds": 9.0, "kind": "replica", "who": "replica 1", "silent": 1.5},
    {"seconds": 10.0, "kind": "join", "who": "replica 1", "took": 0.8},
    {"seconds": 12.0, "kind": "server", "who": "server 0"},
    {"seconds": 15.0, "kind": "join", "who": "replica 2"},  # is asked to
    {"seconds": 16.0, "kind": "leave", "who": "replica 2"},
    {"seconds": 18.0, "kind": "lost", "who": "replica 0"}]


def test_absences_end_where_a_replica_begins_again():
    assert [(each.who, each.begin, each.end) for each in history.absences(ROWS)] == [
        ("replica 1", 7.5, 10.0), ("replica 2", 16.0, math.inf), ("replica 0", 18.0, math.inf)]


def test_what_is_lost_counts_and_who_left_does_not():
    assert history.trained_share(history.absences(ROWS), 2, 20.0) == pytest.approx(1 - 4.5 / 40)


def test_other_runs_have_no_history(tmp_path):
    assert history.events(tmp_path) == []


def test_damaged_lines_are_passed_over(tmp_path):
    damaged = [{"seconds": "9", "kind": "lost", "who": "replica 1"}, {"seconds": 9.0}, [1],
               {"kind": "lost", "who": "replica 1"}, {"seconds": 9.0, "kind": 1, "who": "x"}]
    text = "".join(json.dumps(row) + "\n" for row in [*ROWS, *damaged])
    (tmp_path / history.LOG).write_text(text + '{"seconds": 19.')
    assert history.events(tmp_path) == ROWS
    assert history.describe(ROWS, 2, 20.0) == (
        "failures of replicas: 2, to train again after 2.5 s (median), of servers: 1; replicas "
        "trained 88.8 % of the time")
