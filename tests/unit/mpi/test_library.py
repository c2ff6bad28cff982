"""The door to MPI: what is wrong is one line before anything is opened; without mpiexec."""
import os
import subprocess
import sys

import pytest

from hpclcae.mpi import library
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

#: Words that would start ranks, of every command that has some.
COMMANDS = [["train", str(RUN / "tiny.toml"), "--out", "run"],
            ["bench", "halo", str(RUN / "tiny.toml"), "--json", "rows"]]


def said(words, folder, **variables):
    """What a process says that a launcher started; it must fail, and leave nothing."""
    done = subprocess.run([sys.executable, "-m", "hpclcae", *words], capture_output=True, text=True,
                          cwd=folder, env=os.environ | variables, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not list(folder.iterdir())
    return [line for line in done.stderr.splitlines() if "hpclcae" in line]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, words):
    """srun without a PMI: every process is rank 0 of 1 for MPI."""
    [line] = said(words, tmp_path, SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="0")
    assert line.startswith(f"hpclcae {words[0]}")
    assert "srun (SLURM_STEP_NUM_TASKS) started 2 processes, and MPI (" in line
    assert "sees 1" in line and "--mpi=" in line and "mpiexec" in line


def test_no_mpi_library_is_one_line(tmp_path):
    [line] = said(COMMANDS[0], tmp_path, SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="0",
                  MPI4PY_LIBMPI="/nowhere/libmpi.so")
    assert line.startswith("hpclcae train: no MPI library can be loaded (")
    assert "/nowhere/libmpi.so" in line and "hpclcae[mpich]" in line


def test_what_an_ended_launcher_left_is_named(monkeypatch):
    monkeypatch.setenv("PMI_FD", "999")
    with pytest.raises(InputError, match="PMI_FD=999 is no open file.*unset PMI_FD"):
        library._check_launcher("MPICH", "MPICH 5")


def test_mpich_under_the_mpiexec_of_open_mpi_is_named(monkeypatch):
    for name in ("PMI_FD", "PMI_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PMIX_NAMESPACE", "prterun")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    with pytest.raises(InputError, match=r"mpiexec \(OMPI_COMM_WORLD_SIZE\) started 2 processes, "
                                         r"and MPI \(MPICH 5\) does not understand"):
        library._check_launcher("MPICH", "MPICH 5")
    library._check_launcher("Open MPI", "Open MPI 5")
