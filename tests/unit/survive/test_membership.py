"""When silence means death, and whose."""
import pytest

from hpclcae.survive.membership import ENOUGH, Durations, Rank, Seat, suspect


def test_a_limit_is_drawn_from_enough_durations_and_a_few_long_ones_do_not_move_it():
    durations = Durations(10)
    for _ in range(ENOUGH - 1):
        durations.note(1.0)
    assert durations.limit is None
    for seconds in (1.0, 1.2, 0.8, 1.1, 0.9, 60.0):
        durations.note(seconds)
    assert 1.5 < durations.limit < 5.0 and durations.largest == 60.0


def test_equal_durations_leave_some_room():
    durations = Durations(10)
    for _ in range(ENOUGH):
        durations.note(2.0)
    assert durations.limit == pytest.approx(4.0)


def seat(number, *ranks, state="training"):
    """Each rank is when it was heard, when it moved, and what else is true of it."""
    made = Seat(number, 0, 1, state)
    for block, (heard, moved, *words) in enumerate(ranks):
        made.ranks[block] = Rank(None, block, heard, moved, step=int(moved),
                                 waits="waits" in words, paused="paused" in words)
    return made


def blamed(*seats, now=100.0, limit=5.0):
    found = suspect(seats, now, lambda seat: limit, 0.25)
    return found and (found[0].number, found[1])


def test_the_block_that_is_silent_is_to_blame_not_those_that_wait_for_it():
    assert blamed(seat(0, (100, 99)), seat(1, (100, 80), (90, 80), (100, 80))) == (1, 1)
    assert blamed(seat(0, (100, 99)), seat(1, (100, 99))) is None
    assert blamed(seat(1, (96, 99))) is None


def test_one_that_speaks_and_does_not_move_is_dead_too_unless_it_waits_for_others():
    assert blamed(seat(2, (100, 90), (100, 89))) == (2, 1)
    for words in ("waits", "paused"):
        assert blamed(seat(2, (100, 90, words), (100, 90))) is None


def test_who_has_not_begun_is_not_asked_for_steps():
    assert blamed(seat(0, (1, 1), state="joining"), seat(1, state="training")) is None
