"""Stages one after the other: conditioners between them, own steps, kept responses, replicas."""
import errno
import os
import threading

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.checkpoint.event_log import logs, read_log
from hpclcae.model.phases import meetings, phases
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.partition.threads import run_blocks
from hpclcae.training import inputs, trainer as training
from hpclcae.training.cache import Kept
from hpclcae.training.local_job import run_local_job
from hpclcae.training.pixels import Pixels
from hpclcae.training.replay import replay
from hpclcae.training.resume import starting_point
from hpclcae.training.step import train_step
from hpclcae.training.trainer import Trainer
from hpclcae.training.worker import WorkerContext
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import Requests
from tests.support.saving import assert_same, datasets

STAGES = ["train.gradient=greedy", "train.steps=11", "train.checkpoint_every=100", "train.keep=9",
          "train.batch=6", "train.log_every=1", "train.condition_images=40", "update.rule=adam",
          "update.rate=0.02", "stages.0.steps=4", "stages.1.steps=3", "stages.1.batch=8",
          "stages.1.rate=0.01", "stages.0.lcn=0", "stages.0.log=true", "stages.0.standardise=true",
          "stages.0.contrast=true", "stages.0.whiten=12", "stages.1.sparsity_unit=sigma",
          "stages.1.standardise=true", "stages.0.pooling_stride=2",
          *(f"stages.{i}.{change}" for i in (1, 2)
            for change in ("receptive_field=3", "pooling=2", "lcn=0"))]
LOCKSTEP = ["parallel.consistency=synchronous"]


@pytest.fixture
def config_of(tiny_config):
    return lambda *changes: tiny_config(*STAGES, *changes)


def train(config, run, stop_at=None, resume=False):
    start = starting_point(config, run, resume, SerialCommunicator())
    return Trainer(config, run, start).train(stop_at)


def end(run):
    return datasets(checkpoint.find(run))


def steps_saved(run):
    return [checkpoint.step_of(path) for path in checkpoint.saved(run / "checkpoints")]


def assert_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for name, array in one.items():
        scale = max(np.abs(array).max(initial=0), 1e-3)
        np.testing.assert_allclose(other[name], array, rtol=0, atol=tolerance * scale,
                                   err_msg=name)


def test_every_stage_has_its_own_steps_batch_and_rate(config_of):
    config = config_of()
    found = [(p.stage, p.first, p.end, p.batch, p.rate, p.position) for p in phases(config)]
    assert found == [(0, 0, 4, 6, 0.02, 0), (1, 4, 7, 8, 0.01, 24), (2, 7, 11, 6, 0.02, 48)]
    assert meetings(config) == {4, 7}
    assert [list(p.positions(p.first + 1))[0] for p in phases(config)] == [6, 32, 54]
    plain = config_of("stages.0.log=false", "stages.0.standardise=false", "stages.0.contrast=false",
                      "stages.0.whiten=0", "stages.1.standardise=false")
    assert meetings(plain) == set()


def test_a_checkpoint_holds_what_stands_between_the_stages(config_of, tmp_path, capsys):
    train(config_of(), tmp_path)
    assert "stage 1 conditioned on 40 images" in capsys.readouterr().out
    assert steps_saved(tmp_path) == [4, 7, 11]
    first, second, last = (checkpoint.load_state(path).conditioners
                           for path in checkpoint.saved(tmp_path / "checkpoints"))
    assert first == (None, None, None) and second[1:] == (None, None)
    assert second[0].directions.shape[-1] == 12 and last[1].mean is not None and last[2] is None
    with h5py.File(checkpoint.find(tmp_path) / "model.h5") as file:
        assert list(file["conditioner/stage1"]) == ["centre", "deviation", "directions", "floor",
                                                    "mean", "spectrum"]
        assert list(file["conditioner/stage1/directions"].attrs["axes"]) == [
            "row", "col", "map", "direction"]
    for name, array in second[0].arrays().items():
        np.testing.assert_array_equal(last[0].arrays()[name], array)


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("stop", [2, 4, 5, 7, 9])
def test_resume_equals_no_interruption_also_between_stages(config_of, tmp_path, stop, cache):
    config = config_of(f"train.cache={cache}")
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop)
    train(config, tmp_path / "parts", resume=True)
    assert_same(end(tmp_path / "whole"), end(tmp_path / "parts"))


