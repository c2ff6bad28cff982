"""bench halo and bench scaling: what is counted and printed, and when they refuse.

No test asserts a time.
"""
import argparse
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.bench import halo, scaling
from hpclcae.config import Config, DataConfig, PreprocessConfig, StageConfig, TrainConfig
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

CONFIG = Config(data=DataConfig(size=20, channels=3), preprocess=PreprocessConfig(whitening=3),
                train=TrainConfig(batch=3, dtype="float64"),
                stages=(StageConfig(receptive_field=4, maps=2, pooling=2, lcn=3),
                        StageConfig(receptive_field=3, maps=2, pooling=2, lcn=3),
                        StageConfig(receptive_field=2, maps=2, pooling=2, lcn=3)))


def variant(gradient, border):
    return replace(CONFIG, train=replace(CONFIG.train, gradient=gradient),
                   stages=tuple(replace(stage, lcn_border=border) for stage in CONFIG.stages[:2]))


def meters_after_a_round(config, grid):
    """Each block's meter after one round of training."""
    def program(communicator):
        meter = halo.Meter(communicator)
        halo.Training(config, grid, meter).round()
        return meter
    return run_blocks(grid.size, program)


@pytest.mark.parametrize("gradient", ["joint", "stopped", "greedy"])
@pytest.mark.parametrize("border", ["clip", "valid", "centre", "same"])
def test_what_is_sent_is_what_the_geometry_needs(gradient, border):
    config, grid = variant(gradient, border), Grid(3, 2)
    steps = len(config.stages) if gradient == "greedy" else 1
    least = halo.least_bytes(config, grid)
    sent = {key: sum(meter.rounds[0][key][halo._BYTES]
                     for meter in meters_after_a_round(config, grid)) / steps for key in least}
    assert sent == pytest.approx(least, rel=1e-12) and min(sent.values()) > 0


def test_every_exchange_that_sends_something_is_named():
    config, grid = variant("joint", "centre"), Grid(2, 2)
    sending = {key for meter in meters_after_a_round(config, grid)
               for key, found in meter.rounds[0].items() if found[halo._BYTES]}
    assert sending == set(halo.least_bytes(config, grid))


def test_a_cell_by_hand():
    """20 columns of x in blocks of 10.

    17 of z, whose first 9 read columns 0 to 11 and the others 9 to 19.
    """
    config = replace(CONFIG, stages=CONFIG.stages[:1])
    columns = (2 + 1) * 20 * 3  # of 20 rows and 3 channels
    assert halo.least_bytes(config, Grid(1, 2))[0, "fold residual"] == columns * 3 * 8


def test_blocks_agree_on_what_a_step_costs():
    costs = run_blocks(4, lambda communicator: halo.measure(CONFIG, Grid(2, 2), communicator, 3))
    assert all(cost == costs[0] for cost in costs)
    for key, cost in costs[0].exchanges.items():
        assert min(cost.transferred, cost.waited) >= 0 and 0 < cost.seconds < costs[0].seconds
        if key != halo.SUMS:
            assert cost.times == 1 and cost.sent == cost.least and cost.copied > 0
    # mean, deviation, deviation once whitened, the objective's terms
    assert costs[0].exchanges[halo.SUMS].times == 4


def test_watching_does_not_change_what_is_trained():
    x = np.random.default_rng(0).standard_normal((20, 20, 3, 3))

    def program(communicator):
        network = Network(Layout(CONFIG, Grid(2, 1)), communicator)
        if isinstance(communicator, halo.Meter):
            communicator.watch(network)
            communicator.begin_round()
        held = network.block.plan.stages[0].x.held
        states = network.forward(network.parameters(0),
                                 x[slice(*held.rows), slice(*held.cols)].copy())
        gradients = []
        network.backward(states, lambda name, row, gradient: gradients.append(gradient.copy()))
        return [state.y.copy() for state in states] + gradients
    for plain, watched in zip(run_blocks(2, program),
                              run_blocks(2, lambda line: program(halo.Meter(line)))):
        assert len(plain) == len(watched) > 3
        assert all(np.array_equal(a, b) for a, b in zip(plain, watched))


