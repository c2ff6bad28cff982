"""Training with parameter servers in one process: replicas and blocks are threads."""
import threading
from types import MappingProxyType

import numpy as np

from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.schedule import Schedule
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.parameter_server.local import LocalServers
from hpclcae.parameter_server.store import Store
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from hpclcae.training.step import train_step


def inputs(config, step, replica=0, replicas=1):
    """Prepared images (row, col, channel, image) of a step.

    A replica's part of one large minibatch.
    """
    size, images = config.data.size, config.train.batch
    rng = np.random.default_rng([7, step])
    x = rng.standard_normal((size, size, config.data.channels, images * replicas))
    return x.astype(config.train.dtype)[..., replica * images:(replica + 1) * images]


def train_alone(config, steps, images=inputs):
    """Parameters after training without servers."""
    network, schedule = Network(Layout(config)), Schedule(config)
    parameters = network.parameters(config.train.seed)
    optimizer = Optimizer(config.update, parameters, network.block.fan_in)
    for step in range(steps):
        optimizer.begin(schedule.learning_rate(step))
        train_step(network, optimizer, step, images(config, step))
    return parameters


class Servers(LocalServers):
    """Servers that hold the initial parameters of a network."""

    def __init__(self, config, grid, servers, logs=None):
        self.config, self.layout = config, Layout(config, grid)
        shards = Shards(self.layout, servers)
        super().__init__(shards, [Store(shards.held_by(s), config, log=logs[s].append if logs
                                        else None) for s in range(servers)])
        for block in range(grid.size):
            vector = block_network(self.layout, block).parameters(config.train.seed).vector
            self.connection(0, block).initialise(vector)

    def parameters(self, block):
        """What the stores hold of a block's parameters."""
        parameters = self.layout.block(block).parameters()
        for server, span in self.shards.spans(block).items():
            for index, number in span.at_server.items():
                chunk = self.shards.chunks[block][index]
                parameters.vector[chunk.start:chunk.stop] = self.stores[server].values[number]
        return parameters


def block_network(layout, block):
    """A network that is one block of a layout and talks to nobody."""
    class Here:
        rank, size = block, layout.grid.size
    return Network(layout, Here())


def train_served(config, servers, steps, grid=Grid(1, 1), images=inputs, ends=MappingProxyType({})):
    """Train all replicas at the same time.

    Parameters
    ----------
    ends : dict of int to int
        Replicas that end before the last step, and after how many.

    Returns
    -------
    objectives of every replica, and the client of every replica and block.
    """
    replicas = config.parallel.replicas
    objectives = [[] for _ in range(replicas)]
    kept = {}

    def block_of(replica):
        def program(communicator):
            network, schedule = Network(servers.layout, communicator), Schedule(config)
            connection = servers.connection(replica, communicator.rank)
            client = ParameterClient(config, servers.shards.chunks[communicator.rank],
                                     network.parameters(), connection)
            held = network.block.plan.stages[0].x.held
            step, client.made = 0, []
            while step < min(steps, ends.get(replica, steps)):
                client.begin(step, schedule.learning_rate(step))
                if config.parallel.backup:
                    newest = communicator.allreduce_sum([connection.newest if communicator.rank == 0
                                                         else 0])[0]
                    if newest > step:
                        step = int(newest)
                        continue
                x = images(config, step, replica, replicas)[slice(*held.rows), slice(*held.cols)]
                losses = train_step(network, client, step, x)
                client.made.append(step)
                if communicator.rank == 0:
                    objectives[replica].append(sum(loss.objective for loss in losses if loss))
                step += 1
            kept[replica, communicator.rank] = client
            client.pause()
            connection.close(step)
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
