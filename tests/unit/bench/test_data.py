"""``hpclcae bench data``: every row is there, nothing is left behind."""
import json

import pytest

from hpclcae.cli import main
from tests.support.processes import RUN

GREEDY = [word for change in ("train.gradient=greedy", "train.cache=memory", "train.steps=30")
          for word in ("--set", change)]


def test_every_row_is_there(tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    assert main(["bench", "data", str(RUN / "tiny.toml"), *GREEDY, "--folder", str(disk),
                 "--images", "40", "--steps", "2", "--repeat", "1", "--json",
                 str(tmp_path / "rows.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert not list(disk.iterdir())
    steps = [row for row in rows if row["metric"].endswith("over step from memory")]
    assert len(steps) == 3 * 3 and all(row["value"] > 0 for row in steps)
    waits = [row for row in rows if row["metric"].startswith("wait for images")]
    assert all(0 <= row["value"] <= 1 for row in waits)
    reads = [row for row in rows if row["metric"].startswith("from ")]
    assert {"from disk", "from memory"} == {row["metric"] for row in reads}
    assert any("runs across chunks" in row["case"] for row in reads)
    out = capsys.readouterr().out
    assert "stage 3, batch 20" in out and "8 x 24x24" in out


@pytest.mark.parametrize("arguments, message", [
    (["--images", "19"], "--images 19 is less than a minibatch of 20"),
    (["--folder", "nowhere"], "--folder nowhere is not a folder")])
def test_what_cannot_be_measured_is_refused(capsys, arguments, message):
    assert main(["bench", "data", str(RUN / "tiny.toml"), *arguments]) == 1
    assert message in capsys.readouterr().err
