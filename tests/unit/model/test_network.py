"""The whole network: its objective, its gradients, its three ways to learn."""
from dataclasses import replace

import numpy as np
import pytest

from hpclcae.config import Config, DataConfig, StageConfig, TrainConfig, UpdateConfig
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.responses import Responses
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.phases import phase_of
from hpclcae.model.schedule import Schedule
from hpclcae.utils.errors import InputError
from tests.support import naive
from tests.support.gradient_check import directional_error
from tests.support.layouts import live, unpack

CHANNELS, IMAGES = 2, 2
SCALES = [("tied", "free", "free"), ("tied", "unit", "free"), ("untied", "free", "free"),
          ("untied", "free", "unit"), ("untied", "unit", "free"), ("untied", "unit", "unit")]
LCN = [dict(lcn=0), *[dict(lcn_border=border) for border in ("clip", "valid", "centre", "same")]]
NAMES = [f"stage{i}/{part}" for i in (1, 2, 3) for part in ("encode", "decode")]

scales = pytest.mark.parametrize("scale", SCALES, ids="-".join)
# The rules for LCN rotate through the stages, so that each meets every neighbour.
rotations = pytest.mark.parametrize("rotation", range(4))


def config_of(scale=SCALES[3], rotation=1, pooling_stride=1, gradient="joint",
              weights=(0.8, 0.3, 2.5), steps=100, dtype="float64", tile=0):
    """Three small stages that differ in everything."""
    scale = dict(zip(("weights", "encoder_norm", "decoder_norm"), scale))
    shapes = [dict(receptive_field=3, maps=2, pooling=2, epsilon=0.05, sparsity=0.3, lcn_sigma=0.8),
              dict(receptive_field=2, maps=3, pooling=2, pooling_stride=pooling_stride, epsilon=0.1,
                   sparsity=0.1),
              dict(receptive_field=2, maps=2, pooling=2, epsilon=0.02, sparsity=0.2, lcn_sigma=1.5)]
    stages = tuple(StageConfig(weight=w, tile=tile,
                               **(dict(lcn=3) | scale | shape | LCN[(rotation + i) % 4]))
                   for i, (shape, w) in enumerate(zip(shapes, weights)))
    return Config(data=DataConfig(size=20 if pooling_stride == 1 else 24, channels=CHANNELS),
                  stages=stages,
                  train=TrainConfig(gradient=gradient, steps=steps, dtype=dtype, batch=IMAGES))


class Setup:
    """A network with random weights, decoders unlike the encoders, and random input."""

    def __init__(self, config):
        self.network = Network(Layout(config))
        self.parameters = self.network.parameters(seed=1)
        other = self.network.parameters(seed=2)
        for name in self.parameters.views:
            if name.endswith("decode"):
                self.parameters[name][...] = 0.8 * self.parameters[name] + 0.5 * other[name]
        shape = *self.network.layout.geometry[0].input, IMAGES
        self.x = np.random.default_rng(3).standard_normal(shape).astype(self.network.dtype)

    def plan(self, name):
        return self.network.stages[int(name[5]) - 1].filter

    def value(self):
        return sum(state.loss.objective for state in self.network.forward(self.parameters, self.x))

    def gradients(self, only=None, dx=True):
        """By parameter, and with respect to the input if `dx`."""
        rows, d_input = {}, np.full_like(self.x, np.nan) if dx else None
        self.network.backward(self.network.forward(self.parameters, self.x, only), lambda name, row,
                              gradient: rows.setdefault(name, []).append(gradient.copy()), d_input)
        return {name: np.stack(row) for name, row in rows.items()} | ({"x": d_input} if dx else {})

    def positions(self):
        """(encoder, decoder or None) of every stage, as the loops take them."""
        return [[unpack(self.plan(name), self.parameters[name]) if name in self.parameters.views
                 else None for name in (f"stage{i}/encode", f"stage{i}/decode")] for i in (1, 2, 3)]


def assert_same(found, expected, tolerance=1e-11):
    assert found.keys() == expected.keys()
    for name in expected:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance * scale,
                                   err_msg=name)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale, rotation", list(zip(SCALES, [0, 1, 2, 3, 0, 1])))
