"""Training with parameter servers, in one process: the same numbers as without them where that can
be."""
import itertools

import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.parameter_server.store import PUSHED, ROUND_CLOSED
from hpclcae.partition.blocks import Grid
from tests.support.processes import RUN
from tests.support.replicas import Servers, inputs, train_alone, train_served

STEPS = 7
SMALL = ("train.batch=3", "train.dtype=float64", "train.steps=14")


def configured(*changes):
    text = (RUN / "tiny.toml").read_text()
    return configuration.loads(text, [*SMALL, "parallel.servers=2", *changes])


def assert_same(served, alone, tolerance=1e-12):
    assert np.abs(alone.vector).max() > 0.1
    np.testing.assert_allclose(served.vector, alone.vector, rtol=0, atol=tolerance)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adagrad", "adam"])
@pytest.mark.parametrize(
    "changes", [("parallel.overlap=false",), ("parallel.consistency=synchronous",),
                ("parallel.consistency=bounded", "parallel.staleness=0", "parallel.overlap=false",
                 "update.clip=0.01"), ("parallel.overlap=false", "update.staleness_scaled=true",
                                       "update.delay_compensation=0.5", "train.gradient=greedy")])
def test_one_replica_is_training_without_servers(rule, changes):
    config = configured(f"update.rule={rule}", "update.rate=0.02", *changes)
    servers = Servers(config, Grid(1, 1), 2)
    train_served(config, servers, STEPS)
    assert_same(servers.parameters(0), train_alone(config, STEPS))
    assert sum(store.counters.dropped for store in servers.stores) == 0


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("replicas, grid", [(2, Grid(1, 1)), (3, Grid(1, 2))])
def test_synchronous_replicas_are_one_with_all_their_images(rule, replicas, grid):
    config = configured(f"update.rule={rule}", "update.rate=0.02",
                        "parallel.consistency=synchronous", f"parallel.replicas={replicas}")
    servers = Servers(config, grid, 2)
    train_served(config, servers, STEPS, grid)

    def all_images(config, step):
        return np.concatenate([inputs(config, step, r, replicas) for r in range(replicas)], axis=-1)
    if grid.size == 1:
        assert_same(servers.parameters(0), train_alone(config, STEPS, all_images), 1e-11)
    again = Servers(config, grid, 2)
    train_served(config, again, STEPS, grid)
    for block in range(grid.size):
        assert np.array_equal(again.parameters(block).vector, servers.parameters(block).vector)


