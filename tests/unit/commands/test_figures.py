"""``hpclcae figures``: every picture from what is there, one line for what is not."""
import sys

import pytest

pytest.importorskip("matplotlib")

from hpclcae import cli  # noqa: E402
from tests.support.tiny_run import write_parallel, write_run  # noqa: E402

FILES = {"filters.png", "objective.png", "histogram.png", "stimuli.png", "means.png",
         "positions.png"}


@pytest.mark.parametrize("channels", [1, 3])
def test_all_figures_are_written_and_named(tmp_path, capsys, channels):
    run = write_run(tmp_path, channels=channels)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    capsys.readouterr()
    assert cli.main(["figures", str(run)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert {*written} == {str(run / "figures" / name) for name in FILES}
    for name in written:
        with open(name, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert {path.name for path in (run / "figures").iterdir()} == FILES


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path, capsys):
    run = write_run(tmp_path)
    (run / "metrics.jsonl").unlink()
    assert cli.main(["figures", str(run), "--out", str(tmp_path / "pictures")]) == 0
    out = capsys.readouterr().out
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["filters.png"]
    assert "objective.png is left out: " in out and "hpclcae train CONFIGURATION" in out
    assert ("histogram.png, stimuli.png, means.png, positions.png are left out: there is no "
            f"{run / 'neurons.h5'}: hpclcae neurons {run} writes it\n") in out


def test_nothing_to_draw_is_a_failure_that_leaves_no_folder(tmp_path, capsys):
    assert cli.main(["figures", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "left out: " in said and all(name in said for name in FILES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments, message",
                         [(["RUN/gone"], "gone does not exist"),
                          (["RUN", "--out", "RUN/metrics.jsonl"], "is a file: name a folder")])
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
    run = write_run(tmp_path)
    assert cli.main(["figures", *[word.replace("RUN", str(run)) for word in arguments]]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_matplotlib_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["figures", str(tmp_path)]) == 1
    assert "pip install 'hpclcae[figures]'" in capsys.readouterr().err


def test_replicas_are_drawn_if_there_were_any(tmp_path, capsys):
    run = write_run(tmp_path)
    write_parallel(run)
    assert cli.main(["figures", str(run)]) == 0
    assert str(run / "figures/replicas.png") in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("text, words", [
    ("[{", "it is damaged"), ('[{"rank": 1}]', "no 'role'"), ("3", "it is damaged"),
    ("[]", "it is damaged"),
    ('[{"role": "replica 999999 block 0"}]', "it is damaged")])
def test_a_damaged_account_leaves_the_other_figures(tmp_path, capsys, text, words):
    run = write_run(tmp_path)
    (run / "parallel.json").write_text(text)
    assert cli.main(["figures", str(run)]) == 0
    out = capsys.readouterr().out
    assert "replicas.png is left out: " in out and words in out and "objective.png" in out


def test_metrics_of_a_replica_that_are_gone_are_named(tmp_path, capsys):
    run = write_run(tmp_path)
    write_parallel(run)
    (run / "metrics-replica1.jsonl").unlink()
    assert cli.main(["figures", str(run)]) == 0
    gone = run / "metrics-replica1.jsonl"
    assert f"replicas.png is left out: {gone} has no metrics" in capsys.readouterr().out


def test_pictures_of_others_are_not_replaced(tmp_path, capsys):
    run = write_run(tmp_path)
    out = tmp_path / "pictures"
    for _ in range(2):
        assert cli.main(["figures", str(run), "--out", str(out)]) == 0
    (out / "objective.png").write_bytes(b"mine")
    assert cli.main(["figures", str(run), "--out", str(out)]) == 1
    assert "objective.png exists and is not a picture" in capsys.readouterr().err
    assert (out / "objective.png").read_bytes() == b"mine"
