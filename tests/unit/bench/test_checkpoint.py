"""``hpclcae bench checkpoint``: every row is there, nothing is left behind.

No times are asserted.
"""
import json

import pytest

from hpclcae.cli import main
from tests.support.processes import RUN


@pytest.mark.parametrize("shards, steps", [(1, 3), (3, 0)])
def test_rows_and_table(tmp_path, capsys, shards, steps):
    disk = tmp_path / "disk"
    disk.mkdir()
    assert main(["bench", "checkpoint", str(RUN / "tiny.toml"), "--folder", str(disk), "--shards",
                 str(shards), "--steps", str(steps), "--repeat", "2", "--json",
                 str(tmp_path / "rows.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["case"] for row in rows} == {f"{RUN}/tiny.toml {shards} shards"}
    value = {(row["metric"], row["unit"]): row["value"] for row in rows}
    assert 1 < value["files over parameters", "ratio"] < 1.5
    assert value["files", "GB"] == pytest.approx(value["parameters and update state", "GB"]
                                                 * value["files over parameters", "ratio"])
    for name in ("write over plain write", "write and read back over plain write and read",
                 "load over plain read"):
        assert value[name, "ratio"] > 0
    assert ("training step", "ms") in value if steps else ("training step", "ms") not in value
    printed = capsys.readouterr().out
    assert all(row["metric"] in printed for row in rows)
    assert list(disk.iterdir()) == []


def test_the_stall_alone(tmp_path, capsys):
    assert main(["bench", "checkpoint", str(RUN / "tiny.toml"), "--folder", str(tmp_path),
                 "--steps", "2", "--repeat", "1", "--stall-only"]) == 0
    printed = capsys.readouterr().out
    assert "training lost by one checkpoint" in printed and "plain" not in printed
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_named(tmp_path, capsys):
    assert main(["bench", "checkpoint", str(RUN / "tiny.toml"), "--folder",
                 str(tmp_path / "none")]) == 1
    assert "none is not a folder: make it, or name another one" in capsys.readouterr().err
