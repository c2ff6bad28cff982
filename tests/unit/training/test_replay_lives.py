"""Logs of jobs in which something died: what the copy knew already, and lives instead of replicas.
"""
import numpy as np

from hpclcae.checkpoint.event_log import merged
from hpclcae.parameter_server.store import EVENT, FETCHED, FETCHED_AGAIN, JOINED, LEFT, PUSHED
from hpclcae.training.replay_lives import Life, by_life


def log(*events):
    """Of chunk 0 of block 0: (kind, replica, clock, version), or whole events."""
    return np.array([event if len(event) == 6 else (
        event[0], event[1], *((-1, -1) if event[0] in (JOINED, LEFT) else (0, 0)), *event[2:])
        for event in events], EVENT)


def test_a_log_without_lives_is_left_as_it_is():
    events = log((FETCHED, 1, 0, 0), (PUSHED, 1, 0, 1))
    [found], lives = by_life([events], 2)
    assert (found == events).all() and lives == [Life(0, 0), Life(1, 0)]


def test_the_copy_goes_on_where_the_holder_ended():
    holder = log((JOINED, 0, 0, 1), (FETCHED, 0, 0, 0), (PUSHED, 0, 0, 1), (PUSHED, 0, 1, 2))
    copy = log((JOINED, 0, 0, 1), (PUSHED, 0, 0, 1), (PUSHED, 0, 1, 2), (PUSHED, 0, 2, 3),
               (PUSHED, 0, 2, -1), (FETCHED, 0, 3, 3), (PUSHED, 0, 3, 4))
    [found], _ = by_life([merged([holder, copy])], 1)
    assert found["version"][found["kind"] == PUSHED].tolist() == [1, 2, 3, 4]
    assert (found["kind"] == FETCHED).sum() == 2


def test_a_life_ends_with_the_last_step_of_which_it_has_pushed_anything():
    events = log((JOINED, 0, 0, 1), (FETCHED, 0, 0, 0), (PUSHED, 0, 0, 1), (FETCHED, 0, 1, 1),
                 (LEFT, 0, 0, 1), (JOINED, 0, 0, 2), (FETCHED, 0, 0, 1), (PUSHED, 0, 0, -1),
                 (FETCHED, 0, 1, 1), (PUSHED, 0, 1, 2))
    [found], lives = by_life([events], 1)
    assert lives == [Life(0, 1), Life(0, 2)]
    assert found[["replica", "kind", "clock"]].tolist() == [
        (0, FETCHED, 0), (0, PUSHED, 0), (1, FETCHED, 0), (1, PUSHED, 0), (1, FETCHED, 1),
        (1, PUSHED, 1)]


def test_what_was_fetched_again_counts_once_whether_or_not_it_was_answered_before():
    def again(number, clock, version):
        return FETCHED_AGAIN, 0, number, 0, clock, version
    answered = log((JOINED, 0, 0, 1), (FETCHED, 0, 0, 0), again(0, 0, 2), (PUSHED, 0, 0, 3))
    lost = log((JOINED, 0, 0, 1), (FETCHED, 0, 0, 0), again(1, 0, 2), (PUSHED, 0, 0, 3))
    for events, versions in ((answered, [2]), (lost, [0, 2])):
        [found], _ = by_life([events], 1)
        fetched = found[found["kind"] == FETCHED]
        assert fetched["version"].tolist() == versions and (fetched["block"] == 0).all()
