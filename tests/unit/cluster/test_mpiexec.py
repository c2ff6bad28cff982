"""``hpclcae launch``: the right number of ranks, the line, signals and exit codes; without MPI."""
import argparse
import os
import signal
import subprocess
import sys

import pytest

from hpclcae import cli, config as configuration
from hpclcae.cluster import mpiexec as launch
from hpclcae.commands import train
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

TINY = RUN / "tiny.toml"


@pytest.mark.parametrize("changes, cores, ranks", [
    ([], 1, 1), ([], 6, 6), (["servers=2"], 1, 3), (["servers=2", "replicas=3"], 2, 5),
    (["servers=2", "replicas=3"], 8, 2 + 3 * 2), (["servers=1", "replicas=2", 'grid="2x3"'], 2, 13),
    (['grid="1x1"'], 8, 1)])
def test_replicas_share_the_cores_and_servers_come_on_top(changes, cores, ranks):
    config = configuration.load(TINY, [f"parallel.{change}" for change in changes])
    assert launch.ranks_for(config, cores) == ranks
    assert launch.ranks_for(config, 1, ranks) == ranks


def test_no_more_blocks_than_fit():
    config = configuration.load(TINY)
    assert launch.ranks_for(config, 29) == 28  # of 29 blocks in a row on 24 pixels there is none


@pytest.mark.parametrize("changes, ranks, words", [
    (["parallel.servers=2", "parallel.replicas=2"], 5, "need 4, 6, 8"),
    (['parallel.grid="2x2"'], 3, "need 4"), (['parallel.grid="99x1"'], None, "99")])
def test_ranks_that_do_not_fit_are_refused(changes, ranks, words):
    with pytest.raises(InputError, match=words):
        launch.ranks_for(configuration.load(TINY, changes), 2, ranks)


def test_every_argument_of_train_is_passed_on():
    parser = argparse.ArgumentParser()
    train.configure(parser)
    words = ["x.toml", "--out", "a run"]
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "out"):
            value = {int: "7", None: "some text"}[action.type]
            words += [action.option_strings[-1], *([] if action.nargs == 0 else [value])]
    words += ["--set", "another"]
    given = parser.parse_args(words)
    assert parser.parse_args(launch.train_words(given)) == given
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


@pytest.mark.parametrize("said, root, wanted",
                         [("HYDRA build details:", True, set()),
                          ("mpiexec (Open MPI) 5.0.11", False, set(launch.OVERSUBSCRIBE)),
                          ("mpiexec (OpenRTE) 4.1.4", True,
                           {*launch.OVERSUBSCRIBE, *launch.AS_ROOT} - {"OMPI_ALLOW_RUN_AS_ROOT"})])
def test_open_mpi_is_told_what_it_wants_to_hear(tmp_path, monkeypatch, said, root, wanted):
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text(f"#!/bin/sh\necho '{said}'\n")
    mpiexec.chmod(0o755)
    for name in [*launch.OVERSUBSCRIBE, *launch.AS_ROOT]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")  # what is set already stays
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    assert set(launch.settings_of(str(mpiexec))) == wanted


def test_a_missing_mpiexec_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["launch", str(TINY), "--out", "x", "--ranks", "2"]) == 1
    said = capsys.readouterr()
    assert "there is no mpiexec" in said.err and "hpclcae[mpich]" in said.err and said.err.count(
        "\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("body, code", [("raise SystemExit(3)", 3), ("pass", 0),
                                        ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_that_of_the_job(body, code):
    program = [sys.executable, "-c", body]
    assert launch.run_job(program, program, {}) == code


#: In place of mpiexec: it starts its program twice in sessions of their own, and would end at a
#: TERM.
FAKE = """
import subprocess, sys
ranks = [subprocess.Popen(sys.argv[1:], start_new_session=True) for _ in range(2)]
sys.exit(max(rank.wait() for rank in ranks))
"""
RANK = """
import os, pathlib, signal, sys
folder = pathlib.Path({folder!r})
signal.signal(signal.SIGUSR1, lambda *_: (folder / f"usr1-{{os.getpid()}}").touch())
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
(folder / f"ready-{{os.getpid()}}").touch()
while True:
    signal.pause()
"""
LAUNCH = "import sys; from hpclcae import launch; sys.exit(launch.run_job({command!r}, {program!r}, {{}}))"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")
def test_signals_reach_every_rank_and_not_the_launcher(tmp_path):
    program = [sys.executable, "-c", RANK.format(folder=str(tmp_path))]
    command = [sys.executable, "-c", FAKE, *program]
    job = subprocess.Popen([sys.executable, "-c", LAUNCH.format(command=command, program=program)])
    try:
        await_files(job, tmp_path, "ready-*", 2)
        job.send_signal(signal.SIGUSR1)
        await_files(job, tmp_path, "usr1-*", 2)
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) == 5
    finally:
        job.kill()
        job.wait()


def await_files(job, folder, pattern, count):
    """Return when there are so many files; fail when the job has ended before."""
    while len(list(folder.glob(pattern))) < count:
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"),
                    reason="only Linux tells a process that its parent has ended")
def test_no_job_is_left_behind_when_the_command_is_killed(tmp_path):
    program = [sys.executable, "-c", RANK.format(folder=str(tmp_path))]
    job = subprocess.Popen([sys.executable, "-c", LAUNCH.format(command=program, program=program)])
    await_files(job, tmp_path, "ready-*", 1)
    rank = next(tmp_path.glob("ready-*")).name.removeprefix("ready-")
    job.kill()
    job.wait(60)
    assert subprocess.run(["tail", "--pid", rank, "-f", "/dev/null"], timeout=60).returncode == 0
