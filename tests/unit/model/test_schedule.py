"""Learning rates by step: named schedules, and expressions; which stage is trained when."""
import math

import pytest

from hpclcae import config as configuration
from hpclcae.model.phases import phase_of
from hpclcae.model.schedule import Schedule
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

IMAGES = 50


def schedule(text, *changes, steps=100):
    """A schedule of base rate 0.4 with minibatches of 10 of 50 images."""
    changes = [f"update.schedule={text}", f"train.steps={steps}", "train.batch=10",
               "update.rate=0.4", *changes]
    config = configuration.loads((RUN / "tiny.toml").read_text(), changes)
    return Schedule(config, lambda step: phase_of(config, step).positions(step).start / IMAGES)


@pytest.mark.parametrize("step, falling", [(0, 1), (25, 1), (50, 1), (60, 0.8), (75, 0.5),
                                           (99, 0.02)])
def test_halfway_falls_over_the_second_half(step, falling):
    assert schedule("halfway").learning_rate(step) == pytest.approx(0.4 * falling, rel=1e-12)
    assert schedule("constant").learning_rate(step) == 0.4


@pytest.mark.parametrize("text, value", [
    ("0.5 * (1 + cos(pi * step / steps))", lambda step: 0.5 * (1 + math.cos(math.pi * step / 100))),
    ("where(step < 10, step / 10, 1)", lambda step: min(1, step / 10)),
    ("0.5 ** epoch", lambda step: 0.5 ** (step / 5)),
    ("1 + 0 * step", lambda step: 1)])
@pytest.mark.parametrize("step", [0, 1, 37, 99])
def test_an_expression_is_what_the_rate_is_multiplied_with(text, value, step):
    found = schedule(text).learning_rate(step)
    assert isinstance(found, float) and found == pytest.approx(0.4 * value(step), rel=1e-12)


def test_a_greedy_stage_has_a_schedule_of_its_own():
    greedy = schedule("step / steps", "train.gradient=greedy")  # stages begin at 0, 34 and 67
    assert [phase_of(greedy.config, step).stage for step in (0, 33, 34, 66, 67, 99)] \
        == [0, 0, 1, 1, 2, 2]
    assert [greedy.learning_rate(step) for step in (0, 17, 34, 67)] == [0, 0.4 * 17 / 34, 0, 0]
    assert greedy.learning_rate(99) == pytest.approx(0.4 * 32 / 33, rel=1e-12)
    halfway = schedule("halfway", "train.gradient=greedy")
    assert halfway.learning_rate(34) == 0.4 > halfway.learning_rate(66)
    epochs = schedule("epoch / 20", "train.gradient=greedy")
    assert epochs.learning_rate(60) == pytest.approx(0.4 * 12 / 20, rel=1e-12)


def test_all_stages_are_trained_at_once_otherwise():
    config = schedule("constant", "train.gradient=joint").config
    assert {phase_of(config, step).stage for step in range(100)} == {None}


@pytest.mark.parametrize("text, said", [
    ("stepp / steps", "stepp"), ("halfwy", "halfwy"), ("__import__('os')", "update.schedule"),
    ("step.__class__", "update.schedule"), ("", "update.schedule"), ("1 +", "update.schedule")])
def test_what_is_no_arithmetic_of_known_names_is_one_line(text, said):
    with pytest.raises(InputError) as caught:
        schedule(f'"{text}"')
    message = str(caught.value)
    assert said in message and "allowed: 'constant', 'halfway', or an expression" in message
    assert "\n" not in message


@pytest.mark.parametrize("text, value", [("1 / step", "inf"), ("0.5 - step / steps", "-"),
                                         ("sqrt(10 - step)", "nan")])
def test_a_rate_that_is_none_is_refused_before_training(text, value):
    with pytest.raises(InputError,
                       match=rf"update.schedule = .* is {value}.* where step = \d+: it must"):
        schedule(text)


@pytest.mark.parametrize("text", ["0*step", "0", "step - step", "1e-320 * 0"])
def test_a_schedule_that_is_always_zero_is_refused(text):
    config = configuration.loads("[[stages]]\n", [f'update.schedule="{text}"'])
    with pytest.raises(InputError, match="is 0 in every step that was tried"):
        Schedule(config)
