"""``hpclcae report``: one page of what is there, one line for what is not or cannot be."""
import json
import shutil
import sys

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("PIL.Image")

from hpclcae import cli  # noqa: E402
from hpclcae.data.frames.scanned_head import LANDMARKS  # noqa: E402
from hpclcae.data.writer import DatasetWriter  # noqa: E402
from hpclcae.experiments.report import page, sections  # noqa: E402
from tests.support.synthetic_head import write_scan, write_synthetic_head  # noqa: E402
from tests.support.tiny_run import write_images, write_parallel, write_run  # noqa: E402


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """The folder of a run on which ``hpclcae neurons`` has been called."""
    run = write_run(tmp_path_factory.mktemp("report"))
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    return run


@pytest.fixture
def run(examined, tmp_path):
    """A copy of it."""
    return shutil.copytree(examined, tmp_path / "run")


@pytest.fixture
def quick(monkeypatch):
    """No figures, which take most of the time."""
    monkeypatch.setattr(sections, "figures", lambda *arguments: iter(()))


def report(run, *arguments):
    return cli.main(["report", str(run), "--neurons", "4", *map(str, arguments)])


def atlas_of(file):
    _, _, rest = file.read_text().partition('id="atlas-data">')
    return json.loads(rest.partition("</script>")[0]) if rest else None


def test_the_page_has_all_that_the_run_has(run, capsys, quick):
    write_parallel(run)
    capsys.readouterr()
    assert report(run) == 0
    said = capsys.readouterr().out
    text = (run / "report.html").read_text()
    assert str(run / "report.html") in said.splitlines()[-1]
    for words in ("What was trained", "Atlas of neurons", "Replicas and servers", "[[stages]]",
                  "replica 1 block 1", "(recalled)", "hpclcae neurons"):
        assert words in text, words
    for mark in ("http://", "https://"):  # but for names of SVG, in data URIs
        assert mark not in text.replace("http://www.w3.org/2000/svg", "")
    atlas = atlas_of(run / "report.html")
    assert [neuron["stage"] for neuron in atlas["neurons"]].count(1) <= 4
    assert atlas["all"] == 6 * 6 * 3 + 3 * 3 * 2
    assert set(atlas["sprites"]) == {"images", "means", "optima", "filters1", "filters2"}


def test_a_neuron_that_is_named_is_there(run, quick):
    assert report(run, "--neuron", "2/1,2,1", "--neuron", "1/5,5,2") == 0
    named = [(each["stage"], each["row"], each["col"], each["map"])
             for each in atlas_of(run / "report.html")["neurons"]]
    assert (2, 1, 2, 1) in named and (1, 5, 5, 2) in named
    assert report(run, "--neurons", "0") == 0  # a report is replaced
    assert atlas_of(run / "report.html") is None


def test_heads_that_turn_are_in_the_atlas_where_they_are_there(run, capsys, quick, tmp_path):
    assert report(run) == 0
    said = capsys.readouterr().out
    assert "left out: Heads that turn, in the atlas: the mesh" in said and "--sources FOLD" in said
    assert len(atlas_of(run / "report.html")["curves"]) == 4
    write_synthetic_head(tmp_path / "heads/anny")
    assert report(run, "--sources", tmp_path / "heads") == 0
    assert "Heads that turn" not in capsys.readouterr().out
    atlas = atlas_of(run / "report.html")
    assert [len(curve["at"]) for curve in atlas["curves"][4:]] == [13, 9] and atlas["heads"] == 10
    assert all(len(neuron["curves"]) == 6 for neuron in atlas["neurons"])
    write_scan(tmp_path / "heads")
    assert report(run, "--sources", tmp_path / "heads") == 0
    atlas = atlas_of(run / "report.html")
    assert [curve["beside"] for curve in atlas["curves"]] == [*[""] * 6, "turn of a head",
                                                              "nod of a head"]
    (tmp_path / "heads/menpo3d" / LANDMARKS).write_text("{}")
    capsys.readouterr()
    assert report(run, "--sources", tmp_path / "heads") == 0  # the rendered ones are left
    assert "left out: Heads that turn, in the atlas: " in (said := capsys.readouterr().out)
    assert "--only menpo3d" in said and len(atlas_of(run / "report.html")["curves"]) == 6


def test_without_results_the_command_that_makes_them_is_named(tmp_path, capsys, quick):
    run = write_run(tmp_path)
    assert report(run) == 0
    said, text = capsys.readouterr().out, (run / "report.html").read_text()
    assert f"there is no {run / 'neurons.h5'}: hpclcae neurons {run} writes it" in said
    assert f"hpclcae neurons {run} writes it" in text and atlas_of(run / "report.html") is None


