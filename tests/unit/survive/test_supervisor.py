"""What the supervisor takes for progress, and how long it waits for it."""
from types import SimpleNamespace

import pytest

from hpclcae.model.phases import phases
from hpclcae.survive.membership import ENOUGH, Durations, Rank, Seat
from hpclcae.survive.servers import UNKNOWN_SECONDS
from hpclcae.survive.supervisor import Supervisor


@pytest.fixture
def supervisor(tiny_config):
    made = object.__new__(Supervisor)  # no process is started
    made.config = tiny_config("train.gradient=greedy", "train.steps=90")
    made._steps = {phase: Durations(10) for phase in phases(made.config)}
    made._starts, made._went, made._nodes = Durations(10), False, SimpleNamespace(patience=0.0)
    return made


def training(cursor, in_vain):
    seat = Seat(0, cursor, 2, "training")
    seat.in_vain = in_vain
    seat.ranks[0] = Rank(None, 1, 0.0, 0.0, step=cursor, safe=cursor)
    return seat


def tell(supervisor, seat, step, work=0):
    supervisor._take_of_rank(seat, 0, {"kind": "progress", "step": step, "safe": seat.cursor,
                                       "waits": False, "work": work})
    return seat.ranks[0]


def test_steps_of_the_lives_before_are_no_progress_of_this_one(supervisor):
    seat = training(cursor=30, in_vain=2)
    for step in (0, 30):  # it says 0 until it has been told where it begins
        assert tell(supervisor, seat, step).moved == 0 and seat.in_vain == 2
    assert tell(supervisor, seat, 31).moved > 0 and seat.in_vain == 0


def test_work_between_two_steps_is_no_standstill_and_no_step(supervisor):
    seat = training(cursor=30, in_vain=1)
    assert tell(supervisor, seat, 30, work=5).moved > 0 and seat.in_vain == 1
    seat.ranks[0].moved = 0.0
    assert tell(supervisor, seat, 30, work=5).moved == 0


def test_the_limit_is_that_of_the_phase_and_grows_after_lives_in_vain(supervisor):
    first, second, _ = phases(supervisor.config)
    supervisor._starts.note(0.5)
    for _ in range(ENOUGH):
        supervisor._steps[first].note(1.0)
    limits = [supervisor._limit(training(cursor, in_vain)) for cursor, in_vain
              in ((first.first, 0), (first.first, 2), (second.first, 0))]
    assert limits == pytest.approx([2.0, 8.0, UNKNOWN_SECONDS])
