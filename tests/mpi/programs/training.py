"""On every rank of a job with servers: train as tests/support/replicas (../test_servers.py).

    training.py CONFIGURATION FOLDER STEPS

Every block of the first replica saves the parameters that the servers hold in the end.
"""
import sys
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.model.network import Network
from hpclcae.model.schedule import Schedule
from hpclcae.mpi.job import run_job
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.training.step import train_step
from hpclcae.training.worker import WorkerReport
from tests.support.replicas import inputs

config, folder, steps = configuration.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])


def work(worker):
    network, schedule = Network(worker.layout, worker.communicator), Schedule(config)
    parameters, role = network.parameters(config.train.seed), worker.role
    chunks, connection = worker.served.chunks, worker.served.connection
    if role.replica == 0:
        connection.initialise(parameters.vector)
    client = ParameterClient(config, chunks, parameters, connection)
    held = network.block.plan.stages[0].x.held
    for step in range(steps):
        client.begin(step, schedule.learning_rate(step))
        x = inputs(config, step, role.replica, config.parallel.replicas)
        train_step(network, client, step, x[slice(*held.rows), slice(*held.cols)].copy())
    client.pause()
    worker.peers.allreduce_sum(0)
    count = len(chunks)
    everything = np.full(count, config.parallel.replicas * steps // config.parallel.push_every)
    if config.parallel.consistency == "synchronous":
        everything //= config.parallel.replicas
    connection.start_fetch(parameters.vector, np.full(count, -1), everything, 10 * steps, steps)
    versions = connection.finish_fetch()
    if role.replica == 0:
        np.savez(folder / f"{role.block}.npz", parameters=parameters.vector, versions=versions)
    worker.peers.allreduce_sum(0)
    connection.close(steps)
    return WorkerReport()


sys.exit(run_on_all_ranks("training", lambda world: run_job(world, config, folder, None, work)))
