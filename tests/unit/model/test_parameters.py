"""One flat vector and its named parts."""
import numpy as np
import pytest

from hpclcae.model.parameters import ParameterVector

SHAPES = {"stage1/encode": (2, 3, 4), "stage1/decode": (2, 3, 4), "stage2/encode": (1, 5)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_tile_the_vector_in_the_order_given(dtype):
    parameters = ParameterVector(SHAPES, dtype)
    assert parameters.vector.shape == (24 + 24 + 5,) and parameters.vector.dtype == dtype
    assert not parameters.vector.any()
    parameters.vector[...] = np.arange(53)
    assert list(parameters.views) == list(SHAPES)
    joined = np.concatenate([parameters[name].ravel() for name in SHAPES])
    assert np.array_equal(joined, parameters.vector)
    for name, shape in SHAPES.items():
        assert parameters[name].shape == shape and parameters[name].flags.c_contiguous


def test_parts_are_views():
    parameters = ParameterVector(SHAPES)
    parameters["stage1/decode"][1, 2, 3] = 7
    assert np.flatnonzero(parameters.vector).tolist() == [47]


def test_like_is_zero_and_separate():
    parameters = ParameterVector(SHAPES, np.float64)
    parameters.vector[...] = 1
    other = parameters.like()
    assert other.shapes == parameters.shapes and other.vector.dtype == np.float64
    assert not other.vector.any()
    other["stage2/encode"][...] = 5
    assert np.all(parameters.vector == 1)


def test_an_unknown_name_is_an_error():
    with pytest.raises(KeyError, match="stage3"):
        ParameterVector(SHAPES)["stage3/encode"]


def test_more_parameters_than_an_integer_of_64_bits_counts_are_no_negative_number():
    with pytest.raises(MemoryError, match="parameters"):
        ParameterVector({"stage1/encode": (2 ** 16, 2 ** 16, 2 ** 16, 2 ** 16)})
