"""``hpclcae launch``: the line that it prints, and that train gets every argument; without MPI."""
import argparse
import shlex
import sys

import pytest

from hpclcae import cli
from hpclcae.commands import launch, train
from tests.support.images import write_classes
from tests.support.processes import RUN
from tests.support.saving import made, save

TINY = RUN / "tiny.toml"


def test_every_argument_of_train_is_passed_on():
    parser = argparse.ArgumentParser()
    train.configure(parser)
    words = ["x.toml", "--out", "a run"]
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "out"):
            value = "some text" if action.type is None else "7"
            words += [action.option_strings[-1], *([] if action.nargs == 0 else [value])]
    words += ["--set", "another"]
    given = parser.parse_args(words)
    assert parser.parse_args(train.train_words(given)) == given
    assert parser.get_default("resume") is False and given.resume is True


def test_the_line_is_printed_and_can_be_typed(capsys, monkeypatch):
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "/some/mpiexec")
    monkeypatch.setattr(launch, "settings_of", lambda mpiexec: {"OMPI_X": "1"})
    words = ["launch", str(TINY), "--out", "a run", "--servers", "1", "--replicas", "2", "--grid",
             "1x1", "--dry-run"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == (f"OMPI_X=1 /some/mpiexec -n 3 {sys.executable} -m hpclcae "
                                       f"train {TINY} --out 'a run' --grid 1x1 --servers 1 "
                                       "--replicas 2\n")
    assert cli.main(["launch", str(TINY), "--out", "x", "--ranks", "1", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{sys.executable} -m hpclcae train {TINY} --out x\n"


def test_finetune_is_started_on_a_checkpoint(tiny_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "/some/mpiexec")
    monkeypatch.setattr(launch, "settings_of", lambda mpiexec: {})
    save(tmp_path / "trained", made(tiny_config()))
    write_classes(tmp_path / "classes.h5")
    words = [RUN / "finetune.toml", "--out", tmp_path / "run", "--set",
             f"data.train={tmp_path / 'classes.h5'}", "--servers", "1", "--replicas", "2"]
    words = [str(word) for word in words]
    on = str(tmp_path / "trained")
    assert cli.main(["launch", *words, "--on", on, "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == [
        "/some/mpiexec", "-n", "3", sys.executable, "-m", "hpclcae", "finetune", on, *words]
    # what finetune says where one process cannot do it is what can be typed
    assert cli.main(["finetune", on, *words, "--random-weights"]) == 1
    said = capsys.readouterr().err.partition("start several with hpclcae ")[2].partition(",")[0]
    assert cli.main([*shlex.split(said), "--dry-run"]) == 0
    assert "classifier.start=random" in capsys.readouterr().out


@pytest.mark.parametrize("gigabytes, ranks, warned", [(64, 6, False), (0.6, 4, False),
                                                      (0.1, 1, True)])
def test_as_many_ranks_as_memory_holds(capsys, monkeypatch, gigabytes, ranks, warned):
    """Each of them takes 130 MB before it has anything to do."""
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "mpiexec")
    monkeypatch.setattr(launch, "settings_of", lambda mpiexec: {})
    monkeypatch.setattr(launch, "cores", lambda: 6)
    monkeypatch.setattr(launch, "memory", lambda: gigabytes * 1e9)
    assert cli.main(["launch", str(TINY), "--out", "x", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"mpiexec -n {ranks} " if ranks > 1 else sys.executable)
    assert ("the job needs about" in said.err) == warned


def test_a_missing_mpiexec_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["launch", str(TINY), "--out", "x", "--ranks", "2"]) == 1
    said = capsys.readouterr()
    assert "there is no mpiexec" in said.err and "hpclcae[mpich]" in said.err
    assert said.err.count("\n") == 1 and said.out == ""


def test_ranks_that_do_not_fit_are_refused(capsys):
    words = ["launch", str(TINY), "--out", "x", "--grid", "2x2", "--ranks", "3"]
    assert cli.main(words) == 1
    assert "need 4" in capsys.readouterr().err
