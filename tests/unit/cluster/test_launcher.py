"""How many processes there are, from what launchers leave in the environment."""
import pytest

from hpclcae.cluster import launcher
from hpclcae.cluster.launcher import launched, on_this_node

STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}
LEFT = {"PMI_SIZE": "1", "PMI_RANK": "0", "PMI_FD": "7"}       # of `srun --mpi=pmi2 --pty bash`
SHELL = LEFT | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize("environment, size, rank", [
    ({}, 1, 0),
    # a batch script
    ({"PATH": "/bin", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1, 0),
    (SHELL, 1, 0),
    ({"PMI_SIZE": "4", "PMI_RANK": "3"}, 4, 3),
    ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, 2, 1),
    ({"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "1"}, 2, 1),
    (STEP, 8, 5),
    (STEP | {"PMI_SIZE": "8", "PMI_RANK": "6"}, 8, 5),
    # what the shell was started with is outdone by what is called in it
    (LEFT | STEP, 8, 5),
    (SHELL | {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, 2, 1),
    (SHELL | {"MPI_LOCALNRANKS": "2", "PMI_SIZE": "2", "PMI_RANK": "1"}, 2, 1),
    # mpiexec inside of srun, which may have started its helpers: one a node
    (STEP | {"MPI_LOCALNRANKS": "1", "PMI_SIZE": "1", "PMI_RANK": "0"}, 1, 0),
    (STEP | {"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_RANK": "9"}, 16, 9),
    ({"PMI_SIZE": "many", "PMI_RANK": "0"}, 1, 0),
    ({"PMI_SIZE": "4"}, 1, 0)])
def test_the_nearest_launcher_counts(environment, size, rank):
    assert launched(environment)[:2] == (size, rank)


def test_the_variable_that_says_it_is_named():
    assert launched(STEP).by == "srun (SLURM_STEP_NUM_TASKS)"
    assert launched({"PMI_SIZE": "4", "PMI_RANK": "3"}).by == "mpiexec (PMI_SIZE)"


@pytest.mark.parametrize("terminal, size", [(True, 1), (False, 8)])
def test_what_is_typed_into_a_shell_of_srun_is_no_task_of_its_step(monkeypatch, terminal, size):
    """`srun -n 8 --pty bash`: the shell is one of eight tasks."""
    monkeypatch.setattr(launcher, "_has_terminal", lambda: terminal)
    assert launched(STEP | {"SLURM_PTY_PORT": "4242"}).size == size


@pytest.mark.parametrize("environment, expected", [
    ({}, (1, 0)),
    ({"MPI_LOCALNRANKS": "3", "MPI_LOCALRANKID": "2"}, (3, 2)),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, (4, 1)),
    ({"SLURM_STEP_TASKS_PER_NODE": "2(x2),3", "SLURM_LOCALID": "1"}, (3, 1)),
    ({"SLURM_STEP_TASKS_PER_NODE": "?", "SLURM_LOCALID": "1"}, (1, 0))])
def test_processes_of_this_node(environment, expected):
    assert on_this_node(environment) == expected
