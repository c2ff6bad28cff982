"""On every rank of a job with servers: begin again and again, as a job does before it trains.

Started by ../test_servers.py.

    starting.py CONFIGURATION TIMES
"""
import sys

from hpclcae import config as configuration
from hpclcae.mpi.job import assign_roles, open_transport, split_workers
from hpclcae.mpi.runtime import run_on_all_ranks

config, times = configuration.load(sys.argv[1]), int(sys.argv[2])


def begin(world):
    for _ in range(times):
        job = assign_roles(world, config)
        memories, transport = open_transport(job)
        assert transport == "rma"
        peers, replica = split_workers(job)
        world.comm.Dup().Free()
        for memory in memories.values():
            memory.close()
        replica.close()
        peers.close()


sys.exit(run_on_all_ranks("starting", begin))
