"""An asynchronous run again, in one process, bit for bit.

With `parallel.log_events = true` every server writes down who fetched and who pushed which version
of which chunk (checkpoint/event_log.py). From that, the configuration and the images follow all
numbers of the run: each replica computes its steps with the versions that it had, and pushes are
applied in the order in which they were. The result is compared with the run's checkpoint; where
numbers stop being finite or the objective explodes, replica, step and chunk are named.

The bits are those of the run on the same kind of processor with the same libraries.
"""
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint import BlockState, ChunkState
from hpclcae.checkpoint.event_log import first_checkpoint
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import meetings
from hpclcae.model.schedule import Schedule
from hpclcae.parameter_server.chunks import Chunk, Shards
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.parameter_server.store import FETCHED, PAUSED, PUSHED, ROUND_CLOSED
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator
from hpclcae.partition.threads import run_blocks
from hpclcae.training.divergence import Divergence
from hpclcae.training.inputs import Inputs
from hpclcae.training.replay_lives import Life, by_life
from hpclcae.training.replay_server import (ReplayConnection, ReplayServer, describe,
                                            events_of_chunks)
from hpclcae.training.resume import (class_split, deal_of, fit_preprocessing, minibatches,
                                     open_dataset, weights_of)
from hpclcae.training.step import train_step
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress


def checkpoint_made(run: Path, found: Mapping[int, Path], start: int) -> Path | None:
    """The newest checkpoint that the job made which began with step `start`; None: it is gone.

    found : mapping of int to Path
        The logs of the run (event_log.logs).
    """
    following = min((step for step in found if step > start), default=None)
    if following is not None:
        return first_checkpoint(found[following])
    made = [path for path in checkpoint.saved(run / "checkpoints")
            if checkpoint.step_of(path) > start]
    return made[-1] if made else None


class ReplaySchedule:
    """What the logs of all servers tell of every replica.

    Attributes
    ----------
    lives : list of Life
        Where replicas died and began again, each has several; what follows counts lives. Else a
        life is a replica.
    events : list of ndarray (n,)
        Of every server; their `replica` is the number of a life.
    steps : list of list of int
        The steps that each began.
    left_out : set of (int, int)
        Replica and step for which it only fetched: backup replicas leave out what the others have
        made.
    pauses : set of (int, int)
        Replica and step before which it paused.

    Raises
    ------
    InputError
        The events are not of this configuration, or do not tell which steps there were.
    """

    def __init__(self, logs: Sequence[np.ndarray], config: Config) -> None:
        parallel = config.parallel
        self.events, self.lives = by_life(logs, parallel.replicas)
        several = self.lives != [Life(replica, 0) for replica in range(parallel.replicas)]
        events = np.concatenate(self.events)
        events = events[events["kind"] != ROUND_CLOSED]  # a server's own doing
        known = set(np.unique(events["kind"])) <= {FETCHED, PUSHED, PAUSED}
        of_replicas = (events["replica"] >= 0) & (events["replica"] < len(self.lives))
        of_steps = (events["clock"] >= 0) & (events["clock"] <= config.train.steps)
        if not (known and of_replicas.all() and of_steps.all()):
            raise InputError("the log is damaged: it names replicas or steps that there were not, "
                             "or events of another version")
        if parallel.backup and parallel.push_every > 1:
            raise InputError(f"parallel.push_every = {parallel.push_every} with backup replicas "
                             "cannot be replayed: a replica leaves out steps between two pushes, "
                             "which servers do not see")
        clocks = [np.unique(events["clock"][(events["replica"] == replica)
                                            & (events["kind"] != PAUSED)])
                  for replica in range(len(self.lives))]
        if several:  # a life that has pushed nothing has done nothing
            pushed = set(events["replica"][events["kind"] == PUSHED].tolist())
            clocks = [c if life in pushed else c[:0] for life, c in enumerate(clocks)]
        every = max(parallel.fetch_every, parallel.push_every)
        if any(c.size and c[-1] - c[0] > every * events.size for c in clocks):
            raise InputError("the log is damaged: it names steps far apart, and none between them")
        self.steps = [c.tolist() if parallel.backup or not c.size
                      else list(range(int(c[0]), int(c[-1]) + 1)) for c in clocks]
        self.pauses = _steps_with(events, PAUSED)
        self.left_out = set()
        if parallel.backup:
            self.left_out = _steps_with(events, FETCHED) - _steps_with(events, PUSHED)

    @property
    def count(self) -> int:
        """Steps that are made, of all replicas."""
        return sum(map(len, self.steps)) - len(self.left_out)


