"""The sigmoid autoencoder: against plain loops, gradients against numerical derivatives."""
import numpy as np
import pytest

from hpclcae.model.autoencoder import AutoencoderLayer, LayerShape, Trainer, codes, layer_shapes
from tests.support.gradient_check import directional_error

SHAPES = [LayerShape(9, 2, 3, 2, 3), LayerShape(7, 1, 4, 1, 2), LayerShape(5, 3, 5, 1, 4)]


def made(shape, images=3):
    layer = AutoencoderLayer(shape, 1, np.float64)
    rng = np.random.default_rng(2)
    for name in ("hidden", "visible"):
        layer.parameters[name][...] = rng.standard_normal(layer.parameters[name].shape)
    return layer, rng.standard_normal((shape.side, shape.side, shape.maps_in, images))


def unpacked(layer, name):
    return np.concatenate([layer.plan.unpack_row(layer.parameters[name], j)
                           for j in range(layer.plan.tile_rows)])


@pytest.mark.parametrize("shape", SHAPES)
def test_code_and_reconstruction_are_those_of_plain_loops(shape):
    layer, x = made(shape)
    encode, decode = unpacked(layer, "encode"), unpacked(layer, "decode")
    h = np.zeros((shape.out, shape.out, shape.maps, x.shape[-1]))
    xhat = np.repeat(layer.parameters["visible"][..., None], x.shape[-1], axis=-1)
    for row, col in np.ndindex(shape.out, shape.out):
        window = np.s_[row * shape.stride:row * shape.stride + shape.field,
                       col * shape.stride:col * shape.stride + shape.field]
        z = np.einsum("klcm,klcb->mb", encode[row, col], x[window])
        h[row, col] = 1 / (1 + np.exp(-z - layer.parameters["hidden"][row, col][:, None]))
        xhat[window] += np.einsum("klcm,mb->klcb", decode[row, col], h[row, col])
    assert np.allclose(layer.encode(x), h) and np.allclose(layer.decode(h), xhat)
    assert layer.loss(x) == pytest.approx(((xhat - x) ** 2).sum() / 6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["encode", "decode", "hidden", "visible"])
def test_every_gradient_is_the_derivative(shape, name):
    layer, x = made(shape)
    loss, gradients = layer.gradients(x)
    assert loss == pytest.approx(layer.loss(x))
    live = None
    if name in ("encode", "decode"):
        live = np.zeros(layer.plan.shape)
        ones = np.ones((shape.out, shape.out, shape.field, shape.field, shape.maps_in, shape.maps))
        for j in range(layer.plan.tile_rows):
            layer.plan.pack_row(ones[j * layer.plan.tile:(j + 1) * layer.plan.tile], live, j)
        assert not gradients[name][live == 0].any()  # dead entries of tiles stay where they are
    error = directional_error(lambda: layer.loss(x), layer.parameters[name], gradients[name], live)
    assert error < 1e-8


def test_training_lowers_the_loss_and_dead_entries_stay_zero():
    layer, x = made(SHAPES[0], images=50)
    dead = layer.parameters["encode"] == 0
    before, trainer = layer.loss(x), Trainer(layer, 0.02)
    for _ in range(150):
        trainer.step(x)
    assert layer.loss(x) < 0.5 * before
    assert not layer.parameters["encode"][dead].any()


@pytest.mark.parametrize("size", [8, 12, 32, 64, 200])
@pytest.mark.parametrize("layers", [3, 6])
def test_layers_lead_from_an_image_to_one_position(size, layers):
    shapes = layer_shapes(size, 1, layers, 32)
    assert len(shapes) == layers and shapes[0].side == size
    assert shapes[-1].out == 1 and shapes[-1].maps == 32
    for below, above in zip(shapes, shapes[1:]):
        assert (below.out, below.maps) == (above.side, above.maps_in)
    for shape in shapes:  # every input is seen
        assert (shape.out - 1) * shape.stride + shape.field == shape.side
        assert shape.field >= shape.stride


def test_codes_of_a_stack():
    shapes = layer_shapes(9, 1, 3, 4)
    layers = [AutoencoderLayer(shape, 0, np.float64) for shape in shapes]
    x = np.random.default_rng(0).standard_normal((9, 9, 1, 2))
    found = codes(layers, x)
    assert [code.shape[0] for code in found] == [shape.out for shape in shapes]
    assert np.array_equal(found[1], layers[1].encode(layers[0].encode(x)))
