"""Every update rule against its textbook formula, row by row as the network emits gradients."""
from typing import get_args, get_type_hints

import numpy as np
import pytest

from hpclcae.config import UpdateConfig
from hpclcae.model.optimizers import SLOTS, Optimizer
from hpclcae.model.parameters import ParameterVector

SHAPES = {"stage1/encode": (3, 2, 5, 4), "stage2/encode": (2, 1, 3, 2)}
FAN_IN = {"stage1/encode": 25, "stage2/encode": 9}
STEPS = 6
RULES = [UpdateConfig("sgd", rate=0.3, schedule="constant"),
         UpdateConfig("momentum", rate=0.2, momentum=0.8, schedule="halfway"),
         UpdateConfig("adagrad", rate=0.1, schedule="constant"),
         UpdateConfig("adam", rate=0.05, momentum=0.7, second_moment=0.95, schedule="halfway")]


def test_every_rule_is_tried_and_has_its_slots():
    rules = set(get_args(get_type_hints(UpdateConfig)["rule"]))
    assert {config.rule for config in RULES} == rules == SLOTS.keys()


def test_a_rule_without_arithmetic_does_not_train_as_another(monkeypatch):
    monkeypatch.setitem(SLOTS, "adabelief", SLOTS["adam"])
    optimizer, _ = started(UpdateConfig("adabelief"))  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="adabelief"):
        run(optimizer, [0])


def gradients(step, dtype=np.float64):
    """Gradients of very different size, and zeros where a layout has no filter."""
    rng = np.random.default_rng(step)
    found = {}
    for name, shape in SHAPES.items():
        numbers = rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 2, shape)
        found[name] = numbers.astype(dtype)
        found[name][:, :, 1, 0] = 0
    return found


def started(config, dtype=np.float64):
    parameters = ParameterVector(SHAPES, dtype)
    parameters.vector[...] = np.random.default_rng(99).standard_normal(parameters.vector.size)
    return Optimizer(config, parameters, FAN_IN), parameters


def learning_rate(config, step):
    falling = min(1, 2 - 2 * step / STEPS) if config.schedule == "halfway" else 1
    return config.rate * falling


def run(optimizer, steps, dtype=np.float64):
    for step in steps:
        optimizer.begin(learning_rate(optimizer.kernel.config, step))
        for name, gradient in gradients(step, dtype).items():
            for row in range(len(gradient)):
                optimizer.on_gradient(name, row, gradient[row])


def reference(config, weights, steps):
    """The rules as their papers write them, on whole arrays."""
    w = {name: a.copy() for name, a in weights.items()}
    slot = {name: [np.zeros(shape), np.zeros(shape)] for name, shape in SHAPES.items()}
    for count, step in enumerate(steps, 1):
        rate = learning_rate(config, step)
        for name, g in gradients(step).items():
            a, b = slot[name]
            typical = 1 / np.sqrt(FAN_IN[name])
            if config.rule == "sgd":
                w[name] = w[name] - rate / FAN_IN[name] * g
            elif config.rule == "momentum":  # Polyak
                a[...] = config.momentum * a - rate / FAN_IN[name] * g
                w[name] = w[name] + a
            elif config.rule == "adagrad":   # Duchi, Hazan, Singer 2011
                a[...] = a + g ** 2
                w[name] = w[name] - rate * typical * g / (np.sqrt(a) + 1e-12)
            # Kingma, Ba 2015, in the faster order at the end of their section 2
            else:
                a[...] = config.momentum * a + (1 - config.momentum) * g
                b[...] = config.second_moment * b + (1 - config.second_moment) * g ** 2
                rate_now = (rate * np.sqrt(1 - config.second_moment ** count)
                            / (1 - config.momentum ** count))
                w[name] = w[name] - rate_now * typical * a / (np.sqrt(b) + 1e-12)
    return w, slot


@pytest.mark.parametrize("config", RULES, ids=lambda c: c.rule)
def test_several_steps_equal_the_formula(config):
    rule, parameters = started(config)
    start = {name: parameters[name].copy() for name in SHAPES}
    run(rule, range(STEPS))
    expected, slots = reference(config, start, range(STEPS))
    for name in SHAPES:
        assert not np.array_equal(parameters[name], start[name])
        np.testing.assert_allclose(parameters[name], expected[name], rtol=1e-12, atol=1e-14)
        for slot, values in zip(SLOTS[config.rule], slots[name]):
            np.testing.assert_allclose(rule.state[slot][name], values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("config", RULES, ids=lambda c: c.rule)
def test_float32_stays_float32_and_follows_float64(config):
    (rule, parameters), (exact, expected) = started(config, np.float32), started(config)
    run(rule, range(STEPS), np.float32)
    run(exact, range(STEPS))
    for vector in (parameters, *rule.state.values()):
        assert vector.vector.dtype == np.float32
    np.testing.assert_allclose(parameters.vector, expected.vector, rtol=1e-5, atol=2e-5)
    for slot in rule.state:
        np.testing.assert_allclose(rule.state[slot].vector, exact.state[slot].vector, rtol=2e-5,
                                   atol=1e-6)


@pytest.mark.parametrize("config", RULES, ids=lambda c: c.rule)
def test_entries_without_a_filter_never_move(config):
    rule, parameters = started(config, np.float32)
    for name in SHAPES:
        parameters[name][:, :, 1, 0] = 0
    run(rule, range(STEPS), np.float32)
    for name in SHAPES:
        assert not parameters[name][:, :, 1, 0].any()
        assert np.isfinite(parameters[name]).all()


@pytest.mark.parametrize("config", RULES, ids=lambda c: c.rule)
def test_going_on_with_the_state_equals_not_stopping(config):
    whole, expected = started(config)
    run(whole, range(STEPS))
    first, parameters = started(config)
    run(first, range(3))
    second = Optimizer(config, parameters, FAN_IN)
    second.state, second.counts = first.state, first.counts
    run(second, range(3, STEPS))
    assert np.array_equal(parameters.vector, expected.vector)


def test_a_stage_that_starts_later_has_its_own_count():
    """Greedy training: adam's bias correction counts the updates of each parameter."""
    config = UpdateConfig("adam", rate=0.05, schedule="constant")
    (rule, parameters), (fresh, expected) = started(config), started(config)
    gradient = gradients(0)
    for _ in range(5):
        for row in range(3):
            rule.on_gradient("stage1/encode", row, gradient["stage1/encode"][row])
    for each in (rule, fresh):
        for row in range(2):
            each.on_gradient("stage2/encode", row, gradient["stage2/encode"][row])
    assert rule.counts == {"stage1/encode": 5, "stage2/encode": 1}
    assert np.array_equal(parameters["stage2/encode"], expected["stage2/encode"])


@pytest.mark.parametrize("rule", ["adagrad", "adam"])
def test_first_step_is_the_rate_in_typical_weights(rule):
    config = UpdateConfig(rule, rate=0.02, schedule="constant")
    updater, parameters = started(config)
    before = parameters["stage1/encode"].copy()
    gradient = gradients(0)["stage1/encode"]
    for row in range(3):
        updater.on_gradient("stage1/encode", row, gradient[row])
    np.testing.assert_allclose(parameters["stage1/encode"] - before, -0.02 / 5 * np.sign(gradient),
                               rtol=1e-6)
