"""One process at a time works in a folder, and another one when it has ended, however."""
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from hpclcae.utils.errors import InputError
from hpclcae.utils.lock import locked

OTHER = """
import pathlib, sys
from hpclcae.utils.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that works in a folder named 'a run'."""
    process = subprocess.Popen([sys.executable, "-c", OTHER, tmp_path / "a run"], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "mine\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path, other):
    folder = tmp_path / "a run"
    with pytest.raises(InputError) as refused, locked(folder):
        pass
    assert f"{folder} is in use by process {other.pid} on {os.uname().nodename}" in str(
        refused.value)
    assert str(refused.value).endswith(f"rm '{folder}/lock')")
    other.send_signal(signal.SIGKILL)
    other.wait(60)
    with locked(folder):
        assert json.loads((folder / "lock").read_text())["process"] == os.getpid()
    assert not list(folder.iterdir())


def test_the_same_job_after_a_requeue_takes_over(tmp_path, monkeypatch):
    """The file server may still keep the lock of a node that was lost."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with locked(tmp_path):
        with pytest.raises(InputError, match="SLURM job 7"), locked(tmp_path):
            pass
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with locked(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["SLURM_RESTART_COUNT"] == "1"


@pytest.mark.parametrize("kept", [False, True])
def test_a_folder_that_nothing_came_into_is_removed(tmp_path, kept):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "deep/run"):
        if kept:
            (tmp_path / "deep/run/metrics").touch()
        raise ZeroDivisionError
    assert (tmp_path / "deep/run").exists() == kept


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "has no locks (No locks available)" in lines[0]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run cannot be written \(Not a directory\); choose"):
        with locked(tmp_path / "file/run"):
            pass