def test_results_of_other_weights_are_left_out(run, capsys, quick):
    found = json.loads((run / "neurons.json").read_text())
    (run / "neurons.json").write_text(json.dumps(found | {"weights_fingerprint": "other"}))
    capsys.readouterr()
    assert report(run, "--neurons", "0") == 0
    assert "neurons.json was made from another network" in capsys.readouterr().out
    assert "Single neurons" not in (run / "report.html").read_text()


def test_without_matplotlib_the_figures_are_left_out(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report(run, "--neurons", "0") == 0
    assert "pip install 'hpclcae[figures]'" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["jinja2", "PIL.Image"])
def test_without_the_extra_it_is_named(run, capsys, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert report(run) == 1
    error = capsys.readouterr().err
    assert "pip install 'hpclcae[report]'" in error and error.count("\n") == 1
    assert not (run / "report.html").exists()


def write_one_class(file):
    with DatasetWriter(file, 12, 1, ["other", "face"]) as writer:
        for number in range(20):
            writer.append(np.full((12, 12, 1), number, np.uint8), source="", group=str(number),
                          original=(12, 12), crop=(0, 0, 1, 1), label=0)


@pytest.mark.parametrize("arguments, message", [
    (["gone"], "gone does not exist"),
    (["RUN", "--neuron", "3/0,0,0"], "--neuron 3/0,0,0: stages are 1 to 2"),
    (["RUN", "--neuron", "2/0,9,0"], "stage 2 has 3 rows, 3 cols and 2 maps"),
    (["RUN", "--test", "RUN/gone.h5"], "gone.h5"),
    (["RUN", "--test", "RUN/large.h5"], "the network takes 12x12x1"),
    (["RUN", "--test", "RUN/colour.h5"], "the network takes 12x12x1"),
    (["RUN", "--test", "RUN/other.h5"], "made from another test set than"),
    (["RUN", "--test", "RUN/one.h5"], "made from another test set than"),
    (["RUN", "--out", "RUN/metrics.jsonl"], "exists and is not a report"),
    (["RUN", "--sources", "RUN/gone"], "gone is not a folder: hpclcae data fetch"),
    (["RUN", "--out", "RUN"], "it is a folder"),
    (["RUN", "--out", "RUN/metrics.jsonl/page.html"], "is not a folder"),
    (["RUN", "--neurons", "-1"], "it must be at least 0"),
    (["RUN", "--out", "STEP/page.html"], "lies in the checkpoint")])
def test_bad_input_is_one_line(run, capsys, quick, arguments, message):
    write_images(run / "large.h5", 20, labels=True, size=16)
    write_images(run / "colour.h5", 20, labels=True, channels=3)
    write_images(run / "other.h5", 120, labels=True, seed=9)
    write_one_class(run / "one.h5")
    step = next(path for path in (run / "checkpoints").iterdir() if path.is_dir())
    words = [word.replace("RUN", str(run)).replace("STEP", str(step)) for word in arguments]
    capsys.readouterr()
    try:
        code = cli.main(["report", *words])
    except SystemExit as error:
        code = error.code
    error = capsys.readouterr().err
    assert code and message in error and error.count("\n") == 1
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("labels", [False, True])
def test_a_test_set_that_says_nothing_leaves_the_atlas_out(tmp_path, capsys, quick, labels):
    """It changed after the neurons were tested."""
    run = write_run(tmp_path)
    if labels:
        write_one_class(tmp_path / "test.h5")
    else:
        write_images(tmp_path / "test.h5", 20, labels=False)
    assert report(run) == 0
    assert "Atlas" in capsys.readouterr().out


def test_a_page_that_is_too_large_is_refused(run, capsys, quick, monkeypatch):
    monkeypatch.setattr(page, "LARGEST", 10_000)
    assert report(run) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the page would have" in error and "--neurons fewer than 4" in error
    assert not (run / "report.html").exists()


def test_json_in_the_page_cannot_end_its_script():
    assert page.as_json("</script><!--&'\u2028") == (
        '"\\u003c/script\\u003e\\u003c!--\\u0026\\u0027\\u2028"')


def test_durations_and_numbers_are_words():
    assert [sections.duration(seconds) for seconds in (4.26, 257, 7384, 300_000)] == [
        "4.3 s", "4 min 17 s", "2 h 3 min", "3 d 11 h 20 min"]
    rows = [["a", "1.5", "x", "", "+4.4 [+0.5, +8.3]"], ["b", "", "2", "", "-"]]
    numeric = [page.is_numeric(rows, column) for column in range(5)]
    assert numeric == [False, True, False, False, False]
    assert page.is_curve([["-1.5", "x"]] * 13) and not page.is_curve([["-1.5", "x"]] * 12)
    assert not page.is_curve([["stage 1", "2"]] * 13)
