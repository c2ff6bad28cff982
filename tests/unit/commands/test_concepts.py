"""``hpclcae experiment concepts``: Table 1, and one line for what goes wrong."""
import json

import numpy as np
import pytest

from hpclcae import cli
from hpclcae.config import StageConfig
from hpclcae.experiments.concepts import BEST, NO_LCN
from hpclcae.experiments.record import read_record
from tests.support.tiny_run import STAGES, write_images, write_run

QUICK = ["--bootstrap", "100", "--filters", "20", "--batch", "50"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("concepts")
    write_run(place)
    write_images(place / "own.h5", 90, labels=True, seed=7)
    write_images(place / "colour.h5", 20, labels=True, channels=3)
    write_images(place / "large.h5", 20, labels=True, size=16)
    write_images(place / "unlabelled.h5", 20, labels=False)
    return place


def concepts(folder, *words, run="run"):
    return cli.main(["experiment", "concepts", str(folder / run), *QUICK, *map(str, words)])


def one_line(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_several_sets_are_in_one_record(folder, capsys):
    plain = write_run(folder / "plain", tuple(
        StageConfig(receptive_field=stage.receptive_field, maps=stage.maps, pooling=2, lcn=0)
        for stage in STAGES))
    assert concepts(folder, "--test", folder / "test.h5", "--test", folder / "own.h5",
                    "--without-lcn", plain) == 0
    said = capsys.readouterr().out
    assert "Table 1, face: own.h5" in said and "all concepts" in said
    found = read_record(str(folder / "run"), "concepts")
    assert [each["path"] for each in found["sets"]] == [str(folder / "test.h5"),
                                                        str(folder / "own.h5")]
    first, second = found["values"]["sets"]
    rows = {row["name"]: row for row in first["rows"]}
    assert list(rows)[:2] == ["chance", "random weights, stage 1"] and NO_LCN in rows
    assert rows[NO_LCN]["paper"] == {"percent": 78.5, "status": "recalled"}
    assert rows["trained, stage 2"]["paper"] == {"percent": 81.7, "status": "confirmed"}
    sizes = [rows[f"trained, stage {number}"]["candidates"] for number in (1, 2)]
    assert rows[BEST]["candidates"] == sum(sizes) and first["candidates"] == sizes[1]
    best = max(rows[f"trained, stage {number}"]["accuracy"] for number in (1, 2))
    assert rows[BEST]["accuracy"] == best
    for row in first["rows"][1:]:  # every row says among how many, and as many as the top has
        assert row["candidates"] and (row["honest"] is None or row["equal_candidates"])
    assert second["rows"][0]["honest"] != first["rows"][0]["honest"]
    titles = [part["title"] for part in found["parts"] if part["type"] == "table"]
    assert titles[-1].startswith("Table 1, all concepts")
    assert found["values"]["forward_images_per_second"] > 0


def test_a_row_that_does_not_apply_is_said(folder, capsys):
    assert concepts(folder, "--random-seeds", 0, "--filters", 0) == 0
    assert "--set 'stages.*.lcn=0', named by --without-lcn" in one_line(capsys)
    assert concepts(folder / "plain", "--random-seeds", 0, "--filters", 0) == 0
    assert "has no contrast normalisation in any stage" in one_line(capsys)


@pytest.mark.parametrize("words, message", [
    (["--test", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    (["--test", "FOLDER/test.h5", "--test", "FOLDER/unlabelled.h5"], "unlabelled.h5 has no labels"),
    (["--test", "FOLDER/colour.h5"], "holds images of 12x12x3, the network takes 12x12x1"),
    (["--test", "FOLDER/large.h5"], "holds images of 16x16x1, the network takes 12x12x1"),
    (["--train", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    (["--grid", "2x1"], "--grid 2x1 has 2 blocks, and 1 processes"),
    (["--grid", "two"], "two"),
    (["--bootstrap", "3"], "--bootstrap 3: it must be at least 100"),
    (["--without-lcn", "FOLDER/nowhere"], "nowhere"),
    (["--out", "FOLDER/test.h5"], "is a file, and results go into a folder")])
def test_what_cannot_be_examined_is_one_line(folder, capsys, words, message):
    code = concepts(folder, *(word.replace("FOLDER", str(folder)) for word in words))
    error = capsys.readouterr().err
    assert code == 1 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_is_one_line(folder, tmp_path, capsys, label):
    from hpclcae.data.writer import DatasetWriter
    with DatasetWriter(tmp_path / "one.h5", 12, 1, ["other", "cat"]) as writer:
        for number in range(20):
            writer.append(np.full((12, 12, 1), number, np.uint8), source="", group=f"a/{number}",
                          crop=(0, 0, 1, 1), original=(12, 12), label=label)
    assert concepts(folder, "--test", tmp_path / "one.h5") == 1
    error = capsys.readouterr().err
    assert f"{20 * label} of 20 labelled images show the concept" in error
    assert error.count("\n") == 1


def test_results_are_kept_where_they_cannot_be_written(folder, tmp_path, capsys):
    (tmp_path / "concepts.json").write_text(json.dumps({"kind": "mine"}))
    assert concepts(folder, "--out", tmp_path) == 1
    assert "concepts.json exists and is not a result" in capsys.readouterr().err
