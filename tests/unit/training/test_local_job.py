"""A served trainer without MPI: servers, replicas and blocks as threads of one process."""
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from hpclcae import checkpoint, cli
from hpclcae.checkpoint.event_log import logs, read_log
from hpclcae.cluster import interval
from hpclcae.cluster.status import describe, run_status
from hpclcae.data.minibatches import MinibatchStream
from hpclcae.model.layout import WHOLE
from hpclcae.model.phases import Phase
from hpclcae.parameter_server.store import FETCHED, PUSHED
from hpclcae.partition.blocks import Grid
from hpclcae.training import trainer as training
from hpclcae.training.inputs import Inputs
from hpclcae.training.local_job import run_local_job
from hpclcae.training.step import train_step
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import Requests
from tests.support.images import COUNT
from tests.support.saving import assert_same, datasets

LOCKSTEP = ["parallel.consistency=synchronous", "update.rule=adam", "update.rate=0.01"]
OUTER = ["parallel.outer_rate=0.7", "parallel.outer_momentum=0.5", "parallel.fetch_every=4",
         "parallel.push_every=4", "update.rule=adam", "update.rate=0.01"]
LEADER = "block 0"  # the thread of replica 0, block 0


@pytest.fixture
def config_of(tiny_config):
    def load(*changes, replicas=2, servers=2):
        return tiny_config("train.steps=6", "train.batch=5", "train.log_every=1", "train.keep=9",
                           "train.checkpoint_every=100", f"parallel.servers={servers}",
                           f"parallel.replicas={replicas}", *changes)
    return load


@pytest.fixture
def before_each_step(monkeypatch):
    """Let every worker call function(thread's name, step) before it computes a step."""
    def arrange(function):
        def step_of(network, updates, step, *more):
            function(threading.current_thread().name, step)
            return train_step(network, updates, step, *more)
        monkeypatch.setattr(training, "train_step", step_of)
    return arrange


def steps_saved(run):
    return [checkpoint.step_of(path) for path in checkpoint.saved(run / "checkpoints")]


def assert_same_end(*runs):
    """The newest checkpoints hold the same numbers, bit for bit."""
    first, *others = (datasets(checkpoint.find(run)) for run in runs)
    for other in others:
        assert_same(first, other)


@pytest.mark.parametrize("grid", [WHOLE, Grid(1, 2)], ids=str)
@pytest.mark.parametrize("changes, replicas", [
    (LOCKSTEP, 2), (["update.rate=0.005"], 2), (["update.rule=sgd", "parallel.elastic=0.3"], 2),
    (["parallel.consistency=bounded", "parallel.staleness=1", "update.rate=0.005"], 3),
    ([*LOCKSTEP, "parallel.backup=1"], 3), (OUTER, 3), ([*LOCKSTEP, "train.gradient=greedy"], 2)])
