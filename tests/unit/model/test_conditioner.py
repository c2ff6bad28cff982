"""Conditioners between stages: what is fitted, its gradient, any grid, and what is refused."""
from dataclasses import replace

import numpy as np
import pytest

from hpclcae.config import Config, DataConfig, StageConfig, TrainConfig
from hpclcae.model.conditioner import Conditioner
from hpclcae.model.conditioner_fit import fit_conditioner
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.responses import Responses
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from hpclcae.utils.errors import InputError
from tests.support.gradient_check import directional_error

SIZE, FITTED, PORTION = 17, 60, 20
GRIDS = [Grid(1, 2), Grid(2, 2), Grid(3, 1), Grid(4, 5)]
VARIANTS = {
    "log, contrast, map": dict(log=True, standardise=True, contrast=True, whiten=9),
    "paper's LCN, map": dict(standardise=True, lcn=3, whiten=9),
    "units alone": dict(standardise=True),
    "logarithm alone": dict(log=True),
    "contrast alone": dict(contrast=True),
    "whitening alone": dict(whiten=9),
    "windows": dict(log=True, standardise=True, contrast=True, whiten=5, window=4, window_stride=2),
    "windows of all": dict(log=True, standardise=True, whiten=5, window=5, window_stride=2),
    "windows after LCN": dict(standardise=True, lcn=3, contrast=True, whiten=5, window=4,
                              window_stride=1),
    "windows, nothing else": dict(whiten=5, window=3, window_stride=3)}


def network_config(change, gradient="joint", dtype="float64"):
    first = StageConfig(receptive_field=3, maps=3, pooling=3, pooling_stride=2, lcn=0)
    second = StageConfig(receptive_field=1 if change.get("window") == 7 else 2, maps=2, pooling=1,
                         lcn=0, sparsity=0.3, sparsity_unit="sigma", standardise=True)
    top = StageConfig(receptive_field=1, maps=2, pooling=1, lcn=0)
    return Config(data=DataConfig(size=SIZE, channels=1),
                  stages=(replace(first, **change), second, top),
                  train=TrainConfig(dtype=dtype, gradient=gradient))


def images(count=FITTED, seed=0):
    """Smooth random images, (row, col, channel, image)."""
    drawn = np.random.default_rng(seed).standard_normal((SIZE + 2, SIZE + 2, 1, count))
    return drawn[:-2, :-2] + drawn[1:-1, 1:-1] + drawn[2:, 2:]


def passes(x):
    """The pass over x, in portions."""
    return lambda: iter([np.ascontiguousarray(x[..., at:at + PORTION])
                         for at in range(0, x.shape[-1], PORTION)])


def fitted_network(config, x, communicator=None, grid=Grid(1, 1), seed=1):
    """A network with random weights and fitted conditioners; x is of whole images."""
    network = Network(Layout(config, grid), communicator)
    parameters = network.parameters(seed)
    held = network.block.plan.stages[0].x.held
    part = x[slice(*held.rows), slice(*held.cols)]
    conditioners = [fit_conditioner(network, index, parameters, passes(part))
                    for index in range(len(config.stages) - 1)]
    return network, parameters, conditioners, part


variants = pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)


