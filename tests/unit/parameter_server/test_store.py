"""What a parameter server decides: versions, staleness, whose gradients make an update, who has to
wait."""
import dataclasses
from contextlib import contextmanager

import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.model.optimizers import SLOTS
from hpclcae.parameter_server.chunks import Chunk
from hpclcae.parameter_server.store import (FETCHED, JOINED, LEFT, PAUSED, PUSHED, ROUND_CLOSED,
                                            STALENESS_BINS, Counters, Store, unguarded)

SIZES, FAN_IN = (6, 4), 4


def chunks():
    """Two chunks: one of six numbers, one of four."""
    start = 0
    for number, size in enumerate(SIZES):
        yield Chunk(number, "stage1/encode", (0, 1), (0, 1), start, start + size,
                    (1, 1, size // 2, 2), FAN_IN)
        start += size


def store(*changes, log=None, initialised=True, changing=unguarded):
    """Of float64, with rate 1 and plain sums, unless changed."""
    config = configuration.loads('train = {dtype = "float64"}\nupdate = {rule = "sgd", rate = 1.0, '
                                 'schedule = "constant"}\nparallel = {servers = 1, replicas = 3}',
                                 changes)
    made = Store(list(chunks()), config, log=log, changing=changing)
    if initialised:
        for index, size in enumerate(SIZES):
            made.initialise(index, np.arange(size, dtype=float) + 10 * index)
    return made


def push(store, replica, base, value=1.0, index=0, clock=0, learning_rate=1.0, then=None):
    store.push(index, replica, clock, base, learning_rate, np.full(SIZES[index], float(value)),
               then)


def asked(store, replica, pushes=0, wanted=(0, 0)):
    return store.try_fetch(replica, pushes, 0, np.array(wanted))


def moved(store, index=0):
    """By how much the numbers of a chunk have moved, in units of 1/fan-in; all by the same."""
    change = (store.values[index] - np.arange(SIZES[index]) - 10 * index) * FAN_IN
    assert np.ptp(change) == 0
    return change[0]


# ---- versions and staleness ----------------------------------------------------------------------

def test_a_push_moves_one_chunk_and_counts_its_version():
    held = store()
    push(held, 0, 0, 2.0)
    push(held, 1, 0, 3.0)
    push(held, 1, 0, 5.0, index=1)
    assert [moved(held, 0), moved(held, 1)] == [-5, -5] and held.versions.tolist() == [2, 1]
    assert held.counters.pushes == 3 and held.counters.staleness[:3].tolist() == [2, 1, 0]
    assert np.shares_memory(held.values[1], held.memory) and held.newest == 1


def test_memory_from_elsewhere_is_used_as_it_is():
    memory = np.zeros(sum(SIZES))
    held = Store(list(chunks()), store().config, memory)
    held.initialise(1, np.ones(SIZES[1]))
    assert memory.tolist() == [0] * 6 + [1] * 4


def test_staleness_has_a_last_bin_and_never_a_negative_one():
    counters = Counters()
    for staleness in (-3, 0, 63, 64, 1000):
        counters.note_staleness(staleness)
    assert np.flatnonzero(counters.staleness).tolist() == [0, 63, 64]
    assert counters.staleness[[0, 63, 64]].tolist() == [2, 1, 2] and len(
        counters.staleness) == STALENESS_BINS


def test_a_stale_gradient_counts_less_if_asked_for():
    held = store("update.staleness_scaled=true")
    push(held, 0, 0, 12.0)   # nothing came between: 12
    push(held, 1, 0, 12.0)   # one: 6
    push(held, 2, 0, 12.0)   # two: 4
    push(held, 0, 3, 12.0)   # none: 12
    assert moved(held) == -34


def test_the_learning_rate_is_that_of_the_replicas_step():
    held = store()
    push(held, 0, 0, 8.0, learning_rate=1.0)
    push(held, 0, 1, 8.0, learning_rate=0.5)
    assert moved(held) == -12


def test_the_mean_of_a_round_is_applied_at_the_rate_of_the_furthest_replica():
    held = store("parallel.consistency=synchronous", "parallel.backup=1")
    push(held, 1, 0, 8.0, clock=5, learning_rate=0.25)
    push(held, 0, 0, 8.0, clock=3, learning_rate=1.0)
    assert moved(held) == -2 and held.newest == 4


@pytest.mark.parametrize("rule", ["momentum", "adagrad", "adam"])
def test_rules_with_memory_keep_it_by_chunk(rule):
    held = store(f"update.rule={rule}")
    push(held, 0, 0)
    assert set(held.state) == set(SLOTS[rule]) == set(held.shaped(0)[1])
    for pieces in held.state.values():
        assert pieces[0].all() and not pieces[1].any() and pieces[0].shape == (6,)
    values, state = held.shaped(0)
    assert values.shape == (1, 1, 3, 2) and all(piece.shape == values.shape
                                                for piece in state.values())
    before = held.values[0].copy()
    push(held, 1, 1, 0.0)
    # moments go on from their memory, a sum of squares does not move anything
    stays = set(SLOTS[rule]) == {"sum_of_squares"}
    assert (held.values[0] == before).all() == stays


def test_elastic_averaging_adds_what_it_gets_and_needs_no_memory():
    held = store("parallel.elastic=0.1", "update.rule=adam")
    push(held, 0, 0, 2.0)
    assert moved(held) == 2 * FAN_IN and held.state == {} and held.versions.tolist() == [1, 0]


def test_delay_compensation_is_the_first_order_guess():
    """g + lambda g g (w - w then), against what the gradient was made from, not what is there now.
    """
    held = store("update.delay_compensation=0.5")
    start = held.values[0].copy()
    push(held, 1, 0, 2.0, then=start)                       # w moves by -2 / 4
    between = held.values[0].copy()
    push(held, 0, 0, 3.0, then=start)                       # computed before that
    compensated = 3 + 0.5 * 3 * 3 * (between - start)
    np.testing.assert_allclose(held.values[0], between - compensated / FAN_IN, rtol=1e-15)
    now = held.values[0].copy()
    push(held, 0, 2, 3.0, then=now)                         # nothing came between: plain
    np.testing.assert_allclose(held.values[0], now - 3 / FAN_IN, rtol=1e-15)


def test_who_reads_the_memory_is_told_of_every_change():
    seen = []

    @contextmanager
    def changing(index, version):
        before = held.values[index].copy()
        yield
        seen.append((index, version, bool((held.values[index] != before).any())))
    held = store("parallel.consistency=synchronous", "parallel.replicas=2", changing=changing,
                 initialised=False)
    held.initialise(0, np.ones(6), version=3)
    push(held, 1, 3)                                        # kept: nothing changes yet
    assert seen == [(0, 3, True)]
    push(held, 0, 3)
    assert seen == [(0, 3, True), (0, 4, True)]


# ---- who waits -----------------------------------------------------------------------------------

def test_nobody_fetches_what_is_not_there_yet():
    held = store(initialised=False)
    held.initialise(1, np.zeros(4))
    assert not asked(held, 0)
    held.initialise(0, np.zeros(6))
    assert asked(held, 0)


def test_a_replica_gets_its_own_pushes_back():
    held = store()
    assert not asked(held, 0, 1, (1, 0))
    push(held, 0, 0)
    assert asked(held, 0, 1, (1, 0)) and not asked(held, 0, 1, (1, 1))


def test_bounded_replicas_wait_for_the_slowest_that_still_runs():
    held = store("parallel.consistency=bounded", "parallel.staleness=2")
    assert asked(held, 0, 2) and not asked(held, 0, 3)      # replicas 1 and 2 have made none
    assert asked(held, 1, 1) and not asked(held, 0, 3)
    assert asked(held, 2, 1) and asked(held, 0, 3) and not asked(held, 0, 4)
    held.close(2, 0)
    assert not asked(held, 0, 4)                            # 1 has made one
    held.close(1, 0)
    assert asked(held, 0, 100)


def test_bounded_replicas_do_not_wait_for_one_that_pauses():
    held = store("parallel.consistency=bounded", "parallel.staleness=2")
    assert not asked(held, 0, 3)
    held.pause(1, 0, 0)
    assert asked(held, 0, 3)
    held.all_paused()
    assert not asked(held, 0, 3)


def test_bounded_replicas_that_join_after_the_warm_start_are_not_behind():
    held = store("parallel.consistency=bounded", "parallel.staleness=2", "parallel.warm_start=7")
    assert all(asked(held, 0, pushes) for pushes in range(8))    # alone
    assert asked(held, 1, 0) and asked(held, 0, 9) and not asked(held, 0, 10)   # 1 has joined at 7
    assert asked(held, 2, 0) and not asked(held, 0, 10)                         # 2 too
    assert asked(held, 1, 1) and not asked(held, 0, 10) and asked(held, 2, 1) and asked(held, 0, 10)


def test_synchronous_gradients_are_averaged_in_the_order_of_replicas():
    gradients = np.random.default_rng(0).standard_normal((3, 6))
    results = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        held = store("parallel.consistency=synchronous")
        for arrived, replica in enumerate(order):
            assert held.versions[0] == 0 and asked(held, replica, 1, (1, 0)) is False
            held.push(0, replica, 0, 0, 1.0, gradients[replica].copy())
        assert held.versions[0] == 1 and held.counters.pushes == 1 and asked(held, 0, 1, (1, 0))
        results.append(held.values[0].copy())
    assert all(np.array_equal(result, results[0]) for result in results)
    np.testing.assert_allclose(results[0], np.arange(6) - gradients.mean(axis=0) / FAN_IN,
                               rtol=1e-14)


def test_a_gradient_is_kept_although_the_buffer_is_used_again():
    held = store("parallel.consistency=synchronous", "parallel.replicas=2")
    gradient = np.full(6, 2.0)
    held.push(0, 0, 0, 0, 1.0, gradient)
    gradient[:] = 99
    push(held, 1, 0, 4.0)
    assert moved(held) == -3


def test_what_comes_after_the_first_ones_is_dropped():
    events = []
    held = store("parallel.consistency=synchronous", "parallel.backup=1", log=events.append)
    push(held, 2, 0, 2.0)
    push(held, 0, 0, 4.0)
    assert held.versions[0] == 1 and moved(held) == -3
    push(held, 1, 0, 100.0)                                 # too late
    assert held.versions[0] == 1 and moved(held) == -3 and held.counters.dropped == 1
    push(held, 1, 1, 6.0)
    push(held, 0, 1, 6.0)
    assert held.versions[0] == 2 and moved(held) == -9 and held.counters.pushes == 2
    assert np.concatenate(events)[["replica", "version"]].tolist() == [(2, 1), (0, 1), (1, -1),
                                                                       (1, 2), (0, 2)]


# ---- rounds that nobody completes ----------------------------------------------------------------

BACKUP = ("parallel.consistency=synchronous", "parallel.backup=1")


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)], ids=str)
def test_a_round_is_closed_when_the_last_one_that_it_lacks_has_ended(order):
    events = []
    held = store(*BACKUP, log=events.append)
    first, second, last = order
    push(held, first, 0, 4.0)
    held.close(first, 0)
    held.close(second, 0)
    # the last one may still come
    assert held.versions[0] == 0 and not asked(held, second, 1, (1, 0))
    held.close(last, 0)
    assert held.versions.tolist() == [1, 0] and moved(held) == -4 and held.newest == 1
    # it says so twice: BARRIER and CLOSE
    held.close(last, 0)
    assert held.versions.tolist() == [1, 0] and (held.counters.pushes, held.counters.dropped) == (1,
                                                                                                  0)
    assert np.concatenate(events).tolist() == [(PUSHED, first, 0, 0, 0, 1),
                                               (ROUND_CLOSED, -1, 0, 0, -1, 1)]


