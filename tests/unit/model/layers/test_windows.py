"""Sliding-window sums against loops, and against their transposes."""
import numpy as np
import pytest

from hpclcae.model.layers.windows import box_cols, gaussian, window_scatter, window_sum
from hpclcae.model.workspace import Workspace
from tests.support.gradient_check import adjoint_gap

SHAPES = [(size, size + more_rows, size + more_cols)
          for size in (1, 2, 3, 5, 7) for more_rows, more_cols in ((0, 3), (4, 1))]


def looped(a, taps):
    """The weighted sum of every whole window."""
    n = len(taps)
    weights = np.outer(taps, taps)[:, :, None, None]
    return np.array([[(weights * a[y:y + n, x:x + n]).sum(axis=(0, 1))
                      for x in range(a.shape[1] - n + 1)] for y in range(a.shape[0] - n + 1)])


@pytest.mark.parametrize("size, rows, cols", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_window_sum_equals_the_loop(size, rows, cols, dtype, tolerance):
    rng = np.random.default_rng(size)
    a = rng.standard_normal((rows, cols, 2, 3)).astype(dtype)
    taps = rng.standard_normal(size)  # lopsided, so that a mirrored window shows
    out = np.full((rows - size + 1, cols - size + 1, 2, 3), np.nan, dtype)
    window_sum(a, taps, out, Workspace())
    np.testing.assert_allclose(out, looped(a, taps), rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("size, rows, cols", SHAPES)
def test_window_scatter_is_the_transpose_of_window_sum(size, rows, cols):
    rng = np.random.default_rng(size)
    a = rng.standard_normal((rows, cols, 2, 3))
    out = rng.standard_normal((rows - size + 1, cols - size + 1, 2, 3))
    taps, work = rng.standard_normal(size), Workspace()
    assert adjoint_gap(lambda a: window_sum(a, taps, np.full_like(out, np.nan), work),
                       lambda b: window_scatter(b, taps, np.full_like(a, np.nan), work), a,
                       out) < 1e-14


@pytest.mark.parametrize("size", range(1, 20))
@pytest.mark.parametrize("more", [0, 1, 6])
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_box_cols_equals_the_loop(size, more, dtype, tolerance):
    row = np.random.default_rng(size).standard_normal((size + more, 2, 3)).astype(dtype)
    before, out = row.copy(), np.full((more + 1, 2, 3), np.nan, dtype)
    box_cols(row, size, out, Workspace())
    np.testing.assert_allclose(out, [row[i:i + size].sum(axis=0) for i in range(more + 1)],
                               atol=tolerance * size)
    assert np.array_equal(row, before)


def test_views_are_read_and_written_in_place():
    whole = np.random.default_rng(0).standard_normal((9, 8, 2, 3))
    before, out = whole.copy(), np.zeros((9, 9, 2, 3))
    taps = gaussian(3, 1.0)
    window_sum(whole[1:8, 2:8], taps, out[2:7, 3:7], Workspace())
    np.testing.assert_allclose(out[2:7, 3:7], looped(before[1:8, 2:8], taps), rtol=1e-12)
    assert np.count_nonzero(out) == out[2:7, 3:7].size and np.array_equal(whole, before)


@pytest.mark.parametrize("size, sigma", [(1, 1.0), (3, 1.0), (5, 1.0), (5, 2.5), (4, 0.7)])
def test_gaussian_taps(size, sigma):
    taps = gaussian(size, sigma)
    assert taps.shape == (size,) and taps.sum() == pytest.approx(1, abs=1e-15)
    assert np.array_equal(taps, taps[::-1])
    for i in range(size - 1):  # neighbours differ as the Gaussian says
        a, b = i - (size - 1) / 2, i + 1 - (size - 1) / 2
        assert taps[i + 1] / taps[i] == pytest.approx(np.exp((a * a - b * b) / (2 * sigma ** 2)),
                                                      rel=1e-13)