def test_gradients_of_several_steps_are_pushed_as_their_sum():
    config = configured("update.rule=sgd", "parallel.push_every=2", "parallel.fetch_every=2",
                        "parallel.consistency=synchronous", "update.schedule=constant")
    servers = Servers(config, Grid(1, 1), 2)
    train_served(config, servers, 6, images=lambda c, step, *_: inputs(c, step // 2))
    counts = np.concatenate([store.versions for store in servers.stores])
    assert (counts == 3).all()


@pytest.mark.parametrize("fetch, push", [(1, 3), (3, 1), (2, 3)])
@pytest.mark.parametrize("overlap", ["true", "false"])
def test_every_push_is_applied_once_whatever_the_intervals(fetch, push, overlap):
    config = configured("update.rule=sgd", "parallel.replicas=2", f"parallel.fetch_every={fetch}",
                        f"parallel.push_every={push}", f"parallel.overlap={overlap}",
                        "update.rate=0.001")
    servers = Servers(config, Grid(1, 2), 2)
    objectives, _ = train_served(config, servers, 6, Grid(1, 2))
    for store in servers.stores:
        assert (store.versions == 2 * (6 // push)).all()
        assert store.counters.staleness.sum() == store.counters.pushes == store.versions.sum()
    assert all(o[-1] < o[0] for o in objectives)


def test_overlapped_fetches_are_one_step_older():
    config = configured("update.rule=sgd", "parallel.overlap=true")
    servers = Servers(config, Grid(1, 1), 1)
    train_served(config, servers, STEPS)
    chunks = len(servers.stores[0].chunks)
    # Step 0 and 1 see what they would see alone; every later one has missed the gradients of the
    # step before.
    assert servers.stores[0].counters.staleness[:3].tolist() == [chunks, chunks * (STEPS - 1), 0]


def test_elastic_averaging_pulls_replicas_and_servers_together():
    config = configured("update.rule=momentum", "parallel.replicas=2", "parallel.elastic=0.3",
                        "parallel.fetch_every=2", "parallel.push_every=2")
    servers = Servers(config, Grid(1, 1), 2)
    before = servers.parameters(0).vector.copy()
    objectives, kept = train_served(config, servers, 12)
    centre = servers.parameters(0).vector
    gaps = [np.abs(kept[r, 0].parameters.vector - centre).max() for r in range(2)]
    assert np.abs(centre - before).max() > 1e-3
    assert 0 < max(gaps) < np.abs(kept[0, 0].parameters.vector - before).max()
    assert all(o[-1] < o[0] for o in objectives)


def test_bounded_replicas_stay_together_and_backups_do_not_wait():
    config = configured("update.rule=sgd", "parallel.replicas=3", "parallel.consistency=bounded",
                        "parallel.staleness=1", "parallel.overlap=false")
    servers = Servers(config, Grid(1, 1), 2)
    train_served(config, servers, STEPS)
    # While a replica that has pushed c times computes, each other one can come from c - s to c + s
    # + 1 pushes.
    most = 2 * (2 * config.parallel.staleness + 1)
    for store in servers.stores:
        assert not store.counters.staleness[
            most + 1:].any() and store.counters.pushes == 3 * STEPS * len(store.chunks)
    config = configured("update.rule=sgd", "parallel.replicas=3",
                        "parallel.consistency=synchronous", "parallel.backup=1")
    servers = Servers(config, Grid(1, 1), 1)
    store = servers.stores[0]
    train_served(config, servers, STEPS)
    # Whoever comes late leaves out the steps that the others have made, so there may be fewer
    # rounds than steps.
    assert store.newest == STEPS and (store.versions > 1).all()
    assert store.counters.staleness[1:].sum() == 0 and store.counters.pushes == store.versions.sum()


@pytest.mark.parametrize("first, second", list(itertools.permutations(range(3), 2)))
@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(1, 2)], ids=str)
def test_with_backups_every_step_is_applied_once_or_dropped(grid, first, second):
    """Three replicas end one after the other, in every order, long before the last step."""
    config = configured("update.rule=momentum", "parallel.replicas=3",
                        "parallel.consistency=synchronous", "parallel.backup=1")
    kept = [[], []]
    servers = Servers(config, grid, 2, kept)
    _, updates = train_served(config, servers, STEPS, grid, ends={first: 2, second: 4})
    made = {replica: updates[replica, 0].made for replica in range(3)}
    assert len(made[first]) <= 2 and len(made[second]) <= 4 and STEPS - 1 in made[
        3 - first - second]
    for store, events in zip(servers.stores, map(np.concatenate, kept)):
        pushed, closed = (events[events["kind"] == kind] for kind in (PUSHED, ROUND_CLOSED))
        for index in range(len(store.chunks)):
            mine = pushed[pushed["chunk"] == index]
            assert sorted(mine[["replica", "clock"]].tolist()) == sorted((r, c) for r in made
                                                                         for c in made[r])
            applied = mine[mine["version"] >= 0]
            # No round is without gradients, none has more than the first two, and only closed ones
            # have fewer.
            rounds = np.bincount(applied["version"], minlength=store.versions[index] + 1)
            assert len(rounds) == store.versions[index] + 1 and rounds[0] == 0
            alone = set(closed["version"][closed["chunk"] == index].tolist())
            assert {v for v in range(1, len(rounds)) if rounds[v] != 2} == alone
            assert (rounds[list(alone)] == 1).all() and STEPS - 5 <= len(alone)
        assert store.counters.dropped == (pushed["version"] < 0).sum()
        assert store.newest == STEPS and store.counters.pushes == store.versions.sum()
