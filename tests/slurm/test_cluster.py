"""The cluster itself: what the other tests rely on."""
from tests.support.slurm_jobs import NODES, command


def test_four_nodes_with_names_and_processes_of_their_own(slurm):
    said = command("srun", "--nodes=4", "--mem=100", "sh", "-c",
                   "echo $(hostname) $SLURMD_NODENAME $(ls /dev/shm | wc -l)")
    assert sorted(said.splitlines()) == [f"{node} {node} 0" for node in NODES]
