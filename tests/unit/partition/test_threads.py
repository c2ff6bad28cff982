"""Fill and fold on all blocks of a grid in one process.

What messages, sums and failures do there.
"""
import itertools
import threading

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from hpclcae import config as configuration
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.partition.cost import traffic
from hpclcae.partition.halo import Exchange
from hpclcae.partition.threads import BlocksStuck, run_blocks
from tests.support.blocks import arrays, cut, exchange_everything, whole
from tests.support.networks import network, networks
from tests.support.processes import RUN

PAPER = configuration.load(RUN / "paper.toml")


def check_exchanges(config, grid):
    """Every fill gives exactly what is needed, and every fold is its transpose."""
    plans = [Layout(config, grid).block(rank).plan for rank in range(grid.size)]
    wholes = {name: whole(name, shape, np.float64) for name, _, shape in arrays(config, plans[0])}
    results = run_blocks(grid.size,
                         lambda communicator: exchange_everything(config, grid, communicator))
    for number, (name, everything) in enumerate(wholes.items()):
        filled_put = owned_folded = scale = 0.0
        for plan, result in zip(plans, results):
            part = {n: p for n, p, _ in arrays(config, plan)}[name]
            filled = cut(everything, part.needed)
            assert np.array_equal(result[f"fill {name}"], filled), (name, plan.rank)
            filled_put += np.vdot(result[f"fill {name}"], result[f"put {name}"])
            owned_folded += np.vdot(cut(everything, part.owned), result[f"fold {name}"])
            scale += np.abs(result[f"fill {name}"] * result[f"put {name}"]).sum()
        assert abs(filled_put - owned_folded) <= 1e-14 * scale, name
        total = sum(result[f"put {name}"].sum() for result in results)
        assert all(result["sum"][number] == pytest.approx(total, abs=1e-12 * max(1, scale))
                   for result in results)


# ---- fill and fold -------------------------------------------------------------------------------

GRIDS = (1, 1), (1, 2), (3, 2), (2, 5), (4, 3)
BORDERS = "clip", "valid", "centre", "same"


