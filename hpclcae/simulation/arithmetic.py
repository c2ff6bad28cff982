"""The arithmetic under a simulated schedule: the same clients, stores and training step.

Replicas share one network, one after the other, in the order that the simulation gives; all of it
runs in one thread, so the same seeds give the same bits. A gradient that is on its way is kept
until the simulation delivers it.
"""
import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from hpclcae.config import Config, DataConfig, PreprocessConfig, StageConfig, TrainConfig
from hpclcae.model import preprocess
from hpclcae.model.layout import WHOLE, Layout
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import phases
from hpclcae.model.schedule import Schedule
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.parameter_server.local import LocalConnection, LocalServers
from hpclcae.parameter_server.store import Store
from hpclcae.simulation.images import drawn_images
from hpclcae.training.step import train_step
from hpclcae.utils.errors import InputError

IMAGES, LOOKED_AT = 4000, 400  # images to train on, and to see what has been learnt
STORES = 2  # servers' stores, however many servers are simulated: each has a share of the chunks
#: A network that hardly is one, for a schedule without arithmetic.
NOTHING = Config(data=DataConfig(size=3, channels=1), preprocess=PreprocessConfig(whitening=0),
                 stages=(StageConfig(receptive_field=1, maps=1, pooling=1, lcn=0, tile=1),),
                 train=TrainConfig(batch=1))


#: Of every store: parameters, versions, the update rule's memory.
Saved = list[tuple[np.ndarray, np.ndarray, dict[str, list[np.ndarray]]]]


class Mail(NamedTuple):
    """A gradient on its way: the arguments of LocalConnection.deliver."""
    chunk: int
    clock: int
    base: int
    learning_rate: float
    gradient: np.ndarray
    then: np.ndarray | None


class PostedConnection(LocalConnection):
    """A connection whose pushes wait until they are delivered.

    As with messages, a fetch comes to the servers behind the pushes before it.

    Parameters
    ----------
    missed : Counter
        Of all connections: how many gradients missed so many updates.
    """

    def __init__(self, servers: LocalServers, replica: int, missed: Counter[int]) -> None:
        super().__init__(servers, replica, 0)
        self._missed = missed
        self._posted: list[Mail] = []
        self._under_way = self.fetches = 0
        self._asked: tuple[np.ndarray, np.ndarray, np.ndarray, int, int] | None = None

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        self.fetches += 1
        self._asked = into, have, wanted, pushes, clock
        self._ask()

    def _ask(self) -> None:
        if self._asked and not self._under_way:
            asked, self._asked = self._asked, None
            super().start_fetch(*asked)

    @property
    def is_answered(self) -> bool:
        return self._asked is None and super().is_answered

    def push(self, index: int, clock: int, base: int, learning_rate: float,
             then: np.ndarray | None = None) -> None:
        self._under_way += 1
        self._posted.append(Mail(index, clock, base, learning_rate, self.buffer(index).copy(),
                                 None if then is None else then.copy()))

    @property
    def is_behind(self) -> bool:
        """Whether what was pushed is still on its way."""
        return self._under_way > 0

    def take(self) -> list[Mail]:
        """What leaves now."""
        posted, self._posted = self._posted, []
        return posted

    def arrive(self, mail: Sequence[Mail]) -> None:
        """Gradients have arrived, and are applied."""
        for one in mail:
            store, number = self._held[one.chunk]
            self._missed[int(store.versions[number]) - one.base] += 1
            self.deliver(*one)
        self._under_way -= len(mail)
        self._ask()


