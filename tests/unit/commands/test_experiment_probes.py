"""Histograms, stimuli, maps, films and sensitivity on the tiny network, and what goes wrong."""
import json
import shutil
import sys

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import film, selectivity_map, sensitivity
from tests.support.tiny_run import write_images, write_run

NEURONS = ["--neuron", "1/4,4,0", "2/1,1,0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("probes")
    write_run(place)
    write_images(place / "colour.h5", 20, labels=True, channels=3)
    write_images(place / "large.h5", 20, labels=True, size=16)
    write_images(place / "unlabelled.h5", 20, labels=False)
    write_images(place / "few.h5", 20, labels=True)
    (place / "text.txt").write_text("no film")
    return place


def call(folder, name, *words):
    return cli.main(["experiment", name, str(folder / "run"), *words])


def result(out, name):
    found = json.loads((out / f"{name}.json").read_text())
    for part in found["parts"]:
        if part["type"] == "figure":
            assert (out / part["file"]).read_bytes().startswith(b"\x89PNG")
            assert b"<svg" in (out / part["svg"]).read_bytes()[:2000]
            assert part["alt"] and part["caption"]
    return found


def test_histograms_have_every_response_of_the_final_half(folder, tmp_path):
    pytest.importorskip("matplotlib")
    assert call(folder, "histograms", *NEURONS, "--out", str(tmp_path), "--batch", "7") == 0
    found = result(tmp_path, "histograms")
    model = Model.load(folder / "run")
    with h5py.File(tmp_path / "histograms.h5") as store, Dataset(folder / "test.h5") as test:
        index, response = store["index"][:], store["response"][:]
        stages = model.responses(model.prepare(test.read(index)))
        assert np.allclose(response, [stages[0][4, 4, 0], stages[1][1, 1, 0]])
        shows = test.labels[index] == 1
        assert np.array_equal(store["concept"][:], shows) and (test.labels[index] >= 0).all()
    first = found["values"]["neurons"][0]
    above = response[0, shows][:, None] - response[0, ~shows]
    assert first["auc"] == pytest.approx((above > 0).mean() + (above == 0).mean() / 2)
    assert first["concept"]["0.5"] == pytest.approx(np.median(response[0, shows]))


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("name", ["histograms", "stimuli", "map"])
def test_any_name_of_a_concept_can_be_drawn(folder, tmp_path, name):
    """Formulas that are none, characters that the font lacks."""
    pytest.importorskip("matplotlib")
    test = shutil.copy(folder / "test.h5", tmp_path / "odd.h5")
    with h5py.File(test, "r+") as file:
        file["labels"].attrs["label_names"] = ["other", "$x^{ \\ $ \u732b & <b>"]
    words = ["--permutations", "20"] if name == "map" else NEURONS
    words += ["--starts", "1", "--iterations", "1"] if name == "stimuli" else []
    assert call(folder, name, *words, "--test", str(test), "--out", str(tmp_path / "out")) == 0


def test_stimuli_are_the_highest_and_optima_are_higher(folder, tmp_path):
    pytest.importorskip("matplotlib")
    assert call(folder, "stimuli", *NEURONS, "--out", str(tmp_path), "--starts", "2",
                "--iterations", "15") == 0
    result(tmp_path, "stimuli")
    model = Model.load(folder / "run")
    with h5py.File(tmp_path / "stimuli.h5") as store, Dataset(folder / "test.h5") as test:
        best, strongest = store["highest"][:], store["response"][:]
        assert best.shape[0] == 2 and (np.diff(strongest, axis=1) <= 0).all()
        answers = model.responses(model.prepare(test.read(best[1])))[1][1, 1, 0]
        assert np.allclose(answers, strongest[1])
        assert (store["optimum_response"][:, 0] > strongest[:, 0]).all()
        image = test.read(best[0, :1]).astype(float)  # 1 % of these few images is one
        assert np.allclose(store["mean"][0], (image[0] - image.mean()) / image.std())


def test_a_map_counts_selective_neurons_and_those_by_chance(folder, tmp_path):
    pytest.importorskip("matplotlib")
    assert call(folder, "map", "--out", str(tmp_path), "--permutations", "40", "--batch", "9") == 0
    found = result(tmp_path, "map")
    model = Model.load(folder / "run")
    with h5py.File(tmp_path / "map.h5") as store, Dataset(folder / "test.h5") as test:
        labelled = np.flatnonzero(test.labels >= 0)
        shows = test.labels[labelled] == 1
        y = model.responses(model.prepare(test.read(labelled)))[0]
        expected = (y[..., shows].mean(axis=-1) - y[..., ~shows].mean(axis=-1)) / y.std(axis=-1)
        assert np.allclose(store["stage1/selectivity"][:], expected, rtol=1e-4)
        assert store["stage1/chance"].shape == (selectivity_map.LEVELS, 40)
        assert store["stage1/selective"][:].sum() == found["values"]["stages"][0]["selective"] > 0


def test_the_threshold_of_a_map_holds_the_false_discovery_rate():
    rng = np.random.default_rng(0)
    null = rng.standard_normal((1000, 101))
    null[:100, 0] += 4
    found = selectivity_map.stage_map(null, (10, 10, 10))
    chosen = found.selective.reshape(-1)
    assert 85 <= chosen[:100].sum() and chosen[100:].sum() <= 15
    assert found.chance[found.level].mean() <= 0.05 * found.found[found.level]
    assert not selectivity_map.stage_map(null[100:], (10, 9, 10)).selective.any()
    flat = selectivity_map.stage_map(np.zeros((8, 21)), (2, 2, 2))
    assert flat.level is None and not flat.selective.any()


def test_a_film_is_followed_to_its_peak(folder, tmp_path):
    pytest.importorskip("matplotlib")
    films = pytest.importorskip("tests.support.films")
    dark = films.SCENE
    bright = dark.copy()
    bright[20:30, 24:34] = 250
    path = films.write(tmp_path / "made.mp4", [dark] * 9 + [bright] * 3 + [dark] * 8)
    assert call(folder, "film", "--neuron", "1/4,4,0", "--film", str(path), "--every", "0.1",
                "--windows", "1", "0.5", "--out", str(tmp_path)) == 0
    found = result(tmp_path, "film")
    with h5py.File(tmp_path / "film.h5") as store:
        response, side = store["response"][:], store["side"][:]
        assert response.size == found["values"]["frames"] >= 15
        assert set(np.round(side)) <= {48, 24} and np.isfinite(response).all()
        assert (store["top"][:] + side <= 48.5).all() and (store["left"][:] + side <= 64.5).all()
    peaks = film.Track(*[np.array([0, 5, 1, 0, 7, 0, 3.0])] * 5).peaks()
    assert peaks.tolist() == [1, 4, 6]


def test_sensitivity_trains_collects_and_does_not_repeat(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    started = []

    def train(configuration, run, changes):
        """A run of the same network with other weights, in the place of a training."""
        started.append((run.name, changes))
        if "field9" in run.name:
            return "it does not fit"
        shutil.copytree(folder / "run", run)
        return ""
    monkeypatch.setattr(sensitivity, "train", train)
    (folder / "run/configuration.toml").touch()
    words = ["--fields", "3", "9", "--maps", "2", "--stage", "2", "--share", "0.5", "--runs",
             str(tmp_path / "runs"), "--out", str(tmp_path), "--bootstrap", "100"]
    monkeypatch.setattr(sensitivity, "is_complete", lambda run: run.is_dir())
    assert call(folder, "sensitivity", *words) == 0
    assert [name for name, _ in started] == ["field3-maps2", "field9-maps2"]
    assert {"stages.1.receptive_field=3", "stages.1.maps=2"} <= set(started[0][1])
    assert not any(change.startswith("stages.0") for change in started[0][1])
    table = result(tmp_path, "sensitivity")["parts"][0]
    assert table["rows"][0][:2] == [3, 2] and 50 < table["rows"][0][5] <= 100
    assert table["rows"][1] == [9, 2, *[None] * 7, "it does not fit"]
    assert call(folder, "sensitivity", *words, "--collect") == 0
    assert len(started) == 2 and "trained already" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "runs")
    assert call(folder, "sensitivity", *words, "--collect") == 1
    assert "no combination is trained" in capsys.readouterr().err


def test_a_small_training_has_a_share_of_every_stage():
    from hpclcae.config import Config, StageConfig, TrainConfig
    stages = (StageConfig(steps=250), StageConfig(steps=300), StageConfig())
    changes = sensitivity.small_changes(Config(stages=stages, train=TrainConfig(
        steps=850, gradient="greedy")), 0.1)
    assert {"stages.0.steps=25", "stages.1.steps=30", "train.steps=85"} <= set(changes)


@pytest.mark.parametrize("name, words, message", [
    ("histograms", ["--test", "FOLDER/colour.h5"], "holds images of 12x12x3, the network takes"),
    ("histograms", ["--test", "FOLDER/large.h5"], "holds images of 16x16x1, the network takes"),
    ("histograms", ["--test", "FOLDER/unlabelled.h5"], "has no labels, so there is no concept"),
    ("histograms", ["--neuron", "3/0,0,0"], "--neuron 3/0,0,0: stages are 1 to 2"),
    ("stimuli", ["--neuron", "1/0,0"], "write STAGE/ROW,COL,MAP"),
    ("stimuli", ["--test", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    ("map", ["--test", "FOLDER/few.h5"], "chance cannot be told from selectivity"),
    ("map", ["--out", "FOLDER/text.txt"], "is a file, and results go into"),
    ("film", ["--film", "FOLDER/gone.mp4"], "--film"),
    ("film", ["--film", "FOLDER/text.txt"], "cannot be read as a film"),
    ("sensitivity", ["--fields", "3", "--maps", "2", "--stage", "3"], "stages are 1 to 2")])
def test_what_cannot_be_done_is_one_line(folder, capsys, name, words, message):
    if name == "film":
        pytest.importorskip("av")
    words = [word.replace("FOLDER", str(folder)) for word in words]
    named = NEURONS[:2] if name in ("histograms", "stimuli", "film") else []
    named = [] if "--neuron" in words else named
    assert call(folder, name, *named, *words) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(folder.rglob(f"{name}.json"))


def test_a_missing_extra_is_named_before_the_work(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert call(folder, "film", *NEURONS[:2], "--film", str(folder / "text.txt")) == 1
    said = capsys.readouterr()
    assert "pip install 'hpclcae[images]'" in said.err and not said.out
