"""What a grid of blocks costs, and so which grid is best.

That is how much it sends, and what its busiest block computes.
"""
from dataclasses import dataclass
from functools import cache

import numpy as np

from hpclcae.config import Config
from hpclcae.geometry import network_geometry
from hpclcae.partition.blocks import ARRAYS, Grid, Share, check_grid, shares
from hpclcae.utils.errors import InputError

#: What a block computes in the time in which it borrows one number: 50 GFLOP/s, 4 bytes at 2 GB/s
#: (notes/partition.md).
FLOP_PER_NUMBER = 100


def choose_grid(config: Config, blocks: int, text: str = "auto") -> Grid:
    """The grid that `text` names, or the best one for `blocks` blocks.

    `text` is "auto" for the best one, or for instance "3x2" for 3 rows of 2 blocks.

    Raises
    ------
    InputError
        The text is no grid, the grid has another number of blocks, or it is finer than the image.
    """
    if text == "auto":
        fitting = fitting_grids(config, blocks)
        if not fitting:
            raise InputError(f"no grid of {blocks} blocks fits an image of {config.data.size} x "
                             f"{config.data.size} pixels: start another number of ranks")
        return fitting[0]
    grid = Grid.parse(text)
    if grid.size != blocks:
        raise InputError(f"grid {grid} has {grid.size} blocks, one for each rank, and there are "
                         f"{blocks} ranks: start {grid.size}, or choose another grid")
    check_grid(config, grid)
    return grid


