"""One stage: values, gradients, initial weights, and what holds the scale."""
from dataclasses import replace

import numpy as np
import pytest

from hpclcae.config import StageConfig, UpdateConfig
from hpclcae.geometry import stage_geometry
from hpclcae.model.layers.unit_norm import Filters
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.stage import Stage, sum_of_squares
from hpclcae.model.workspace import Workspace
from tests.support import naive
from tests.support.gradient_check import directional_error
from tests.support.layouts import live, pack, unpack

BASE = StageConfig(receptive_field=4, maps=4, pooling=3, lcn=3, lcn_sigma=0.8, sparsity=0.3,
                   weight=0.7, epsilon=0.05)
ROWS, COLS, MAPS_IN, IMAGES = 15, 14, 2, 2
SCALES = [("tied", "free", "free"), ("tied", "unit", "free"), ("untied", "free", "free"),
          ("untied", "free", "unit"), ("untied", "unit", "free"), ("untied", "unit", "unit")]
LCN = [dict(lcn=0), *[dict(lcn_border=border) for border in ("clip", "valid", "centre", "same")]]
STRIDES = [dict(), dict(pooling_stride=2), dict(stride=2, pooling=2, receptive_field=2, weight=2.5)]

scales = pytest.mark.parametrize("scale", SCALES, ids="-".join)
lcn = pytest.mark.parametrize("lcn", LCN, ids=lambda c: str(*c.values()))


def config_of(scale, *changes):
    weights, encoder_norm, decoder_norm = scale
    config = replace(BASE, weights=weights, encoder_norm=encoder_norm, decoder_norm=decoder_norm)
    for change in changes:
        config = replace(config, **change)
    return config


def with_terms(stage, state):
    """The terms of a stage that is one block, as Network adds them."""
    if state.decoder:
        state.loss = stage.loss(np.array(stage.sums(state)), state.x.shape[-1])
    return state


class Setup:
    """A stage with random weights (decoder unlike the encoder) on random input."""

    def __init__(self, config, rows=ROWS, cols=COLS, maps_in=MAPS_IN, images=IMAGES,
                 dtype=np.float64):
        self.stage = Stage.whole(config, stage_geometry(config, rows, cols, maps_in), "stage1",
                                 dtype)
        self.plan, self.work, rng = self.stage.filter, Workspace(), np.random.default_rng(5)
        self.parameters = ParameterVector(self.stage.parameter_shapes(), dtype)
        shape = (self.plan.out_rows, self.plan.out_cols, self.plan.field, self.plan.field, maps_in,
                 config.maps)
        self.x = rng.standard_normal((rows, cols, maps_in, images)).astype(dtype)
        self.dy = 0.1 * rng.standard_normal((*self.stage.geometry.output, images)).astype(dtype)
        self.filters = {name: 0.3 * rng.standard_normal(shape) for name in self.parameters.views}
        for name, filters in self.filters.items():
            self.parameters[name][...] = pack(self.plan, filters)

    def forward(self, objective=True):
        return with_terms(self.stage,
                          self.stage.forward(self.parameters, self.x, self.work, objective))

    def value(self, objective=True):
        """The stage's own term and <dy, y>."""
        state = self.forward(objective)
        return np.vdot(self.dy, state.y) + (state.loss.objective if objective else 0)

    def backward(self, objective=True, dy=True):
        """Gradients of `value` by parameter, and with respect to x."""
        rows, dx = {}, np.full_like(self.x, np.nan)
        self.stage.backward(self.forward(objective), self.dy if dy else None, dx, lambda name, row,
                            gradient: rows.setdefault(name, []).append(gradient.copy()), self.work)
        return {name: np.stack(row) for name, row in rows.items()} | {"x": dx}


