"""Any grid equals one block: values, objective and every gradient, all blocks in one process."""
import numpy as np
import pytest

from hpclcae.config import Config, DataConfig, StageConfig, TrainConfig
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks

IMAGES = 3
GRIDS = [Grid(1, 2), Grid(2, 1), Grid(2, 2), Grid(3, 2), Grid(2, 3), Grid(5, 1), Grid(4, 4),
         Grid(13, 13)]
VARIANTS = {  # what the first stage has besides the usual
            "plain": {}, "pooling stride": {"pooling_stride": 2}, "filter stride": {"stride": 2,
                                                                                    "pooling": 2},
            "tied": {"weights": "tied", "encoder_norm": "unit"}}


def network_config(border, variant, dtype, gradient="joint"):
    first = dict(receptive_field=4, maps=3, pooling=3, lcn=3, lcn_border=border) | VARIANTS[variant]
    return Config(data=DataConfig(size=37 if "stride" in variant else 31),
                  stages=(StageConfig(**first),
                          StageConfig(receptive_field=3, maps=2, pooling=2, lcn=3,
                                      lcn_border=border, encoder_norm="unit"),
                          StageConfig(receptive_field=2, maps=2, pooling=2, lcn=0, weight=0.5)),
                  train=TrainConfig(dtype=dtype, gradient=gradient))


def computed(config, grid):
    """Name -> whole array: the stages' terms and outputs, the gradients, the input's gradient."""
    size = config.data.size
    images = np.random.default_rng(0).standard_normal((size, size, config.data.channels, IMAGES))
    images = images.astype(config.train.dtype)

    def program(communicator):
        network = Network(Layout(config, grid), communicator)
        parameters = network.parameters(1)
        gradient = parameters.like()

        def on_gradient(name, row, values):
            gradient[name][row] = values
        pixels = network.block.plan.stages[0].x
        x = np.ascontiguousarray(images[slice(*pixels.held.rows), slice(*pixels.held.cols)])
        dx = np.full_like(x, np.nan)
        states = network.forward(parameters, x)
        network.backward(states, on_gradient, dx)
        parts = [("dx", images.shape, pixels.owned, dx[pixels.own].copy())]
        for stage, state in zip(network.stages, states):
            plan, owned = stage.filter, stage.plan.z.owned
            parts.append((f"y of {stage.name}", (*stage.geometry.output, IMAGES),
                          stage.plan.y.owned, state.y.copy()))
            for name in stage.parameter_shapes():
                rows = [plan.unpack_row(gradient[name], j) for j in range(plan.tile_rows)]
                whole = (*stage.geometry.filtered[:2], plan.field, plan.field, plan.maps_in,
                         plan.maps)
                parts.append((f"d {name}", whole, owned, np.concatenate(rows) if owned.size
                              else None))
        return [(s.loss.reconstruction, s.loss.sparsity, s.loss.response) for s in states], parts

    blocks = run_blocks(grid.size, program)
    result = {"terms": np.array(blocks[0][0])}
    for terms, parts in blocks:
        assert np.array_equal(terms, result["terms"])  # the same bits on all blocks
        for name, shape, owned, values in parts:
            whole = result.setdefault(name, np.full(shape, np.nan))
            if owned.size:
                whole[slice(*owned.rows), slice(*owned.cols)] = values
    return result


@pytest.mark.parametrize("border", ["clip", "valid", "centre", "same"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_grid_equals_one_block(border, variant):
    # "centre" subtracts near-equal numbers, so in float32 rounding in another order shows
    # (notes/equations.md).
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-5 if border == "centre" else 1e-5)):
        config = network_config(border, variant, dtype)
        expected = computed(config, Grid(1, 1))
        for grid in GRIDS:
            found = computed(config, grid)
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                assert np.isfinite(values).all()
                np.testing.assert_allclose(found[name], values, rtol=0,
                                           atol=tolerance * abs(values).max(),
                                           err_msg=f"{name} on {grid}, {dtype}")


def test_gradients_that_stop_between_stages_equal_one_block_too():
    config = network_config("clip", "plain", "float64", "stopped")
    expected, found = computed(config, Grid(1, 1)), computed(config, Grid(3, 2))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12 * abs(values).max(),
                                   err_msg=name)