def _steps_with(events: np.ndarray, kind: int) -> set[tuple[int, int]]:
    """Replica and step of all events of a kind."""
    found = events[events["kind"] == kind]
    return set(zip(found["replica"].tolist(), found["clock"].tolist()))


def replay(config: Config, events: Sequence[np.ndarray], start: Path | None,
           goal: Path | None) -> list[ReplayServer]:
    """Replay a job; returns the server of every block, played as far as the log goes.

    Parameters
    ----------
    events : sequence of ndarray (n,)
        Of every server.
    start, goal : Path or None
        The checkpoint that the job began with, and one that it made, to compare with.

    Raises
    ------
    InputError
        The log does not fit, or the numbers go wrong: names replica, step and chunk.
    """
    layout = Layout(config, Grid.parse(config.parallel.grid))
    shards = Shards(layout, config.parallel.servers)
    schedule = ReplaySchedule(events, config)

    def block(communicator: Communicator) -> ReplayServer:
        network, chunks = Network(layout, communicator), shards.chunks[communicator.rank]
        began = checkpoint.load_state(start) if start else None
        if began is None and config.train.weights:
            began = weights_of(config, network)
        vector = (began.parameters if isinstance(began, BlockState)
                  else network.parameters(config.train.seed))
        first = (checkpoint.load_chunk_states(start, layout, chunks) if start
                 else initial_states(vector, chunks))
        compared = checkpoint.load_chunk_states(goal, layout, chunks) if goal else ()
        server = ReplayServer(chunks, config, events_of_chunks(
            schedule.events, shards, communicator.rank), first, compared, schedule.lives)
        with open_dataset(config) as dataset:
            fitted = began.preprocessing if began else fit_preprocessing(config, dataset)
            prepare = fitted.preprocessor(config.data.size, network.dtype,
                                          network.block.plan.stages[0].x, communicator)
            conditioners = began.conditioners if began else ()
            split = class_split(config, dataset)
            network.weigh(split.labels[split.train] if split else None)
            deal = deal_of(config, began, dataset, split)
            inputs = [Inputs(network, minibatches(config, dataset, split, replica, deal), prepare,
                             conditioners, labels=split.labels if split else None)
                      for replica in range(config.parallel.replicas)]
            if start is None:
                for each in inputs:  # as Trainer.train does
                    each.begin(0, vector)
            replay_block(network, server, schedule, inputs)
            for each in inputs:
                each.close()
        return server
    return run_blocks(layout.grid.size, block)


def initial_states(parameters: ParameterVector, chunks: Sequence[Chunk]) -> list[ChunkState]:
    """What servers hold at the beginning of a new run, from a block's first parameters."""
    return [ChunkState(chunk, parameters.vector[chunk.start:chunk.stop]) for chunk in chunks]


def replay_block(network: Network, server: ReplayServer, schedule: ReplaySchedule,
                 inputs: Sequence[Inputs]) -> None:
    """Let all replicas make their steps of one block, as far as the log goes.

    Parameters
    ----------
    inputs : sequence of Inputs
        Of every replica. They share the network's conditioners: no replica begins a phase before
        all have met, and then all fit the same numbers.
    """
    def begin(number: int) -> _Replica:
        passes = inputs[schedule.lives[number].replica].batches.passes
        return _Replica(network, server, number, Schedule(network.config, passes))
    replicas: dict[int, _Replica] = {}
    turns = _turns(replicas, begin, server, schedule, network.communicator)
    if network.communicator.rank == 0:
        turns = progress(turns, "replaying", schedule.count, "steps")
    for number, step in turns:
        replica, mine = replicas[number], inputs[schedule.lives[number].replica]
        mine.begin(step, replica.client.parameters)
        x = mine.read(step, replica.client.parameters)
        train_step(network, replica.client, step, x, replica.divergence,
                   given=mine.is_given(step), labels=mine.labels(step))