@scales
@lcn
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 3e-5)])
def test_forward_equals_the_formulas(scale, lcn, strides, dtype, tolerance):
    config = config_of(scale, lcn, strides)
    setup = Setup(config, dtype=dtype)
    state = setup.forward()
    y, reconstruction, sparsity = naive.stage(config, setup.filters["stage1/encode"],
                                              setup.filters.get("stage1/decode"),
                                              setup.x.astype(np.float64))
    assert state.y.dtype == dtype and state.y.shape == y.shape
    np.testing.assert_allclose(state.y, y, rtol=0, atol=tolerance * np.abs(y).max())
    assert state.loss.reconstruction == pytest.approx(reconstruction, rel=tolerance)
    assert state.loss.sparsity == pytest.approx(sparsity, rel=tolerance)
    assert state.loss.objective == pytest.approx(config.weight * (reconstruction + sparsity),
                                                 rel=tolerance)
    assert state.loss.response == pytest.approx(np.sqrt(np.mean(state.z.astype(np.float64) ** 2)),
                                                rel=tolerance)
    encoded = setup.forward(objective=False)
    assert encoded.loss is None and np.array_equal(encoded.y, state.y)


@scales
@lcn
@pytest.mark.parametrize("strides", STRIDES)
def test_backward_is_the_derivative(scale, lcn, strides):
    setup = Setup(config_of(scale, lcn, strides))
    gradients, exists = setup.backward(), live(setup.plan)
    assert set(gradients) == {*setup.parameters.views, "x"}
    for name, gradient in gradients.items():
        at, mask = (setup.x, None) if name == "x" else (setup.parameters[name], exists)
        assert directional_error(setup.value, at, gradient, mask) < 1e-9, name


@pytest.mark.parametrize("scale", [SCALES[1], SCALES[4]], ids="-".join)
@lcn
def test_without_a_term_of_its_own_only_what_arrives_counts(scale, lcn):
    """A stage below the one that learns, in a joint objective with one term."""
    setup = Setup(config_of(scale, lcn))
    gradients, exists = setup.backward(objective=False), live(setup.plan)
    assert set(gradients) == {"stage1/encode", "x"}  # the decoder takes no part
    for name, gradient in gradients.items():
        at, mask = (setup.x, None) if name == "x" else (setup.parameters[name], exists)
        assert directional_error(lambda: setup.value(objective=False), at, gradient, mask) < 1e-9


@lcn
def test_gradients_of_the_own_term_and_of_what_arrives_add_up(lcn):
    setup = Setup(config_of(SCALES[5], lcn))
    own, arriving = setup.backward(dy=False), setup.backward(objective=False)
    both = setup.backward()
    for name, gradient in both.items():
        np.testing.assert_allclose(gradient, own[name] + arriving.get(name, 0), rtol=1e-10,
                                   atol=1e-12)


def test_weight_scales_the_own_term_only():
    one, three = (Setup(config_of(SCALES[5], dict(weight=w))).backward() for w in (1.0, 3.0))
    none = Setup(config_of(SCALES[5], dict(weight=0.0))).backward()
    for name in one:
        np.testing.assert_allclose(three[name] - none[name], 3 * (one[name] - none[name]),
                                   rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["free", "unit"])
