"""The cluster itself: what the other tests rely on."""
from tests.support.slurm_jobs import NODES, command


def test_four_nodes_with_names_processes_and_shared_memory_of_their_own(slurm):
    said = command("srun", "--nodes=4", "--mem=100", "sh", "-c",
                   "echo $(hostname) $SLURMD_NODENAME $(readlink /proc/self/ns/pid) $(stat "
                   "--format=%d /dev/shm)")
    names, own_names, processes, memory = zip(*(line.split() for line in sorted(said.splitlines())))
    assert names == own_names == NODES
    assert len({*processes}) == len({*memory}) == 4