@variants
def test_units_have_mean_0_and_deviation_1_and_directions_are_white(change):
    config = network_config(change)
    network, parameters, conditioners, x = fitted_network(config, images())
    state = network.activations(parameters, x, 0)
    if change.get("standardise"):
        np.testing.assert_allclose(state.v.mean(axis=-1), 0, atol=1e-12)
        np.testing.assert_allclose(state.v.std(axis=-1), 1, atol=5e-3)  # less by the floor
    h, stage = state.h, config.stages[0]
    expected = np.log(h) if stage.log else h
    if stage.standardise:
        expected = (expected - expected.mean(-1, keepdims=True)) / expected.std(-1, keepdims=True)
    np.testing.assert_allclose(state.v, expected, atol=2e-2)
    if not stage.whiten:
        return
    if stage.window:
        for place in np.ndindex(state.c.shape[:2]):
            np.testing.assert_allclose(np.cov(state.c[place], bias=True), np.eye(stage.whiten),
                                       atol=1e-9)
        rows, cols = ((n - stage.window) // stage.window_stride + 1 for n in state.y.shape[:2])
        assert state.c.shape[:3] == (rows, cols, stage.whiten)
    else:
        values = np.linalg.eigvalsh(np.cov(state.c.reshape(-1, FITTED), bias=True))[::-1]
        units = int(np.prod(state.c.shape[:3]))
        np.testing.assert_allclose(values[:9], units / 9, rtol=1e-9)  # variance 1 a unit, sigma^2
        np.testing.assert_allclose(values[9:], 0, atol=1e-9)
        assert network.layout.geometry[1].sigma == pytest.approx(np.sqrt(units / 9))
    assert ((0 < conditioners[0].spectrum) & (conditioners[0].spectrum < 1)).all()


def test_directions_are_those_of_largest_variance():
    """Against the singular vectors of the responses themselves."""
    network, parameters, (conditioner, _), x = fitted_network(
        network_config(VARIANTS["paper's LCN, map"]), images())
    y = network.activations(parameters, x, 0).y
    flat = y.reshape(-1, FITTED)
    flat = flat - flat.mean(axis=1, keepdims=True)
    vectors, singular, _ = np.linalg.svd(flat, full_matrices=False)
    kept = vectors[:, :9]
    gain = np.sqrt(len(flat) / 9) / (singular[:9] / np.sqrt(FITTED))
    a = conditioner.directions.reshape(-1, 9)
    np.testing.assert_allclose(a @ a.T, (kept * gain) @ kept.T, atol=1e-9 * abs(a @ a.T).max())
    np.testing.assert_allclose(conditioner.spectrum, singular[:9] ** 2 / (singular ** 2).sum())


def test_an_image_s_contrast_is_that_of_the_map_or_the_window():
    change = VARIANTS["contrast alone"]
    network, parameters, (conditioner, _), x = fitted_network(network_config(change), images())
    state = network.activations(parameters, x, 0)
    y = state.h.reshape(-1, FITTED)
    floor = 0.1 * y.std(axis=0).mean()
    assert conditioner.floor == pytest.approx(floor)
    np.testing.assert_allclose(state.c.reshape(y.shape),
                               (y - y.mean(axis=0)) / (y.std(axis=0) + floor), atol=1e-12)


def test_pairs_choose_what_two_frames_share():
    """One direction of a window is the same in both frames of a pair, the larger ones are not."""
    change = dict(whiten=1, window=7, whiten_by="pairs")
    config = network_config(change)
    g = np.random.default_rng(0)
    patterns = g.standard_normal((3, SIZE, SIZE, 1))
    loud, shared = g.standard_normal((2, 200)), np.repeat(g.standard_normal(100), 2)
    x = (np.tensordot(patterns[:2], 5 * loud, (0, 0))
         + np.tensordot(patterns[2], shared[None], 0).reshape(SIZE, SIZE, 1, 200))
    network = Network(Layout(config))
    parameters = network.parameters(1)
    fitted = fit_conditioner(network, 0, parameters, passes(x))
    assert (fitted.spectrum > 0.3).all()   # by variance alone nothing is alike
    network.condition([fitted, None, None])
    c = network.activations(parameters, x, 0).c
    assert c.shape[:3] == (1, 1, 1)
    by_variance = replace(config.stages[0], whiten_by="variance")
    other = Network(Layout(replace(config, stages=(by_variance, *config.stages[1:]))))
    fit_conditioner(other, 0, parameters, passes(x))
    loudest = other.activations(parameters, x, 0).c
    alike, unlike = (np.corrcoef(values[0, 0, 0, ::2], values[0, 0, 0, 1::2])[0, 1]
                     for values in (c, loudest))
    assert alike == pytest.approx(fitted.spectrum.item(), abs=0.05)
    assert alike > abs(unlike) + 0.2


@variants
def test_the_gradient_passes_through_the_conditioner(change):
    config = network_config(change)
    network, parameters, _, _ = fitted_network(config, images())
    x = images(3, seed=5)

    def value():
        return sum(state.loss.objective for state in network.forward(parameters, x))
    gradient, dx = parameters.like(), np.full_like(x, np.nan)

    def on_gradient(name, row, values):
        gradient[name][row] = values
    network.backward(network.forward(parameters, x), on_gradient, dx)
    assert directional_error(value, x, dx) < 1e-7
    live = parameters.vector != 0
    assert directional_error(value, parameters.vector, gradient.vector, live) < 1e-7


@variants
def test_any_grid_equals_one_block(change):
    """Fitted numbers, responses of other images and the gradient with respect to them."""
    config, x = network_config(change), images(4, seed=5)

    def computed(grid):
        def program(communicator):
            network, parameters, conditioners, _ = fitted_network(config, images(), communicator,
                                                                  grid)
            pixels = network.block.plan.stages[0].x
            part = np.ascontiguousarray(x[slice(*pixels.held.rows), slice(*pixels.held.cols)])
            states, dx = network.forward(parameters, part), np.full_like(part, np.nan)
            network.backward(states, lambda *_: None, dx)
            tops = [(stage.plan.y.owned, state.y.copy())
                    for stage, state in zip(network.stages, states)]
            return ([state.loss.objective for state in states], conditioners,
                    [(pixels.owned, dx[pixels.own].copy()), *tops])
        return run_blocks(grid.size, program)
    (terms, conditioners, (dx, *responses)), = computed(Grid(1, 1))
    expected = [dx[1], *(y for _, y in responses)]
    for grid in GRIDS:
        found = [np.full_like(whole, np.nan) for whole in expected]
        for block_terms, block_conditioners, parts in computed(grid):
            np.testing.assert_allclose(block_terms, terms, rtol=1e-10)
            for one, other in zip(conditioners, block_conditioners):
                for name, array in one.arrays().items():
                    np.testing.assert_allclose(other.arrays()[name], array, rtol=0,
                                               atol=1e-8 * max(abs(array).max(), 1e-3))
            for whole, (owned, values) in zip(found, parts):
                if owned.size:
                    whole[slice(*owned.rows), slice(*owned.cols)] = values
        for whole, values in zip(found, expected):
            np.testing.assert_allclose(whole, values, rtol=0, atol=1e-8 * abs(values).max(),
                                       err_msg=str(grid))


def test_many_windows_are_fitted_in_several_passes(monkeypatch):
    config = network_config(VARIANTS["windows"])
    _, _, (expected, _), _ = fitted_network(config, images())
    monkeypatch.setattr("hpclcae.model.conditioner_fit.COVARIANCE_BYTES", 2 * (4 * 4 * 3) ** 2 * 8)
    _, _, (found, _), _ = fitted_network(config, images())
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], array)


