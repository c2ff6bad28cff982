"""The servers' side of a replay: what replicas ask for happens in the order that an event log
tells.

The same Store and the same ParameterClient as in the run do the arithmetic. Only *when* something
happens comes from the log: every chunk has its events in order, and a fetch or a push waits until
it is the next of them. Chunks do not know of each other, so no order between them is needed, nor
any version that is older than what replicas hold.
"""
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint import ChunkState
from hpclcae.config import Config
from hpclcae.parameter_server.chunks import Chunk, Shards
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.store import EVENT, FETCHED, ROUND_CLOSED, Store
from hpclcae.training.replay_lives import Life
from hpclcae.utils.errors import InputError


def describe(chunk: Chunk) -> str:
    """A chunk in words."""
    return (f"{chunk.name} of block {chunk.block}, tiles [{chunk.rows[0]}:{chunk.rows[1]}, "
            f"{chunk.cols[0]}:{chunk.cols[1]}]")


def events_of_chunks(logs: Sequence[np.ndarray], shards: Shards, block: int) -> list[np.ndarray]:
    """From the events (n,) of every server to those of every chunk of a block, whose numbers count
    within the block."""
    events = [np.empty(0, EVENT) for _ in shards.chunks[block]]
    for server, (numbers, first) in shards.spans(block).items():
        log = logs[server]
        for number in numbers:
            mine = log[log["chunk"] == first + number - numbers.start]
            mine["chunk"] = number
            events[number] = _in_order(mine)
    return events


def _in_order(events: np.ndarray) -> np.ndarray:
    """The events of a chunk, with every fetch before the update that follows what it got.

    A replica that reads a server's memory by itself says later what it has read; others may have
    pushed in between.
    """
    order = np.arange(len(events), dtype=float)
    fetched, version = events["kind"] == FETCHED, events["version"]
    last = {int(version[n]): n for n in np.flatnonzero(~fetched & (version >= 0))}
    for number in np.flatnonzero(fetched).tolist():
        order[number] = min(number, last.get(int(version[number]) + 1, number) - 0.5)
    return events[np.argsort(order, kind="stable")]


def _without_blocked_fetches(events: np.ndarray) -> np.ndarray:
    """The events of a chunk in lockstep, with the last fetch alone that a replica made for a step.

    Where the stage of a chunk is not trained, a server answers a fetch of which others say that it
    is blocked (Store.blocked_by_paused_worker); the replica makes it again, the replay only once.
    """
    fetched = events["kind"] == FETCHED
    last = {who: number for number, who in enumerate(events[["replica", "clock"]].tolist())
            if fetched[number]}
    return events[~fetched | np.isin(np.arange(len(events)), list(last.values()))]


@dataclass
class _Push:
    clock: int
    base: int
    learning_rate: float
    gradient: np.ndarray
    then: np.ndarray | None


@dataclass
class Tally:
    """What a replica's pushes to a block's chunks were like.

    staleness, largest : int
        Sum and largest staleness of those that were applied.
    """
    pushes: int = 0
    dropped: int = 0
    staleness: int = 0
    largest: int = 0