def test_a_run_killed_while_a_conditioner_is_fitted_goes_on(config_of, tmp_path, monkeypatch):
    config = config_of("train.checkpoint_every=2")
    train(config, tmp_path / "whole")

    def killed(*_):
        raise RuntimeError("killed")
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "fit_conditioner", killed)
        with pytest.raises(RuntimeError):
            train(config, tmp_path / "killed")
    assert steps_saved(tmp_path / "killed")[-1] in (2, 4)
    train(config, tmp_path / "killed", resume=True)
    assert_same(end(tmp_path / "whole"), end(tmp_path / "killed"))


def test_kept_responses_give_the_same_numbers_up_to_float16(config_of, tmp_path):
    for cache in ("none", "memory", "disk"):
        train(config_of(f"train.cache={cache}"), tmp_path / cache)
    assert_same(end(tmp_path / "memory"), end(tmp_path / "disk"))
    assert_close(end(tmp_path / "none"), end(tmp_path / "memory"), 0.02)
    assert not list((tmp_path / "disk/cache").iterdir())  # nobody asks any more
    train(config_of("train.cache=disk"), tmp_path / "parts", 9)
    assert [path.name for path in (tmp_path / "parts/cache").iterdir()] == [
        "stage3-replica0-block0.h5"]


def test_lower_stages_run_once_for_each_image(config_of, tmp_path, monkeypatch):
    """The epochs of the top stage do not ask for responses that are there."""
    asked = []
    original = Pixels.read
    monkeypatch.setattr(Pixels, "read", lambda self, numbers, *more: (
        asked.append(len(numbers)), original(self, numbers, *more))[1])
    train(config_of("train.cache=memory", "data.mirror=false", "train.steps=107"), tmp_path)
    count = 120  # of the tiny dataset
    assert sum(asked[4:]) <= 3 * 8 + count < 3 * 8 + 100 * 6


@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(2, 2)], ids=str)
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_any_grid_equals_one_block(config_of, tmp_path, grid, cache):
    config = config_of("train.dtype=float64", f"train.cache={cache}")
    train(config, tmp_path / "one")

    def program(communicator):
        worker = WorkerContext.unserved(config_of(
            "train.dtype=float64", f"train.cache={cache}", f"parallel.grid={grid}"), communicator)
        Trainer(worker.layout.config, tmp_path / "grid", None, worker, Requests()).train()
    run_blocks(grid.size, program)
    # float16 rounds what differs in the last bits of float64 apart
    assert_close(end(tmp_path / "one"), end(tmp_path / "grid"), 1e-8 if cache == "none" else 0.01)


@pytest.mark.parametrize("changes", [LOCKSTEP, []], ids=["lockstep", "asynchronous"])
def test_one_served_replica_equals_none(config_of, tmp_path, changes):
    train(config_of(), tmp_path / "alone")
    for servers in (1, 3):
        run = tmp_path / f"{servers}"
        run_local_job(config_of(f"parallel.servers={servers}", "parallel.overlap=false", *changes),
                      run)
        assert_same(end(tmp_path / "alone"), end(run))


@pytest.mark.parametrize("changes", [
    LOCKSTEP, [], ["parallel.elastic=0.3"], ["parallel.consistency=bounded"],
    [*LOCKSTEP, "parallel.backup=1"], ["parallel.warm_start=2"]], ids=str)
@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(2, 1)], ids=str)
def test_all_replicas_build_on_the_same_finished_stage(config_of, tmp_path, monkeypatch, changes,
                                                       grid):
    """What each of them fits is the same, and the finished stage does not change any more."""
    fitted, lock = {}, threading.Lock()
    original = inputs.fit_conditioner

    def remember(network, index, parameters, images):
        made = original(network, index, parameters, images)
        with lock:
            fitted.setdefault((index, network.block.rank), []).append(
                (made, [parameters[name].copy() for name in network.stages[index].parameter_shapes()
                        ]))
        return made
    monkeypatch.setattr(inputs, "fit_conditioner", remember)
    config = config_of("parallel.servers=2", "parallel.replicas=3", "train.cache=memory",
                       "train.checkpoint_every=3", *changes)
    run_local_job(config, tmp_path, grid=grid)
    assert {4, 7, 11} <= set(steps_saved(tmp_path))
    state = checkpoint.load_state(checkpoint.find(tmp_path))
    for (index, _), found in fitted.items():
        assert len(found) == 3
        for made, parameters in found:
            for name, array in state.conditioners[index].arrays().items():
                np.testing.assert_array_equal(made.arrays()[name], array)
            for one, other in zip(parameters, found[0][1]):
                np.testing.assert_array_equal(one, other)
    between, last = (datasets(path) for path in (tmp_path / "checkpoints/step-00000004",
                                                 checkpoint.find(tmp_path)))
    for name in ("stage1/encode", "stage1/decode"):
        np.testing.assert_array_equal(between[name], last[name])