class _Replica:
    """One replica of one block."""

    def __init__(self, network: Network, server: ReplayServer, number: int,
                 schedule: Schedule) -> None:
        self.number, self._schedule = number, schedule
        self._connection = ReplayConnection(server, number)
        self.client = ParameterClient(network.config, server.chunks, network.parameters(),
                                      self._connection)
        self.divergence = _ReplayDivergence(number, self.client)
        self._begun = -1

    def begins(self, step: int, pauses: set[tuple[int, int]]) -> bool:
        """Begin a step if what it needs is there, and ask for that; whether it has begun.

        Blocks of a replica begin by themselves: the others may wait for what this one asks for
        next. A pause that has been made is removed from `pauses`.
        """
        if self._begun == step:
            return True
        if not self._connection.missing:
            if (self.number, step) in pauses:
                self.client.pause()
                pauses.remove((self.number, step))
                if step in meetings(self.client.config):
                    self.client.adopt()
            self.client.request(step)
        if self._connection.missing:
            return False
        self.client.begin(step, self._schedule.learning_rate(step))
        self._begun = step
        return True

    def ends(self, pauses: set[tuple[int, int]]) -> bool:
        """After its last step: with an outer optimizer a replica that pauses pushes what it has."""
        final = {pause for pause in pauses if pause[0] == self.number}
        pauses -= final
        if final and self.client.parallel.outer_rate:
            self.client.pause()
        return False


class _ReplayDivergence(Divergence):
    """Names what a replay can know of a run that diverges."""

    def __init__(self, replica: int, client: ParameterClient) -> None:
        super().__init__(client.config)
        self._replica, self._client = replica, client

    def describe(self, stage: int, objective: float, first: float, step: int) -> str:
        client, vector = self._client, self._client.parameters.vector
        largest = [np.abs(vector[chunk.start:chunk.stop]).max() for chunk in client.chunks]
        worst = int(np.argmax(largest))
        return (f"replica {self._replica}, step {step + 1}: the objective of {self.name(stage)} is "
                f"{objective:g}, at first it was {first:g}; the largest weight, "
                f"{largest[worst]:g}, is in version {client.base[worst]} of "
                f"{describe(client.chunks[worst])}")


def _turns(replicas: dict[int, _Replica], begin: Callable[[int], _Replica], server: ReplayServer,
           schedule: ReplaySchedule, communicator: Communicator) -> Iterator[tuple[int, int]]:
    """Who makes which step next, the same for all blocks: of those who can, the furthest behind.

    A life of a replica comes into being when the one before it is over, which is let go.
    """
    todo, pauses = [deque(steps) for steps in schedule.steps], set(schedule.pauses)
    last = {life.replica: number for number, life in enumerate(schedule.lives)}
    while True:
        current = (last | {schedule.lives[number].replica: number
                           for number in reversed(range(len(todo))) if todo[number]}).values()
        for number in [number for number in replicas if number not in current]:
            del replicas[number]
        for number in current:
            if number not in replicas:
                replicas[number] = begin(number)
        mine, left = [False] * len(todo), -1
        while left != server.left:  # what one asks for may be what another one waits for
            left = server.left
            for number in current:
                replica, steps = replicas[number], todo[number]
                mine[number] = (replica.begins(steps[0], pauses) if steps
                                else replica.ends(pauses))
        begun = communicator.allreduce_sum(mine)  # how many blocks of each replica
        able = [(todo[n][0], n) for n in np.flatnonzero(begun == communicator.size).tolist()]
        if not able:
            return
        _, number = min(able)
        step = todo[number].popleft()
        if (number, step) not in schedule.left_out:
            yield number, step
