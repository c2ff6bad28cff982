"""L2 pooling against loops and numerical derivatives."""
import numpy as np
import pytest

from hpclcae.model.layers.l2_pooling import L2Pooling
from hpclcae.model.workspace import Workspace
from tests.support import naive
from tests.support.gradient_check import directional_error

GEOMETRIES = [  # rows, cols, size, stride
              (5, 5, 5, 1), (7, 9, 5, 1), (6, 5, 1, 1), (6, 7, 2, 1), (8, 7, 3, 2), (9, 10, 3, 3),
              (9, 8, 2, 3), (7, 11, 4, 2),
              (12, 10, 5, 2), (10, 13, 7, 3), (11, 9, 1, 4), (13, 12, 6, 4)]


def pooled(plan, z, work):
    h = np.full((plan.out_rows, plan.out_cols, *z.shape[2:]), np.nan, z.dtype)
    plan.forward(z, h, work)
    return h


@pytest.mark.parametrize("rows, cols, size, stride", GEOMETRIES)
@pytest.mark.parametrize("epsilon", [0.01, 2.0])
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_forward_equals_the_loop(rows, cols, size, stride, epsilon, dtype, tolerance):
    z = np.random.default_rng(0).standard_normal((rows, cols, 3, 4)).astype(dtype)
    h = pooled(L2Pooling(rows, cols, size, stride, epsilon), z, Workspace())
    assert h.dtype == dtype
    np.testing.assert_allclose(h, naive.l2_pooling(z.astype(np.float64), size, stride, epsilon),
                               rtol=tolerance)


@pytest.mark.parametrize("rows, cols, size, stride", GEOMETRIES)
def test_backward_is_the_derivative(rows, cols, size, stride):
    rng = np.random.default_rng(1)
    plan, work = L2Pooling(rows, cols, size, stride, 0.1), Workspace()
    z = rng.standard_normal((rows, cols, 3, 2))
    h = pooled(plan, z, work)
    weights = rng.standard_normal(h.shape)
    dz = np.full_like(z, np.nan)
    plan.backward(z, h, weights.copy(), dz, work)
    assert directional_error(lambda: np.vdot(weights, pooled(plan, z, work)), z, dz) < 1e-9


def test_zero_responses_have_zero_gradient():
    """Epsilon keeps the square root differentiable where nothing responds."""
    plan, work = L2Pooling(6, 6, 3), Workspace()
    z = np.zeros((6, 6, 1, 2), np.float32)
    h = pooled(plan, z, work)
    np.testing.assert_allclose(h, 0.1, rtol=1e-6)
    dz = np.full_like(z, np.nan)
    plan.backward(z, h, np.ones_like(h), dz, work)
    assert not dz.any()
