"""Simulated clusters: time adds up, nothing is lost or made up, and chance is repeatable."""
import dataclasses

import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.cluster.prediction import ServerCosts
from hpclcae.config import Config, ParallelConfig
from hpclcae.simulation.arithmetic import Arithmetic
from hpclcae.simulation.cluster import Scenario, Times, simulate
from hpclcae.simulation.images import drawn_images
from hpclcae.utils.errors import InputError, MissingExtraError
from tests.support.processes import RUN

pytest.importorskip("simpy", reason="no simpy here: pip install 'hpclcae[simulate]' brings it")
FREE = ServerCosts(0.0, 0.0, 0.0, 0.0, 0.0)
TIMES = Times(1.0, 0.0, FREE, blocks=4, machines=4, servers=1, server_machines=1)
SMALL = configuration.load(RUN / "simulated.toml")


def parallel(replicas, **settings):
    return Config(parallel=ParallelConfig(servers=1, replicas=replicas, overlap=False, **settings))


def run(config, minibatches, times=TIMES, network=None, **happens):
    return simulate(times, Arithmetic.of(config, network), Scenario(minibatches, **happens))


def test_one_replica_takes_its_steps_one_after_the_other():
    found = run(parallel(1), 10)
    assert found.seconds == 10 and found.made == 10 and found.steps == [10]
    assert found.spent["computing"] == 10 and found.rate == 1
    assert found.staleness.tolist() == [found.staleness.sum()]  # nothing is stale


def test_replicas_share_the_work_and_miss_each_others_updates():
    found = run(parallel(5), 100)
    assert found.seconds == 20 and found.steps == [20] * 5
    # in the first round 0 to 4 are missed, then always those of the four others
    assert found.mean_staleness == pytest.approx((2 + 19 * 4) / 20)
    assert len(found.staleness) == 5


def test_the_fetch_behind_a_push_waits_for_it():
    slow = dataclasses.replace(TIMES, costs=ServerCosts(0.5, 0.25, 0.0, 0.0, 0.0))
    found = run(parallel(1), 10, slow)
    # every step: a fetch, computing, and the push that the next fetch stands behind
    assert found.seconds == pytest.approx(10 * 1.75 - 0.5)
    assert found.spent["fetching"] == pytest.approx(10 * 0.75 - 0.5)
    assert found.mean_staleness == 0
    ahead = dataclasses.replace(parallel(1).parallel, overlap=True)
    overlapped = run(Config(parallel=ahead), 10, slow)
    assert overlapped.seconds < found.seconds and overlapped.mean_staleness > 0.8


def test_servers_that_are_too_slow_set_the_pace():
    costs = ServerCosts(0.5, 0.5, 0.0, 0.0, 0.0)
    found = run(parallel(8), 80, dataclasses.replace(TIMES, costs=costs))
    assert found.seconds == pytest.approx(80, rel=0.1) and found.busy > 0.9
    seldom = run(parallel(8, fetch_every=8, push_every=8), 80,
                 dataclasses.replace(TIMES, costs=costs))
    assert seldom.seconds < found.seconds / 3


def test_a_wire_takes_its_time():
    wired = dataclasses.replace(TIMES, costs=ServerCosts(0.0, 0.0, 2.0, 0.0, 0.0))
    assert run(parallel(1), 5, wired).seconds == pytest.approx(5 * 5 - 2)


def test_a_replica_is_as_slow_as_its_slowest_machine():
    found = run(parallel(20), 400, slow=0.05, factor=3.0)
    assert found.spent["slow machines"] > 0
    assert max(found.steps) >= 2 * min(found.steps)  # asynchronously the others go on
    together = run(parallel(20, consistency="synchronous"), 400, slow=0.05, factor=3.0)
    assert together.steps == [20] * 20 and together.seconds == pytest.approx(60)
    spread = run(parallel(1), 200, spread=0.2)
    # the largest of four is about 1.03 deviations above the mean
    assert spread.seconds / 200 == pytest.approx(1.2, abs=0.05)


def test_bounded_replicas_stay_together():
    free, bounded = (run(parallel(8, consistency=how, staleness=2), 160, slow=0.1, factor=4.0,
                         seed=3) for how in ("asynchronous", "bounded"))
    assert max(free.steps) - min(free.steps) > 4
    spread = max(bounded.steps) - min(bounded.steps)
    assert spread <= 4 and bounded.seconds > free.seconds


def test_the_same_seed_gives_the_same_run():
    first, again, other = (run(parallel(5), 100, spread=0.3, seed=seed, network=SMALL)
                           for seed in (1, 1, 2))
    assert first.curve == again.curve and first.seconds == again.seconds
    assert np.array_equal(first.staleness, again.staleness)
    assert other.seconds != first.seconds


# ---- failures ------------------------------------------------------------------------------------

def test_survivors_lose_a_step_and_the_job_does_not():
    found = run(parallel(4), 400, mtbf=60.0, survive=True, recover=5.0)
    again = run(parallel(4), 400, mtbf=60.0, survive=False, restart=5.0, checkpoint_every=10)
    assert found.made == again.made == 400 and found.failures > 3
    assert found.lost > 0 and found.spent["down"] > 0
    assert found.seconds < again.seconds
    assert run(parallel(4), 400).seconds < found.seconds


def test_a_job_that_begins_again_has_the_numbers_of_its_checkpoint():
    """One replica: going back to a checkpoint and on gives what an undisturbed run gives."""
    calm = run(parallel(1), 60, network=SMALL)
    broken = run(parallel(1), 60, network=SMALL, mtbf=100.0, restart=1.0, checkpoint_every=5)
    assert broken.failures > 0 and broken.lost > 0
    assert broken.curve[-1][2] == calm.curve[-1][2]


# ---- arithmetic ----------------------------------------------------------------------------------

def test_the_small_network_learns_and_stale_gradients_hurt():
    def last(replicas):
        return run(parallel(replicas), 300, network=SMALL, looks=3).curve
    one, many = last(1), last(50)
    assert one[-1][2] < 0.7 * one[0][2]
    assert many[0][2] == one[0][2] and many[-1][2] > one[-1][2]


def test_synchronous_replicas_are_one_large_minibatch():
    config = parallel(3, consistency="synchronous")
    found = run(config, 30, network=SMALL)
    assert found.steps == [10] * 3 and found.mean_staleness == 0


def test_a_network_that_is_trained_in_phases_is_refused():
    greedy = configuration.load(RUN / "simulated.toml", ["train.gradient=greedy"])
    with pytest.raises(InputError, match="one phase of training"):
        Arithmetic.of(parallel(2), greedy)


def test_drawn_images_are_of_their_seed():
    first, again, other = (drawn_images(5, 16, 3, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (5, 16, 16, 3) and first.dtype == np.uint8 and first.std() > 10


def test_without_simpy_the_extra_is_named(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "simpy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hpclcae\[simulate\]'"):
        run(parallel(1), 1)