def test_the_last_replica_goes_on_alone():
    held = store(*BACKUP)
    held.close(0, 0)
    push(held, 1, 0, 2.0)
    assert not asked(held, 1, 1, (1, 0))
    held.close(2, 0)
    assert held.versions[0] == 1 and asked(held, 1, 1, (1, 0))
    push(held, 1, 1, 2.0, clock=1)
    assert held.versions[0] == 1 and asked(held, 1, 2,
                                           (2, 0)) and moved(held) == -4 and held.newest == 2


def test_what_came_before_the_end_is_in_the_mean():
    held = store("parallel.consistency=synchronous")
    push(held, 2, 0, 3.0)
    held.close(2, 0)
    push(held, 0, 0, 6.0)
    assert held.versions[0] == 0
    push(held, 1, 0, 9.0)
    assert held.versions[0] == 1 and moved(held) == -6


def test_the_end_of_one_block_is_not_that_of_another():
    config = configuration.loads('train = {dtype = "float64"}\nparallel = {servers = 1, replicas = '
                                 '3, consistency = "synchronous", backup = 1}\nupdate = {rule = '
                                 '"sgd", rate = 1.0}')
    one, two = chunks()
    held = Store([one, dataclasses.replace(two, block=1)], config)
    for index, size in enumerate(SIZES):
        held.initialise(index, np.zeros(size))
        push(held, 0, 0, index=index)
    for replica in (1, 2):
        held.close(replica, 0)      # of block 1 a gradient may still be on its way
    assert held.versions.tolist() == [1, 0]
    push(held, 1, 0, index=1)
    assert held.versions.tolist() == [1, 1]


