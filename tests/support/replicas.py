"""Training with parameter servers in one process: replicas and blocks are threads, stores are
shared."""
import threading
from types import MappingProxyType

import numpy as np

from hpclcae.model.network import Network, trained_stage
from hpclcae.model.optimizers import Optimizer
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.parameter_server.local import LocalConnection
from hpclcae.parameter_server.store import Store
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks


def inputs(config, step, replica=0, replicas=1):
    """Prepared images (row, col, channel, image) of a step: a replica's part of one large
    minibatch."""
    size, images = config.data.size, config.train.batch
    rng = np.random.default_rng([7, step])
    x = rng.standard_normal((size, size, config.data.channels,
                             images * replicas)).astype(config.train.dtype)
    return x[..., replica * images:(replica + 1) * images]


def fan_in(network):
    return {name: s.filter.fan_in for s in network.stages for name in s.parameter_shapes()}


def one_step(network, parameters, x, step, on_gradient):
    states = network.forward(parameters, x, trained_stage(network.config, step)[0])
    network.backward(states, on_gradient)
    return [state.loss.objective for state in states if state.loss]


def train_alone(config, steps, images=inputs):
    """Parameters after training without servers."""
    network = Network(config)
    parameters = network.parameters(config.train.seed)
    rule = Optimizer(config.update, parameters, fan_in(network))
    for step in range(steps):
        rule.begin(step, trained_stage(config, step)[1])
        one_step(network, parameters, images(config, step), step, rule)
    return parameters


class Servers:
    """Stores that hold the initial parameters of a network."""

    def __init__(self, config, grid, servers, logs=None):
        self.config, self.grid = config, grid
        self.shards = Shards(config, grid, servers)
        self.stores = [Store(self.shards.held_by(s), config, log=logs[s].append if logs else None)
                       for s in range(servers)]
        self.office = threading.Condition()
        for block in range(grid.size):
            start = block_network(config, grid, block).parameters(config.train.seed).vector
            for server, (numbers, first) in self.shards.spans(block).items():
                for number in numbers:
                    chunk = self.shards.chunks[block][number]
                    self.stores[server].seed(first + number - numbers.start,
                                             start[chunk.start:chunk.stop])

    def line(self, replica, block):
        return LocalConnection(self.office, self.stores, self.shards, replica, block)

    def parameters(self, block):
        """What the stores hold of a block's parameters."""
        parameters = block_network(self.config, self.grid, block).parameters()
        for server, (numbers, first) in self.shards.spans(block).items():
            for number in numbers:
                chunk = self.shards.chunks[block][number]
                parameters.vector[chunk.start:chunk.stop] = self.stores[server].values[
                    first + number - numbers.start]
        return parameters


def block_network(config, grid, block):
    class Here:
        rank, size = block, grid.size
    return Network(config, grid, Here())


def train_served(config, servers, steps, grid=Grid(1, 1), images=inputs, ends=MappingProxyType({})):
    """Train all replicas at the same time; returns (objectives of every replica, updates of every
    replica and block).

    Parameters
    ----------
    ends : dict of int to int
        Replicas that end before the last step, and after how many.
    """
    replicas = config.parallel.replicas
    objectives = [[] for _ in range(replicas)]
    kept = {}

    def block_of(replica):
        def program(communicator):
            network = Network(config, grid, communicator)
            updates = ParameterClient(config, servers.shards.chunks[communicator.rank],
                                      network.parameters(),
                                      servers.line(replica, communicator.rank))
            held = network.plan.stages[0].x.held
            step, updates.made = 0, []
            while step < min(steps, ends.get(replica, steps)):
                updates.begin(step, trained_stage(config, step)[1])
                if config.parallel.backup:
                    newest = communicator.allreduce_sum([updates.line.newest
                                                         if communicator.rank == 0 else 0])[0]
                    if newest > step:
                        step = int(newest)
                        continue
                x = images(config, step, replica, replicas)[slice(*held.rows), slice(*held.cols)]
                found = one_step(network, updates.parameters, x, step, updates)
                updates.end()
                updates.made.append(step)
                if communicator.rank == 0:
                    objectives[replica].append(sum(found))
                step += 1
            kept[replica, communicator.rank] = updates
            updates.stand()
            updates.line.close()
        return program
    errors = []

    def replica_thread(replica):
        try:
            run_blocks(grid.size, block_of(replica))
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=replica_thread, args=(replica,), daemon=True)
               for replica in range(replicas)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a replica waits for ever"
    if errors:
        raise errors[0]
    return objectives, kept
