"""Filtering with unshared weights and its decoder: against loops, derivatives and other tiles."""
from math import ceil

import numpy as np
import pytest

from hpclcae.model import blas
from hpclcae.model.layers.local_filter import LocalFilter, choose_tile
from hpclcae.model.layers.unit_norm import filters as filters_of
from hpclcae.model.workspace import Workspace
from tests.support import naive
from tests.support.gradient_check import adjoint_gap, directional_error
from tests.support.layouts import live, pack, unpack

GEOMETRIES = [  # rows, cols, maps in, maps, field, stride
    (9, 9, 2, 3, 4, 1),
    (8, 11, 1, 2, 3, 1),
    (7, 5, 3, 1, 5, 1),     # one column of positions
    (4, 4, 2, 2, 4, 1),     # one position
    (5, 6, 2, 4, 1, 1),     # windows of one pixel
    (11, 13, 2, 2, 4, 2),   # rows and columns at the end that no window reaches
    (13, 10, 1, 3, 2, 3),   # and between the windows
    (12, 12, 1, 2, 5, 3),
]
TILES = [1, 2, 3, 4, 0]
IMAGES = 3
sweep = pytest.mark.parametrize("geometry", GEOMETRIES)
tiles = pytest.mark.parametrize("tile", TILES)


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


class Setup:
    """A plan, random filters and all that one forward and backward sweep of it makes."""

    def __init__(self, geometry, tile=0, norm="free", tied=False, images=IMAGES, dtype=np.float64):
        rows, cols, maps_in, maps, field, stride = geometry
        self.plan = LocalFilter(rows, cols, maps_in, maps, field, stride, tile, dtype)
        self.norm, self.tied, self.work = norm, tied, Workspace()
        position = self.plan.out_rows, self.plan.out_cols
        drawn = [numbers(s, *position, field, field, maps_in, maps) for s in (1, 2)]
        # none is short by chance
        self.encoder, self.decoder = (w + np.copysign(0.5, w) for w in drawn)
        if tied:
            self.decoder = self.encoder
        self.weights = {"encode": pack(self.plan, self.encoder),
                        "decode": pack(self.plan, self.decoder)}
        self.x = numbers(3, rows, cols, maps_in, images).astype(dtype)
        self.dz = numbers(4, *position, maps, images).astype(dtype)

    def pair(self):
        """Encoder and decoder as the plan takes them."""
        encoder = filters_of(self.weights["encode"], self.norm, 0.8)
        return encoder, encoder if self.tied else filters_of(self.weights["decode"], self.norm, 0.8)

    def forward(self):
        z, residual = np.full_like(self.dz, np.nan), -self.x
        self.plan.encode_decode(*self.pair(), self.x, z, residual, self.work)
        return z, residual

    def objective(self, factor):
        """factor/2 ||D z - x||^2 + <dz, z>."""
        z, residual = self.forward()
        return factor / 2 * np.vdot(residual, residual) + np.vdot(self.dz, z)

    def backward(self, factor):
        """The gradients of `objective` by name, and with respect to x."""
        z, residual = self.forward()
        gradients = {}

        def on_gradient(name, row, gradient):
            assert row == len(gradients.setdefault(name, []))
            gradients[name].append(gradient.copy())
        dx = -factor * residual  # the target's part; the rest is added to it
        self.plan.backward(*self.pair(), self.x, z, residual, factor, self.dz, dx, on_gradient,
                           self.work)
        return {name: np.stack(rows) for name, rows in gradients.items()} | {"x": dx}


@sweep
@tiles
@pytest.mark.parametrize("norm", ["free", "unit"])
def test_encode_and_decode_equal_the_loops(geometry, tile, norm):
    setup = Setup(geometry, tile, norm)
    stride = geometry[-1]
    encoder, decoder = ((naive.unit(w, 0.8) if norm == "unit" else w)
                        for w in (setup.encoder, setup.decoder))
    z, residual = setup.forward()
    expected = naive.encode(encoder, setup.x, stride)
    np.testing.assert_allclose(z, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(residual, naive.decode(decoder, expected, setup.x.shape[:3], stride)
                               - setup.x, rtol=1e-12, atol=1e-11)
    alone = np.full_like(z, np.nan)
    setup.plan.encode(setup.pair()[0], setup.x, alone, setup.work)
    assert np.array_equal(alone, z)


@sweep
def test_float32_stays_float32_and_close(geometry):
    setup, exact = (Setup(geometry, norm="unit", dtype=dtype) for dtype in (np.float32, np.float64))
    for found, expected in zip(setup.forward(), exact.forward()):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    gradients, expected = setup.backward(0.7), exact.backward(0.7)
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, expected[name],
                                   atol=1e-5 * np.abs(expected[name]).max())


@sweep
@pytest.mark.parametrize("tile", [1, 3])
@pytest.mark.parametrize("norm, tied",
                         [("free", False), ("free", True), ("unit", False), ("unit", True)])