def test_every_mode_comes_to_its_end_with_a_checkpoint(config_of, tmp_path, changes, replicas,
                                                       grid):
    config = config_of(*changes, replicas=replicas)
    reports = run_local_job(config, tmp_path, grid=grid)
    assert steps_saved(tmp_path) == [6]
    checkpoint.verify(checkpoint.find(tmp_path))
    state = checkpoint.load_state(checkpoint.find(tmp_path))
    assert state.cursors == (6,) * replicas and len(reports) == replicas * grid.size
    if not config.parallel.backup:
        assert {report.steps for report in reports} == {6}
    objectives = [json.loads(line)["objective"]
                  for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert objectives[-1] < objectives[0]


@pytest.mark.parametrize("grid", [WHOLE, Grid(2, 1)], ids=str)
def test_lockstep_keeps_its_bits_whatever_is_asked(config_of, before_each_step, tmp_path, grid):
    """Undisturbed; with USR1 in every step; with TERM in step 2, and resumed.

    What is asked while a step computes goes with the sums of the next one, and is done after it.
    """
    config, asked, ending = config_of(*LOCKSTEP), Requests(), Requests()
    run_local_job(config, tmp_path / "whole", grid=grid)

    def ask_for_checkpoints(name, step):
        if name == LEADER:
            asked.checkpoint = True
    before_each_step(ask_for_checkpoints)
    run_local_job(config, tmp_path / "asked", grid=grid, asked=asked)
    assert steps_saved(tmp_path / "asked") == [2, 4, 6]

    def ask_for_the_end(name, step):
        if name == LEADER and step == 1:
            ending.end = True
    before_each_step(ask_for_the_end)
    run_local_job(config, tmp_path / "ended", grid=grid, asked=ending)
    assert steps_saved(tmp_path / "ended") == [3]
    start = checkpoint.find(tmp_path / "ended")
    run_local_job(config, tmp_path / "ended", start, grid)
    assert_same_end(tmp_path / "whole", tmp_path / "asked", tmp_path / "ended")


def test_checkpoints_that_are_due_are_taken_while_others_are_ahead(config_of, tmp_path):
    config = config_of(*LOCKSTEP, "train.checkpoint_every=2")
    run_local_job(config, tmp_path / "every")
    assert steps_saved(tmp_path / "every") == [2, 4, 6]
    run_local_job(config_of(*LOCKSTEP), tmp_path / "once")
    assert_same_end(tmp_path / "every", tmp_path / "once")
    asynchronous = config_of("train.checkpoint_every=2", "parallel.log_events=true", replicas=3)
    run_local_job(asynchronous, tmp_path / "asynchronous")
    for path in checkpoint.saved(tmp_path / "asynchronous/checkpoints"):
        assert len(checkpoint.load_state(path).cursors) == 3
        checkpoint.verify(path)


@pytest.mark.parametrize("changes", [LOCKSTEP, ["update.rate=0.005"]], ids=str)
def test_every_image_is_seen_once_an_epoch_whatever_number_of_replicas_goes_on(
        config_of, monkeypatch, tmp_path, changes):
    """3, then 2, then 4, then 4 again; what was seen is noted where steps are computed."""
    seen, lock, read = np.zeros(COUNT, int), threading.Lock(), Inputs.read

    def read_and_note(self, step, parameters):
        with lock:
            np.add.at(seen, self.batches.indices(step), 1)
        return read(self, step, parameters)
    monkeypatch.setattr(Inputs, "read", read_and_note)
    start = None
    for replicas, end in ((3, 3), (2, 7), (4, 8), (4, 20)):
        config = config_of(*changes, "train.steps=20", replicas=replicas)
        run_local_job(config, tmp_path, start, stop_at=end)
        start = checkpoint.find(tmp_path)
        state = checkpoint.load_state(start)
        assert state.deal.replicas == len(state.cursors) == replicas
        taken = [5 * (cursor - state.deal.step) for cursor in state.cursors]
        again = state.deal.again(1, 0, taken, COUNT)
        left = np.zeros(COUNT, int)
        stream = MinibatchStream(SimpleNamespace(count=COUNT),
                                 [Phase(None, 0, 10 ** 6, 1, 0.1)], 0, 0, again)
        for step in range(again.left):
            left[stream.indices(step)] += 1
        assert np.array_equal(seen + left, np.full(COUNT, again.epochs))


@pytest.mark.parametrize("quorum", ["parallel.quorum=0", "parallel.quorum=1"])
def test_an_outer_optimizer_is_saved_resumed_and_replayed(config_of, capsys, tmp_path, quorum):
    """Checkpoints lie between two rounds: the steps made since the last one are pushed for them."""
    changes = *OUTER, quorum, "parallel.log_events=true", "train.checkpoint_every=6"
    run_local_job(config_of(*changes, "train.steps=15", replicas=3), tmp_path)
    start = checkpoint.find(tmp_path)
    assert checkpoint.load_state(start).cursors == (15,) * 3
    slots = [name for name in datasets(start) if name.startswith("update/")]
    assert slots and all(name.startswith("update/outer/") for name in slots)
    run_local_job(config_of(*changes, "train.steps=23", replicas=2), tmp_path, start)
    for step in ("0", "15"):
        assert cli.main(["replay", str(tmp_path), "--from", step]) == 0
        assert "are the same, bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [LOCKSTEP, ["update.rate=0.005", "parallel.log_events=true"]],
                         ids=str)
def test_checkpoints_are_taken_as_often_as_pays(config_of, monkeypatch, capsys, tmp_path, changes):
    """Their number depends on the clock; in lockstep the numbers do not."""
    monkeypatch.setattr(interval, "FIRST", 3)
    words = *changes, "train.steps=30", "train.checkpoint_every=auto"
    run_local_job(config_of(*words, "train.mtbf=1e-7"), tmp_path / "often")
    run_local_job(config_of(*words, "train.mtbf=1e9"), tmp_path / "seldom")
    often, seldom = steps_saved(tmp_path / "often"), steps_saved(tmp_path / "seldom")
    assert len(often) >= len(seldom) == 2 and often[-1] == seldom[-1] == 30
    assert 3 <= seldom[0] <= 9  # asked for after 3, heard with the sums of the next
    status = run_status(tmp_path / "seldom")
    assert status.interval.startswith("every ") and status.interval in capsys.readouterr().err
    assert f"checkpoints        {status.interval}" in describe(status)
    if changes is LOCKSTEP:
        assert_same_end(tmp_path / "often", tmp_path / "seldom")


def test_the_others_begin_after_the_warm_start(config_of, tmp_path):
    config = config_of("parallel.warm_start=3", "parallel.log_events=true", servers=1)
    run_local_job(config, tmp_path)
    _, [events] = read_log(logs(tmp_path)[0])
    first = np.flatnonzero((events["replica"] == 1) & (events["kind"] == FETCHED))[0]
    alone = events[:first]
    assert (alone["clock"][alone["kind"] == PUSHED] == 2).any() and not alone["replica"].any()
    with pytest.raises(InputError, match="warm_start"):
        config_of(*LOCKSTEP, "parallel.warm_start=3")


def test_the_end_may_come_during_the_warm_start(config_of, before_each_step, tmp_path):
    asked = Requests()

    def ask_for_the_end(name, step):
        if step == 1:
            asked.end = True
    before_each_step(ask_for_the_end)
    reports = run_local_job(config_of("parallel.warm_start=5"), tmp_path, asked=asked)
    assert [report.steps for report in reports] == [3, 0]
    assert checkpoint.load_state(checkpoint.find(tmp_path)).cursors == (3, 0)


@pytest.mark.parametrize("changes", [LOCKSTEP, [], ["parallel.warm_start=5"]], ids=str)
def test_one_that_fails_ends_all(config_of, before_each_step, tmp_path, changes):
    class Broken(RuntimeError):
        pass

    def fail(name, step):
        if step == 3:
            raise Broken(name)
    before_each_step(fail)
    with pytest.raises(Broken):
        run_local_job(config_of(*changes), tmp_path, grid=Grid(1, 2))