class ReplayServer:
    """The chunks of one block and what happens to them.

    Parameters
    ----------
    events : list of ndarray (n,)
        Of every chunk (`events_of_chunks`).
    start : sequence of ChunkState
        What the chunks hold at first.
    goal : sequence of ChunkState
        What a checkpoint of the run holds, or nothing: a chunk that comes to that version is
        compared.
    lives : sequence of Life, optional
        What `replica` of the events counts; without it replicas.

    Attributes
    ----------
    gaps : dict of int to float
        Chunks that have been compared, and the largest difference of a weight or of the update
        rule's memory; 0.0 if they are the same bit for bit.
    """

    def __init__(self, chunks: Sequence[Chunk], config: Config, events: list[np.ndarray],
                 start: Sequence[ChunkState], goal: Sequence[ChunkState] = (),
                 lives: Sequence[Life] = ()) -> None:
        self.chunks, self.goal = chunks, goal
        self.lives = lives or [Life(replica, 0) for replica in range(config.parallel.replicas)]
        if config.parallel.lockstep:
            events = [_without_blocked_fetches(mine) for mine in events]
        self.events = events
        self.done = [0] * len(chunks)  # events that have happened to each chunk
        self._asked: dict[tuple[int, int], ReplayConnection] = {}
        self._pushes: dict[tuple[int, int], deque[_Push]] = defaultdict(deque)
        self.tallies = [Tally() for _ in self.lives]
        self.gaps: dict[int, float] = {}
        self.store = Store(chunks, config, log=self._compare_with_log,
                           once=any(life.number for life in self.lives))
        for index, chunk_state in enumerate(start):
            self.store.initialise(index, chunk_state.values.ravel(), chunk_state.state,
                                  chunk_state.version)
            self._compare_with_goal(index)

    @property
    def left(self) -> int:
        """Events that have not happened."""
        return sum(map(len, self.events)) - sum(self.done)

    def fetch(self, index: int, connection: "ReplayConnection") -> None:
        """A replica asks for a chunk."""
        self._asked[connection.replica, index] = connection
        self._go_on(index)

    def push(self, index: int, replica: int, clock: int, base: int, learning_rate: float,
             gradient: np.ndarray, then: np.ndarray | None = None) -> None:
        """A replica pushes the gradient (n,) of a chunk."""
        waiting = self._pushes[replica, index]
        push = _Push(clock, base, learning_rate, gradient, then)
        waiting.append(push)
        self._go_on(index)
        if waiting and waiting[-1] is push:
            push.gradient = gradient.copy()
            push.then = None if then is None else then.copy()

    def _go_on(self, index: int) -> None:
        """Let happen to a chunk what comes next, as far as it has been asked for."""
        events = self.events[index]
        while self.done[index] < len(events):
            event = events[self.done[index]]
            who = int(event["replica"]), index
            if event["kind"] == FETCHED:
                if who not in self._asked:
                    return
                self._asked.pop(who).deliver(index)
            elif event["kind"] == ROUND_CLOSED:
                self.store.close_round(index)
                self._compare_with_goal(index)
            else:
                if not self._pushes[who]:
                    return
                self._apply(index, who[0], self._pushes[who].popleft(), event["version"] < 0)
            self.done[index] += 1

    def _apply(self, index: int, life: int, push: _Push, dropped: bool) -> None:
        replica = self.lives[life].replica
        tally, staleness = self.tallies[life], int(self.store.versions[index]) - push.base
        tally.pushes += 1
        if dropped:
            tally.dropped += 1
        else:
            tally.staleness += staleness
            tally.largest = max(tally.largest, staleness)
        who = f"replica {replica}, step {push.clock + 1}"
        if not np.isfinite(push.gradient).all():
            raise InputError(f"{who}: the gradient of {describe(self.chunks[index])} is not "
                             f"finite; it was computed from version {push.base}")
        self.store.push(index, replica, push.clock, push.base, push.learning_rate,
                        push.gradient, push.then)
        if not np.isfinite(self.store.values[index]).all():
            raise InputError(f"{who}: its push makes version {self.store.versions[index]} of "
                             f"{describe(self.chunks[index])} not finite")
        self._compare_with_goal(index)

    def _compare_with_log(self, events: np.ndarray) -> None:
        """What the store did is what the log says: otherwise the log is not that of this run."""
        index = int(events[0]["chunk"])
        number = self.done[index]
        logged = self.events[index][number:number + 1].copy()
        logged["replica"] = [self.lives[life].replica if life >= 0 else life
                             for life in logged["replica"].tolist()]
        if not np.array_equal(logged, events):
            raise InputError(f"the log does not fit: event {number} of "
                             f"{describe(self.chunks[index])} is {_fields(logged)}, the replay "
                             f"comes to {_fields(events)}")

    def _compare_with_goal(self, index: int) -> None:
        if not self.goal or self.store.versions[index] != self.goal[index].version:
            return
        goal = self.goal[index]
        pairs = [(self.store.values[index], goal.values)]
        pairs += [(pieces[index], goal.state[slot]) for slot, pieces in self.store.state.items()
                  if slot in goal.state]
        self.gaps[index] = max(float(np.abs(ours - theirs.ravel()).max()) for ours, theirs in pairs)


def _fields(events: np.ndarray) -> str:
    if not events.size:
        return "not there"
    return " ".join(f"{name}={events[0][name]}" for name in EVENT.names or ())


class ReplayConnection(ServerConnection):
    """One replica's connection to the replayed server of a block; `replica` counts lives.

    missing : int
        Chunks of the fetch under way that are not there yet.
    """

    def __init__(self, server: ReplayServer, replica: int) -> None:
        self.replica, self._server = replica, server
        self._buffers = [np.empty(chunk.size, server.store.dtype) for chunk in server.chunks]
        self.newest = self.fetched_bytes = self.pushed_bytes = 0
        self.missing = 0

    def initialise(self, parameters: np.ndarray) -> None:
        raise AssertionError("the server of a replay begins with what the job began with")

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        self._into, self._have, self._clock = into, have.copy(), clock
        self._versions = np.empty(len(have), np.int64)
        self.missing = len(have)
        for index in range(len(have)):
            self._server.fetch(index, self)

    def deliver(self, index: int) -> None:
        """The chunk's turn has come."""
        store, chunk = self._server.store, self._server.chunks[index]
        self._versions[index] = store.versions[index]
        have = self._have[index:index + 1]
        replica = self._server.lives[self.replica].replica
        if store.take_changed(replica, self._clock, index, have)[0]:
            self._into[chunk.start:chunk.stop] = store.values[index]
        self.missing -= 1

    def finish_fetch(self) -> np.ndarray:
        """Whoever calls it has seen to it that nothing is missing."""
        assert not self.missing, self.missing
        return self._versions

    def buffer(self, index: int) -> np.ndarray:
        """The server has taken a copy of what has to wait."""
        return self._buffers[index]

    def push(self, index: int, clock: int, base: int, learning_rate: float,
             then: np.ndarray | None = None) -> None:
        self._server.push(index, self.replica, clock, base, learning_rate, self._buffers[index],
                          then)

    def flush(self) -> None:
        """Nothing is ever under way."""

    def barrier(self, clock: int, final: bool,
                meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        raise AssertionError("a replay takes no checkpoints")

    def close(self, clock: int) -> None:
        """The log says when nobody waits for a replica any more."""