def test_who_is_ahead_of_those_who_pause_hears_that_it_is_blocked():
    """Replica 0 pauses for a checkpoint a step before 1 has heard of it.

    The round goes on afterwards.
    """
    held = store("parallel.consistency=synchronous")

    def blocked():
        assert not asked(held, 1, 1, (1, 0))
        return held.blocked_by_paused_worker(0, np.array((1, 0)))
    push(held, 1, 0, 2.0)
    assert not blocked()                         # the others will come
    held.pause(0, 1, 0)
    assert not blocked()                         # another block
    held.pause(0, 0, 0)
    assert blocked() and not held.blocked_by_paused_worker(0, np.array((0, 0)))
    held.pause(2, 0, 0)
    held.pause(1, 0, 1)
    held.all_paused()
    assert not blocked() and held.versions[0] == 0
    push(held, 2, 0, 4.0)
    held.close(0, 0)
    assert blocked() and held.versions[0] == 0   # and no round is closed
    push(held, 0, 0, 6.0)
    assert asked(held, 1, 1, (1, 0)) and moved(held) == -4


@pytest.mark.parametrize("backup", [0, 1])
def test_a_checkpoint_has_what_backups_wait_with(backup):
    held = store("parallel.consistency=synchronous", f"parallel.backup={backup}")
    push(held, 1, 0, 2.0)
    for replica in range(3):
        held.pause(replica, 0, 1)
    held.all_paused()
    # without backups the round goes on as if nobody had paused
    assert held.versions[0] == backup
    if not backup:
        push(held, 0, 0, 2.0)
        push(held, 2, 0, 2.0)
    assert held.versions[0] == 1 and moved(held) == -2