@pytest.mark.parametrize("size, field", [*itertools.product((23, 31), (2, 5, 9))])
def test_fill_and_fold_over_many_geometries(size, field):
    """Prime sizes, so every split is uneven; strides; filters wider than a block."""
    for grid, stride, pooling_stride, border in itertools.product(GRIDS, (1, 2), (1, 2), BORDERS):
        first = {"receptive_field": field, "stride": stride, "maps": 2, "pooling": 2,
                 "pooling_stride": pooling_stride,
                 "lcn": 3 if size // stride // pooling_stride > 8 else 0, "lcn_border": border}
        check_exchanges(network(size, first), Grid(*grid))


@settings(max_examples=60)
@given(networks(), st.integers(1, 7), st.integers(1, 7))
def test_fill_and_fold_of_random_networks(config, rows, cols):
    assume(max(rows, cols) <= config.data.size)
    check_exchanges(config, Grid(rows, cols))


def test_fill_and_fold_with_blocks_of_one_pixel_most_of_which_own_nothing_further_up():
    check_exchanges(network(11, {"receptive_field": 5, "maps": 2, "pooling": 2, "lcn": 3}),
                    Grid(11, 11))


def test_fill_and_fold_on_the_paper_s_13_x_13():
    check_exchanges(PAPER, Grid(13, 13))


def test_a_fold_adds_to_what_the_owner_has():
    """The residual: -x where it is owned, partial sums everywhere, also where no filter reads."""
    config = network(12, {"receptive_field": 4, "stride": 3, "pooling": 1, "lcn": 0})
    grid = Grid(2, 2)
    x = whole("x1", (12, 12, 1, 2), np.float64)

    def block(communicator):
        part = Layout(config, grid).block(communicator.rank).plan.stages[0].x
        residual = np.zeros((*part.held.shape, 1, 2))
        residual[part.read] += 1
        residual[part.own] -= cut(x, part.owned)
        Exchange(part, communicator).fold(residual)
        return part, residual[part.own]
    readers = np.zeros((12, 12, 1, 1))
    blocks = run_blocks(grid.size, block)
    for part, _ in blocks:
        cut(readers, part.needed)[...] += 1
    assert readers.max() == 4 and readers[10:].max() == 0
    for part, residual in blocks:
        assert np.abs(residual - cut(readers - x, part.owned)).max() < 1e-14


def test_a_fill_under_way_sends_what_was_there_when_it_began_and_a_fold_may_overlap_it():
    config, grid = network(9, {"receptive_field": 4, "pooling": 1, "lcn": 0}), Grid(3, 1)
    x, put = whole("x1", (9, 9), np.float64), whole("z1", (9, 9), np.float64)

    def block(communicator):
        part = Layout(config, grid).block(communicator.rank).plan.stages[0].x
        exchange = Exchange(part, communicator)
        filled, folded = np.full(part.held.shape, np.nan), np.zeros(part.held.shape)
        filled[part.own], folded[part.read] = cut(x, part.owned), cut(put, part.needed)
        finish_fill, finish_fold = exchange.start_fill(filled), exchange.start_fold(folded)
        filled[part.own] = 0
        own = folded[part.own].copy()
        folded[...] = 0
        folded[part.own] = own
        finish_fold()
        finish_fill()
        return part, filled, folded[part.own]
    blocks = run_blocks(grid.size, block)
    readers = sum(np.isin(np.arange(9), range(*part.needed.rows)) for part, _, _ in blocks)
    for part, filled, folded in blocks:
        halo = np.ones(filled.shape, bool)
        halo[part.own] = False
        assert halo.any() and np.array_equal(filled[part.read][halo[part.read]],
                                             cut(x, part.needed)[halo[part.read]])
        assert not filled[part.own].any()
        expected = cut(put * readers[:, None], part.owned)
        assert np.allclose(folded, np.where(np.arange(9) < part.needed.cols[1], expected, 0),
                           rtol=1e-15)


def test_buffers_are_made_once_for_every_trailing_shape_and_dtype():
    config, grid = network(9, {"receptive_field": 4, "pooling": 1, "lcn": 0}), Grid(2, 1)

    class Counting:
        """A communicator that counts the channels it makes."""

        def __init__(self, communicator):
            self.communicator, self.rank, self.made = communicator, communicator.rank, []

        def channel(self, tag, sends, receives):
            self.made.append((tag, sends[0][1].shape[2:], sends[0][1].dtype))
            return self.communicator.channel(tag, sends, receives)

    def block(communicator):
        part = Layout(config, grid).block(communicator.rank).plan.stages[0].x
        counting = Counting(communicator)
        exchange = Exchange(part, counting)
        for _ in range(3):
            for trailing, dtype in (((), float), ((3,), float), ((2, 3), np.float32),
                                    ((3,), np.float32)):
                exchange.fill(np.zeros((*part.held.shape, *trailing), dtype))
        exchange.fold(np.zeros(part.held.shape))
        return counting.made
    for made in run_blocks(2, block):
        assert made == [(0, (), float), (0, (3,), float), (0, (2, 3), np.float32),
                        (0, (3,), np.float32), (1, (), float)]


def test_two_fills_of_one_exchange_at_the_same_time_are_a_mistake():
    part = Layout(network(9, {"receptive_field": 4, "pooling": 1, "lcn": 0}),
                  Grid(1, 1)).block(0).plan.stages[0].x
    exchange = Exchange(part, SerialCommunicator())
    exchange.start_fill(np.zeros((9, 9)))
    with pytest.raises(AssertionError, match="has not been finished"):
        exchange.start_fill(np.zeros((9, 9)))


def test_one_block_copies_nothing_and_needs_no_communicator():
    for _, part, shape in arrays(PAPER, Layout(PAPER, Grid(1, 1)).block(0).plan):
        exchange = Exchange(part, SerialCommunicator())
        # one number in memory: a copy of it would be tens of megabytes
        array = np.broadcast_to(np.float32(1), shape)
        assert array[part.own].shape == array.shape
        exchange.fill(array)
        exchange.fold(array)
        exchange.close()
    assert np.array_equal(SerialCommunicator().allreduce_sum([1, 2]), [1, 2])


@pytest.mark.parametrize("gradient, border",
                         [("joint", "clip"), ("joint", "centre"), ("joint", "same"),
                          ("stopped", "valid")])
def test_a_training_step_sends_what_traffic_counts(gradient, border):
    stage = {"receptive_field": 4, "maps": 2, "pooling": 2, "lcn": 3, "lcn_border": border}
    config, grid = network(31, stage, stage,
                           {"receptive_field": 2, "maps": 3, "pooling": 2, "lcn": 0},
                           gradient=gradient), Grid(3, 2)

    class Counting:
        """A communicator that counts what its channels send."""

        def __init__(self, communicator):
            self.communicator, self.allreduce_sum = communicator, communicator.allreduce_sum
            self.rank, self.size = communicator.rank, communicator.size
            self.numbers = self.messages = 0

        def channel(self, tag, sends, receives):
            channel = self.communicator.channel(tag, sends, receives)
            start = channel.start

            def counted():
                self.numbers += sum(buffer.size for _, buffer in sends)
                self.messages += len(sends)
                start()
            channel.start = counted
            return channel

    def block(communicator):
        counting = Counting(communicator)
        block_network = Network(Layout(config, grid), counting)
        x = np.ones((*block_network.block.plan.stages[0].x.held.shape, 1, 4), np.float32)
        block_network.backward(block_network.forward(block_network.parameters(0), x), lambda name,
                               row, values: None)
        return counting.numbers, counting.messages
    numbers, messages = np.sum(run_blocks(grid.size, block), axis=0)
    table = traffic(config, grid)
    assert numbers == 4 * sum(t.values for t in table)
    assert messages == sum(t.messages for t in table)


# ---- messages ------------------------------------------------------------------------------------

def test_messages_of_a_sender_and_tag_arrive_in_order_whatever_the_order_of_waiting():
    def block(communicator):
        other = 1 - communicator.rank
        received = {tag: np.empty(1) for tag in (1, 2)}
        channels = {}
        for tag in (1, 2):
            buffer = np.empty(1)
            channels[tag] = buffer, communicator.channel(tag, [(other, buffer)],
                                                         [(other, received[tag])])
        for tag, number in ((1, 10), (2, 20), (1, 11), (2, 21)):
            channels[tag][0][:] = number + 100 * communicator.rank
            channels[tag][1].start()
        seen = []
        for tag in (2, 1, 1, 2):
            channels[tag][1].wait()
            seen.append(received[tag][0] - 100 * other)
        return seen
    assert run_blocks(2, block) == [[20, 10, 11, 21]] * 2


def test_sums_are_taken_in_order_of_ranks_on_every_block():
    numbers = [1e16, 1.0, -1e16, 1.0, 0.1]

    def block(communicator):
        return communicator.allreduce_sum([[numbers[communicator.rank],
                                            communicator.rank]]), communicator.allreduce_sum(2)
    expected = np.array([[[number, rank]] for rank, number in enumerate(numbers)]).sum(axis=0)
    for pairs, alone in run_blocks(5, block):
        assert np.array_equal(pairs, expected) and pairs.dtype == np.float64
        assert alone == 10 and alone.shape == ()


# ---- failures ------------------------------------------------------------------------------------

def test_one_block_s_exception_ends_all_and_is_raised():
    ended = []

    def block(communicator):
        if communicator.rank == 2:
            raise ZeroDivisionError("block 2")
        try:
            communicator.allreduce_sum(1)
        finally:
            ended.append(communicator.rank)
    with pytest.raises(ZeroDivisionError, match="block 2"):
        run_blocks(5, block)
    assert sorted(ended) == [0, 1, 3, 4]


def test_blocks_that_wait_for_each_other_are_told_apart_from_slow_ones():
    def block(communicator):
        receive = communicator.channel(7, [], [((communicator.rank + 1) % 3, np.empty(1))])
        receive.start()
        receive.wait()
    with pytest.raises(
            BlocksStuck,
            match=r"nobody will send: 0 for 1 \(tag 7\), 1 for 2 \(tag 7\), 2 for 0 \(tag 7\)"):
        run_blocks(3, block)


def test_waiting_for_a_block_that_has_ended_is_an_error():
    """Whether it ends before the other waits, or after."""
    def block(communicator):
        if communicator.rank:
            communicator.allreduce_sum(1)
        elif late:
            np.linalg.svd(np.ones((200, 200)))
    for late in (False, True):
        found = []

        def run():
            with pytest.raises(BlocksStuck, match="1 for 0"):
                run_blocks(2, block)
            found.append(True)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(60)
        assert found


def test_a_slow_block_is_waited_for():
    """The last one starts to compute when all others wait."""
    waiting = threading.Barrier(3)

    def block(communicator):
        waiting.wait()
        if communicator.rank == 2:
            np.linalg.svd(np.ones((200, 200)))
        return float(communicator.allreduce_sum(communicator.rank))
    assert run_blocks(3, block) == [3] * 3


def test_nothing_is_left_running_after_a_failure():
    def block(communicator):
        if communicator.rank == 0:
            raise KeyboardInterrupt
        communicator.allreduce_sum(1)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run_blocks(20, block)
    assert threading.active_count() == before