def test_what_is_asked_while_replicas_wait_for_each_other(config_of, tmp_path, monkeypatch):
    """Checkpoints and the end, while the leader, or another one, is at the end of its phase."""
    for number, (name, step) in enumerate([
            ("checkpoint", 3), ("end", 3), ("checkpoint", 2), ("end", 2)]):
        asked, barrier = Requests(), threading.Barrier(2)

        def step_of(network, updates, at, *more):
            replica = 0 if threading.current_thread().name == "block 0" else 1
            if replica == 0 and at == step:
                setattr(asked, name, True)
            if at == 1:
                barrier.wait(30)
            return train_step(network, updates, at, *more)
        monkeypatch.setattr(training, "train_step", step_of)
        run = tmp_path / str(number)
        config = config_of("parallel.servers=1", "parallel.replicas=2")
        reports = run_local_job(config, run, asked=asked)
        made = [report.steps for report in reports]
        state = checkpoint.load_state(checkpoint.find(run))
        if name == "end":
            assert all(3 <= steps <= 7 for steps in made), (number, made)
            assert state.cursors == tuple(made)
            run_local_job(config, run, checkpoint.find(run))
        else:
            assert made == [11, 11]
        assert checkpoint.load_state(checkpoint.find(run)).cursors == (11, 11)


@pytest.mark.parametrize("changes", [[], ["parallel.elastic=0.3"]], ids=["gradients", "elastic"])
def test_a_conditioned_run_is_replayed_bit_for_bit(config_of, tmp_path, changes):
    config = config_of("parallel.servers=2", "parallel.replicas=2", "parallel.log_events=true",
                       'parallel.grid="1x1"', "train.cache=memory", *changes)
    run_local_job(config, tmp_path)
    _, events = read_log(logs(tmp_path)[0])
    for server in replay(config, events, None, checkpoint.find(tmp_path)):
        assert server.left == 0
        assert [server.gaps.get(i) for i in range(len(server.chunks))] == [0.0] * len(server.chunks)


# ---- joint and stopped ---------------------------------------------------------------------------

@pytest.mark.parametrize("gradient", ["joint", "stopped"])
def test_conditioners_of_stages_that_learn_together_are_fitted_again(tiny_config, tmp_path,
                                                                     gradient):
    config = tiny_config(f"train.gradient={gradient}", "train.steps=9", "train.condition_every=4",
                         "train.batch=6", "train.condition_images=40", "train.keep=9",
                         "train.checkpoint_every=2", "stages.0.standardise=true",
                         "stages.1.standardise=true", "stages.1.whiten=8")
    train(config, tmp_path / "whole")
    means = [checkpoint.load_state(path).conditioners[1].mean
             for path in checkpoint.saved(tmp_path / "whole/checkpoints")]
    same = [np.array_equal(one, other) for one, other in zip(means, means[1:])]
    assert same == [True, False, True, False]  # of steps 2, 4, 6, 8, 9: fitted before 4 and 8
    train(config, tmp_path / "parts", 5)
    train(config, tmp_path / "parts", resume=True)
    assert_same(end(tmp_path / "whole"), end(tmp_path / "parts"))


@pytest.mark.parametrize("changes", [["parallel.warm_start=3"], []], ids=["warm start", "at once"])
def test_replicas_that_learn_jointly_begin_with_the_same_conditioners(tiny_config, tmp_path,
                                                                      monkeypatch, changes):
    """Fitted with the first weights, also by a replica that begins when others have made steps."""
    fitted, original = [], inputs.fit_conditioner

    def remember(*arguments):
        fitted.append(original(*arguments))
        return fitted[-1]
    monkeypatch.setattr(inputs, "fit_conditioner", remember)
    config = tiny_config("train.steps=6", "train.batch=6", "train.condition_images=40",
                         "update.rate=0.001", "stages.0.standardise=true", "parallel.servers=1",
                         "parallel.replicas=2", "parallel.log_events=true",
                         'parallel.grid="1x1"', *changes)
    run_local_job(config, tmp_path)
    assert len(fitted) == 2
    assert_same(*(found.arrays() for found in fitted))
    _, events = read_log(logs(tmp_path)[0])
    server, = replay(config, events, None, checkpoint.find(tmp_path))
    assert set(server.gaps.values()) == {0.0}