def test_training_moves_the_weights_by_nothing_that_matters(monkeypatch):
    training = halo.Training(CONFIG, Grid(1, 1), halo.Meter(halo.SerialCommunicator()))
    before = training.parameters.vector.copy()
    training.round()
    assert 0 < np.abs(training.parameters.vector - before).max() < 1e-9


# ---- the commands --------------------------------------------------------------------------------

def arguments(module, *words):
    parser = argparse.ArgumentParser()
    module.configure(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture(autouse=True)
def any_number_of_threads(monkeypatch):
    """The tests' own BLAS may have as many threads as it likes."""
    for module in (halo, scaling):
        monkeypatch.setattr(module, "refuse_more_threads", lambda: None)


def test_one_rank_says_how_to_start_more_and_times_the_step(capsys, tmp_path):
    words = (RUN / "tiny.toml", "--steps", 1, "--set", "train.batch=2", "--json",
             tmp_path / "rows.jsonl")
    assert halo.run(arguments(halo, *words)) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == ("one rank has nobody to exchange with; start more, for "
                                   "instance: mpiexec -n 2 hpclcae bench halo")
    assert "run/tiny.toml train.batch=2 grid 1x1, batch 2, float32" in out and "0.00 MB" in out
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    found = {row["metric"]: row["value"] for row in rows}
    assert found["rate"] == pytest.approx(2 / found["step"])


def test_the_stage_of_the_papers_lies_between_two_others():
    config = configuration.loads(halo.PAPER_STAGE.format(side=64), ["train.batch=7"])
    network = Network(Layout(replace(config, data=replace(config.data, size=30))))
    assert config.data.size == 64 and config.train.batch == 7
    assert config.stages[1] == StageConfig() and network.layout.geometry[1].input == (30, 30, 8)
    assert set(halo.least_bytes(config, Grid(2, 1))) >= {(1, "fill x"), (1, "fold dx"),
                                                         (1, "fold mean of h")}


def test_scaling_compares_within_rounds(monkeypatch, capsys, tmp_path):
    times = iter([4.0, 2.0, 1.0, 8.0, 3.2, 2.0, 4.0, 2.5, 1.0])  # three rounds of 1, 2 and 16 ranks
    monkeypatch.setattr(scaling, "seconds_of_step", lambda mpiexec, ranks, args: next(times))
    monkeypatch.setattr(scaling, "find_mpiexec", lambda: "mpiexec")
    monkeypatch.setattr(scaling, "machine", lambda: {"cores": 2})
    path = tmp_path / "rows.jsonl"
    scaling.run(arguments(scaling, "x.toml", "--ranks", 1, 2, 16, "--repeat", 3, "--json", path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = {row["metric"]: row["value"] for row in rows}
    assert found["2 ranks: step"] == 2.5
    assert found["2 ranks over 1: speed-up"] == 2 and found["2 ranks over 1: efficiency"] == 1
    assert found["16 ranks over 1: speed-up"] == 4 and found["16 ranks over 1: efficiency"] == 2
    assert "x.toml; efficiency is of 2 cores" in capsys.readouterr().out


def test_a_missing_mpiexec_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no mpiexec.*hpclcae\[mpich\]"):
        scaling.find_mpiexec()


def test_a_job_that_fails_is_told_and_one_that_hangs_is_killed(tmp_path):
    fails = [sys.executable, "-c",
             "import sys; print('noise', file=sys.stderr); sys.exit('hpclcae: the reason')"]
    assert scaling.run_job(fails, 30) == "hpclcae: the reason"
    silent = [sys.executable, "-c", "raise SystemExit(3)"]
    assert scaling.run_job(silent, 30) == "mpiexec ended with exit code 3"
    assert scaling.run_job([sys.executable, "-c", "pass"], 30) is None
    child = ("import os, pathlib, time; "
             f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); "
             "time.sleep(1000)")
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert "took more than 2 s" in scaling.run_job([sys.executable, "-c", parent], 2)
    gone = subprocess.run(["tail", "--pid", (tmp_path / "pid").read_text(), "-f", "/dev/null"],
                          timeout=30)
    assert gone.returncode == 0
