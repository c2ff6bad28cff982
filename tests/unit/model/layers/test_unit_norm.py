"""Filters of unit norm by construction: values, gradients and what they are orthogonal to."""
import numpy as np
import pytest

from hpclcae.model.layers.local_filter import LocalFilter
from hpclcae.model.layers.unit_norm import filters
from hpclcae.model.workspace import Workspace
from tests.support import naive
from tests.support.layouts import pack, unpack

PLANS = [LocalFilter(9, 8, 2, 3, 4, 1, tile, np.float64) for tile in (1, 2, 3)]


def raw(plan, seed=0):
    return np.random.default_rng(seed).standard_normal(
        (plan.out_rows, plan.out_cols, plan.field, plan.field, plan.maps_in, plan.maps))


def norms(positions):
    """Of every filter."""
    return np.sqrt((positions ** 2).sum(axis=(2, 3, 4)))


@pytest.mark.parametrize("plan", PLANS)
def test_effective_filters_have_the_norm(plan):
    weights = pack(plan, raw(plan))
    unit = filters(weights, "unit", 0.6)
    effective = unpack(plan, unit.weights * unit.scale[:, :, None, :])
    np.testing.assert_allclose(effective, naive.unit(raw(plan), 0.6), rtol=1e-13)
    np.testing.assert_allclose(norms(effective), 0.6, rtol=1e-13)


@pytest.mark.parametrize("plan", PLANS)
def test_free_filters_are_the_weights(plan):
    weights = pack(plan, raw(plan))
    free = filters(weights, "free", 0.6)
    assert free.weights is weights and free.scale is None
    code = np.ones((plan.tile_cols, plan.units, 2))
    free.scaled(code, 0)
    assert np.all(code == 1)
    free.scaled(code, 0, 3.0)
    assert np.all(code == 3)


def gradient_of(plan, positions, g, gain=0.6):
    """dw for a given gradient g with respect to the effective filters; both indexed by position."""
    weights, work = pack(plan, positions), Workspace()
    unit = filters(weights, "unit", gain)
    packed = pack(plan, g)
    out = np.empty_like(packed)
    for j in range(plan.tile_rows):
        scale = unit.scale[j][:, None, :]
        out[j] = scale * packed[j]
        unit.add_norm_gradient(out[j], (scale * weights[j] * packed[j]).sum(axis=1), j, work)
    return unpack(plan, out)


@pytest.mark.parametrize("plan", PLANS)
def test_gradient_is_that_of_the_normalisation(plan):
    """dw = (gain/||w||) (g - u (u, g)), u = w/||w||: the part of g across the filter."""
    w, g = raw(plan), raw(plan, 1)
    n = norms(w)[:, :, None, None, None]
    u = w / n
    expected = 0.6 / n * (g - u * (u * g).sum(axis=(2, 3, 4), keepdims=True))
    np.testing.assert_allclose(gradient_of(plan, w, g), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("plan", PLANS)
def test_gradient_is_orthogonal_to_the_filter_so_a_step_can_only_lengthen_it(plan):
    w, g = raw(plan), raw(plan, 1)
    dw = gradient_of(plan, w, g)
    along, size = (array.sum(axis=(2, 3, 4)) for array in (w * dw, np.abs(w * dw)))
    assert np.abs(along).max() < 1e-13 * size.max()
    np.testing.assert_allclose(norms(w - 0.1 * dw), np.sqrt(norms(w) ** 2 + (0.1 * norms(dw)) ** 2),
                               rtol=1e-12)


@pytest.mark.parametrize("plan", PLANS)
def test_a_longer_filter_is_the_same_filter_with_a_smaller_gradient(plan):
    w, g = raw(plan), raw(plan, 1)
    np.testing.assert_allclose(gradient_of(plan, 10 * w, g), gradient_of(plan, w, g) / 10,
                               rtol=1e-11, atol=1e-13)


def test_padding_positions_do_not_divide_by_zero():
    plan = LocalFilter(6, 6, 1, 2, 3, 1, 3, np.float32)  # 4 x 4 positions in tiles of 3
    unit = filters(pack(plan, raw(plan)), "unit", 0.6)
    assert np.isfinite(unit.scale).all() and unit.scale.dtype == np.float32