def test_joint_training_goes_on_from_what_greedy_training_came_to(config_of, tmp_path):
    train(config_of(), tmp_path / "greedy")
    joint = ["train.gradient=joint", *(f"stages.{i}.{key}=0" for i in range(3)
                                       for key in ("steps", "batch", "rate")),
             f"train.weights={tmp_path / 'greedy'}", "train.steps=4", "update.rate=0.001"]
    train(config_of(*joint), tmp_path / "joint")
    run_local_job(config_of(*joint, "parallel.servers=2", "parallel.overlap=false"),
                  tmp_path / "served")
    assert_same(end(tmp_path / "joint"), end(tmp_path / "served"))
    before, after = end(tmp_path / "greedy"), end(tmp_path / "joint")
    for name in ("stage1/encode", "stage2/encode", "stage3/encode"):
        moved = np.abs(after[name] - before[name]).max() / np.abs(before[name]).max()
        assert 0 < moved < 0.1, name
    old, new = (checkpoint.load_state(checkpoint.find(tmp_path / run))
                for run in ("greedy", "joint"))
    for one, other in zip(old.conditioners[:2], new.conditioners):
        assert_same(one.arrays(), other.arrays())
    with pytest.raises(InputError, match=r"train\.weights = .* has stages\.0\.maps = 4, the conf"):
        train(config_of(*joint, "stages.0.maps=3"), tmp_path / "other")


# ---- what is refused -----------------------------------------------------------------------------

@pytest.mark.parametrize("changes, message", [
    (["stages.2.steps=9"], r"train\.steps = 11, but stages\.\*\.steps add up to 16"),
    (["stages.2.standardise=true"], r"stages\.2\.standardise = True: no stage above"),
    (["stages.0.whiten=0", "stages.0.window=3"], r"stages\.0\.window = 3: a window gives"),
    (["stages.0.whiten_by=pairs"], r"stages\.0\.whiten_by = pairs: directions by pairs need"),
    (["train.gradient=joint"], r"stages\.0\.steps = 4: stages that learn together"),
    (["train.condition_every=4"], r"train\.condition_every = 4: in greedy training"),
    (["train.gradient=stopped", "train.cache=memory", "stages.0.steps=0", "stages.1.steps=0",
      "stages.1.batch=0", "stages.1.rate=0"], r"train\.cache = 'memory': only greedy training"),
    (["train.gradient=joint", "stages.0.steps=0", "stages.1.steps=0", "stages.1.batch=0",
      "stages.1.rate=0", "train.condition_every=4", "parallel.servers=1", "parallel.replicas=2"],
     r"train\.condition_every = 4: replicas that do not make the same steps"),
    (["train.condition_images=1"], r"train\.condition_images = 1; it must be at least 2")])
def test_settings_that_do_not_fit_are_refused(config_of, changes, message):
    with pytest.raises(InputError, match=message):
        config_of(*changes)


def test_a_rank_above_the_units_is_refused_before_training(config_of, tmp_path):
    with pytest.raises(InputError, match=r"stages\.0\.whiten = 9999: there are only 324 units"):
        train(config_of("stages.0.whiten=9999"), tmp_path)


def test_a_changed_conditioner_is_no_resumption(config_of, tmp_path):
    train(config_of(), tmp_path, 5)
    with pytest.raises(InputError, match=r"stages\.0\.whiten = 12, the configuration now says 13"):
        train(config_of("stages.0.whiten=13"), tmp_path, resume=True)


