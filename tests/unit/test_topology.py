"""Who this process is, from what launchers leave in the environment."""
import pytest

from hpclcae.topology import launched


@pytest.mark.parametrize("environment, expected", [
    ({}, (1, 0)),
    ({"PATH": "/bin", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (1, 0)),  # a batch script
    ({"PMI_SIZE": "4", "PMI_RANK": "3"}, (4, 3)),
    ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, (2, 1)),
    ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}, (8, 5)),
    ({"PMI_SIZE": "1", "PMI_RANK": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}, (1, 0)),
])
def test_launchers(environment, expected):
    assert launched(environment) == expected
