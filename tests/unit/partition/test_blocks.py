"""Who owns and needs what: against loops over positions, and the paper's 13x13 in numbers."""
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from hpclcae import config as configuration
from hpclcae.config import StageConfig
from hpclcae.geometry import network_geometry
from hpclcae.model.layout import Layout
from hpclcae.partition.blocks import (ARRAYS, Grid, Rectangle, check_grid, reach, shares,
                                      split)
from hpclcae.partition.cost import (FLOP_PER_NUMBER, busiest_block, choose_grid, fitting_grids,
                                    traffic)
from hpclcae.utils.errors import InputError
from tests.support.networks import network, networks
from tests.support.processes import RUN

PAPER = configuration.load(RUN / "paper.toml")


def sizes(config):
    """Positions along one axis of every array of every stage: x, z, h, g, y."""
    for stage, shape in zip(config.stages, network_geometry(config)):
        g = shape.pooled[0] - max(0, stage.lcn - 1) * (stage.lcn_border != "same")
        yield shape.input[0], shape.filtered[0], shape.pooled[0], g, shape.output[0]


def plans_of(config, grid):
    """The plans of all blocks."""
    return [Layout(config, grid).block(rank).plan for rank in range(grid.size)]


def by_array(plans):
    """(stage, array) -> the exchange plan of every block."""
    return {(number, name): [getattr(plan.stages[number], name) for plan in plans]
            for number in range(len(plans[0].stages)) for name in ARRAYS}


def positions(rectangle):
    """The set of (row, col)."""
    return set(itertools.product(range(*rectangle.rows), range(*rectangle.cols)))


# ---- along one axis ------------------------------------------------------------------------------

@given(st.integers(0, 60), st.integers(1, 70))
def test_a_split_is_even_in_order_and_its_first_parts_are_longer(size, parts):
    cuts = [split(size, parts, i) for i in range(parts)]
    assert [p for start, stop in cuts for p in range(start, stop)] == list(range(size))
    lengths = [stop - start for start, stop in cuts]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize("window, stride", [(1, 1), (5, 1), (3, 2), (2, 5)])
def test_reach_is_what_the_windows_read(window, stride):
    for start, stop in [(0, 1), (2, 7), (4, 5)]:
        read = [p * stride + k for p in range(start, stop) for k in range(window)]
        assert reach((start, stop), window, stride) == (min(read), max(read) + 1)
    assert reach((3, 3), window, stride) == (3 * stride, 3 * stride)


@given(networks(), st.integers(1, 45))
def test_every_array_is_owned_once_and_needed_where_the_next_one_reads_it(config, parts):
    """From the definitions of the layers, position by position."""
    assume(parts <= config.data.size)
    stages = shares(config.stages, network_geometry(config), 0, parts)
    for below, stage in zip(stages, stages[1:]):
        assert stage.x.owned == below.c
    for settings_, along, (x, z, h, g, y) in zip(config.stages, stages, sizes(config)):
        owned_of_each = [share.owned for share in along[:5]]
        for owned, size in zip(owned_of_each, (x, z, h, g, y)):
            assert [p for start, stop in owned for p in range(start, stop)] == list(range(size))
        for i in range(parts):
            for name, read in reads(settings_, along, i, g).items():
                start, stop = getattr(along, name).needed[i]
                assert (start, stop) == (min(read), max(read) + 1) if read else start == stop, name


@given(networks(), st.integers(1, 45))
def test_g_is_made_from_the_own_h_and_y_from_the_own_g(config, parts):
    """The all-maps part of normalisation needs no other block."""
    assume(parts <= config.data.size)
    for settings_, along in zip(config.stages,
                                shares(config.stages, network_geometry(config), 0, parts)):
        half = settings_.lcn // 2
        inset = half if settings_.lcn_border == "valid" else 0
        half *= settings_.lcn_border != "same"
        for i in range(parts):
            assert {p + half for p in range(*along.g.owned[i])} <= set(range(*along.h.owned[i]))
            assert {p + inset for p in range(*along.y.owned[i])} <= set(range(*along.g.owned[i]))


def reads(stage, along, i, size_of_g):
    """The positions of each array that block i reads to make what it owns of the next one."""
    half = stage.lcn // 2
    read = {"x": {p * stage.stride + k for p in range(*along.z.owned[i])
                  for k in range(stage.receptive_field)},
            "z": {p * stage.pooling_stride + k for p in range(*along.h.owned[i])
                  for k in range(stage.pooling)},
            "h": {p + k for p in range(*along.g.owned[i]) for k in range(stage.lcn)}, "g": set()}
    if stage.lcn and stage.lcn_border == "same":
        read["h"] = {p - half for p in read["h"]} & set(range(size_of_g))
    if stage.lcn and stage.lcn_border != "centre":  # y lies over g, or half a window further inside
        inset = half if stage.lcn_border == "valid" else 0
        centres = [p + inset for p in range(*along.y.owned[i])]
        read["g"] = {p + k for p in centres for k in range(-half, half + 1)} & set(range(size_of_g))
    return read


