"""hpclcae simulate: tables, files, and what is refused."""
import json

import pytest

from hpclcae import cli
from tests.support.processes import RUN

pytest.importorskip("simpy", reason="no simpy here: pip install 'hpclcae[simulate]' brings it")


def test_a_table_and_its_files(tmp_path, capsys):
    words = ["simulate", str(RUN / "tiny.toml"), "--replicas", "1", "3", "--servers", "2",
             "--minibatches", "30", "--spread", "0.1", "--learn", str(RUN / "simulated.toml"),
             "--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("simulated: ") and "simulated s" in out and "objective" in out
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["simulated"] is True and [one["replicas"] for one in found["layouts"]] == [1, 3]
    assert found["layouts"][1]["outcome"]["made"] == 30
    assert found["scenario"]["mtbf"] is None  # nothing fails
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert cli.main(words) == 0  # may be written again


def test_a_week_of_failures_at_the_reported_rates(capsys):
    assert cli.main(["simulate", str(RUN / "paper.toml"), "--replicas", "5", "--grid", "13x13",
                     "--servers", "256", "--per-node", "1", "--days", "7"]) == 0
    out = capsys.readouterr().out
    assert "5 replicas of 169 machines, 256 machines of servers" in out
    assert out.count("survives") == out.count("  ends") == 3


@pytest.mark.parametrize("words, message", [
    (["--grid", "13"], "grid '13' is not understood"),
    (["--grid", "500x1"], "grid 500x1 is finer than the image"),
    (["--machine", "none.toml"], "none.toml cannot be read"),
    (["--days", "7", "--replicas", "1", "2"], "--days takes one number of --replicas"),
    (["--set", "parallel.backup=9"], "parallel.backup = 9"),
    (["--json", "/"], "cannot write")])
def test_bad_input_is_one_line(words, message, capsys):
    assert cli.main(["simulate", str(RUN / "tiny.toml"), *words]) == 1
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
