"""Results that somebody has damaged: one line names the file and the remedy, nothing falls over."""
import json
import shutil

import h5py
import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("PIL.Image")

from hpclcae import cli  # noqa: E402
from hpclcae.checkpoint.trained import Model  # noqa: E402
from hpclcae.commands.experiment import all as everything  # noqa: E402
from hpclcae.experiments import record, results  # noqa: E402
from hpclcae.utils.errors import InputError  # noqa: E402
from tests.support.tiny_run import write_run  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with results of ``hpclcae neurons`` and of an experiment."""
    run = write_run(tmp_path_factory.mktemp("damage"))
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    assert cli.main(["experiment", "all", str(run), "--only", "histograms"]) == 0
    return run


@pytest.fixture(scope="module")
def model(whole):
    return Model.load(whole)


@pytest.fixture
def run(whole):
    """The same, made whole again afterwards."""
    kept = whole.parent / "kept"
    shutil.copytree(whole, kept)
    yield whole
    shutil.rmtree(whole)
    kept.rename(whole)


@pytest.fixture
def quick(monkeypatch):
    """Reports without figures, which take most of the time."""
    monkeypatch.setattr("hpclcae.experiments.report.sections.figures", lambda *words: iter(()))


def said_of(capsys, file, *words):
    """Call a command: its exit code, and the one line that names the file."""
    capsys.readouterr()
    code = cli.main([*map(str, words)])
    said = capsys.readouterr()
    lines = {line.partition(str(file))[2] for line in (said.out + said.err).splitlines()
             if str(file) in line and not line.startswith("wrote ")}
    assert len(lines) == 1, said
    return code, str(file) + lines.pop()


CONTENTS = {"cut": lambda text: text[:len(text) // 2], "words": lambda text: "no result",
            "a list": lambda text: f"[{text}]", "deep": lambda text: "[" * 100_000,
            "bytes": lambda text: "\udcff" + text}


@pytest.mark.parametrize("damage", [*CONTENTS, "empty"])
def test_a_result_that_is_none(run, quick, capsys, damage):
    file = run / "experiments/histograms.json"
    text = "" if damage == "empty" else CONTENTS[damage](file.read_text())
    file.write_bytes(text.encode(errors="surrogateescape"))
    code, line = said_of(capsys, file, "report", run, "--neurons", "0")
    assert code == 0 and line.endswith(f"hpclcae experiment histograms {run} writes it")
    if damage == "empty":  # nobody's, so it may be replaced
        assert cli.main(["experiment", "all", str(run), "--only", "histograms"]) == 0
        assert file.stat().st_size
        return
    code, line = said_of(capsys, file, "experiment", "all", run, "--only", "histograms")
    assert code == 1 and line.endswith("choose another name, or remove it")


def other(found, key, value):
    found[key] = value


def cell(found, value):
    next(part for part in found["parts"] if part["type"] == "table")["rows"][0][1] = value


VALUES = {
    **{f"{key} null": (lambda found, key=key: other(found, key, None)) for key in (
        "experiment", "title", "command", "made", "seconds", "step", "weights_fingerprint", "sets",
        "versions", "parts", "values")},
    **{f"no {key}": (lambda found, key=key: found.pop(key)) for key in ("schema", "sets", "parts")},
    "seconds in words": lambda found: other(found, "seconds", "long"),
    "seconds NaN": lambda found: other(found, "seconds", np.nan),
    "seconds without end": lambda found: other(found, "seconds", "INFINITE"),
    "made a number": lambda found: other(found, "made", 5),
    "frames a list": lambda found: other(found, "frames", ["a"]),
    "another network": lambda found: other(found, "weights_fingerprint", "0"),
    "sets a table": lambda found: other(found, "sets", {"path": "x"}),
    "a set of words": lambda found: other(found, "sets", ["x"]),
    "a set without path": lambda found: other(found, "sets", [{"fingerprint": "x"}]),
    "parts of words": lambda found: other(found, "parts", ["x"]),
    "an unknown part": lambda found: other(found, "parts", [{"type": "film"}]),
    "a part of a list": lambda found: other(found, "parts", [{"type": []}]),
    "a table in words": lambda found: other(found, "parts", [
        {"type": "table", "title": "t", "columns": "ab", "rows": "ab", "notes": ""}]),
    "columns that are numbers": lambda found: other(found, "parts", [
        {"type": "table", "title": "t", "columns": [1], "rows": [], "notes": []}]),
    "a figure without words": lambda found: other(found, "parts", [
        {"type": "figure", "file": None, "svg": "a", "caption": "b", "alt": "c"}]),
    "a cell that is a list": lambda found: cell(found, [1]),
    "a cell NaN": lambda found: cell(found, np.nan)}


@pytest.mark.parametrize("damage", VALUES)
def test_a_result_with_something_else_in_it(run, model, damage):
    """It is refused on one line that says how to make it again; the estimate does without it."""
    file = run / "experiments/histograms.json"
    found = json.loads(file.read_text())
    VALUES[damage](found)
    file.write_text(json.dumps(found).replace('"INFINITE"', "1e999"))
    found, refused = record.records(str(run), model)
    assert not found and len(refused) == 1 and refused[0].count("\n") == 0
    assert refused[0].startswith(str(file))
    assert f"hpclcae experiment histograms {run} writes it" in refused[0]
    task = everything.Task("histograms", [])
    assert not everything.is_done(task, file.parent, model)
    seconds, = everything.expected([task], file.parent, model, None)
    assert everything.duration(seconds)


@pytest.mark.parametrize("name", ["histograms-responses.png", "histograms-responses.svg"])
@pytest.mark.parametrize("kept", [0, 60, 0.5])
def test_a_figure_that_cannot_be_shown(run, quick, capsys, name, kept):
    file = run / "experiments" / name
    content = file.read_bytes()
    file.write_bytes(content[:kept if kept != 0.5 else len(content) // 2])
    if name.endswith("png"):
        (run / "experiments/histograms-responses.svg").unlink()
    code, line = said_of(capsys, file, "report", run, "--neurons", "0")
    assert code == 0 and line.endswith("remove it and make the experiment again")
    assert "A figure of" in (run / "report.html").read_text()


@pytest.mark.parametrize("kept", [60, 0.5])
def test_arrays_that_are_cut_are_not_taken_for_a_result(run, capsys, kept):
    file = run / "experiments/histograms.h5"
    content = file.read_bytes()
    file.write_bytes(content[:kept if kept != 0.5 else len(content) // 2])
    code, line = said_of(capsys, file, "experiment", "all", run, "--only", "histograms")
    assert code == 1 and line.endswith("choose another name, or remove it")
    file.unlink()
    assert cli.main(["experiment", "all", str(run), "--only", "histograms", "--again"]) == 0


@pytest.mark.parametrize("damage", [*CONTENTS, "empty", "rows", "settings", "NaN"])
def test_results_of_neurons_in_words(run, quick, capsys, damage):
    file = run / "neurons.json"
    text = file.read_text()
    if damage in CONTENTS:
        text = CONTENTS[damage](text)
    elif damage == "NaN":
        text = text.replace('"accuracy": ', '"accuracy": NaN, "was": ')
    else:
        text = "" if damage == "empty" else json.dumps(json.loads(text) | {damage: ["x"]})
    file.write_bytes(text.encode(errors="surrogateescape"))
    code, line = said_of(capsys, file, "report", run, "--neurons", "0")
    assert code == 0 and line.endswith("writes it again")


def replaced(store, path, value):
    del store[path]
    store[path] = value


ARRAYS = {
    "no stage": lambda store: [store.pop(name) for name in list(store)],
    "a stage less in the middle": lambda store: store.move("stage1", "stage7"),
    "an array in the place of a stage": lambda store: replaced(store, "stage2", [1.0]),
    "no accuracy": lambda store: store.pop("stage1/accuracy"),
    "accuracies of another network": lambda store: replaced(store, "stage1/accuracy",
                                                            np.ones((2, 2, 2))),
    "an accuracy NaN": lambda store: store["stage1/accuracy"].write_direct(np.full((6, 6, 3),
                                                                                   np.nan)),
    "words for accuracies": lambda store: replaced(store, "stage1/accuracy", "high"),
    "no best neuron": lambda store: [store["stage2"].pop(name) for name in ("best", "chosen")
                                     if name in store["stage2"]],
    "a neuron that does not exist": lambda store: [
        store[f"stage2/{name}"].attrs.update(where=[99, 0, 0]) for name in ("best", "chosen")
        if name in store["stage2"]],
    "a histogram of another size": lambda store: [
        replaced(store, f"stage1/{name}/histogram", np.ones((2, 7), int))
        for name in ("best", "chosen") if name in store["stage1"]],
    "stimuli that do not exist": lambda store: [
        replaced(store, f"stage1/{name}/stimuli", np.array([10 ** 6]))
        for name in ("best", "chosen") if name in store["stage1"]],
    "no test set": lambda store: store.attrs.pop("test"),
    "a test set that is a number": lambda store: store.attrs.update(test=3.5),
    "a step that is none": lambda store: store.attrs.update(step="first"),
    "another network": lambda store: store.attrs.update(weights_fingerprint="0")}


@pytest.mark.parametrize("damage", ["cut", "empty", *ARRAYS])
def test_results_of_neurons_as_arrays(run, model, damage):
    """Those of a file without a checksum, as an older version or another program leaves it."""
    file = run / "neurons.h5"
    if damage in ARRAYS:
        with h5py.File(file) as sealed, h5py.File(run / "plain.h5", "w") as plain:
            for name in sealed:
                sealed.copy(name, plain)
            plain.attrs.update(sealed.attrs)
            ARRAYS[damage](plain)
        (run / "plain.h5").rename(file)
    else:
        file.write_bytes(file.read_bytes()[:1000 if damage == "cut" else 0])
    with pytest.raises(InputError) as error:
        results.read_neurons(str(run), model)
    assert str(file) in str(error.value) and f"hpclcae neurons {run} writes it" in str(error.value)


def test_results_that_cannot_be_drawn_are_said_once(run, capsys):
    (run / "neurons.h5").write_bytes(b"no arrays")
    code, line = said_of(capsys, run / "neurons.h5", "figures", run)
    assert code == 0 and f"hpclcae neurons {run} writes it" in line
    code, line = said_of(capsys, run / "neurons.h5", "report", run)
    assert code == 0 and (run / "report.html").read_text().count(line.partition(":")[0]) == 1
    code, line = said_of(capsys, run / "neurons.h5", "experiment", "histograms", run)
    assert code == 1 and f"hpclcae neurons {run} writes it" in line
