"""Contrast normalisation, with its four border rules, against loops and numerical derivatives."""
import numpy as np
import pytest

from hpclcae.model.workspace import Workspace
from tests.support import naive
from tests.support.gradient_check import directional_error
from tests.support.layouts import contrast_norm

BORDERS = ["clip", "valid", "centre", "same"]
GEOMETRIES = [  # rows, cols, maps, size, sigma
              (10, 9, 3, 5, 1.0), (9, 12, 1, 5, 2.0), (5, 7, 4, 3, 0.8), (4, 3, 7, 1, 1.0),
              (13, 13, 2, 7, 1.5)]


def normalised(plan, h, work, keep=None):
    """y and what backward needs, in a workspace of their own unless `keep` is given."""
    y = np.full((*plan.plan.y.owned.shape, *h.shape[2:]), np.nan, h.dtype)
    return y, plan.forward(h, y, keep or Workspace(), work)


def gradient(plan, h, dy, work):
    """dh of sum(dy y), checking that it is added to what is there and that dy stays."""
    y, cache = normalised(plan, h, work)
    dh, before = np.full_like(h, 3), dy.copy()
    plan.backward(h, y, cache, dy, dh, work)
    assert np.array_equal(dy, before)
    return dh - 3


def responses(rows, cols, maps, images=3, seed=0):
    """Positive, as pooling makes them."""
    return np.random.default_rng(seed).gamma(2.0, 0.5, (rows, cols, maps, images)) + 0.1


@pytest.mark.parametrize("rows, cols, maps, size, sigma", GEOMETRIES)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_forward_equals_the_loop(rows, cols, maps, size, sigma, border, dtype, tolerance):
    h = responses(rows, cols, maps).astype(dtype)
    plan = contrast_norm(rows, cols, maps, size, sigma, 0.01, border)
    y, _ = normalised(plan, h, Workspace())
    assert y.dtype == dtype
    expected = naive.contrast_norm(h.astype(np.float64), size, sigma, 0.01, border)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("rows, cols, maps, size, sigma", GEOMETRIES)
@pytest.mark.parametrize("border", BORDERS)
def test_backward_is_the_derivative(rows, cols, maps, size, sigma, border):
    h = responses(rows, cols, maps)
    plan, work = contrast_norm(rows, cols, maps, size, sigma, 0.01, border), Workspace()
    y, (_, d) = normalised(plan, h, work)
    assert d.min() > 0.02  # above the floor: the divisor takes part in the derivative
    weights = np.random.default_rng(1).standard_normal(y.shape)
    assert directional_error(lambda: np.vdot(weights, normalised(plan, h, work)[0]), h,
                             gradient(plan, h, weights, work)) < 1e-9


@pytest.mark.parametrize("border", BORDERS)
def test_where_the_divisor_is_the_floor_it_is_a_constant(border):
    """One image below the floor, one above it, and one whose contrast grows from row to row."""
    rng = np.random.default_rng(2)
    rows, cols, maps, size, floor = 14, 15, 2, 3, 0.05
    contrast = np.stack([np.full(rows, 1e-4), np.linspace(1e-4, 0.3, rows), np.full(rows, 1.0)],
                        axis=-1)
    h = 1 + contrast[:, None, None] * rng.uniform(0, 1, (rows, cols, maps, 3))
    plan, work = contrast_norm(rows, cols, maps, size, 1.0, floor, border), Workspace()
    y, (_, d) = normalised(plan, h, work)
    at_floor = d <= floor
    assert at_floor[..., 0].all() and not at_floor[..., 2].any()
    assert 0.2 < at_floor[..., 1].mean() < 0.9
    assert np.any(~at_floor & (d < 1.2 * floor))
    np.testing.assert_allclose(y, naive.contrast_norm(h, size, 1.0, floor, border), rtol=1e-10,
                               atol=1e-12)
    weights = rng.standard_normal(y.shape)
    dh = gradient(plan, h, weights, work)
    assert directional_error(lambda: np.vdot(weights, normalised(plan, h, work)[0]), h, dh,
                             step=1e-5) < 1e-9

    # At the floor y is linear in h, so that its gradient there is that of any other image at the
    # floor.
    other = gradient(plan, np.ones_like(h), weights, work)
    np.testing.assert_allclose(dh[..., 0], other[..., 0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_image_gives_zero_and_a_finite_gradient(border, dtype):
    plan, work = contrast_norm(9, 9, 2, 5, 1.0, 0.01, border), Workspace()
    h = np.full((9, 9, 2, 1), 0.7, dtype)
    y, _ = normalised(plan, h, work)
    np.testing.assert_allclose(y, 0, atol=1e-4 if dtype is np.float32 else 1e-12)
    dh = gradient(plan, h, np.ones_like(y), work)
    assert np.isfinite(dh).all() and np.abs(dh).max() < 2 / 0.01
    # The mean is subtracted: a shift of all of h changes nothing, so the gradient sums to nothing.
    assert abs(dh.sum(dtype=np.float64)) < (1e-2 if dtype is np.float32 else 1e-9)


@pytest.mark.parametrize("border", BORDERS)
def test_brightness_and_contrast_of_the_input_are_divided_out(border):
    h = responses(11, 11, 2)
    plan = contrast_norm(11, 11, 2, 3, 1.0, 0.01, border)
    y, _ = normalised(plan, h, Workspace())
    louder, _ = normalised(plan, 5 * h + 2, Workspace())
    np.testing.assert_allclose(louder, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("border, lost", [("clip", 4), ("centre", 4), ("valid", 8), ("same", 0)])
def test_output_size(border, lost):
    plan = contrast_norm(20, 17, 2, 5, 1.0, border=border)
    assert plan.plan.y.owned.shape == (20 - lost, 17 - lost)
