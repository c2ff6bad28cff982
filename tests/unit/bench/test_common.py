"""Benchmarks: what they count, what they print and write, when they refuse.

No test asserts a time.
"""
import argparse
import importlib
import json
import math
import os
import re
import socket
import time

import numpy as np
import pytest

from hpclcae.bench import cases, common, kernels, memory, peers, roofline, side_by_side
from hpclcae.bench.common import Report
from hpclcae.config import StageConfig
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.utils.errors import InputError, MissingExtraError
from tests.support import naive
from tests.support.processes import RUN

KEYS = {"bench", "case", "metric", "value", "unit", "machine", "versions", "date"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small reference; and the tests' own BLAS may have as many threads as it likes."""
    monkeypatch.setattr(common, "SGEMM_SIDE", 100)
    monkeypatch.setattr(common, "refuse_more_threads", lambda: None)


def arguments(module, *words):
    parser = argparse.ArgumentParser()
    module.configure(parser)
    return parser.parse_args([str(word) for word in words])


def report(**settings):
    return Report("test",
                  argparse.Namespace(**{"json": None, "repeat": 2, "clock": "wall"} | settings))


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- common --------------------------------------------------------------------------------------


def test_rows_are_appended_and_say_where_they_come_from(tmp_path):
    path = tmp_path / "rows.jsonl"
    for value in (1.5, 2.5):
        report(json=path).add("a case", "rate", value, "GFLOP/s")
    first, second = rows_of(path)
    assert KEYS <= first.keys() and (first["value"], second["value"]) == (1.5, 2.5)
    assert first["versions"]["numpy"] == np.__version__
    assert first["machine"]["cpu"] and first["machine"]["blas"]["name"]
    assert socket.gethostname() not in path.read_text()


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(OSError, match="missing"):
        report(json=tmp_path / "missing" / "rows.jsonl")


def test_functions_run_in_turn_and_the_warm_up_is_not_timed():
    calls = []
    times = report(repeat=3).paired({"a": lambda: calls.append("a"),
                                     "b": lambda: calls.append("b")})
    assert calls == ["a", "b"] * 4
    assert {name: len(values) for name, values in times.items()} == {"sgemm": 6, "a": 3, "b": 3}
    assert min(times["sgemm"]) > 0


def test_no_round_begins_after_the_limit():
    times = report(repeat=50).paired({"a": lambda: time.sleep(0.001)}, limit=0)
    assert len(times["a"]) == 1


def test_ratio_is_the_median_of_the_rounds():
    assert common.ratio([2, 30, 8], [1, 10, 2]) == 3


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="BLAS takes one thread on one core")
def test_more_than_one_blas_thread_is_refused(hpclcae):
    if common.blas()["threads"] is None:
        pytest.skip("this BLAS does not tell its number of threads")
    done = hpclcae("bench", "peers", env=os.environ | {"OPENBLAS_NUM_THREADS": "2"})
    assert done.returncode == 1 and "BLAS runs with 2 threads" in done.stderr
    assert done.stderr.count("\n") == 1


# ---- kernels -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    return cases.StageCase(maps_in=2, positions=9, batch=3, tile=2)


def test_useful_flop_are_those_of_the_formula(case):
    one_pass = 2 * 9 * 9 * 8 * 18 * 18 * 2 * 3
    timed = case.timed()
    for name, passes in (("encode", 1), ("encode, decode", 2), ("dX", 1), ("dZ, dW1, dW2, dX", 4),
                         (cases.ALL_PASSES, 6), (cases.STAGE_STEP, 6)):
        assert timed[name].flop == passes * one_pass


def test_every_part_can_be_timed_again_and_again(case):
    before = {name: weights.copy() for name, weights in case.parameters.views.items()}
    for part in case.timed().values():
        assert part.flop > 0
        part.run()
        part.run()
    assert np.isfinite(case.dx).all() and case.dx.any()
    for name, weights in case.parameters.views.items():
        assert np.abs(weights - before[name]).max() < 1e-6


def test_a_stage_has_every_row_and_differences_add_up(case, capsys):
    found = report()
    rates = kernels.measure(case.label, case.timed(), found)
    seconds = {row["metric"]: row["value"] for row in found.rows if row["unit"] == "s"}
    assert set(seconds) == set(case.timed()) | set(kernels.DIFFERENCES)
    assert math.isclose(seconds["decode (difference)"],
                        max(1e-9, seconds["encode, decode"] - seconds["encode"]))
    shares = {row["metric"]: row["value"] for row in found.rows if row["unit"] == "of sgemm"}
    text = capsys.readouterr().out
    for name in seconds:
        assert shares[name] == rates[name] / rates["sgemm"] > 0
        assert re.search(rf"^{re.escape(name)} +\d", text, re.MULTILINE), name


def test_new_memory_sees_what_a_step_allocates_and_drops(case):
    assert kernels.new_memory(lambda: np.ones(1_000_000)) >= 8_000_000
    assert kernels.new_memory(lambda: None) < 1_000
    kept = []
    assert kernels.new_memory(lambda: kept or kept.append(np.ones(1_000_000))) < 1_000


