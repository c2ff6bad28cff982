"""Jobs on this machine: what mpiexec is told, exit codes, signals to every rank; without MPI."""
import os
import signal
import subprocess
import sys

import pytest

from hpclcae.cluster import mpiexec
from hpclcae.utils.errors import InputError


@pytest.mark.parametrize("said, root, wanted", [
    ("HYDRA build details:", True, set()),
    ("mpiexec (Open MPI) 5.0.11", False, set(mpiexec.OVERSUBSCRIBE)),
    ("mpiexec (OpenRTE) 4.1.4", True,
     {*mpiexec.OVERSUBSCRIBE, *mpiexec.AS_ROOT} - {"OMPI_ALLOW_RUN_AS_ROOT"})])
def test_open_mpi_is_told_what_it_wants_to_hear(tmp_path, monkeypatch, said, root, wanted):
    program = tmp_path / "mpiexec"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    for name in [*mpiexec.OVERSUBSCRIBE, *mpiexec.AS_ROOT, "SLURM_JOB_ID"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")  # what is set already stays
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    assert set(mpiexec.settings_of(str(program))) == wanted


@pytest.mark.parametrize("body, code", [("raise SystemExit(3)", 3), ("pass", 0),
                                        ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_that_of_the_job(body, code):
    program = [sys.executable, "-c", body]
    assert mpiexec.run_job(program, program, {}).code == code


#: In place of mpiexec: it starts its program twice, in sessions of their own; a TERM would end it.
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
LAUNCH = """
import sys
from hpclcae.cluster.mpiexec import run_job
sys.exit(run_job({command!r}, {program!r}, {{}}).code)
"""


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


SLOW_RANK = """
import pathlib, signal, sys
folder = pathlib.Path({folder!r})
(folder / "born").touch()
while not (folder / "go").exists():
    pass
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))
while True:
    signal.pause()
"""


@pytest.mark.skipif(not mpiexec.HAS_PROC, reason="who listens is found in /proc")
def test_usr1_waits_until_a_rank_listens(tmp_path):
    """A rank that has just been born would be killed by it."""
    program = [sys.executable, "-c", SLOW_RANK.format(folder=str(tmp_path))]
    job = subprocess.Popen([sys.executable, "-c", LAUNCH.format(command=program, program=program)])
    try:
        await_files(job, tmp_path, "born", 1)
        job.send_signal(signal.SIGUSR1)
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(2 * mpiexec.LOOK_SECONDS)
        (tmp_path / "go").touch()
        assert job.wait(60) == 5
    finally:
        job.kill()
        job.wait()


@pytest.mark.parametrize("said", ["HYDRA build details:", "another"])
def test_mpich_does_not_start_this_machine_with_srun(tmp_path, monkeypatch, said):
    program = tmp_path / "mpiexec"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    wanted = mpiexec.ON_THIS_MACHINE if said.startswith("HYDRA") else {}
    assert mpiexec.settings_of(str(program)) == wanted


def test_an_mpiexec_that_does_not_answer_is_named(tmp_path, monkeypatch):
    program = tmp_path / "mpiexec"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(mpiexec, "ANSWER_SECONDS", 0.1)
    with pytest.raises(InputError, match="mpiexec --version says nothing for 0.1 s"):
        mpiexec.settings_of(str(program))


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
