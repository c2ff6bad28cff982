"""What experiments leave: written, read back, refused when it is about something else."""
import json
import sys

import h5py
import numpy as np
import pytest

from hpclcae.checkpoint.trained import Model
from hpclcae.cli import COMMANDS
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.record import KEYS, ORDER, Record, plain, read_record, records
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("record"))


@pytest.fixture(scope="module")
def model(run):
    return Model.load(run)


def a_record(run, model, name="tolerance", **options):
    return Record(name, "How a neuron stands it", str(run), model, f"hpclcae experiment {name}",
                  **options)


def draw():
    from matplotlib.figure import Figure
    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


def test_parts_values_and_arrays_come_back(run, model, capsys):
    pytest.importorskip("matplotlib")
    record = a_record(run, model, figures=["curve"])
    with Dataset(run.parent / "test.h5") as test:
        record.about(test)
        fingerprint = test.fingerprint
    record.text("A paragraph.")
    record.table("Table 1", ["row", "percent"], [["chance", 64.8], ["top", np.float64(81.7)],
                                                 ["none", None]], ["a note"])
    record.figure(draw, "curve", "What it is.", "A line that rises.")
    record.values["shares"] = {"of": np.array([0.5, np.nan]), 3: np.int64(4)}
    record.arrays["stage1/share"] = np.arange(3.0)
    files = record.save()
    said = capsys.readouterr().out
    assert "chance     64.8" in said and "a note" in said and "tolerance-curve.svg" in said
    assert [file.name for file in files] == ["tolerance-curve.png", "tolerance-curve.svg",
                                             "tolerance.h5", "tolerance.json"]
    found = read_record(str(run), "tolerance")
    assert set(found) == set(KEYS) and found["step"] == 20
    assert found["frames_fingerprint"] == fingerprint and found["sets"][0]["concept"] == "face"
    assert [part["type"] for part in found["parts"]] == ["text", "table", "figure"]
    assert found["parts"][1]["rows"] == [["chance", 64.8], ["top", 81.7], ["none", None]]
    assert found["parts"][2]["svg"] == "tolerance-curve.svg"
    assert found["values"] == {"shares": {"of": [0.5, None], "3": 4}}
    with h5py.File(run / "experiments" / "tolerance.h5") as store:
        assert store["stage1/share"][:].tolist() == [0, 1, 2]
        assert store.attrs["weights_fingerprint"] == found["weights_fingerprint"]
    again = a_record(run, model, figures=["curve"])  # replaces what is its own
    again.save()
    assert not (run / "experiments" / "tolerance.h5").exists()


def test_without_matplotlib_a_text_stands_for_the_figure(run, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    record = a_record(run, model, figures=["curve"], out=tmp_path)
    record.figure(draw, "curve", "", "")
    assert [file.name for file in record.save()] == ["tolerance.json"]
    part, = json.loads((tmp_path / "tolerance.json").read_text())["parts"]
    assert part["type"] == "text" and "pip install 'hpclcae[figures]'" in part["text"]


@pytest.mark.parametrize("name", ["tolerance.json", "tolerance.h5", "tolerance-curve.svg",
                                  "tolerance-curve.png"])
def test_what_somebody_else_wrote_is_kept(run, model, tmp_path, name):
    (tmp_path / name).write_text("<svg>mine</svg>")
    with pytest.raises(InputError, match=f"{name} exists and is not a"):
        a_record(run, model, figures=["curve"], out=tmp_path)
    with pytest.raises(InputError, match="is a file, and results go into a folder"):
        a_record(run, model, out=tmp_path / name)


def test_a_rank_that_does_not_write_says_and_leaves_nothing(run, model, tmp_path, capsys):
    record = a_record(run, model, figures=["curve"], out=tmp_path, writes=False)
    record.table("t", ["a"], [[1]])
    record.figure(draw, "curve", "", "")
    assert record.save() == [] and not list(tmp_path.iterdir()) and not capsys.readouterr().out


def damaged(found, damage):
    if damage == "weights":
        found["weights_fingerprint"] = "0"
    elif damage == "newer":
        found["schema"] = 99
    elif damage == "missing":
        del found["values"]
    elif damage == "rows":
        found["parts"][0]["rows"] = [[1, 2]]
    elif damage == "figure":
        found["parts"][0]["type"] = "figure"
    elif damage == "name":
        found["experiment"] = "other"
    return json.dumps(found)


@pytest.mark.parametrize("damage, words", [
    ("weights", "was made from another network than .*step-.* writes it again"),
    ("newer", "newer version"), ("missing", "no 'values'"), ("rows", "too long or too short"),
    ("figure", "no 'file'"), ("name", "about 'other'"), ("cut", "cannot be read as a result")])
def test_what_cannot_be_used_is_one_line(run, model, damage, words):
    record = a_record(run, model)
    record.table("t", ["a"], [[1]])
    file = record.save()[-1]
    text = damaged(json.loads(file.read_text()), damage)
    file.write_text(text[:-9] if damage == "cut" else text)
    with pytest.raises(InputError, match=words):
        read_record(str(run), "tolerance", model)
    found, refused = records(str(run), model)
    assert not found and len(refused) == 1 and "\n" not in refused[0]


def test_records_come_in_the_order_of_reading(tmp_path):
    run = write_run(tmp_path)
    assert records(str(run)) == ([], [])
    with pytest.raises(InputError, match="hpclcae experiment gone .* writes it"):
        read_record(str(run), "gone")
    model = Model.load(run)
    for name in ("another", *ORDER[::-1]):
        a_record(run, model, name).save()
    found, refused = records(str(run))
    assert [each["experiment"] for each in found] == [*ORDER, "another"] and not refused


def test_every_experiment_has_its_place():
    assert set(ORDER) == {name.partition(" ")[2] for name in COMMANDS
                          if name.startswith("experiment ")} - {"all"}


def test_plain_knows_what_json_knows():
    assert plain({"a": (np.float32(1), np.bool_(True), float("inf"))}) == {"a": [1.0, True, None]}


def test_mistakes_of_the_code_are_no_bad_input(run, model, tmp_path):
    record = a_record(run, model, out=tmp_path)
    with pytest.raises(ValueError, match="2 cells in a row of 1 columns"):
        record.table("t", ["a"], [[1, 2]])
    with pytest.raises(ValueError, match="was not announced"):
        record.figure(draw, "curve", "", "")
