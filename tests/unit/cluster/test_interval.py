"""How often a checkpoint pays: the formula against a simulation, and what the leader does."""
import math
import random

import pytest

from hpclcae import config as configuration
from hpclcae.cluster.interval import FIRST, Interval, best_seconds
from hpclcae.utils.errors import InputError


def lost(every, stall, mtbf):
    """Seconds that are needed for one second of training: the expected value (Daly 2006)."""
    return mtbf * math.expm1((every + stall) / mtbf) / every


@pytest.mark.parametrize("stall, mtbf", [(0.03, 86400), (10, 3600), (60, 1800), (5, 30)])
def test_no_other_interval_loses_less(stall, mtbf):
    best = best_seconds(stall, mtbf)
    least = min(lost(best * 1.01 ** n, stall, mtbf) for n in range(-200, 200))
    assert lost(best, stall, mtbf) <= 1.002 * least
    assert best == pytest.approx(math.sqrt(2 * stall * mtbf), rel=0.5)


def test_a_simulation_agrees():
    """Failures at random, half an hour apart; an interval of twice or half the best loses more."""
    def needed(every, stall=20.0, mtbf=1800.0):
        dice, clock, made = random.Random(3), 0.0, 0
        left = dice.expovariate(1 / mtbf)
        while made < 20000:
            if left < every + stall:
                clock, left = clock + left, dice.expovariate(1 / mtbf)
            else:
                clock, left, made = clock + every + stall, left - every - stall, made + 1
        return clock / (made * every)
    best = best_seconds(20.0, 1800.0)
    assert needed(best) < min(needed(best / 2), needed(2 * best))


def test_a_checkpoint_that_costs_more_than_failures_are_apart():
    assert best_seconds(100.0, 40.0) == 40.0


def config(*changes):
    return configuration.loads("", ['train.checkpoint_every="auto"', "classifier.validation=0",
                                    *changes])


def test_the_leader_measures_the_first_checkpoint_and_looks_again_later():
    """Steps of 0.1 s; a checkpoint takes 0.2 s, and 0.05 s more of each of 4 steps beside it."""
    interval = Interval(config("train.mtbf=1"))
    for _ in range(FIRST):
        assert not interval.is_due
        interval.made_step(0.1, False)
    for cost in (0.2, 0.2):
        assert interval.is_due
        interval.took_checkpoint(cost)
        assert not interval.is_due
        for _ in range(3):
            interval.made_step(0.15, True)
        interval.made_step(0.15, False)
        chosen = interval._last
        while not interval.is_due:
            interval.made_step(0.1, False)
    assert chosen.stall == pytest.approx(0.4) and chosen.step_seconds == pytest.approx(0.1)
    assert chosen.steps == round(best_seconds(0.4, 3600) / 0.1)
    assert str(chosen).startswith(f"every {chosen.steps} steps (53.4 s): one costs 0.4 s, a failure"
                                  " is expected every 1 h (train.mtbf)")


def test_news_are_of_changes_that_matter():
    interval = Interval(config())
    interval.made_step(0.1, False)
    told = []
    for cost in (1.0, 1.1, 1.0, 9.0, 9.0, 9.0):
        interval.took_checkpoint(cost)
        interval.made_step(0.1, False)
        told.append(bool(interval.news))
        interval.news = None
    assert told == [True, False, False, False, False, True]


@pytest.mark.parametrize("change", ["train.keep_every=100", "classifier.validation=0.1"])
def test_what_needs_to_know_the_steps_is_refused(change):
    supervised = ["classifier.loss=softmax", "classifier.steps=0"]
    with pytest.raises(InputError, match="train.checkpoint_every = 'auto': .* set it to a number"):
        config(*supervised, change)