@pytest.mark.parametrize("pooling_stride", [1, 2])
def test_objective_and_responses_equal_the_formulas(scale, rotation, pooling_stride):
    setup = Setup(config_of(scale, rotation, pooling_stride))
    objective, outputs = naive.network(setup.network.config.stages, setup.positions(), setup.x)
    assert setup.value() == pytest.approx(objective, rel=1e-12)
    responses = Responses(setup.network, setup.parameters)(setup.x)
    for stage, found, expected in zip(setup.network.stages, responses, outputs):
        assert found.shape[:3] == stage.geometry.output
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


def test_parameters_are_named_stage_by_stage():
    network = Network(Layout(config_of()))
    assert list(network.parameters().views) == NAMES and not network.parameters().vector.any()
    tied = Network(Layout(config_of(SCALES[0])))
    assert list(tied.parameters().views) == NAMES[::2]
    assert not np.array_equal(network.parameters(0).vector, network.parameters(1).vector)
    assert np.array_equal(network.parameters(0).vector, network.parameters(0).vector)


def test_a_window_that_does_not_fit_is_refused():
    config = config_of()
    with pytest.raises(InputError, match=r"stages\.2\.receptive_field = 40"):
        Network(Layout(replace(config, stages=(*config.stages[:2],
                                               replace(config.stages[2], receptive_field=40)))))


# ---- gradients -----------------------------------------------------------------------------------


@scales
@rotations
@pytest.mark.parametrize("pooling_stride", [1, 2])
def test_joint_gradient_is_the_derivative(scale, rotation, pooling_stride):
    """By every parameter and by the input, through all sublayers and the upper targets."""
    setup = Setup(config_of(scale, rotation, pooling_stride))
    gradients = setup.gradients()
    assert set(gradients) == {*setup.parameters.views, "x"}
    for name, gradient in gradients.items():
        at, mask = (setup.x, None) if name == "x" else (setup.parameters[name],
                                                        live(setup.plan(name)))
        assert directional_error(setup.value, at, gradient, mask) < 1e-9, name


def test_joint_gradient_is_the_sum_over_the_terms():
    whole = Setup(config_of()).gradients()
    parts = []
    for k in range(3):
        weights = [w if i == k else 0 for i, w in enumerate((0.8, 0.3, 2.5))]
        parts.append(Setup(config_of(weights=weights)).gradients())
    assert_same(whole, {name: sum(part[name] for part in parts) for name in whole})
    # and upper terms reach the lower stages, lower ones not the upper stages
    for k, part in enumerate(parts):
        for name in NAMES:
            stage = int(name[5]) - 1
            reached = stage == k or (stage < k and name.endswith("encode"))
            assert np.any(part[name]) == reached, (k, name)


@scales
def test_stopped_gradient_is_each_stage_s_own(scale):
    """The same as in a joint network where the terms of the other stages are switched off."""
    stopped = Setup(config_of(scale, gradient="stopped")).gradients()
    weights = (0.8, 0.3, 2.5)
    for k in range(3):
        only = [w if i == k else 0 for i, w in enumerate(weights)]
        alone = Setup(config_of(scale, weights=only)).gradients()
        own = {name for name in alone if name.startswith(f"stage{k + 1}") or name == "x" and k == 0}
        assert_same({name: stopped[name] for name in own}, {name: alone[name] for name in own})


@scales
@pytest.mark.parametrize("stage", range(3))
def test_greedy_gradient_is_one_stage_s_own(scale, stage):
    stopped = Setup(config_of(scale, gradient="stopped")).gradients(dx=False)
    greedy = Setup(config_of(scale, gradient="greedy"))
    assert_same(greedy.gradients(only=stage, dx=False),
                {name: g for name, g in stopped.items() if name.startswith(f"stage{stage + 1}")})
    states = greedy.network.forward(greedy.parameters, greedy.x, only=stage)
    assert [state.loss is not None for state in states] == [False] * stage + [True]


@pytest.mark.parametrize("tile", [1, 2, 3])
def test_any_tile_gives_the_same_network(tile):
    one, other = Setup(config_of()), Setup(config_of(tile=tile))
    for a, b in zip(one.positions(), other.positions()):
        assert all(np.allclose(v, w, rtol=1e-15, atol=0) for v, w in zip(a, b))
    found, expected = other.gradients(), one.gradients()
    assert_same({n: g if n == "x" else unpack(other.plan(n), g) for n, g in found.items()},
                {n: g if n == "x" else unpack(one.plan(n), g) for n, g in expected.items()})