def test_a_unit_that_never_changes_stays_0():
    config = network_config(dict(standardise=True))
    network = Network(Layout(config))
    parameters, x = network.parameters(1), images()
    x[:5, :5] = 0  # the first units see nothing
    fitted = fit_conditioner(network, 0, parameters, passes(x))
    assert (fitted.deviation[0, 0] == 0).all() and (fitted.deviation[3, 3] > 0).all()
    v = network.activations(parameters, x, 0).v
    assert (v[0, 0] == 0).all() and np.isfinite(v).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_no_direction(dtype):
    """Contrast takes each image's mean away, and so one direction: what is left of it is noise."""
    change = dict(standardise=True, contrast=True, whiten=147)
    with pytest.raises(InputError, match="vary in only 146 directions: make it at most 146"):
        fitted_network(network_config(change, dtype=dtype), images(200).astype(dtype))


@pytest.mark.parametrize("change, x, message", [
    (dict(whiten=40), images(20), r"^stages\.0\.whiten = 40: 20 images are too few"),
    (dict(standardise=True), np.ones((SIZE, SIZE, 1, 20)), "^stage 1 gives the same response"),
    (dict(whiten=30), images(5)[..., np.arange(60) % 5],
     r"^stages\.0\.whiten = 30: the responses of stage 1 vary in only [45] directions")])