def test_too_few_images_for_a_rank_are_refused_before_training(config_of, tmp_path):
    with pytest.raises(InputError, match=r"stages\.0\.whiten = 12: 10 images are too few"):
        train(config_of("train.condition_images=10"), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_run_with_the_weights_of_another_is_replayed(config_of, tmp_path):
    train(config_of(), tmp_path / "greedy")
    config = config_of("parallel.servers=1", "parallel.replicas=2", "parallel.log_events=true",
                       'parallel.grid="1x1"', f"train.weights={tmp_path / 'greedy'}")
    run_local_job(config, tmp_path / "again")
    _, events = read_log(logs(tmp_path / "again")[0])
    for server in replay(config, events, None, checkpoint.find(tmp_path / "again")):
        assert server.left == 0 and not any(server.gaps.values())


def test_pairs_need_a_dataset_that_has_them(config_of, tmp_path):
    with pytest.raises(InputError, match=r"stages\.0\.whiten_by = 'pairs': .* has no pairs"):
        train(config_of("stages.0.window=6", "stages.0.window_stride=3", "stages.0.whiten=4",
                        "stages.0.whiten_by=pairs", "stages.1.receptive_field=1",
                        "stages.1.pooling=1", "stages.2.receptive_field=1", "stages.2.pooling=1"),
              tmp_path)


def test_a_warm_start_ends_before_the_replicas_meet(config_of, tmp_path):
    with pytest.raises(InputError, match=r"parallel\.warm_start = 5: all replicas meet"):
        run_local_job(config_of("parallel.servers=1", "parallel.replicas=2",
                                "parallel.warm_start=5"), tmp_path)


def test_a_cache_of_other_numbers_is_begun_anew(tmp_path):
    file, entries = tmp_path / "cache.h5", np.array([3, 0])

    def opened(mark, shape=(2, 2, 1)):
        return Kept(5, shape, np.float16, "train.cache", file, mark)

    def asked(cache, value=1.0):
        absent = cache.absent(entries)
        cache.put(entries[absent], np.full((absent.sum(), 2, 2, 1), value))
        return cache.get(entries)[:, 0, 0, 0].tolist(), absent.sum()
    cache = opened("a")
    assert asked(cache) == ([1, 1], 2) and asked(cache) == ([1, 1], 0)
    cache.close()
    cache = opened("a")
    assert asked(cache, 2.0) == ([1, 1], 0)    # as it was closed
    del cache
    assert asked(opened("a"), 3.0) == ([3, 3], 2)  # that one was not: it may be half written
    assert asked(opened("b"), 4.0) == ([4, 4], 2)
    file.write_bytes(b"no HDF5")
    assert asked(opened("b"), 5.0) == ([5, 5], 2)


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("shape", [(2, 2, 1), (0, 2, 1)], ids=["zeros", "nothing"])
def test_what_is_kept_does_not_depend_on_what_a_block_holds(tmp_path, shape, kind):
    """All blocks compute together; one whose part is zero, or empty, must not ask once more."""
    file = tmp_path / "cache.h5" if kind == "disk" else None
    cache, entries = Kept(5, shape, np.float16, "train.cache", file), np.array([3, 0])
    assert cache.absent(entries).all()
    cache.put(entries, np.zeros((2, *shape)))
    assert not cache.absent(entries).any() and cache.absent(np.array([1])).all()
    assert cache.get(entries).shape == (2, *shape)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_a_cache_has_its_place_on_the_disk_before_it_is_used(tmp_path, monkeypatch):
    """Memory that is mapped to a file without one ends the process when the disk is full."""
    Kept(100, (100, 10, 1), np.float16, "train.cache", tmp_path / "cache.h5")
    assert (tmp_path / "cache.h5").stat().st_blocks * 512 >= 2 * 100 * 1000

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="cannot be written .No space left on device.: free some"):
        Kept(1, (1, 1, 1), np.float16, "train.cache", tmp_path / "other.h5")


def test_a_cache_that_cannot_be_is_refused(tmp_path):
    cache = Kept(2, (1, 1, 1), np.float16, "train.cache")
    with pytest.raises(InputError, match="a response of 1e[+]06 does not fit.*train.cache = 'none"):
        cache.put(np.array([0]), np.full((1, 1, 1, 1), 1e6))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="train.cache = 'disk': .* cannot be written"):
        Kept(1, (1, 1, 1), np.float16, "train.cache", tmp_path / "file/cache.h5")


def test_a_rank_may_keep_its_share_of_the_memory_of_its_node(monkeypatch):
    """All ranks of a node look at the same free memory: together they would take it many times."""
    monkeypatch.setattr("hpclcae.training.cache.available_memory", lambda: 1000)
    Kept(100, (2, 2, 1), np.uint8, "train.cache")      # 500 bytes
    monkeypatch.setenv("MPI_LOCALNRANKS", "4")
    monkeypatch.setenv("MPI_LOCALRANKID", "0")
    with pytest.raises(InputError, match="train.cache = 'memory' needs .* set it to 'disk'"):
        Kept(100, (2, 2, 1), np.uint8, "train.cache")