def test_the_command_prints_and_writes_all_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kernels, "NetworkCase", small_network)
    path = tmp_path / "rows.jsonl"
    assert kernels.run(arguments(kernels, "--maps-in", 1, "--batch", 2, "--tile", 1, 2,
                                 "--positions", 9, "--repeat", 1, "--json", path)) == 0
    text = capsys.readouterr().out
    assert "GFLOP/s by batch and tile" in text and "new memory" in text
    rows = rows_of(path)
    assert all(KEYS <= row.keys() and row["value"] >= 0 for row in rows)
    metrics = {row["metric"] for row in rows}
    assert {"training step", "peak of new memory in a step", cases.STAGE_STEP} <= metrics
    assert {"tile 1" in row["case"] for row in rows if row["metric"] == "encode"} == {True, False}


def small_network(size, batch, rule, tile=0):
    """A network of the same three stages would take 76 pixels; this one has small windows."""
    class Small(cases.NetworkCase):
        stages = (StageConfig(receptive_field=3, maps=2, pooling=2, lcn=3),) * 3
    return Small(20, batch, rule, tile)


def test_a_network_counts_its_own_flop_and_takes_steps():
    network = small_network(76, 2, "sgd")
    network.step()
    weights = sum(g.encoder_weights * (6 if i else 5) for i,
                  g in enumerate(network.network.layout.geometry))
    assert network.flop == 2 * weights * 2


@pytest.mark.parametrize("words", [("--positions", 8), ("--size", 75)])
def test_sizes_that_do_not_fit_are_refused(words):
    with pytest.raises(InputError, match=str(words[1])):
        kernels.run(arguments(kernels, *words))


def test_growth_is_fitted_on_logarithmic_scales():
    assert math.isclose(kernels.fitted_exponent([1, 2, 4], [3, 3 * 2 ** 1.5, 3 * 4 ** 1.5]), 1.5)


def test_growth_over_a_factor_of_16(capsys, monkeypatch):
    for sizes in (kernels.SCALED_POSITIONS, kernels.SCALED_IMAGES):
        assert sizes[-1] ** (2 if sizes is kernels.SCALED_POSITIONS else 1) \
            == 16 * sizes[0] ** (2 if sizes is kernels.SCALED_POSITIONS else 1)
    monkeypatch.setattr(kernels, "SCALED_POSITIONS", (9, 12))
    monkeypatch.setattr(kernels, "SCALED_IMAGES", (1, 2))
    found = arguments(kernels, "--scaling", "--maps-in", 1, "--batch", 2, "--positions", 9,
                      "--repeat", 1)
    assert kernels.run(found) == 0
    assert len(re.findall(r"grows as (positions|images) \*\* -?\d", capsys.readouterr().out)) == 2


def test_the_roofline_is_drawn(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(roofline, "STREAMED", 10_000)
    picture = tmp_path / "roof.png"
    args = arguments(kernels, "--plot", picture, "--maps-in", 1, "--positions", 9, "--repeat", 1)
    found = report(repeat=1)
    roofline.run(args, found, batches=(1, 2))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {row["metric"] for row in found.rows} >= {"sgemm", "memory, read", "encode, by batch"}
    assert len([line for line in capsys.readouterr().out.splitlines()
                if re.match(r" +[12] ", line)]) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
                    reason="needs two cores")
def test_two_processes_side_by_side(capsys):
    found = report(repeat=1)
    side_by_side.run(arguments(kernels, "--side-by-side", 2, "--maps-in", 1, "--batch", 2,
                               "--positions", 9, "--repeat", 1), found)
    assert len(found.rows) == 2 * 3 and all(row["value"] > 0 for row in found.rows)
    assert "rate over alone" in capsys.readouterr().out


def test_more_processes_than_cores_are_refused():
    with pytest.raises(InputError, match="--side-by-side 999"):
        side_by_side.run(arguments(kernels, "--side-by-side", 999), report())


# ---- memory --------------------------------------------------------------------------------------


def test_memory_that_is_needed_is_that_of_the_arrays(tiny_config):
    config = tiny_config("update.rule=adam")
    network = Network(Layout(config))
    need = memory.needed(config)
    parameters = sum(4 * g.parameters for g in network.layout.geometry)
    x = np.zeros((*network.layout.geometry[0].input, config.train.batch), np.float32)
    states = network.forward(network.parameters(0), x)
    kept = sum(a.nbytes for s in states for a in (s.x, s.residual, s.z, s.h))
    assert need == {"parameters": parameters, "state of rule adam": 2 * parameters,
                    "activations": kept}