class Arithmetic:
    """The replicas of a job and their servers.

    Parameters
    ----------
    config : Config
        The network that learns; its parallel section says who waits for whom.
    learns : bool
        False: gradients are zero, nothing is computed, and only the schedule is real.

    Attributes
    ----------
    stores : list of Store
    missed : Counter
        How many gradients of chunks missed 0, 1, 2, ... updates (Store counts up to 64).
    """

    def __init__(self, config: Config, learns: bool) -> None:
        self.config, self.learns = config, learns
        layout = Layout(config, WHOLE)
        shards = Shards(layout, STORES)
        self._shards = shards
        self.stores = self._new_stores()
        self.servers = LocalServers(shards, self.stores)
        self.chunks, self.spans = shards.chunks[0], shards.spans(0)
        self.network = Network(layout)
        self.schedule = Schedule(config, lambda step: step * config.train.batch / IMAGES)
        initial = self.network.parameters(config.train.seed)
        self.missed: Counter[int] = Counter()
        self.connections = [PostedConnection(self.servers, replica, self.missed)
                            for replica in range(config.parallel.replicas)]
        self.connections[0].initialise(initial.vector)
        self.clients = [self._client(connection) for connection in self.connections]
        self._rows = [(name, row, np.zeros(plan.shape[1:], layout.dtype))
                      for name, plan in layout.block(0).filters.items()
                      for row in range(plan.shape[0])]
        if learns:
            self._x, self._looked_at = _prepared(config.data, config.preprocess,
                                                 config.train.seed, config.train.dtype)

    @classmethod
    def of(cls, parallel: Config, network: Config | None) -> "Arithmetic":
        """For the schedule of one configuration the arithmetic of another, small one.

        Raises
        ------
        InputError
            The network is trained in phases.
        """
        config = network or NOTHING
        if network and len(phases(network)) > 1:
            raise InputError("a simulation carries one phase of training: set train.gradient to "
                             "'joint' or 'stopped' in the small network")
        return cls(dataclasses.replace(config, parallel=parallel.parallel), network is not None)

    def _new_stores(self) -> list[Store]:
        return [Store(self._shards.held_by(server), self.config) for server in range(STORES)]

    def _client(self, connection: PostedConnection) -> ParameterClient:
        return ParameterClient(self.config, self.chunks, self.network.parameters(), connection)

    # ---- what a replica does ---------------------------------------------------------------------

    def request(self, replica: int, step: int) -> bool:
        """Begin the fetch that a step needs; returns whether one has begun."""
        before = self.connections[replica].fetches
        self.clients[replica].request(step)
        return self.connections[replica].fetches > before

    def may_begin(self, replica: int, step: int) -> bool:
        """Whether what the step needs is there."""
        return not self.clients[replica].is_fetching or self.connections[replica].is_answered

    def begin(self, replica: int, step: int) -> tuple[bool, bool]:
        """Take the parameters of a step.

        Returns whether they are there (in lockstep not, when another replica has ended), and
        whether the next fetch has begun (overlap).
        """
        before = self.connections[replica].fetches
        there = self.clients[replica].begin(step, self.schedule.learning_rate(step))
        return there, self.connections[replica].fetches > before

    def compute(self, replica: int, step: int) -> tuple[PostedConnection, list[Mail]]:
        """Make a step; returns the gradients that leave, and what they are to `arrive` at."""
        client, connection = self.clients[replica], self.connections[replica]
        if self.learns:
            train_step(self.network, client, step, self._minibatch(replica, step))
        else:
            for name, row, nothing in self._rows:
                client.on_gradient(name, row, nothing)
            client.end()
        return connection, connection.take()

    def replace(self, replica: int) -> None:
        """The replica has failed, and one that knows nothing goes on in its place."""
        self.connections[replica] = PostedConnection(self.servers, replica, self.missed)
        self.clients[replica] = self._client(self.connections[replica])

    def close(self, replica: int) -> None:
        """The replica makes no more steps."""
        for store in self.stores:
            store.close(replica, 0)

    def _minibatch(self, replica: int, step: int) -> np.ndarray:
        """Images of a step: every replica draws from its own part."""
        replicas, batch = self.config.parallel.replicas, self.config.train.batch
        mine = range(replica * IMAGES // replicas, (replica + 1) * IMAGES // replicas)
        generator = np.random.default_rng([self.config.train.seed, replica, step])
        return np.ascontiguousarray(self._x[..., generator.integers(mine.start, mine.stop, batch)])

    # ---- what has been learnt, and whether it can be taken back ----------------------------------

    def objective(self) -> float:
        """Of the servers' parameters, on images that nobody is trained on; NaN if it diverged."""
        parameters = self._served()
        if not self.learns or not np.isfinite(parameters.vector).all():
            return float("nan")
        with np.errstate(over="ignore", invalid="ignore"):
            states = self.network.forward(parameters, self._looked_at)
        return sum(state.loss.objective for state in states if state.loss)

    def _served(self) -> ParameterVector:
        parameters = self.network.parameters()
        for server, span in self.spans.items():
            for index, number in span.at_server.items():
                chunk = self.chunks[index]
                parameters.vector[chunk.start:chunk.stop] = self.stores[server].values[number]
        return parameters

    @property
    def staleness(self) -> np.ndarray:
        """How many gradients of chunks missed 0, 1, 2, ... updates."""
        counts = np.zeros(max(self.missed, default=0) + 1, np.int64)
        for missed, times in self.missed.items():
            counts[missed] = times
        return counts

    def save(self) -> Saved:
        """A checkpoint."""
        return [(store.memory.copy(), store.versions.copy(),
                 {slot: [piece.copy() for piece in pieces]
                  for slot, pieces in store.state.items()}) for store in self.stores]

    def restore(self, saved: Saved) -> None:
        """Go back to a checkpoint; nothing is on its way, and all replicas begin anew."""
        before, self.stores = self.stores, self._new_stores()
        self.servers.stores[:] = self.stores
        for old, store, (memory, versions, state) in zip(before, self.stores, saved):
            store.counters = old.counters
            for index, (start, stop) in enumerate(zip(store.bounds[:-1], store.bounds[1:])):
                store.initialise(index, memory[start:stop],
                                 {slot: pieces[index] for slot, pieces in state.items()},
                                 int(versions[index]))
        for replica in range(self.config.parallel.replicas):
            self.replace(replica)


@cache
def _prepared(data: DataConfig, settings: PreprocessConfig, seed: int,
              dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Prepared images (row, col, channel, image): to train on, and to look at."""
    images = drawn_images(IMAGES + LOOKED_AT, data.size, data.channels, seed)
    fitted = preprocess.fit(settings, images[:min(settings.whitening_images, 500)])
    x = fitted.preprocessor(data.size, np.dtype(dtype))(images)
    return x[..., :IMAGES], np.ascontiguousarray(x[..., IMAGES:])