# ---- fetches and the log -------------------------------------------------------------------------

def test_only_chunks_that_changed_are_sent():
    held = store()
    assert held.take_changed(0, 0, 0, np.array([-1, -1])).tolist() == [True, True]
    push(held, 1, 0, index=1)
    assert held.take_changed(0, 1, 0, np.array([0, 0])).tolist() == [False, True]
    assert held.take_changed(0, 1, 1, np.array([1])).tolist() == [False]
    assert (held.counters.fetches, held.counters.unchanged) == (3, 2)


def test_the_log_tells_who_did_what_against_which_version():
    events = []
    held = store(log=events.append)
    held.take_changed(2, 5, 0, np.array([-1, -1]))
    push(held, 2, 0, index=1, clock=5)
    held.pause(2, 0, 6)
    assert np.concatenate(events).tolist() == [(FETCHED, 2, 0, 0, 5, 0), (FETCHED, 2, 1, 1, 5, 0),
                                               (PUSHED, 2, 1, 1, 5, 1), (PAUSED, 2, -1, -1, 6, -1)]


# ---- replicas that come and go -------------------------------------------------------------------

def test_nobody_waits_for_a_replica_that_has_left_and_one_that_joins_begins_with_the_slowest():
    held = store("parallel.consistency=bounded", "parallel.staleness=1")
    for replica in range(3):
        held.join(replica, 0, 1)
        assert asked(held, replica)
    assert not asked(held, 0, pushes=2)
    held.leave(1, 0, 1)
    assert not asked(held, 0, pushes=2)
    held.leave(2, 0, 1)
    assert asked(held, 0, pushes=5)
    held.join(1, 0, 2)
    assert asked(held, 1, pushes=0) and asked(held, 1, pushes=1)
    assert asked(held, 0, pushes=6) and not asked(held, 0, pushes=8)


def test_the_log_tells_of_lives():
    events = []
    held = store(log=events.append)
    held.join(1, 5, 1)
    held.leave(1, 7, 1)
    held.leave(1, 7, 1)
    held.join(1, 7, 2)
    assert [tuple(event) for rows in events for event in rows.tolist()] == [
        (JOINED, 1, -1, -1, 5, 1), (LEFT, 1, -1, -1, 7, 1), (JOINED, 1, -1, -1, 7, 2)]