def test_float32_follows_float64():
    single, exact = Setup(config_of(dtype="float32")), Setup(config_of())
    exact.parameters.vector[...], exact.x = single.parameters.vector, single.x.astype(np.float64)
    found = single.gradients()
    assert all(g.dtype == np.float32 for g in found.values())
    assert_same(found, exact.gradients(), tolerance=2e-4)
    assert single.value() == pytest.approx(exact.value(), rel=1e-5)


# ---- a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["joint", "stopped"])
def test_updating_every_row_at_once_equals_updating_at_the_end(gradient):
    """No weight is read again after its gradient has been handed over."""
    config = UpdateConfig("momentum", rate=0.01, schedule="constant")
    at_once, at_end = (Setup(config_of(gradient=gradient)) for _ in range(2))
    fan_in = {name: at_once.plan(name).fan_in for name in NAMES}
    first, second = (Optimizer(config, s.parameters, fan_in) for s in (at_once, at_end))
    for _ in range(3):
        at_once.network.backward(at_once.network.forward(at_once.parameters, at_once.x),
                                 first.on_gradient)
        for name, rows in at_end.gradients(dx=False).items():
            for row in range(len(rows)):
                second.on_gradient(name, row, rows[row])
    assert np.array_equal(at_once.parameters.vector, at_end.parameters.vector)


def test_nothing_is_remembered_from_the_step_before():
    """Arrays are kept between steps for speed only: they are overwritten before they are read."""
    setup = Setup(config_of())
    expected, value = setup.gradients(), setup.value()
    for workspace in (setup.network.work, *(stage.kept for stage in setup.network.stages)):
        for buffer in workspace.buffers.values():
            buffer[...] = np.nan
    found = setup.gradients()
    assert setup.value() == value
    for name in expected:
        assert np.array_equal(found[name], expected[name])


@pytest.mark.parametrize("gradient", ["joint", "stopped", "greedy"])
def test_a_step_against_the_gradient_lowers_the_objective_and_leaves_dead_entries_zero(gradient):
    setup = Setup(config_of(gradient=gradient, tile=3))
    rule = Optimizer(UpdateConfig("sgd", rate=1e-4), setup.parameters,
                     {n: setup.plan(n).fan_in for n in NAMES})
    for only in (None,) if gradient != "greedy" else range(3):
        def value():
            states = setup.network.forward(setup.parameters, setup.x, only)
            return states, sum(state.loss.objective for state in states if state.loss)
        states, before = value()
        if gradient == "stopped":  # the first stage's term is the only one that nobody else changes
            before = states[0].loss.objective
        setup.network.backward(states, rule.on_gradient)
        states, after = value()
        assert (states[0].loss.objective if gradient == "stopped" else after) < before
    for name in NAMES:
        assert not setup.parameters[name][~live(setup.plan(name))].any()


# ---- which stage is trained when -----------------------------------------------------------------


@pytest.mark.parametrize("steps", [3, 4, 5, 10, 100, 101])
def test_greedy_steps_are_shared_equally_and_in_order(steps):
    config = config_of(gradient="greedy", steps=steps)
    stages = [phase_of(config, step).stage for step in range(steps)]
    assert stages == sorted(stages) and set(stages) == {0, 1, 2}
    assert max(map(stages.count, range(3))) - min(map(stages.count, range(3))) <= 1
    schedule = Schedule(replace(config, update=UpdateConfig(rate=1.0, schedule="step / steps")))
    for stage in range(3):
        count = stages.count(stage)
        assert [schedule.learning_rate(step) for step in range(steps) if stages[step] == stage] \
            == pytest.approx([k / count for k in range(count)])


@pytest.mark.parametrize("gradient", ["joint", "stopped"])
def test_otherwise_all_stages_are_trained_all_the_time(gradient):
    config = config_of(gradient=gradient, steps=8)
    assert [phase_of(config, step).stage for step in range(8)] == [None] * 8