@pytest.mark.parametrize("gradient", ["joint", "greedy"])
def test_peak_memory_of_a_step_is_measured_in_a_process_of_its_own(gradient, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    assert memory.run(arguments(memory, RUN / "tiny.toml", "--set", f"train.gradient={gradient}",
                                "--json", path)) == 0
    found = {row["metric"]: row["value"] for row in rows_of(path)}
    assert found["needed"] < found["measured peak: and parameters"]
    assert found["measured peak: and parameters"] <= found["measured peak: and 2 steps"]
    assert math.isclose(found["peak over needed"],
                        found["measured peak: and 2 steps"] / found["needed"])
    assert "of what is needed" in capsys.readouterr().out


def test_more_memory_than_the_machine_has_is_refused():
    with pytest.raises(InputError, match="GB are available"):
        memory.run(arguments(memory, RUN / "paper.toml", "--set", "train.batch=100000000"))


# ---- peers ---------------------------------------------------------------------------------------


class Loops:
    """A peer made of the oracle's loops and plain sums over windows."""
    name, slow, wrong = "loops", False, ""

    def __init__(self, problem):
        self.problem = problem

    def forward(self, step):
        return naive.encode(self.problem.encoder, self.problem.x)

    def both(self, step):
        p, r = self.problem, self.problem.field
        z = naive.encode(p.encoder, p.x)
        found, dcode, windows = {"z": z}, p.dz, naive.positions(p.x.shape[0], r)
        if step == "autoencoder":
            found["residual"] = residual = naive.decode(p.decoder, z, p.x.shape[:3]) - p.x
            found["d_decoder"] = np.stack([[np.einsum("klcb,mb->klcm", residual[y:y + r, x:x + r],
                                                      z[y, x]) for x in windows] for y in windows])
            dcode = p.dz + naive.encode(p.decoder, residual)
        found["d_encoder"] = np.stack([[np.einsum("klcb,mb->klcm", p.x[y:y + r, x:x + r],
                                                  dcode[y, x]) for x in windows] for y in windows])
        found["dx"] = naive.decode(p.encoder, dcode, p.x.shape[:3])
        if self.wrong in found:
            found[self.wrong] = found[self.wrong] * (1 + 1e-3)
        self.found = found

    def outputs(self, step):
        return self.found


@pytest.fixture
def problem():
    return peers.Problem(maps_in=2, positions=5, images=3, field=4, maps=3)


@pytest.mark.parametrize("step", peers.STEPS)
def test_ours_agrees_with_loops(problem, step):
    assert 0 < peers.check(peers.Ours(problem), [Loops(problem)], step) < 5e-6


@pytest.mark.parametrize("wrong", ["z", "dx", "d_encoder", "residual", "d_decoder"])
def test_a_wrong_peer_is_named_and_nothing_is_timed(problem, wrong, capsys):
    class Wrong(Loops):
        pass
    Wrong.wrong = wrong
    found = report()
    with pytest.raises(InputError,
                       match=f"loops and hpclcae disagree on {wrong} of the autoencoder step by "
                       "0.00"):
        peers.compare(problem, [Wrong], ["autoencoder"], 1, found)
    assert not found.rows and not capsys.readouterr().out


def test_not_a_number_is_no_agreement(problem):
    class Broken(Loops):
        def outputs(self, step):
            return self.found | {"dx": self.found["dx"] * np.nan}
    with pytest.raises(InputError, match="disagree on dx"):
        peers.check(peers.Ours(problem), [Broken(problem)], "filter")


def test_ratios_are_printed_and_written(problem, capsys):
    found = report()
    peers.compare(problem, [Loops], peers.STEPS, 10, found)
    text = capsys.readouterr().out
    assert len(re.findall(r"^hpclcae( +[\d.]+){2} +1.00 +1.00 +1.00$", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^loops( +-?[\d.]+){5}$", text, re.MULTILINE)) == 2
    ratios = [row for row in found.rows if row["unit"] == "times the time of hpclcae"
              and "loops" in row["case"]]
    assert [row["metric"] for row in ratios] == ["forward", "backward", "both"] * 2


def test_a_missing_framework_is_left_out_with_one_line(monkeypatch, capsys):
    class Module:
        PEERS = [Loops]

    def load(name):
        if name.endswith("torch"):
            raise MissingExtraError("PyTorch is missing: pip install 'hpclcae[bench]'")
        return Module
    monkeypatch.setattr(importlib, "import_module", load)
    assert peers.load() == [Loops]
    assert capsys.readouterr().err == "left out: PyTorch is missing: pip install 'hpclcae[bench]'\n"
    Module.PEERS = []
    with pytest.raises(InputError, match="no peer"):
        peers.load()


@pytest.mark.parametrize("framework", list(peers.FRAMEWORKS))
@pytest.mark.parametrize("step", peers.STEPS)
def test_every_peer_agrees(framework, step):
    pytest.importorskip(framework)
    found = importlib.import_module(peers.FRAMEWORKS[framework]).PEERS
    problem = peers.Problem(maps_in=2, positions=5, images=3, field=4, maps=3)
    ours = peers.Ours(problem)
    for peer in found:
        one = peer(problem)
        assert np.isfinite(np.asarray(one.forward(step))).all()
        assert peers.check(ours, [one], step) < 5e-6
