"""hpclcae check: one line for everything that would make a job hang or fail later."""
import argparse
import sys

import pytest

from hpclcae.commands import check
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN


def asked(dataset, *words):
    parser = argparse.ArgumentParser()
    check.configure(parser)
    return check.run(parser.parse_args([str(RUN / "tiny.toml"), "--set", f"data.train={dataset}",
                                        *map(str, words)]))


def test_a_machine_that_is_ready_is_like_itself(tiny_dataset, tmp_path, capsys):
    assert asked(tiny_dataset, "--out", tmp_path, "--ranks", 4, "--facts") == 0
    facts = capsys.readouterr().out.strip()
    assert facts.startswith("hpclcae facts: Python 3.")
    assert "; numpy " in facts and "; MPI " in facts
    assert asked(tiny_dataset, "--like", facts) == 0
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


def test_a_machine_that_differs_is_refused(tiny_dataset):
    with pytest.raises(InputError, match="here, Python 2.7 on the first node: all nodes must"):
        asked(tiny_dataset, "--like", "Python 2.7")


def test_no_mpi_library_is_one_line(tiny_dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(InputError, match=r"^no MPI library can be loaded .*hpclcae\[mpich\]"):
        asked(tiny_dataset)


def test_one_rank_needs_no_mpi_library(tiny_dataset, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert asked(tiny_dataset, "--ranks", 1, "--facts") == 0
    facts = capsys.readouterr().out.strip()
    assert facts.endswith("; MPI none") and asked(tiny_dataset, "--like", facts) == 0
    with pytest.raises(InputError, match="no MPI library"):
        asked(tiny_dataset, "--like", facts.replace("MPI none", "MPI some library"))


@pytest.mark.parametrize("words, message", [
    (["--set", "parallel.grid=2x2", "--ranks", 3], "3 processes were launched.* need 4"),
    (["--set", "parallel.servers=2", "--ranks", 2], "2 processes were launched; 2 servers"),
    (["--out", "/nowhere/run"],
     "run folder /nowhere/run is not there: it must be on a file system that all nodes "),
    (["--set", "stages.0.maps=none"], "stages.0.maps = 'none'")])
def test_what_cannot_run_is_refused(tiny_dataset, words, message):
    with pytest.raises(InputError, match=message):
        asked(tiny_dataset, *words)


def test_a_missing_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere.h5 is not a file"):
        asked(tmp_path / "nowhere.h5")
