"""Training: 5 + 5 steps are 10 steps, what stops a run, what a run leaves behind."""
import argparse
import json
import math
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.commands import train
from hpclcae.geometry import training_flop
from hpclcae.model.phases import phase_of
from hpclcae.model.schedule import Schedule
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.training import trainer as training
from hpclcae.training.resume import starting_point
from hpclcae.training.step import train_step
from hpclcae.training.trainer import Trainer
from hpclcae.utils.errors import InputError
from tests.support.images import structured_images, write_dataset
from tests.support.processes import RUN
from tests.support.saving import TIMES, assert_same, datasets


def trained(config, folder, stop_at=None, resume=False):
    """Train, and give the folder back."""
    trainer(config, folder, resume).train(stop_at)
    return folder


def trainer(config, folder, resume=False):
    return Trainer(config, folder, starting_point(config, folder, resume, SerialCommunicator()))


def contents(folder):
    """Every file of the run's finished checkpoints."""
    return {p: p.read_bytes() for path in checkpoint.saved(folder / "checkpoints")
            for p in path.iterdir()}


def metrics(folder, without=()):
    """The lines of the metrics file."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in without} for row in rows]


def assert_same_run(one, other):
    """Every number of the newest checkpoint and every line of metrics, bit for bit, except times.
    """
    files = [checkpoint.saved(folder / "checkpoints")[-1] for folder in (one, other)]
    assert files[0].name == files[1].name
    assert_same(*map(datasets, files))
    attributes = []
    for file in files:
        with h5py.File(file / "model.h5") as opened:
            attributes.append({k: v for k, v in opened.attrs.items()
                               if k not in ("seconds", "created", "run", "revision")})
    assert attributes[0] == attributes[1]
    assert metrics(one, TIMES) == metrics(other, TIMES)


# ---- 5 + 5 = 10 ----------------------------------------------------------------------------------

TIED = [f"stages.{i}.{key}" for i in range(3) for key in ("weights=tied", "encoder_norm=unit")]


@pytest.mark.parametrize(
    "changes, stop", [(["update.rule=sgd"], 5), (["update.rule=momentum"], 5),
                      (["update.rule=adagrad", "update.rate=0.05"], 5),
                      (["update.rule=adam", "update.rate=0.01"], 5),
                      (["update.rule=momentum", "train.gradient=stopped"], 3),
                      # Greedy: the stages change after steps 4 and 7.
                      (["update.rule=adam", "update.rate=0.01", "train.gradient=greedy", *TIED], 5),
                      (["update.rule=momentum", "train.gradient=greedy", *TIED], 4),
                      (["update.rule=adagrad", "update.rate=0.05", "train.gradient=greedy"], 6),],
    ids=lambda value: " ".join(value[:3:2]) if isinstance(value, list) else str(value))
def test_a_run_that_is_resumed_equals_one_that_never_stopped(tiny_config, tmp_path, changes, stop):
    config = tiny_config("train.steps=10", "train.log_every=1", "train.batch=25", *changes)
    whole = trained(config, tmp_path / "whole")
    parts = trained(config, tmp_path / "parts", stop_at=stop)
    assert [p.name for p in checkpoint.saved(parts / "checkpoints")] == [f"step-{stop:08d}"]
    trained(config, parts, resume=True)
    assert_same_run(whole, parts)
    assert [row["step"] for row in metrics(parts)] == list(range(1, 11))
    start = trained(config, tmp_path / "start", stop_at=1)
    first, last = (datasets(checkpoint.saved(run / "checkpoints")[-1]) for run in (start, whole))
    assert all(not np.array_equal(first[name], last[name]) for name in first
               if name.startswith("stage"))


def test_what_was_done_after_the_last_checkpoint_is_done_again(tiny_config, tmp_path, monkeypatch):
    """A crash in step 8, two steps after a checkpoint, in the middle of a line of metrics."""
    config = tiny_config("train.steps=10", "train.log_every=1", "train.checkpoint_every=3")
    whole = trained(config, tmp_path / "whole")

    class Crash(RuntimeError):
        pass

    def crashing(network, updates, step, *more):
        if step == 7:
            raise Crash
        return train_step(network, updates, step, *more)
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(training, "train_step", crashing)
        trained(config, tmp_path / "parts")
    # the end of a process would end its threads, too: two must not write at once
    for thread in threading.enumerate():
        if thread.name in ("committer", "shard 0"):
            thread.join()
    assert [row["step"] for row in metrics(tmp_path / "parts")] == list(range(1, 8))
    with (tmp_path / "parts/metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "seco')
    trained(config, tmp_path / "parts", resume=True)
    assert_same_run(whole, tmp_path / "parts")


@pytest.mark.parametrize("line", [b"\xff\xfe", b"no metrics", b"[]", b'{"step": "x"}', b"{}",
                                  bytes(200),
                                  b'{"step": 2, "obj', b"[" * 5000, b'{"step": 1e999}'])
def test_a_run_goes_on_without_damaged_lines_of_metrics(tiny_config, tmp_path, capsys, line):
    config = tiny_config("train.steps=3", "train.log_every=1")
    run = trained(config, tmp_path / "run", stop_at=2)
    first, second = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(first + line + b"\n" + second)
    assert [row["step"] for row in metrics(trained(config, run, resume=True))] == [1, 2, 3]
    assert "metrics.jsonl: 1 damaged line is left out" in capsys.readouterr().err


@pytest.mark.parametrize("mark", [b"", b"\n", bytes(33), b"\xff\xfe" * 9])
def test_a_damaged_mark_of_the_run_is_mended_at_once(tiny_config, tmp_path, capsys, mark):
    config = tiny_config("train.steps=3", "train.log_every=1")
    run = trained(config, tmp_path / "run", stop_at=1)
    file, (newest,) = run / "checkpoints/run-id", checkpoint.saved(run / "checkpoints")
    file.write_bytes(mark)
    trained(config, run, resume=True)
    assert file.read_text().strip() == checkpoint.read_manifest(newest).run
    assert f"{file} was damaged, and is written again" in capsys.readouterr().err


def test_another_rate_is_said_and_recorded_when_a_run_goes_on(tiny_config, tmp_path, capsys):
    trained(tiny_config("train.steps=2", "train.log_every=1", "update.schedule=constant",
                        "update.rate=0.01"), tmp_path, stop_at=1)
    config = tiny_config("train.steps=2", "train.log_every=1", "update.schedule=constant",
                         "update.rate=0.002")
    trained(config, tmp_path, resume=True)
    said = capsys.readouterr().err
    assert "update.rate = 0.002 from here on, it was 0.01 up to step-00000001" in said
    assert [row["rate"] for row in metrics(tmp_path)] == [0.01, 0.002]
    assert checkpoint.load_state(checkpoint.find(tmp_path)).config.update.rate == 0.002
    assert "rate = 0.002" in (tmp_path / "configuration.toml").read_text()


def test_resume_without_a_checkpoint_starts_from_the_beginning(tiny_config, tmp_path):
    config = tiny_config("train.steps=3", "train.log_every=1")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/metrics.jsonl").write_text('{"step": 1}\n')
    assert_same_run(trained(config, tmp_path / "whole"),
                    trained(config, tmp_path / "parts", resume=True))


def test_resuming_a_finished_run_changes_nothing(tiny_config, tmp_path, capsys):
    config = tiny_config("train.steps=2")
    trained(config, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    trained(config, tmp_path, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert "step 2 of 2: nothing left to do" in capsys.readouterr().out


def test_a_finished_run_can_go_on_for_longer(tiny_config, tmp_path):
    trained(tiny_config("train.steps=2"), tmp_path)
    trained(tiny_config("train.steps=4"), tmp_path, resume=True)
    assert checkpoint.saved(tmp_path / "checkpoints")[-1].name == "step-00000004"


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("change, key", [
    ("update.rule=adam", "update.rule = 'momentum'"),
    ("stages.1.maps=2", "stages.1.maps = 3"), ("train.seed=1", "train.seed = 0"),
    ("preprocess.whitening=3", "preprocess.whitening = 5"), ("train.batch=10", "train.batch = 20"),
])
def test_resuming_with_another_configuration_is_refused(tiny_config, tmp_path, change, key):
    trained(tiny_config("train.steps=1"), tmp_path)
    before = (tmp_path / "configuration.toml").read_text()
    with pytest.raises(InputError) as caught:
        trainer(tiny_config("train.steps=1", change), tmp_path, resume=True)
    message = str(caught.value)
    now = change.partition("=")[2].strip().replace("adam", "'adam'")
    assert f"was written with {key}, the configuration now says {now}" in message
    assert "\n" not in message
    assert (tmp_path / "configuration.toml").read_text() == before


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny_config, tmp_path):
    trained(tiny_config("train.steps=1"), tmp_path)
    with pytest.raises(InputError,
                       match="already holds a run, up to step-00000001: go on with --resume"):
        trainer(tiny_config("train.steps=1"), tmp_path)


def test_a_dataset_of_another_size_is_refused(tiny_config, tmp_path):
    other = write_dataset(tmp_path / "other.h5", structured_images(30, 20))
    with pytest.raises(
            InputError,
            match=r"other\.h5 holds images of 20 x 20 x 1, the configuration says data\.size = "
            r"24, data\.channels = 1"):
        Trainer(tiny_config(f"data.train={other}"), tmp_path / "run")


def test_a_run_folder_that_cannot_be_written_is_named(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"run folder {tmp_path}/file/run cannot be written "
                       ".*choose another --out"):
        trained(tiny_config("train.steps=1"), tmp_path / "file" / "run")


# ---- what goes wrong on the way ------------------------------------------------------------------


@pytest.mark.parametrize("rule, rate", [("sgd", 1e30), ("momentum", 1e30), ("sgd", 1e8)])
def test_a_rate_that_is_far_too_large_stops_the_run_and_leaves_the_last_good_checkpoint(
        tiny_config, tmp_path, monkeypatch, rule, rate):
    config = tiny_config(f"update.rule={rule}", "train.steps=40", "train.checkpoint_every=1",
                         "train.keep=3")
    trained(config, tmp_path, stop_at=3)
    before = contents(tmp_path)
    damaged = trainer(config, tmp_path, resume=True)
    monkeypatch.setattr(Schedule, "learning_rate", lambda schedule, step: rate)
    with pytest.raises(InputError,
                       match=r"^the objective of stage \d is (not finite|[\d.e+]+ times its "
                       r"first value \(.*\)) in step \d+: update\.rate = "):
        damaged.train()
    good = checkpoint.saved(tmp_path / "checkpoints")
    if rate == 1e30:  # the first update already breaks the parameters: they are not saved
        assert contents(tmp_path) == before
    for path in good:
        state, network = checkpoint.load(path)
        x = state.preprocessing.preprocessor(24, network.dtype)(structured_images(20))
        assert all(math.isfinite(s.loss.objective) for s in network.forward(state.parameters, x))
    assert all(math.isfinite(row["objective"]) for row in metrics(tmp_path))


def test_ctrl_c_ends_with_130_and_a_checkpoint_to_go_on_from(tiny_config, tiny_dataset, tmp_path):
    """In a real process; what it says leads to the numbers of a run that nobody interrupted."""
    changes = ["train.steps=1000000", "train.checkpoint_every=20", "train.log_every=1"]
    out = tmp_path / "parts"
    command = [sys.executable, "-m", "hpclcae", "train", RUN / "tiny.toml", "--out", out,
               *(w for change in (f"data.train={tiny_dataset}", *changes)
                 for w in ("--set", change))]

    def listening():
        # a parent may have told it to ignore
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True, preexec_fn=listening) as process:
        try:
            deadline = time.monotonic() + 60
            while not checkpoint.saved(out / "checkpoints"):
                assert time.monotonic() < deadline
                with pytest.raises(subprocess.TimeoutExpired):  # it runs until it is told to stop
                    process.wait(0.01)
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    told = re.match(
        r"interrupted after step (\d+); --resume goes on from (\S+)\nhpclcae train: interrupted\n$",
        said)
    assert told, said
    done, saved = metrics(out)[-1]["step"], checkpoint.saved(out / "checkpoints")
    # It may have come between a step and its line of metrics; and what was being saved is saved.
    assert int(told[1]) in (done, done + 1) and Path(told[2]) in saved
    newest = saved[-1]
    assert not list(out.rglob("*.partial"))
    stop = checkpoint.step_of(newest) + 7
    config = tiny_config(*changes)
    assert_same_run(trained(config, tmp_path / "whole", stop),
                    trained(config, out, stop, resume=True))


def test_ctrl_c_before_the_first_checkpoint_says_so(tiny_config, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(training, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_config(), tmp_path)
    assert capsys.readouterr().err == "interrupted after step 0; no checkpoint is complete yet\n"


# ---- what a run leaves behind --------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    ["train.gradient=joint"], ["train.gradient=stopped"],
    ["train.gradient=greedy", "update.rule=adam", "update.rate=0.05", *TIED],
    ["update.rule=sgd", "update.rate=0.2"], ["update.rule=adagrad", "update.rate=0.1"],
], ids=lambda changes: changes[0])
def test_the_objective_falls(tiny_config, tmp_path, changes):
    rows = metrics(trained(tiny_config("train.steps=60", "train.log_every=1", *changes), tmp_path))
    for stage in range(3):
        curve = [row["stages"][stage] for row in rows if row["stages"][stage]]
        assert len(curve) == (20 if "train.gradient=greedy" in changes else 60)
        first, last = (np.mean([t["reconstruction"] + t["sparsity"] for t in part])
                       for part in (curve[:3], curve[-3:]))
        assert last < 0.75 * first, (stage, first, last)
        assert curve[-1]["response"] > 0.05  # nor did the responses collapse


@pytest.mark.parametrize("gradient", ["joint", "greedy"])
def test_lines_of_metrics(tiny_config, tmp_path, gradient):
    config = tiny_config(f"train.gradient={gradient}", "train.steps=14", "train.log_every=4",
                         "update.rate=0.001", "stages.1.weight=0.5")
    rows = metrics(trained(config, tmp_path))
    assert [row["step"] for row in rows] == [4, 8, 12, 14]
    for row in rows:
        assert set(row) == {"step", "seconds", "objective", "stages", *TIMES, "rate"}
        terms = [stage and stage["reconstruction"] + stage["sparsity"] for stage in row["stages"]]
        assert row["objective"] == pytest.approx(sum(w * t for w, t in zip((1, 0.5, 1), terms)
                                                     if t), rel=1e-12)
        flop = training_flop(config, phase_of(config, row["step"] - 1).stage)
        assert row["gflop_per_second"] == pytest.approx(row["images_per_second"] * flop / 1e9)
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    trained_stages = [[i for i, stage in enumerate(row["stages"]) if stage] for row in rows]
    assert trained_stages == ([[0, 1, 2]] * 4 if gradient == "joint" else [[0], [1], [2], [2]])


def test_the_rate_is_constant_and_then_falls_to_zero(tiny_config, tmp_path):
    rates = {}
    for schedule in ("constant", "halfway"):
        config = tiny_config("train.steps=10", "train.log_every=1", f"update.schedule={schedule}",
                             "update.rate=0.001")
        rates[schedule] = [row["rate"] for row in metrics(trained(config, tmp_path / schedule))]
    assert rates["constant"] == [0.001] * 10
    assert rates["halfway"] == pytest.approx([0.001] * 6 + [0.0008, 0.0006, 0.0004, 0.0002],
                                             rel=1e-12)


def test_the_newest_checkpoints_are_kept(tiny_config, tmp_path):
    trained(tiny_config("train.steps=11", "train.checkpoint_every=3", "train.keep=2"), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "configuration.toml",
                                                          "metrics.jsonl", "progress"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["run-id",
                                                                            "step-00000009",
                                                                            "step-00000011"]


def test_the_command_trains_with_its_options(tiny_dataset, tiny_config, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    train.configure(parser)
    args = parser.parse_args([str(RUN / "tiny.toml"), "--out", str(tmp_path / "run"), "--stop-at",
                              "2", "--set",
                              f"data.train={tiny_dataset}", "--set", "stages.2.maps=5"])
    assert train.run(args) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"step 2 of 60: {tmp_path}/run/checkpoints/step-00000002; fetch ")
    assert said.err.startswith("step 2/60  objective ")
    state, _ = checkpoint.load(checkpoint.find(tmp_path / "run"))
    assert state.config == tiny_config("stages.2.maps=5")
    assert (tmp_path / "run/configuration.toml").read_text().count("maps = 5") == 1
