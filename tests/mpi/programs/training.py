"""On every rank of a job with servers: train as tests/support/replicas (../test_servers.py).

    training.py CONFIGURATION FOLDER STEPS

Every block of the first replica saves the parameters that the servers hold in the end.
"""
import sys
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.model.network import Network, trained_stage
from hpclcae.mpi.job import run_job
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.parameter_server.client import ParameterClient
from tests.support.replicas import inputs, one_step

config, folder, steps = configuration.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])


def work(place):
    network = Network(config, place.grid, place.communicator)
    parameters, role, line = network.parameters(config.train.seed), place.role, place.line
    if role.replica == 0:
        line.seed(parameters.vector)
    updates = ParameterClient(config, place.chunks, parameters, line)
    held = network.plan.stages[0].x.held
    for step in range(steps):
        updates.begin(step, trained_stage(config, step)[1])
        x = inputs(config, step, role.replica,
                   config.parallel.replicas)[slice(*held.rows), slice(*held.cols)]
        one_step(network, updates.parameters, x.copy(), step, updates)
        updates.end()
    updates.stand()
    place.peers.allreduce_sum(0)
    count = len(place.chunks)
    everything = np.full(count, config.parallel.replicas * steps // config.parallel.push_every)
    if config.parallel.consistency == "synchronous":
        everything //= config.parallel.replicas
    line.start_fetch(parameters.vector, np.full(count, -1), everything, 10 * steps, steps)
    versions = line.finish_fetch()
    if role.replica == 0:
        np.savez(folder / f"{role.block}.npz", parameters=parameters.vector, versions=versions)
    place.peers.allreduce_sum(0)
    line.close(steps)
    return {}


sys.exit(run_on_all_ranks("training", lambda world: run_job(world, config, folder, None, work)))