def test_tied_gradient_is_the_sum_of_encoder_and_decoder_gradient(norm):
    tied = Setup(config_of(("tied", norm, norm)))
    untied = Setup(config_of(("untied", norm, norm)))
    for name in untied.parameters.views:
        untied.parameters[name][...] = tied.parameters["stage1/encode"]
    together, apart = tied.backward(), untied.backward()
    np.testing.assert_allclose(together["stage1/encode"],
                               apart["stage1/encode"] + apart["stage1/decode"],
                               rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(together["x"], apart["x"], rtol=1e-11, atol=1e-12)


@scales
@lcn
def test_gradients_are_orthogonal_to_filters_that_are_normalised(scale, lcn):
    config = config_of(scale, lcn)
    setup = Setup(config)
    gradients = setup.backward()
    for name, filters in setup.filters.items():
        along = (filters * unpack(setup.plan, gradients[name])).sum(axis=(2, 3, 4))
        size = np.abs(filters * unpack(setup.plan, gradients[name])).sum(axis=(2, 3, 4))
        normalised = (config.encoder_norm if name.endswith("encode")
                      else config.decoder_norm) == "unit"
        if normalised:
            assert (np.abs(along) / size).max() < 1e-12
        else:
            assert (np.abs(along) / size).mean() > 0.01


def test_objective_and_gradient_are_means_over_the_minibatch():
    """Twice the same images change nothing: steps do not depend on the size of the minibatch."""
    setup = Setup(config_of(SCALES[3]))
    once, terms = setup.backward(dy=False), setup.forward().loss
    setup.x = np.concatenate([setup.x, setup.x], axis=-1)
    twice = setup.backward(dy=False)
    assert setup.forward().loss.objective == pytest.approx(terms.objective, rel=1e-13)
    for name in setup.parameters.views:
        np.testing.assert_allclose(twice[name], once[name], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(twice["x"][..., :IMAGES], once["x"] / 2, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("tile", [2, 3, 4, 0])
def test_any_tile_gives_the_same_gradients(tile):
    def gradients(tile):
        setup = Setup(config_of(SCALES[5], dict(tile=tile)))
        return {name: g if name == "x" else unpack(setup.plan, g)
                for name, g in setup.backward().items()}
    one, other = gradients(1), gradients(tile)
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-10, atol=1e-12)


# ---- initial weights -----------------------------------------------------------------------------


def initial(config, seed=0, index=0, dtype=np.float64, maps_in=MAPS_IN):
    """The stage and its initial filters by parameter, raw and as used, indexed by position."""
    stage = Stage.whole(config, stage_geometry(config, ROWS, COLS, maps_in), "stage1", dtype)
    parameters = ParameterVector(stage.parameter_shapes(), dtype)
    stage.initialise(parameters, seed, index)
    raw, used = {}, {}
    for name in parameters.views:
        effective: Filters = stage.filters(parameters, name.rpartition("/")[2])
        raw[name] = unpack(stage.filter, parameters[name])
        used[name] = raw[name]
        if effective.scale is not None:
            used[name] = unpack(stage.filter, effective.weights * effective.scale[:, :, None])
    return stage, raw, used


def norms(filters):
    return np.sqrt((filters.astype(np.float64) ** 2).sum(axis=(2, 3, 4)))


@pytest.mark.parametrize("tile", [2, 3, 4, 0])
def test_initial_weights_do_not_depend_on_the_tile(tile):
    _, one, _ = initial(config_of(SCALES[3], dict(tile=1)), seed=3)
    _, other, _ = initial(config_of(SCALES[3], dict(tile=tile)), seed=3)
    for name in one:
        assert np.array_equal(one[name], other[name])


@scales
def test_initial_filters_have_the_gain_as_norm_whatever_holds_the_scale(scale):
    config = config_of(scale)
    stage, raw, used = initial(config)
    assert stage.gain < 1
    for name, filters in used.items():
        np.testing.assert_allclose(norms(filters), stage.gain, rtol=1e-12)
        # the decoder equals the encoder
        np.testing.assert_allclose(filters, used["stage1/encode"], rtol=1e-12)
        unit = (config.encoder_norm if name.endswith("encode") else config.decoder_norm) == "unit"
        np.testing.assert_allclose(norms(raw[name]), 1 if unit else stage.gain, rtol=1e-12)


def test_initial_weights_follow_seed_stage_and_position():
    _, first, _ = initial(BASE, seed=1)
    filters = first["stage1/encode"]
    _, same, _ = initial(BASE, seed=1)
    assert np.array_equal(filters, same["stage1/encode"])
    for other in (initial(BASE, seed=2)[1], initial(BASE, seed=1, index=1)[1]):
        assert np.abs(np.corrcoef(filters.ravel(), other["stage1/encode"].ravel())[0, 1]) < 0.05
    for a, b in ((filters[0], filters[1]), (filters[:, 0], filters[:, 1])):
        assert np.abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1
    _, single, _ = initial(BASE, seed=1, dtype=np.float32)
    np.testing.assert_allclose(single["stage1/encode"], filters, rtol=1e-6)


def test_gain_makes_decoding_the_identity_on_average():
    """The trace of V V' is the number of inputs: D V' x has the size of x for a random x."""
    stage, _, used = initial(config_of(SCALES[1]))
    assert (used["stage1/encode"] ** 2).sum() == pytest.approx(ROWS * COLS * MAPS_IN, rel=1e-12)
    few, _, _ = initial(config_of(SCALES[1], dict(stride=3), LCN[0]))
    assert few.gain == 1  # fewer units than inputs: they cannot cover them


# ---- over many updates ---------------------------------------------------------------------------


def waves(count, size):
    """Images of one plane wave each, with a little noise, float32 (row, col, map, image)."""
    rng = np.random.default_rng(0)
    row, col = np.mgrid[:size, :size][..., None]
    angle, frequency, phase = rng.uniform([[0], [0.5], [0]], [[np.pi], [1.5], [2 * np.pi]],
                                          (3, count))
    x = np.sin(frequency * (np.cos(angle) * row + np.sin(angle) * col) + phase)
    return (x + 0.1 * rng.standard_normal(x.shape))[:, :, None].astype(np.float32) * np.float32(
        np.sqrt(2))


def trained(encoder_norm, decoder_norm, steps=300):
    """The terms of every step, and the stage's final weights by name."""
    config = StageConfig(receptive_field=5, maps=4, pooling=2, lcn=0, sparsity=1.0,
                         encoder_norm=encoder_norm, decoder_norm=decoder_norm)
    stage = Stage.whole(config, stage_geometry(config, 12, 12, 1), "stage1", np.float32)
    parameters = ParameterVector(stage.parameter_shapes())
    stage.initialise(parameters, seed=0, index=0)
    rule = Optimizer(UpdateConfig("adam", rate=0.05, schedule="constant"), parameters,
                     dict.fromkeys(parameters.views, stage.filter.fan_in))
    x, work, terms = waves(100, 12), Workspace(), []
    for _ in range(steps):
        state = with_terms(stage, stage.forward(parameters, x, work, objective=True))
        terms.append(state.loss)
        stage.backward(state, None, None, rule.on_gradient, work)
    assert not any(parameters[name][:, :, ~live(stage.filter).any(axis=(0, 1))].any()
                   for name in parameters.views)
    return terms, {name: unpack(stage.filter, parameters[name]) for name in parameters.views}


def test_a_decoder_of_unit_norm_keeps_the_responses_alive():
    terms, _ = trained("free", "unit")
    assert terms[-1].objective < 0.3 * terms[0].objective
    assert terms[-1].response > 0.5 * terms[0].response
    assert terms[-1].response > 0.95 * terms[100].response  # and they are not on their way down


def test_without_it_the_encoder_shrinks_and_the_decoder_grows():
    """The scale degeneracy that the paper does not mention: the reason for the default."""
    terms, filters = trained("free", "free")
    assert terms[-1].response < 0.2 * terms[0].response
    assert terms[-1].response < 0.75 * terms[100].response  # still falling
    assert norms(filters["stage1/decode"]).mean() > 5 * norms(filters["stage1/encode"]).mean()


def test_unit_norm_of_the_encoder_alone_does_not_stop_it():
    """The filters turn to directions in which the images hardly vary, and the decoder grows."""
    terms, filters = trained("unit", "free")
    assert terms[-1].response < 0.3 * terms[0].response
    assert norms(filters["stage1/decode"]).mean() > 2.5  # of 0.6 at the start


def test_raw_norms_only_grow_where_filters_are_normalised():
    """For plain steps along the gradient, which is orthogonal to the filter."""
    setup = Setup(config_of(SCALES[5]))
    before = {name: norms(f) for name, f in setup.filters.items()}
    rule = Optimizer(UpdateConfig("sgd", rate=0.05, schedule="constant"), setup.parameters,
                     dict.fromkeys(setup.parameters.views, setup.plan.fan_in))
    for _ in range(3):
        setup.stage.backward(setup.forward(), None, None, rule.on_gradient,
                             setup.work)
        for name, old in before.items():
            new = norms(unpack(setup.plan, setup.parameters[name]))
            assert np.all(new > old)
            before[name] = new


def test_sum_of_squares_is_exact_where_float32_would_drift():
    a = np.full((500, 400, 4), 0.1, np.float32)
    exact = a.size * float(np.float32(0.1)) ** 2
    assert sum_of_squares(a) == pytest.approx(exact, rel=1e-6)
