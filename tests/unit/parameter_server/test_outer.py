"""The outer optimizer (DiLoCo): rounds of ways that replicas have made by themselves."""
import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.parameter_server.chunks import Chunk
from hpclcae.parameter_server.store import FETCHED, OUTER, PUSHED, ROUND_CLOSED, Store
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN
from tests.support.replicas import Servers, inputs, train_alone, train_served

OUTER_RULE = ("parallel.outer_rate=0.7", "parallel.servers=2", "train.dtype=float64")


def configured(*changes):
    return configuration.loads((RUN / "tiny.toml").read_text(),
                               ["train.batch=3", "update.rate=0.02", *OUTER_RULE, *changes])


def store_of(*changes, replicas=3, values=(0.0, 0.0)):
    """A store with one chunk of two numbers, and what it logs."""
    config = configured(f"parallel.replicas={replicas}", *changes)
    log = []
    chunk = Chunk(0, "stage1/encode", (0, 1), (0, 1), 0, 2, (1, 1, 1, 2), 1)
    store = Store([chunk], config, log=log.append)
    store.initialise(0, np.array(values))
    return store, log


def push(store, replica, way, images=3, base=0, clock=4):
    store.push(0, replica, clock, base, images, np.array(way, float))


def fetches(store, replica, wanted):
    return store.try_fetch(replica, 1, 0, np.array([wanted]))


def test_a_round_is_one_step_of_nesterov_with_the_mean_weighted_by_images():
    store, log = store_of("parallel.outer_momentum=0.9", replicas=2, values=(5.0, 1.0))
    w, v = np.array([5.0, 1.0]), np.zeros(2)
    ways = ([1, 2], [4, 0]), ([-2, 1], [1, 1]), ([0, 0], [3, 6])
    for number, (first, second) in enumerate(ways):
        push(store, 1, second, images=10, base=number)
        assert store.versions[0] == number and not fetches(store, 1, number + 1)
        push(store, 0, first, images=30, base=number)
        g = (30 * np.array(first) + 10 * np.array(second)) / 40
        v = 0.9 * v + g
        w = w - 0.7 * (g + 0.9 * v)
        assert np.allclose(store.values[0], w, rtol=1e-14)
        assert np.allclose(store.state[OUTER][0], v, rtol=1e-14)
        assert fetches(store, 1, number + 1) and fetches(store, 0, number + 1)
    assert [event["kind"][0] for event in log] == [PUSHED] * 6


def test_the_order_in_which_replicas_push_does_not_change_the_bits():
    results = set()
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        store, _ = store_of()
        for replica in order:
            push(store, replica, [0.1 * (replica + 1), 1 / 3], images=replica + 1)
        results.add(store.values[0].tobytes())
    assert len(results) == 1


def test_a_quorum_waits_for_the_others_for_a_while_and_who_comes_late_counts_next_time():
    store, log = store_of("parallel.quorum=2", "parallel.grace=5", "parallel.outer_rate=1",
                          "parallel.outer_momentum=0")
    now = 100.0
    store.clock = lambda: now
    push(store, 0, [3, 0])
    now = 200.0
    assert not store.is_due and not fetches(store, 0, 1)  # one is no quorum
    push(store, 1, [5, 0])
    now = 204.0
    assert not store.is_due and not fetches(store, 0, 1)
    now = 205.0
    assert store.is_due and fetches(store, 0, 1) and not store.is_due
    assert store.values[0].tolist() == [-4, 0] and store.versions[0] == 1
    push(store, 2, [10, 1], base=0)  # late: it need not wait, and counts with the others
    assert fetches(store, 2, 1) and store.versions[0] == 1
    push(store, 0, [1, 0], base=1)
    push(store, 1, [4, 2], base=1)
    assert store.versions[0] == 2 and store.values[0].tolist() == [-9, -1]
    assert store.counters.staleness.tolist()[:2] == [4, 1]
    assert [int(event["kind"][0]) for event in log].count(ROUND_CLOSED) == 1


def test_two_late_ones_of_a_replica_are_weighed_by_their_images():
    store, _ = store_of("parallel.quorum=1", "parallel.outer_rate=1", "parallel.outer_momentum=0",
                        replicas=2)
    push(store, 0, [2, 0], images=1)
    assert fetches(store, 0, 1)
    store.clock = lambda: -1e9  # no time passes: the round stays open
    push(store, 1, [8, 0], images=1, base=0)
    push(store, 1, [2, 0], images=2, base=1)
    push(store, 0, [4, 0], images=3, base=1)
    assert store.values[0].tolist() == [-2 - (8 + 4 + 12) / 6, 0]