# ---- rectangles and parts ------------------------------------------------------------------------

@settings(max_examples=60)
@given(networks(), st.integers(1, 9), st.integers(1, 9))
def test_what_one_sends_another_receives_and_that_is_what_it_needs_and_does_not_own(config, rows,
                                                                                    cols):
    assume(max(rows, cols) <= config.data.size)
    plans = plans_of(config, Grid(rows, cols))
    for exchanges in by_array(plans).values():
        lent = [(rank, part.peer, part.positions) for rank, e in enumerate(exchanges)
                for part in e.send]
        borrowed = [(part.peer, rank, part.positions) for rank, e in enumerate(exchanges)
                    for part in e.recv]
        assert sorted(lent, key=str) == sorted(borrowed, key=str)
        for rank, e in enumerate(exchanges):
            for parts in (e.send, e.recv):
                peers = [part.peer for part in parts]
                assert peers == sorted(set(peers) - {rank})
            held = positions(e.held)
            assert positions(e.owned) | positions(e.needed) <= held
            borrowed_here = [p for part in e.recv for p in positions(part.positions)]
            assert sorted(borrowed_here) == sorted(positions(e.needed) - positions(e.owned))
            array = np.zeros(e.held.shape, int)
            array[e.own] += 1
            array[e.read] += 2
            assert {p: array[p[0] - e.held.rows[0], p[1] - e.held.cols[0]] for p in held} \
                == {p: (p in positions(e.owned)) + 2 * (p in positions(e.needed)) for p in held}


def test_held_is_the_smallest_rectangle_with_what_is_owned_and_needed():
    """A stride of 3 leaves pixels unread; the last block reads from further up than it owns."""
    plan = Layout(network(11, {"receptive_field": 3, "stride": 3, "pooling": 1, "lcn": 0}),
                  Grid(3, 2)).block(5).plan
    x = plan.stages[0].x
    assert (x.owned, x.needed) == (Rectangle((8, 11), (6, 11)), Rectangle((6, 9), (6, 9)))
    assert x.held == Rectangle((6, 11), (6, 11))
    assert [(part.peer, part.positions) for part in x.recv] == [(3, Rectangle((6, 8), (6, 9)))]


@settings(max_examples=60)
@given(networks(), st.integers(1, 9), st.integers(1, 9))
def test_traffic_counts_what_the_plans_send(config, rows, cols):
    assume(max(rows, cols) <= config.data.size)
    grid = Grid(rows, cols)
    arrays = by_array(plans_of(config, grid))
    counted = set()
    for t in traffic(config, grid):
        counted.add((t.stage, t.array))
        exchanges = arrays[t.stage, t.array]
        borrowed = [sum(part.positions.size for part in e.recv) for e in exchanges]
        maps_in = config.stages[t.stage - 1].maps if t.stage else config.data.channels
        fields = 2 if config.stages[t.stage].lcn_border == "centre" else 1
        maps = {"x": maps_in, "z": config.stages[t.stage].maps, "h": fields, "g": 1}[t.array]
        assert (t.values, t.largest) == (maps * sum(borrowed), maps * max(borrowed))
        assert t.messages == sum(len(e.recv) for e in exchanges) * (fields if t.array == "h" else 1)
    assert counted == {key for key, exchanges in arrays.items() if any(e.recv for e in exchanges)}


def test_traffic_of_joint_training_also_carries_gradients_between_stages():
    def what(gradient):
        stage = {"lcn": 3, "receptive_field": 4, "pooling": 2}
        config = network(24, stage, stage, gradient=gradient)
        return sorted((t.stage, t.what) for t in traffic(config, Grid(2, 1)))
    own = [(stage, exchange) for stage in (0, 1)
           for exchange in ("fill mean of g^2", "fill mean of h", "fill residual", "fill x",
                            "fill z", "fold dz", "fold residual")]
    own.remove((0, "fill x"))  # every block reads its pixels with their halo
    assert what("stopped") == own
    # what the last stage makes of h is in no term, and greedy training leaves it out
    assert what("greedy") == [key for key in own if key[0] == 0 or "mean" not in key[1]]
    assert what("joint") == sorted([*own, (1, "fold dx"), (0, "fold mean of h"),
                                    (0, "fold mean of g^2")])


def test_every_array_has_a_tag_of_its_own():
    arrays = by_array(plans_of(PAPER, Grid(2, 2)))
    tags = [{e.tag for e in exchanges} for exchanges in arrays.values()]
    assert all(len(tag) == 1 for tag in tags) and len(set().union(*tags)) == len(arrays) == 15


