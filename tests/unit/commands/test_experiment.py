"""``hpclcae experiment``: tables, files, and one line for what goes wrong."""
import json
import shlex
import sys

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.writer import DatasetWriter
from tests.support.tiny_run import SIZE, write_images, write_run

LARGE = SIZE + 8


def write_frames(path, channels=1, size=LARGE, half=True, kinds=(0, 1)):
    """Bright middles are the concept; two images a person, persons in turns in the halves."""
    rng = np.random.default_rng(3)
    with DatasetWriter(path, size, channels, ["no face", "face"]) as writer:
        for number in range(80):
            label, person = kinds[number // 2 % len(kinds)], number // 2
            image = rng.integers(0, 100, (size, size, channels))
            image[size // 2 - 3:size // 2 + 3, size // 2 - 3:size // 2 + 3] += 120 * label
            writer.append(image.astype(np.uint8), source="s", group=f"s/{person}", label=label,
                          original=(9, 9), crop=(0, 0, 9, 9), half=person // 2 % 2 if half else -1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tolerance")
    write_run(place)
    write_frames(place / "large.h5")
    write_frames(place / "colour.h5", channels=3)
    write_frames(place / "same.h5", size=SIZE)
    write_frames(place / "whole.h5", half=False)
    write_frames(place / "faces.h5", kinds=(1,))
    write_images(place / "unlabelled.h5", 10, labels=False, size=LARGE)
    return place


@pytest.fixture(scope="module")
def neuron(folder):
    """A neuron of stage 1 that answers to bright middles more than to others."""
    model = Model.load(folder / "run")
    with Dataset(folder / "large.h5") as large:
        frames, shows = large.read(np.arange(large.count)), large.labels == 1
    response = model.responses(model.prepare(frames[:, 4:4 + SIZE, 4:4 + SIZE]))[0]
    excess = response[..., shows].mean(axis=-1) - response[..., ~shows].mean(axis=-1)
    return "1/" + ",".join(map(str, np.unravel_index(excess.argmax(), excess.shape)))


def test_a_neuron_is_measured_and_everything_is_written(folder, neuron, tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    words = ["experiment", "tolerance", str(folder / "run"), "--frames", str(folder / "large.h5"),
             "--neuron", neuron, "--bootstrap", "100", "--out", str(tmp_path / "out"), "--scales",
             "0.5", "0.75", "1.5", "--patch", "4"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "development half: 20 images of 10 persons and photographs show 'face', 20 of 10" in said
    assert "scale 0.5 is left out: of 20 pixels it wants 24" in said
    assert "no threshold is known of it" in said and "patch over the middle: " in said
    out = tmp_path / "out"
    assert (out / "tolerance-curves.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((out / "tolerance.json").read_text())
    model = Model.load(folder / "run")
    assert results["command"] == shlex.join(["hpclcae", *words])
    tables = [part for part in results["parts"] if part["type"] == "table"]
    assert [each["columns"][0] for each in tables] == ["shift x", "shift y", "scale", "top, left"]
    assert tables[0]["rows"][1][:2] == ["+0", "1.00"]
    right, _, scale, patch = results["values"]["sweeps"]
    assert right["at"] == [-4, 0, 4] and right["response"][1] == pytest.approx(1)
    assert right["share"] == [None] * 3 and right["response_interval"][1] == pytest.approx([1, 1])
    assert scale["at"] == [0.75, 1, 1.5] and scale["response"][1] == pytest.approx(1)
    assert len(patch["response"]) == 25 and "half_widths" not in patch
    with h5py.File(out / "tolerance.h5") as store, Dataset(folder / "large.h5") as large:
        assert results["frames_fingerprint"] == large.fingerprint
        index = store["shift x/index"][:]
        assert (large.half[index] == 0).all() and (large.labels[index] == 1).all()
        windows = large.read(index)[:, 4:4 + SIZE, :SIZE]
        where = tuple(map(int, neuron[2:].split(",")))
        expected = model.responses(model.prepare(windows))[0][where]
        assert np.allclose(store["shift x/response"][2], expected)
    assert cli.main([*words, "--final"]) == 0  # replaces what it wrote itself
    assert "final half: 20 images" in capsys.readouterr().out


def test_without_matplotlib_a_line_names_the_extra(folder, neuron, tmp_path, capsys, monkeypatch):
    pytest.importorskip("PIL.Image")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["experiment", "tolerance", str(folder / "run"), "--frames",
                     str(folder / "large.h5"), "--neuron", neuron, "--bootstrap", "100", "--out",
                     str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "tolerance-curves.png is left out" in said and "pip install 'hpclcae[figures]'" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tolerance.h5", "tolerance.json"]


def test_without_pillow_nothing_begins(folder, neuron, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert cli.main(["experiment", "tolerance", str(folder / "run"), "--frames",
                     str(folder / "large.h5"), "--neuron", neuron]) == 1
    said = capsys.readouterr()
    assert "pip install 'hpclcae[images]'" in said.err and not said.out


@pytest.mark.parametrize("arguments, message", [
    (["--frames", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    (["--frames", "FOLDER/colour.h5"], "holds images of 3 channels, the network takes 1"),
    (["--frames", "FOLDER/same.h5"], "holds images of 12x12, and only larger ones than the "
     "network's 12x12 leave room for shifts: hpclcae data frames SOURCES --split test --size 18"),
    (["--frames", "FOLDER/unlabelled.h5"], "has no labels, so there is no concept to shift"),
    (["--frames", "FOLDER/whole.h5"], "does not say which half is for development"),
    (["--frames", "FOLDER/faces.h5"],
     "faces.h5, development half: 40 of 40 labelled images show the concept"),
    (["--frames", "FOLDER/large.h5", "--patch", "12"], "--patch 12: from 1 to 11"),
    (["--frames", "FOLDER/large.h5", "--neuron", "2/9,9,9"], "stage 2 has 3 rows"),
    (["--frames", "FOLDER/large.h5", "--out", "FOLDER/same.h5"], "is a file, and results go into")])
def test_what_cannot_be_measured_is_one_line(folder, capsys, arguments, message):
    words = [word.replace("FOLDER", str(folder)) for word in arguments]
    assert cli.main(["experiment", "tolerance", str(folder / "run"), "--neuron", "1/0,0,0",
                     *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(folder.rglob("tolerance.*"))


def test_without_results_of_neurons_a_line_names_the_command(folder, capsys):
    words = ["experiment", "tolerance", str(folder / "run"), "--frames", str(folder / "large.h5")]
    assert cli.main(words) == 1
    assert f"hpclcae neurons {folder / 'run'} writes it" in capsys.readouterr().err


def test_only_its_own_results_are_replaced(folder, neuron, tmp_path, capsys):
    (tmp_path / "tolerance.json").write_text("mine")
    assert cli.main(["experiment", "tolerance", str(folder / "run"), "--frames",
                     str(folder / "large.h5"), "--neuron", neuron, "--out", str(tmp_path)]) == 1
    assert "exists and is not a result (hpclcae experiment tolerance)" in capsys.readouterr().err
    assert (tmp_path / "tolerance.json").read_text() == "mine"
