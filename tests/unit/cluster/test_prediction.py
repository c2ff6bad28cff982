"""Predicted steps: what is counted is what a step computes, sends and serves."""
import dataclasses
import math

import pytest

from hpclcae import config as configuration
from hpclcae.bench.halo import Meter, Training, least_bytes
from hpclcae.cluster import levers, plan
from hpclcae.cluster.machine import DEFAULT, ELEMENTS, Link
from hpclcae.cluster.prediction import StepTime, checkpoint_bytes, predict, server_costs
from hpclcae.geometry import parameters, training_flop
from hpclcae.model.layout import WHOLE, Layout
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.partition.threads import run_blocks
from tests.support.processes import RUN

PAPER = configuration.load(RUN / "paper.toml")
TINY = configuration.load(RUN / "tiny.toml")
GREEDY = configuration.load(RUN / "plain.toml")
SLOW = dataclasses.replace(
    DEFAULT, name="slow", jitter=0.1, stage=1e-4, position_row=1e-5,
    elements=dict.fromkeys(ELEMENTS, 1e-9),
    links=(Link("node", 2, 1e-4, 1e-5, 1e9, 1e-4, 1e9, 1.0),
           Link("network", 2, 1e-3, 1e-4, 1e8, 1e-2, 1e8, 1.0)))


@pytest.mark.parametrize("config", [PAPER, TINY, GREEDY], ids=["paper", "tiny", "greedy"])
def test_the_flop_are_those_of_the_geometry(config):
    found = predict(Layout(config), DEFAULT)
    assert found.flop == pytest.approx(training_flop(config) * config.train.batch, rel=1e-6)
    assert found.products > found.flop / 50e9  # tiles add zeros
    assert found.seconds == found.products == pytest.approx(found.even)


@pytest.mark.parametrize("config, grid", [(TINY, Grid(2, 2)), (TINY, Grid(1, 3)),
                                          (GREEDY, Grid(2, 1))], ids=str)
def test_the_bytes_and_messages_are_those_that_blocks_receive(config, grid):
    """Summed over the blocks: what `bench halo` counts as sent."""
    found = predict(Layout(config, grid), SLOW, per_node=4)
    least = sum(least_bytes(config, grid).values())

    def received(communicator):
        meter = Meter(communicator)
        training = Training(config, grid, meter)
        training.round()
        return sum(kept[0] for kept in meter.rounds[0].values()) / len(training.phases)
    sent = run_blocks(grid.size, received)
    assert sum(sent) == pytest.approx(least)
    assert least / grid.size <= found.halo_bytes * (1 + 1e-9) and found.halo_bytes < 1.5 * least
    assert found.messages > 0 and found.halo > found.messages * 1e-5


def test_one_block_waits_for_nobody():
    found = predict(Layout(TINY), SLOW)
    assert found.halo == found.sums == found.waiting == found.servers == found.messages == 0
    assert found.seconds == pytest.approx(sum(getattr(found, part) for part in StepTime.PARTS))


def test_more_blocks_compute_less_and_wait_more():
    one, four, many = (predict(Layout(PAPER, grid), SLOW, per_node=1)
                       for grid in (WHOLE, Grid(2, 2), Grid(13, 13)))
    assert one.products > 3 * four.products > 30 * many.products
    assert many.halo / many.seconds > four.halo / four.seconds > one.halo
    assert many.waiting / many.products > four.waiting / four.products > 0
    assert many.limit == "halo" and one.limit == "compute"
    near = predict(Layout(PAPER, Grid(13, 13)), SLOW, per_node=169)
    assert near.halo < many.halo  # the network is slower


def test_half_as_many_pushes_and_fetches_are_half_the_servers_work():
    layout = Layout(PAPER, Grid(2, 2))
    often, seldom = (predict(layout, SLOW, 4, 2, 3, every, every) for every in (1, 2))
    assert often.server_share == pytest.approx(2 * seldom.server_share, rel=0.02)
    assert often.server_bytes == pytest.approx(2 * seldom.server_bytes)
    weights = parameters(PAPER) * 4
    assert often.server_bytes == pytest.approx(2 * 2 * weights / 3, rel=0.15)  # zeros of tiles
    few = predict(layout, SLOW.scaled(compute=1e6), 4, 2, 3)
    assert few.limit == "servers" and few.server_share > 1
    costs = server_costs(layout, SLOW, 4, 2, 3)
    assert costs.push > costs.fetch > 0 and costs.bytes == pytest.approx(weights / 3, rel=0.15)