# ---- the paper's grid ----------------------------------------------------------------------------

def test_the_paper_s_blocks_are_narrower_than_a_filter():
    expected = {"x": ({15, 16}, {11, 12, 13, 14}, {9, 10, 11, 12}),
                "z": ({14, 15}, {12, 13}, {10, 11}), "h": ({13, 14}, {11, 12}, {9, 10})}
    for stage, along in enumerate(shares(PAPER.stages, network_geometry(PAPER), 0, 13)):
        for name, widths in expected.items():
            assert {b - a for a, b in getattr(along, name).owned} == widths[stage], (stage, name)
        assert {b - a for a, b in along.x.needed} == {width + 17 for width in expected["z"][stage]}
        assert {b - a for a, b in along.z.needed} == {width + 4 for width in expected["h"][stage]}


def test_some_halos_of_the_paper_skip_a_neighbour():
    def furthest(parts):
        along = shares(PAPER.stages, network_geometry(PAPER), 0, parts)
        return max(abs(peer - i) for stage in along for i in range(parts)
                   for peer, _ in stage.x.recv(i))
    assert [furthest(parts) for parts in (2, 5, 9, 13, 26)] == [1, 1, 1, 2, 4]
    corner = Layout(PAPER, Grid(13, 13)).block(0).plan.stages[1].x
    assert corner.owned == Rectangle((0, 12), (0, 12))
    assert corner.needed == Rectangle((0, 30), (0, 30))
    assert [part.peer for part in corner.recv] == [1, 2, 13, 14, 15, 26, 27, 28]


def test_the_divisor_s_window_is_clipped_at_the_border_of_the_image_only():
    rows = shares(PAPER.stages, network_geometry(PAPER), 0, 13)[0]
    for i, ((y0, y1), (g0, g1)) in enumerate(zip(rows.y.owned, rows.g.needed)):
        assert (g0, g1) == (y0 - 2 * (i > 0), y1 + 2 * (i < 12))
    assert rows.y.owned[0][0] == 0 and rows.y.owned[12][1] == 175
    valid = shares(dataclasses.replace(PAPER, stages=(StageConfig(lcn_border="valid"),)).stages,
                   network_geometry(
        dataclasses.replace(PAPER, stages=(StageConfig(lcn_border="valid"),))), 0, 13)[0]
    assert all((g0, g1) == (y0, y1 + 4)
               for (y0, y1), (g0, g1) in zip(valid.y.owned, valid.g.needed))
    centre = shares(dataclasses.replace(PAPER, stages=(StageConfig(lcn_border="centre"),)).stages,
                    network_geometry(
        dataclasses.replace(PAPER, stages=(StageConfig(lcn_border="centre"),))), 0, 13)[0]
    assert all(start == stop for start, stop in centre.g.needed)


def test_169_plans_agree_with_the_arithmetic_of_the_paper():
    """Every filter of 1,144,863,072 weights belongs to one block."""
    weights = 0
    for plan in plans_of(PAPER, Grid(13, 13)):
        for stage, shape in zip(plan.stages, network_geometry(PAPER)):
            weights += stage.z.owned.size * 8 * shape.fan_in
            assert stage.x.needed.shape == (stage.z.owned.shape[0] + 17,
                                            stage.z.owned.shape[1] + 17)
    assert weights == 1_144_863_072


def test_a_grown_rectangle_ends_where_the_array_ends():
    first, last = (Layout(PAPER, Grid(13, 13)).block(rank).plan.stages[0].x.held
                   for rank in (0, 168))
    assert first == Rectangle((0, 32), (0, 32))
    assert first.grown(7, 200, 200) == Rectangle((0, 39), (0, 39))
    assert last.grown(7, 200, 200) == Rectangle((162, 200), (162, 200))


# ---- extreme grids -------------------------------------------------------------------------------

def test_one_block_owns_everything_and_exchanges_nothing():
    for stage, shape in zip(Layout(PAPER, Grid(1, 1)).block(0).plan.stages,
                            network_geometry(PAPER)):
        for e, size in zip((stage.x, stage.z, stage.h),
                           (shape.input, shape.filtered, shape.pooled)):
            assert e.owned == e.held == Rectangle((0, size[0]),
                                                  (0, size[1])) and not e.send and not e.recv
        assert stage.y.owned.shape == shape.output[:2]


def test_blocks_may_own_nothing_further_up():
    config = network(9, {"receptive_field": 4, "pooling": 2, "lcn": 3})  # z 6, h 5, y 3
    plans = plans_of(config, Grid(9, 9))
    assert all(plan.stages[0].x.owned.size == 1 for plan in plans)
    assert sum(plan.stages[0].y.owned.size for plan in plans) == 9
    last = plans[-1].stages[0]
    assert last.z.owned == last.h.owned == last.y.owned == Rectangle((0, 0), (0, 0))
    assert last.z.held.shape == (0, 0) and not last.x.recv and last.x.send