def test_backward_is_the_derivative(geometry, tile, norm, tied):
    setup, factor = Setup(geometry, tile, norm, tied), 0.7
    gradients = setup.backward(factor)
    assert set(gradients) == ({"encode", "x"} if tied else {"encode", "decode", "x"})
    exists = live(setup.plan)
    for name, gradient in gradients.items():
        at, mask = (setup.x, None) if name == "x" else (setup.weights[name], exists)
        assert directional_error(lambda: setup.objective(factor), at, gradient, mask) < 1e-9, name


@sweep
@pytest.mark.parametrize("tile", TILES[1:])
@pytest.mark.parametrize("norm, tied", [("free", False), ("unit", True)])
def test_gradients_are_the_same_for_any_tile(geometry, tile, norm, tied):
    one, other = Setup(geometry, 1, norm, tied), Setup(geometry, tile, norm, tied)
    expected, found = one.backward(0.7), other.backward(0.7)
    for name in expected:
        a, b = (g[name] if name == "x" else unpack(s.plan, g[name])
                for g, s in ((expected, one), (found, other)))
        np.testing.assert_allclose(b, a, rtol=1e-11, atol=1e-11 * np.abs(a).max())


@sweep
@tiles
def test_products_in_pieces_give_the_same(geometry, tile):
    whole, cut = Setup(geometry, tile), Setup(geometry, tile)
    whole.plan.small = 0
    cut.plan.small = ceil(cut.plan.inputs / 3) * cut.plan.units * IMAGES
    assert len(whole.plan.pieces(IMAGES)) == 1 < len(cut.plan.pieces(IMAGES)) <= 3
    for expected, found in zip(whole.forward(), cut.forward()):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    expected, found = whole.backward(0.7), cut.backward(0.7)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-11)


def test_no_piece_is_larger_than_what_blas_does_without_packing():
    plan = LocalFilter(65, 65, 8, 8, 18)
    plan.small = 1_000_000
    for images in (1, 8, 100, 1000):
        pieces = plan.pieces(images)
        sizes = [min(piece.stop, plan.inputs) - piece.start for piece in pieces]
        assert sum(sizes) == plan.inputs and max(sizes) * plan.units * images <= plan.small
        # and they are alike
        assert len(sizes) == 1 or max(sizes) * len(sizes) < plan.inputs + len(sizes)
    assert len(plan.pieces(8)) == 1  # small enough as it is


@pytest.mark.parametrize("kernels, small", [("SkylakeX", 1_000_000), ("Haswell", 0), ("", 0)])
def test_only_kernels_for_small_products_get_them(monkeypatch, kernels, small):
    monkeypatch.setattr(blas, "blas", lambda: {"kernels": kernels})
    blas.small_product.cache_clear()
    try:
        assert LocalFilter(9, 9, 2, 3, 4).small == small
    finally:
        blas.small_product.cache_clear()


@sweep
@tiles
def test_what_belongs_to_no_filter_stays_zero(geometry, tile):
    setup = Setup(geometry, tile, "unit")
    dead = ~live(setup.plan)
    gradients = setup.backward(0.7)
    for name in ("encode", "decode"):
        assert not setup.weights[name][dead].any() and not gradients[name][dead].any()
        assert np.all(gradients[name][~dead])


@sweep
@tiles
def test_pack_and_unpack(geometry, tile):
    setup = Setup(geometry, tile)
    weights = setup.weights["encode"]
    assert np.array_equal(unpack(setup.plan, weights), setup.encoder)
    assert np.count_nonzero(weights) == setup.encoder.size  # nothing is stored twice
    assert np.array_equal(live(setup.plan), weights != 0)


@sweep
@tiles
def test_encode_and_scatter_are_transposes(geometry, tile):
    """<V' x, z> = <x, V z>: without a decoder the backward sweep is the encoder's transpose."""
    setup = Setup(geometry, tile)
    encoder, _ = setup.pair()

    def encode(x):
        z = np.full_like(setup.dz, np.nan)
        setup.plan.encode(encoder, x, z, setup.work)
        return z

    def scatter(dz):
        dx = np.zeros_like(setup.x)
        setup.plan.backward(encoder, None, setup.x, dz, None, 0.7, dz, dx, None, setup.work)
        return dx
    assert adjoint_gap(encode, scatter, setup.x, setup.dz) < 1e-14


def test_without_a_decoder_only_the_encoder_learns_and_without_emit_nothing_does():
    setup = Setup(GEOMETRIES[0], 2, "unit")
    encoder, _ = setup.pair()
    z = naive.encode(naive.unit(setup.encoder, 0.8), setup.x)
    rows = {}
    dx = np.zeros_like(setup.x)
    setup.plan.backward(encoder, None, setup.x, z, None, 0.7, setup.dz, dx, lambda name, row,
                        gradient: rows.update({(name, row): gradient.copy()}), setup.work)
    assert set(rows) == {("encode", j) for j in range(setup.plan.tile_rows)}

    def value():
        filters = filters_of(setup.weights["encode"], "unit", 0.8)
        z = np.empty_like(setup.dz)
        setup.plan.encode(filters, setup.x, z, setup.work)
        return np.vdot(setup.dz, z)
    gradient = np.stack([rows["encode", j] for j in range(setup.plan.tile_rows)])
    assert directional_error(value, setup.weights["encode"], gradient, live(setup.plan)) < 1e-9
    assert directional_error(value, setup.x, dx) < 1e-9

    again = np.zeros_like(setup.x)
    setup.plan.backward(encoder, None, setup.x, z, None, 0.7, setup.dz, again, None, setup.work)
    assert np.array_equal(again, dx)