@pytest.mark.parametrize("away", ["pause", "close"])
def test_nobody_waits_for_one_that_pauses_or_has_ended(away):
    store, log = store_of("parallel.outer_rate=1", "parallel.outer_momentum=0", replicas=2)
    push(store, 0, [2, 4])
    assert not fetches(store, 0, 1)
    getattr(store, away)(1, 0, *[4] * (away == "pause"))
    assert fetches(store, 0, 1) and store.values[0].tolist() == [-2, -4]
    assert ROUND_CLOSED in [int(event["kind"][0]) for event in log]


def test_a_checkpoint_has_what_was_pushed():
    store, _ = store_of("parallel.outer_rate=1", "parallel.outer_momentum=0")
    push(store, 0, [2, 4])
    for replica in range(3):
        store.pause(replica, 0, 4)
    store.all_paused()
    assert store.values[0].tolist() == [-2, -4]


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("every", [1, 3, 4])
def test_one_replica_at_rate_one_without_momentum_trains_as_without_servers(rule, every):
    config = configured("parallel.outer_rate=1", "parallel.outer_momentum=0", "parallel.replicas=1",
                        f"parallel.fetch_every={every}", f"parallel.push_every={every}",
                        f"update.rule={rule}")
    servers = Servers(config, (grid := grid_of("1x2")), 2)
    train_served(config, servers, 8, grid)
    alone = train_alone(config, 8)
    whole = train_served(config, one := Servers(config, grid_of("1x1"), 2), 8)
    assert whole and np.allclose(one.parameters(0).vector, alone.vector, rtol=1e-9, atol=1e-12)


def grid_of(text):
    from hpclcae.partition.blocks import Grid
    return Grid.parse(text)


def test_replicas_without_momentum_at_rate_one_are_averaged_every_h_steps():
    """Two replicas for one round: the mean of two that trained alone."""
    config = configured("parallel.outer_rate=1", "parallel.outer_momentum=0", "parallel.replicas=2",
                        "parallel.fetch_every=3", "parallel.push_every=3")
    servers = Servers(config, grid_of("1x1"), 2)
    train_served(config, servers, 3)
    each = [train_alone(config, 3, lambda config, step, replica=replica: inputs(
        config, step, replica, 2)).vector for replica in range(2)]
    assert np.allclose(servers.parameters(0).vector, np.mean(each, axis=0), rtol=1e-9, atol=1e-12)


def test_a_replica_that_ends_early_or_is_slow_holds_up_nobody():
    config = configured("parallel.replicas=3", "parallel.fetch_every=2", "parallel.push_every=2",
                        "parallel.quorum=1")
    logs = [[], []]
    servers = Servers(config, grid_of("1x2"), 2, logs)
    objectives, kept = train_served(config, servers, 9, grid_of("1x2"), ends={1: 3})
    assert [len(each) for each in objectives] == [9, 3, 9]
    events = np.concatenate([event for log in logs for event in log])
    pushed = events[events["kind"] == PUSHED]
    assert {*np.unique(events["kind"])} <= {FETCHED, PUSHED, ROUND_CLOSED}
    for replica, steps in ((0, 9), (1, 3), (2, 9)):  # every second step, and what is left
        clocks = {*pushed["clock"][pushed["replica"] == replica].tolist()}
        assert clocks == {*range(1, steps, 2), steps - 1}
    assert not any(store._waiting[index] for store in servers.stores
                   for index in range(len(store.chunks)))


@pytest.mark.parametrize("change, named", [
    ("parallel.elastic=0.5", "outer_rate"), ("parallel.consistency=synchronous", "outer_rate"),
    ("parallel.warm_start=3", "outer_rate"), ("parallel.quorum=3", "quorum"),
    ("parallel.fetch_every=3", "push_every")])
def test_what_does_not_go_together_is_refused(change, named):
    with pytest.raises(InputError, match=f"parallel.{named} = "):
        configured("parallel.replicas=2", change)


def test_a_quorum_belongs_to_an_outer_optimizer():
    with pytest.raises(InputError, match="parallel.quorum = 1: only an outer optimizer has one"):
        configured("parallel.replicas=2", "parallel.outer_rate=0", "parallel.quorum=1")