def test_only_the_stage_that_is_trained_is_pushed():
    costs = server_costs(Layout(GREEDY), SLOW, 2, 1, 1)
    assert costs.bytes == pytest.approx(parameters(GREEDY) * 4 / 3, rel=0.3)


def test_a_checkpoint_holds_parameters_and_what_the_rule_keeps():
    momentum = checkpoint_bytes(Layout(PAPER), 0)
    assert momentum == 2 * 4 * parameters(PAPER)  # without the zeros of tiles
    elastic = configuration.loads(configuration.dumps(PAPER), ["parallel.servers=1",
                                                               "parallel.elastic=0.5"])
    assert checkpoint_bytes(Layout(elastic), 1) == pytest.approx(momentum / 2)


def test_classes_and_conditioners_are_counted():
    classes = configuration.loads(configuration.dumps(TINY), [
        "classifier.loss=logistic", "classifier.classes=1000", "train.steps=1000"])
    alone, both = (predict(Layout(config, Grid(1, 2)), SLOW, 2) for config in (TINY, classes))
    assert both.flop > 0 and both.halo != alone.halo
    desk = configuration.load(RUN / "desk.toml", ["train.cache=none"])
    without = configuration.loads(configuration.dumps(desk), ["stages.0.whiten=0"])
    found = predict(Layout(desk), SLOW)
    assert found.rest > predict(Layout(without), SLOW).rest
    kept = configuration.loads(configuration.dumps(desk), ["train.cache=memory"])
    assert predict(Layout(kept), SLOW).prepare == pytest.approx(found.prepare / 9)  # 100 of 900


# ---- what would be better ------------------------------------------------------------------------

def test_twice_as_fast_cores_halve_a_step_that_only_computes():
    found = plan.choose(PAPER, 1, 1, 64e9, machine=SLOW)
    by_name = {lever.what: lever for lever in levers.levers(found)}
    assert by_name["faster cores and memory"].halves == pytest.approx(2, rel=0.02)
    assert by_name["faster cores and memory"].twice == pytest.approx(found.step / 2)
    assert math.isinf(by_name["more bandwidth"].halves)
    assert by_name["more bandwidth"].most == pytest.approx(found.step)
    text = levers.describe_levers(found)
    assert "what would halve the step" in text and "not alone" in text


def test_the_factor_that_is_named_halves_the_step():
    found = plan.choose(PAPER, 30, 4, 64e9, 2, 20, SLOW)
    for lever in levers.levers(found):
        if lever.what == "bandwidth and latency" and math.isfinite(lever.halves):
            scaled = SLOW.scaled(bandwidth=lever.halves, latency=1 / lever.halves)
            assert found.predicted(scaled.resized(4, 64e9)).seconds == pytest.approx(
                found.step / 2, rel=0.02)


def test_alternatives_are_of_more_and_more_replicas():
    found = levers.alternatives(TINY, 2, 4, 64e9, SLOW)
    assert [one.replicas for one in found] == [1, 2, 4]
    assert found[0].servers == 0 and all(one.servers for one in found[1:])
    assert levers.describe_alternatives(found).count("\n") == 4


@pytest.mark.parametrize("fetches, pushes, together, expected", [
    (0.3, 0.5, False, (1, 1)), (0.6, 0.8, True, (2, 2)), (0.9, 5.0, False, None),
    (3.0, 3.0, True, (6, 6))])
def test_servers_are_asked_as_often_as_they_can_answer(fetches, pushes, together, expected):
    found = plan._how_often(fetches, pushes, together)
    assert fetches / found[0] + pushes / found[1] <= 1 + 1e-9
    assert expected in (None, found)
    both = math.ceil(fetches + pushes)
    assert sum(found) <= 2 * both


def test_the_serial_communicator_is_what_bench_machine_trains_with():
    training = Training(TINY, WHOLE, Meter(SerialCommunicator()))
    before = training.parameters.vector.copy()
    assert all(seconds > 0 for seconds in training.round())
    assert (training.parameters.vector != before).any()