def test_weights_of_a_row_may_change_as_soon_as_its_gradient_is_there():
    """So that an update, or a message, can overlap with the rest of the sweep."""
    expected = Setup(GEOMETRIES[0], 2, "unit").backward(0.7)
    for names in (["encode"], ["decode"], ["encode", "decode"]):
        setup = Setup(GEOMETRIES[0], 2, "unit")
        z, residual = setup.forward()
        pair, found = setup.pair(), {"encode": [], "decode": []}

        def on_gradient(name, row, gradient):
            found[name].append(gradient.copy())
            if name in names:
                setup.weights[name][row] = 1e6
        dx = -0.7 * residual
        setup.plan.backward(*pair, setup.x, z, residual, 0.7, setup.dz, dx, on_gradient, setup.work)
        assert np.array_equal(dx, expected["x"])
        for name in found:
            assert np.array_equal(np.stack(found[name]), expected[name])


def test_arguments_are_not_changed():
    setup = Setup(GEOMETRIES[5], 2, "unit")
    z, residual = setup.forward()
    held = [setup.x, setup.dz, z, residual, *setup.weights.values()]
    before = [a.copy() for a in held]
    setup.plan.backward(*setup.pair(), setup.x, z, residual, 0.7, setup.dz, np.zeros_like(setup.x),
                        lambda *_: None, setup.work)
    assert all(np.array_equal(a, b) for a, b in zip(held, before))


@sweep
@tiles
def test_a_workspace_full_of_rubbish_does_not_matter(geometry, tile):
    """Every array that is asked for by name is overwritten first, also where zeros multiply it."""
    setup = Setup(geometry, tile, "unit")
    expected = setup.backward(0.7)
    for buffer in setup.work.buffers.values():
        buffer[...] = np.nan
    for name, gradient in setup.backward(0.7).items():
        assert np.array_equal(gradient, expected[name])


def test_one_image_and_a_smaller_minibatch_after_a_larger_one():
    setup = Setup(GEOMETRIES[1], 2, images=5)
    z, _ = setup.forward()
    for count in (1, 2):
        part = Setup(GEOMETRIES[1], 2, images=count)
        part.work, part.x = setup.work, np.ascontiguousarray(setup.x[..., :count])
        np.testing.assert_allclose(part.forward()[0], z[..., :count], rtol=1e-12, atol=1e-12)


@sweep
def test_the_automatic_tile_is_one_that_fits(geometry):
    plan = Setup(geometry).plan
    assert 1 <= plan.tile <= 8
    assert (plan.tile_rows - 1) * plan.tile < plan.out_rows  # no row of tiles without a position
    assert plan.shape == (plan.tile_rows, plan.tile_cols, plan.inputs, plan.units)


def test_the_automatic_tile_grows_where_products_are_small():
    """Two maps leave the matrix product too few columns.

    Many maps or a wide stride do not pay for dead entries.
    """
    assert choose_tile(5, 1, 1, 2, 40, 40) > 1
    assert choose_tile(18, 1, 8, 8, 158, 158) > 1
    assert choose_tile(4, 4, 8, 64, 40, 40) == 1
    assert choose_tile(3, 1, 8, 8, 1, 1) == 1  # a single position needs no neighbours


# ---- parts of a weight array ---------------------------------------------------------------------


@sweep
@tiles
def test_rectangles_of_tiles_are_packed_and_unpacked_like_the_whole(geometry, tile):
    """Whole rows of tiles, and a part of a row, as chunks of parameter servers are."""
    plan = Setup(geometry, tile).plan
    filters = numbers(7, plan.out_rows, plan.out_cols, plan.field, plan.field, plan.maps_in,
                      plan.maps)
    weights = pack(plan, filters)
    rows, cols = plan.tile_rows, plan.tile_cols
    for (top, bottom), (left, right) in [((0, rows), (0, cols)), ((rows // 2, rows), (0, cols)),
                                         ((rows - 1, rows), (cols // 2, cols)),
                                         ((0, 1), (0, (cols + 1) // 2))]:
        chunk = ((top, bottom), (left, right))
        (first, last), (west, east) = plan.positions(chunk)
        part = weights[top:bottom, left:right].copy()
        found = np.concatenate([plan.unpack_row(part, j, chunk) for j in range(top, bottom)])
        assert np.array_equal(found, filters[first:last, west:east])
        again = np.full_like(part, np.nan)
        for j in range(top, bottom):
            t = plan.tile
            plan.pack_row(filters[j * t:(j + 1) * t, west:east], again, j, chunk)
        assert np.array_equal(again, part)