def test_what_cannot_be_fitted_is_refused(change, x, message):
    network = Network(Layout(network_config(change)))
    with pytest.raises(InputError, match=message):
        fit_conditioner(network, 0, network.parameters(1), passes(x))


def test_a_map_that_is_too_large_to_whiten_as_a_whole_is_refused(monkeypatch):
    monkeypatch.setattr("hpclcae.model.conditioner_fit.LARGEST_MAP", 10)
    with pytest.raises(InputError, match=r"set stages\.0\.window to whiten windows of it"):
        fitted_network(network_config(dict(whiten=3)), images())


def test_nothing_is_computed_above_a_conditioner_that_is_missing():
    network = Network(Layout(network_config(dict(standardise=True))))
    parameters = network.parameters(1)
    assert len(Responses(network, parameters)(images(2))) == 1
    with pytest.raises(InputError, match="stage 2 cannot be computed"):
        network.forward(parameters, images(2))
    network.condition([Conditioner(np.zeros((7, 7, 3)), np.ones((7, 7, 3))), None, None])
    assert len(Responses(network, parameters)(images(2))) == 2


@variants
def test_responses_of_many_images_are_those_of_a_training_step(change):
    network, parameters, _, x = fitted_network(network_config(change), images())
    expected = [state.y.copy() for state in network.forward(parameters, x)]
    respond = Responses(network, parameters)
    for part in (slice(40, 60), slice(0, 40)):
        found = respond(np.ascontiguousarray(x[..., part]))
        assert len(found) == len(expected)
        for mine, wanted in zip(found, expected):
            np.testing.assert_allclose(mine, wanted[..., part], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", ["log, contrast, map", "whitening alone", "windows"])
def test_blocks_respond_as_the_whole_does(name, grid):
    config = network_config(VARIANTS[name])
    network, parameters, _, x = fitted_network(config, images())
    whole = [y.copy() for y in Responses(network, parameters)(x)]

    def program(world):
        network, parameters, _, x = fitted_network(config, images(), world, grid)
        found = Responses(network, parameters)(x)
        return [(plan.y.owned, y.copy()) for plan, y in zip(network.block.plan.stages, found)]
    for block in run_blocks(grid.size, program):
        for (owned, mine), wanted in zip(block, whole, strict=True):
            np.testing.assert_allclose(mine, wanted[slice(*owned.rows), slice(*owned.cols)],
                                       rtol=1e-8, atol=1e-10)


def test_a_map_whitened_to_few_directions_is_never_made(monkeypatch):
    """The stage above works on coordinates; with as many as a filter has inputs it would not."""
    made = []
    monkeypatch.setattr("hpclcae.model.stage.Stage.whiten", lambda stage, state: made.append(stage))
    for directions, wanted in ((11, []), (12, ["stage1"])):
        network, parameters, _, x = fitted_network(network_config(dict(whiten=directions)),
                                                   images())
        respond = Responses(network, parameters)
        made.clear()
        respond(x)
        assert [stage.name for stage in made if stage.config.whiten] == wanted


@pytest.mark.parametrize("stage", [0, 1, 2])
@variants
def test_the_gradient_of_a_response_with_respect_to_the_input(change, stage):
    """Of what a stage answers, not of what it passes on; through all conditioners below."""
    network, parameters, _, x = fitted_network(network_config(change), images())
    x = np.ascontiguousarray(x[..., :4])
    y = Responses(network, parameters)(x)[stage]
    wanted = np.random.default_rng(5).standard_normal(y.shape)
    gradient = network.input_gradient(parameters, x, stage, lambda y: wanted.copy()).copy()
    assert directional_error(
        lambda: float(np.vdot(Responses(network, parameters)(x)[stage], wanted)), x, gradient,
        step=1e-5) < 1e-6
