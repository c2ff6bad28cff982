"""``hpclcae experiment invariance``: tables, files, and one line for what goes wrong."""
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
from tests.support.synthetic_head import write_synthetic_head
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
    place = tmp_path_factory.mktemp("invariance")
    write_run(place)
    write_frames(place / "large.h5")
    write_frames(place / "colour.h5", channels=3)
    write_frames(place / "small.h5", size=SIZE - 2)
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


def words(folder, neuron, *more):
    return ["experiment", "invariance", str(folder / "run"), "--frames", str(folder / "large.h5"),
            "--neuron", neuron, "--bootstrap", "100", *more]


def test_a_neuron_is_measured_and_everything_is_written(folder, neuron, tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    write_synthetic_head(folder / "heads/anny")
    given = words(folder, neuron, "--out", str(tmp_path / "out"), "--scales", "0.5", "1.5",
                  "--patch", "4", "--step", "4", "--rotations", "45", "--development", "--faces",
                  "6", "--sources", str(folder / "heads"))
    assert cli.main(given) == 0
    said = capsys.readouterr().out
    assert "development half: 6 images of 6 persons and photographs show 'face', 20 of 10" in said
    assert "shifts of more than 4 pixels, scales below 0.6" in said
    assert "no threshold is known of it" in said and "patch over the middle: " in said
    out = tmp_path / "out"
    assert (out / "invariance-curves.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((out / "invariance.json").read_text())
    model = Model.load(folder / "run")
    assert results["command"] == shlex.join(["hpclcae", *given])
    tables = [part for part in results["parts"] if part["type"] == "table"]
    assert [each["columns"][0] for each in tables] == [
        "what changes", "shift x", "shift y", "scale", "rotation", "top, left", "turn", "nod"]
    assert tables[1]["rows"][1][:2] == ["+0", "1.00"]
    right, _, scale, turned, patch, heads, _ = results["values"]["sweeps"]
    assert right["at"] == [-4, 0, 4] and right["response"][1] == pytest.approx(1)
    assert right["share"] == [None] * 3 and right["response_interval"][1] == pytest.approx([1, 1])
    assert scale["at"] == [0.5, 1, 1.5] and turned["at"] == [0, 45]
    assert scale["response"][1] == turned["response"][0] == pytest.approx(1)
    assert len(patch["response"]) == 25 and "half_limits" not in patch
    assert len(heads["response"]) == 13 and right["threshold_limits"] == [None, None]
    with h5py.File(out / "invariance.h5") as store, Dataset(folder / "large.h5") as large:
        assert results["frames_fingerprint"] == large.fingerprint
        index = store["faces"][:]
        assert (large.half[index] == 0).all() and (large.labels[index] == 1).all()
        windows = large.read(index)[:, 4:4 + SIZE, :SIZE]
        where = tuple(map(int, neuron[2:].split(",")))
        expected = model.responses(model.prepare(windows))[0][where]
        assert np.allclose(store["shift x/response"][2], expected)
    assert cli.main([*given, "--faces", "0"]) == 0  # replaces what it wrote itself
    assert "development half: 20 images" in capsys.readouterr().out


def test_the_test_set_of_the_run_serves_and_heads_may_be_missing(folder, neuron, tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    given = ["experiment", "invariance", str(folder / "run"), "--neuron", neuron, "--out",
             str(tmp_path), "--rotations", "0", "--scales", "1", "--bootstrap", "100"]
    assert cli.main(given) == 0
    said = capsys.readouterr().out
    assert "test.h5" in said and "hpclcae data fetch --out FOLDER, then --sources FOLDER" in said


def test_without_matplotlib_a_line_names_the_extra(folder, neuron, tmp_path, capsys, monkeypatch):
    pytest.importorskip("PIL.Image")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(words(folder, neuron, "--out", str(tmp_path))) == 0
    said = capsys.readouterr().out
    assert "invariance-curves.png is left out" in said and "pip install 'hpclcae[figures]'" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["invariance.h5", "invariance.json"]


def test_without_pillow_nothing_begins(folder, neuron, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert cli.main(words(folder, neuron)) == 1
    said = capsys.readouterr()
    assert "pip install 'hpclcae[images]'" in said.err and not said.out


@pytest.mark.parametrize("arguments, message", [
    (["--frames", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    (["--frames", "FOLDER/colour.h5"], "holds images of 3 channels, the network takes 1"),
    (["--frames", "FOLDER/small.h5"], "holds images of 10x10, smaller than the network's 12x12"),
    (["--frames", "FOLDER/unlabelled.h5"], "has no labels, so there is no concept to shift"),
    (["--frames", "FOLDER/faces.h5"], "80 of 80 labelled images show the concept"),
    (["--patch", "12"], "--patch 12: from 1 to 11"),
    (["--sources", "FOLDER/nowhere"], "nowhere is not a folder"),
    (["--neuron", "2/9,9,9"], "stage 2 has 3 rows"),
    (["--out", "FOLDER/small.h5"], "is a file, and results go into")])
def test_what_cannot_be_measured_is_one_line(folder, capsys, arguments, message):
    more = [word.replace("FOLDER", str(folder)) for word in arguments]
    assert cli.main(words(folder, "1/0,0,0", *more)) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(folder.rglob("invariance.*"))


def test_without_results_of_neurons_a_line_names_the_command(folder, capsys):
    given = ["experiment", "invariance", str(folder / "run"), "--frames", str(folder / "large.h5")]
    assert cli.main(given) == 1
    assert f"hpclcae neurons {folder / 'run'} writes it" in capsys.readouterr().err


def test_only_its_own_results_are_replaced(folder, neuron, tmp_path, capsys):
    (tmp_path / "invariance.json").write_text("mine")
    assert cli.main(words(folder, neuron, "--out", str(tmp_path))) == 1
    assert "is not a result (hpclcae experiment invariance)" in capsys.readouterr().err
    assert (tmp_path / "invariance.json").read_text() == "mine"