def fitting_grids(config: Config, blocks: int) -> list[Grid]:
    """All grids of that many blocks that are not finer than the image, the best one first.

    That is the one whose busiest block takes the least time. Among equals the squarest is first,
    then the one with more rows: a block with long rows computes and sends in longer runs.
    """
    side = config.data.size
    grids = [Grid(rows, blocks // rows) for rows in range(1, min(side, blocks) + 1)
             if blocks % rows == 0 and blocks // rows <= side]
    return sorted(grids, key=lambda grid: (busiest_block(config, grid),
                                           abs(grid.rows - grid.cols), grid.cols))


@cache
def busiest_block(config: Config, grid: Grid) -> float:
    """Estimate of what a step costs the block with the most to do, in FLOP per image.

    The filters it owns, and the numbers it borrows. The least traffic alone would be a bad guide:
    grids that leave blocks without work have the least.
    """
    joint = config.train.gradient == "joint"
    flop = 0.0
    geometry = network_geometry(config)
    for index, shape in enumerate(geometry):
        rows, cols = -(-shape.filtered[0] // grid.rows), -(-shape.filtered[1] // grid.cols)
        share = rows * cols / (shape.filtered[0] * shape.filtered[1])
        flop += share * (2 * shape.encoder_weights * (3 if index else 2) if config.is_supervised
                         else shape.training_flop(joint and index > 0))
    if config.is_supervised:
        flop += _classifier_cost(config, geometry[-1].output, grid)
    return flop + FLOP_PER_NUMBER * sum(exchange.largest for exchange in traffic(config, grid))


def _classifier_cost(config: Config, features: tuple[int, int, int], grid: Grid) -> float:
    """The classifier's part: its weights, the sum of scores, and features of whole rows."""
    settings, (rows, cols, maps) = config.classifier, features
    own_rows, own_cols, numbers = -(-rows // grid.rows), -(-cols // grid.cols), 0
    own_classes = settings.classes
    if settings.parts > 1:
        parts = -(-settings.parts // grid.cols)  # of a column of blocks
        own_classes = parts * -(-settings.classes // settings.parts)
        numbers = 2 * own_rows * (cols - own_cols) * maps
        own_cols = cols
    if grid.size > 1:
        numbers += 2 * settings.classes
    return 6.0 * own_rows * own_cols * maps * own_classes + FLOP_PER_NUMBER * numbers


# ---- how much is sent ----------------------------------------------------------------------------

@dataclass(frozen=True)
class Traffic:
    """One exchange of a training step, counted over all blocks.

    values is the numbers sent per image, largest the most that one block borrows of them, messages
    how many pairs of blocks they go between. Every position is sent once to every block that needs
    it and does not own it.
    """
    stage: int
    array: str
    what: str
    values: int
    largest: int
    messages: int


def traffic(config: Config, grid: Grid) -> list[Traffic]:
    """Every exchange of one training step, in no particular order.

    Greedy training is counted as if all stages learnt, and a classifier's as if the whole network
    did. The first x is not exchanged: every block reads its pixels with the halo. Sums over blocks
    are not counted, nor the features that parts of the classes need.
    """
    table, geometry = [], network_geometry(config)
    along = (_needs(config, 0, grid.rows), _needs(config, 1, grid.cols))
    for index, (rows, cols) in enumerate(zip(*along)):
        stage, shape = config.stages[index], geometry[index]
        # of h: its mean over maps, and that of its square
        fields = 2 if stage.lcn_border == "centre" else 1
        maps = {"x": shape.input[2], "z": stage.maps, "h": fields, "g": 1, "y": stage.maps}
        counts = {array: _count(rows[array], cols[array]) for array in maps}
        for array, what in _exchanges(config, index):
            if counts[array].any():
                times = maps[array], maps[array], fields if array == "h" else 1
                values, largest, messages = counts[array] * times
                table.append(Traffic(index, array, what, int(values), int(largest), int(messages)))
    return table


def _exchanges(config: Config, index: int) -> list[tuple[str, str]]:
    """Array and purpose of each exchange of a stage."""
    joint, last = config.train.gradient == "joint", index == len(config.stages) - 1
    found = [("z", "fill z"), ("z", "fold dz")]
    if not config.is_supervised:
        found += [("x", "fold residual"), ("x", "fill residual")]
    if index:
        found += [("x", "fill x")] + [("x", "fold dx")] * joint
    # in greedy training nobody asks what the last stage makes of h
    if config.stages[index].lcn and not (last and config.train.gradient == "greedy"):
        found += [("h", "fill mean of h"), ("g", "fill mean of g^2")]
        if joint and (not last or config.is_supervised):
            found += [("h", "fold mean of h"), ("g", "fold mean of g^2")]
    if config.stages[index].window:
        found += [("y", "fill y")] + [("y", "fold dy")] * joint
    return found


#: For each block: positions needed, those of them it owns, and how many blocks own them.
Needs = tuple[np.ndarray, np.ndarray, np.ndarray]


@cache
def _needs(config: Config, axis: int, parts: int) -> list[dict[str, Needs]]:
    """What the blocks need of every array of every stage along one axis."""
    def along(share: Share) -> Needs:
        (start, stop), (own_start, own_stop) = np.transpose(share.needed), np.transpose(share.owned)
        kept = np.maximum(0, np.minimum(stop, own_stop) - np.maximum(start, own_start))
        # spans are in order: bisection finds the first and the last owner
        someone = own_start < own_stop
        owners = np.searchsorted(own_start[someone], stop) - np.searchsorted(own_stop[someone],
                                                                             start, "right")
        return stop - start, kept, np.where(start < stop, owners, 0)
    return [{array: along(getattr(stage, array)) for array in ARRAYS}
            for stage in shares(config.stages, network_geometry(config), axis, parts)]


def _count(rows: Needs, cols: Needs) -> np.ndarray:
    """Positions that are sent, the most that one block borrows of them, and messages."""
    (rows_needed, rows_kept, row_owners), (cols_needed, cols_kept, col_owners) = rows, cols
    kept = np.outer(rows_kept, cols_kept)
    borrowed = np.outer(rows_needed, cols_needed) - kept
    return np.array([borrowed.sum(), borrowed.max(),
                     (np.outer(row_owners, col_owners) - (kept > 0)).sum()])
