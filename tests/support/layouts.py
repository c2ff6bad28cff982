"""Between the kernel's layout of weights and filters indexed by position."""
import numpy as np

from hpclcae.config import StageConfig
from hpclcae.geometry import stage_geometry
from hpclcae.model.layers.contrast_norm import ContrastNorm
from hpclcae.partition.blocks import whole_stage


def pack(plan, filters):
    """A weight array of a LocalFilter from filters (row, col, krow, kcol, map in, map)."""
    weights = np.full(plan.shape, np.nan, plan.dtype)
    for j in range(plan.tile_rows):
        plan.pack_row(filters[j * plan.tile:(j + 1) * plan.tile], weights, j)
    return weights


def unpack(plan, weights):
    """The filters (row, col, krow, kcol, map in, map) in a weight array."""
    return np.concatenate([plan.unpack_row(weights, j) for j in range(plan.tile_rows)])


def live(plan):
    """Which entries of a weight array belong to a filter."""
    shape = plan.out_rows, plan.out_cols, plan.field, plan.field, plan.maps_in, plan.maps
    return pack(plan, np.ones(shape)) == 1


def contrast_norm(rows, cols, maps, size, sigma, floor=0.01, border="clip"):
    """The plan of a normalisation sublayer on one block."""
    config = StageConfig(receptive_field=1, pooling=1, maps=maps, lcn=size, lcn_border=border)
    return ContrastNorm(rows, cols, maps, size, sigma, floor, border,
                        whole_stage(config, stage_geometry(config, rows, cols, maps)))