@pytest.mark.parametrize("rows, cols", [(0, 1), (2, 0), (-1, -4)])
def test_a_grid_without_blocks_is_refused(rows, cols):
    with pytest.raises(InputError, match=f"grid {rows}x{cols} has no block"):
        Grid(rows, cols)


def test_a_grid_finer_than_the_image_is_refused_and_one_as_fine_is_not():
    config = network(24, {"receptive_field": 4, "pooling": 2, "lcn": 3})
    check_grid(config, Grid(24, 24))
    for grid in (Grid(25, 1), Grid(1, 25)):
        for refuse in (check_grid, lambda config, grid: Layout(config, grid).block(0).plan):
            with pytest.raises(InputError,
                               match=f"grid {grid} is finer than the image of 24 x 24 pixels: use "
                               "at most"):
                refuse(config, grid)


# ---- choosing ------------------------------------------------------------------------------------

def test_grid_as_text():
    assert choose_grid(PAPER, 6, "2x3") == Grid(2, 3)
    assert str(choose_grid(PAPER, 6, "6x1")) == "6x1"
    for text in ("2", "2x", "x3", "2x3x1", "axb", "2 x 3", "-2x-3", ""):
        with pytest.raises(InputError, match="is not understood: write ROWSxCOLUMNS"):
            choose_grid(PAPER, 6, text)
    with pytest.raises(InputError,
                       match="grid 2x3 has 6 blocks, one for each rank, and there are 4 ranks"):
        choose_grid(PAPER, 4, "2x3")
    with pytest.raises(InputError, match="grid 0x4 has no block"):
        choose_grid(PAPER, 4, "0x4")
    with pytest.raises(InputError, match="finer than the image of 200"):
        choose_grid(PAPER, 201, "1x201")


def test_auto_is_the_grid_whose_busiest_block_has_least_to_do():
    for blocks in (1, 2, 6, 12, 13, 36):
        grids = fitting_grids(PAPER, blocks)
        assert {(g.rows, g.cols) for g in grids} == {(n, blocks // n) for n in range(1, blocks + 1)
                                                     if blocks % n == 0}
        cost = [busiest_block(PAPER, grid) for grid in grids]
        assert cost == sorted(cost) and choose_grid(PAPER, blocks) == grids[0]
    assert [str(choose_grid(PAPER, n)) for n in (1, 2, 4, 6, 9, 144, 169)] \
        == ["1x1", "2x1", "2x2", "3x2", "3x3", "16x9", "13x13"]


def test_the_least_traffic_alone_would_leave_blocks_without_work():
    desk = configuration.load(RUN / "plain.toml")
    idle, chosen = Grid(32, 2), choose_grid(desk, 64)
    assert str(chosen) == "8x8"
    assert sum(t.values for t in traffic(desk, idle)) < sum(t.values for t in traffic(desk, chosen))
    tops = [[plan.stages[-1].z.owned.size for plan in plans_of(desk, grid)]
            for grid in (idle, chosen)]
    assert min(tops[0]) == 0 < min(tops[1])


@pytest.mark.parametrize("gradient", ["joint", "stopped"])
def test_the_busiest_block_computes_its_filters_and_borrows_its_halos(gradient):
    stage = {"receptive_field": 4, "pooling": 2, "maps": 3, "lcn": 3}
    config, grid = network(26, stage, stage, gradient=gradient), Grid(3, 2)
    plans = plans_of(config, grid)
    products = [5, 6 if gradient == "joint" else 5]
    flop = sum(2 * products[i] * max(plan.stages[i].z.owned.size for plan in plans) * 3 * 4 * 4
               * (1, 3)[i] for i in range(2))
    largest = [max(sum(part.positions.size for part in getattr(plan.stages[t.stage], t.array).recv)
                   for plan in plans)
               * (t.values // sum(part.positions.size for plan in plans
                                  for part in getattr(plan.stages[t.stage], t.array).recv))
               for t in traffic(config, grid)]
    assert busiest_block(config, grid) == pytest.approx(flop + FLOP_PER_NUMBER * sum(largest),
                                                        rel=1e-12)
    assert len(largest) == (16 if gradient == "joint" else 13)


def test_auto_leaves_out_grids_that_are_finer_than_the_image():
    config = network(10, {"receptive_field": 4, "pooling": 2, "lcn": 3})
    assert {str(grid) for grid in fitting_grids(config, 20)} == {"2x10", "4x5", "5x4", "10x2"}
    with pytest.raises(InputError, match="no grid of 22 blocks fits an image of 10 x 10 pixels"):
        choose_grid(config, 22)
