"""What a parameter server knows and decides: chunks, versions, updates, and who waits for whom.

No communication: mpi/server.py brings the messages; `LocalConnection` in local.py calls it directly
and is what the others are compared with.

A chunk's version counts the updates that it has had. A gradient names its base, the version of the
parameters it was computed from; its staleness is the number of updates that came between.

Who waits (`parallel.consistency`):

* asynchronous: nobody (Dean et al. 2012, Downpour SGD).
* bounded: a replica may be at most s pushes ahead of the slowest one that still runs (Ho et al.
  2013).
* synchronous: an update is the mean of the gradients of all replicas, added in their order, so its
  bits do not depend on who came first. With b backup replicas it is the mean of the first R - b to
  arrive; a gradient whose base is no longer the chunk's version comes too late and is dropped (Chen
  et al. 2016). A replica that is behind leaves out the steps that the others have made. When those
  whose gradients a round still lacks have all ended, the round is closed: it is the mean of the
  gradients that are there. So every gradient is applied once, or counted as dropped.

With an outer optimizer (`parallel.outer_rate`: DiLoCo, Douillard et al. 2023) a push is the way
that a replica has made in its own steps, from the parameters that it fetched to where it is now. A
round is their mean, weighted by the images behind each, and one step of Nesterov's momentum. It
ends when all have pushed, or when `quorum` have and `grace` seconds are over, or when those that it
lacks have ended or pause; what comes later counts in the next one. A replica that has pushed waits
for the round that its base belongs to.
"""
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from hpclcae.config import Config
from hpclcae.model.optimizers import SLOTS, OptimizerKernel
from hpclcae.parameter_server.chunks import Chunk

OUTER = "outer"  # velocity of the outer optimizer
STALENESS_BINS = 65  # 0, 1, ... 63, and more
#: What an event log tells: a replica fetched or pushed chunk `chunk` of the server, of block
#: `block`, in its step `clock`; `version` is what it got, or what the push makes (synchronous:
#: helps to make); -1: the push was dropped. Or it paused before step `clock` (block, chunk and
#: version are -1). Or the round of a chunk was closed and made `version` (replica and clock are
#: -1). Or a replica joined before step `clock`, or left, in its life number `version`: what follows
#: is of that life. Or it fetched again what it had not got when a server died; `block` is then the
#: number of that fetch in its life.
EVENT = np.dtype([("kind", "i1"), ("replica", "i4"), ("block", "i4"), ("chunk", "i4"),
                  ("clock", "i8"), ("version", "i8")])
FETCHED, PUSHED, PAUSED, ROUND_CLOSED, JOINED, LEFT, FETCHED_AGAIN = range(7)  # kinds of events


@dataclass
class Counters:
    """What a server has done."""
    pushes: int = 0        # updates: synchronous ones are of several gradients
    dropped: int = 0       # gradients
    fetches: int = 0       # chunks that were sent
    unchanged: int = 0     # chunks that a replica had already
    staleness: np.ndarray = field(default_factory=lambda: np.zeros(STALENESS_BINS, np.int64))

    def note_staleness(self, staleness: int) -> None:
        """Count one applied gradient."""
        self.staleness[min(max(staleness, 0), STALENESS_BINS - 1)] += 1


Changing = Callable[[int, int], AbstractContextManager[None]]


def unguarded(index: int, version: int) -> AbstractContextManager[None]:
    """Nobody but the store reads its chunks."""
    return nullcontext()


def owned_slots(config: Config) -> tuple[str, ...]:
    """The vectors that lie beside the parameters.

    Those of the update rule; replicas that step by themselves have their own. An outer optimizer
    has one.
    """
    if config.parallel.is_local:
        return (OUTER,) * (config.parallel.outer_rate > 0)
    return SLOTS[config.update.rule]


def compensates(config: Config) -> bool:
    """Whether a push brings the parameters that its gradient was computed from.

    In synchronous training those are the newest.
    """
    return config.update.delay_compensation > 0 and config.parallel.consistency != "synchronous"


class Store:
    """The chunks of one server.

    Parameters
    ----------
    chunks : sequence of Chunk
        In the server's order.
    config : Config
    memory : ndarray (elements of all chunks,), optional
        Where the parameters lie; memory that workers read brings its own.
    log : callable, optional
        Called with every few events (n,) of EVENT when they have happened.
    changing : callable, optional
        changing(index, version) is entered while a chunk is changed to that version: it keeps
        others from reading half of that (mailbox.SequenceLock).
    once : bool
        Replicas come and go: what one pushes to a chunk for a step for which it has pushed before
        is dropped.

    Attributes
    ----------
    values : list of ndarray (n,)
        The parameters of each chunk: in `memory`, unless they had to be moved (mpi/answers.py).
    state : dict of str to list of ndarray (n,)
        The update rule's memory.
    versions : ndarray of int64
        Updates that each chunk has had, with those that were dropped not counted.
    """

    def __init__(self, chunks: Sequence[Chunk], config: Config, memory: np.ndarray | None = None,
                 log: Callable[[np.ndarray], object] | None = None,
                 changing: Changing = unguarded, once: bool = False) -> None:
        self.chunks, self.config, self._changing = list(chunks), config, changing
        self.kernel = OptimizerKernel(config.update, config.train.dtype)
        size = sum(chunk.size for chunk in chunks)
        self.dtype = np.dtype(config.train.dtype)
        self.memory = np.zeros(size, self.dtype) if memory is None else memory
        self.bounds = np.cumsum([0, *(chunk.size for chunk in chunks)])
        self.values = self._pieces(self.memory)
        self.state = {slot: self._pieces(np.zeros(size, self.dtype))
                      for slot in owned_slots(config)}
        self.versions = np.zeros(len(self.chunks), np.int64)
        # chunks that have no values yet: nobody may fetch
        self.missing = set(range(len(self.chunks)))
        self.newest = 0  # the step after the newest one whose gradients were applied
        self.counters = Counters()
        self.log = log
        self._clocks = dict.fromkeys(range(1 if config.parallel.warm_start
                                           else config.parallel.replicas), 0)
        self._credit: dict[int, int] = {}  # pushes that a replica need not make, as it joined later
        #: What rounds have of each chunk, by replica: gradients, or ways times images.
        self._waiting: list[dict[int, _Gradient]] = [{} for _ in chunks]
        self.clock = time.monotonic
        self._quorums: dict[int, float] = {}  # chunks whose round has its quorum, and since when
        # workers (replica, block) that make no more steps
        self._ended: set[tuple[int, int]] = set()
        self._paused: set[tuple[int, int]] = set()  # that make none until the checkpoint is taken
        self._once = once
        #: Step of the last push of every replica to every chunk.
        self.pushed = np.full((config.parallel.replicas, len(self.chunks)), -1, np.int64)
        self._lives: dict[int, int] = {}  # of replicas that have joined and not left

    def _pieces(self, memory: np.ndarray) -> list[np.ndarray]:
        return [memory[start:stop] for start, stop in zip(self.bounds[:-1], self.bounds[1:])]

    def initialise(self, index: int, values: np.ndarray,
                   state: Mapping[str, np.ndarray] = MappingProxyType({}),
                   version: int = 0) -> None:
        """Set chunk `index` at the start.

        Its parameters (n,), and the update rule's memory of it as far as known.
        """
        with self._changing(index, version):
            self.values[index][:] = values
        for slot in self.state.keys() & state.keys():
            self.state[slot][index][:] = state[slot].ravel()
        self.versions[index] = version
        self.missing.discard(index)

    # ---- pushes ----------------------------------------------------------------------------------

    def push(self, index: int, replica: int, clock: int, base: int, learning_rate: float,
             gradient: np.ndarray, then: np.ndarray | None = None) -> None:
        """Take the gradient (n,) of chunk `index`; it may be changed in place, and is not kept.

        Parameters
        ----------
        clock : int
            Step of the replica.
        base : int
            Version of the parameters that it was computed from.
        learning_rate : float
            Of that step (model/schedule.py); outer optimizer: images behind the gradient.
        then : ndarray (n,), optional
            The parameters that it was computed from (delay compensation).
        """
        if self.config.parallel.consistency == "synchronous":
            self._gather(index, replica, base, _Gradient(clock, learning_rate, gradient))
            return
        if self.config.parallel.outer_rate:
            self._collect(index, replica, base, _Gradient(clock, learning_rate, gradient))
            return
        if self._once and clock <= self.pushed[replica, index]:
            self.counters.dropped += 1
            self._note(PUSHED, replica, clock, index, np.array([-1]))
            return
        self.pushed[replica, index] = clock
        if then is not None:
            self._compensate(index, gradient, then)
        self._apply(index, base, _Gradient(clock, learning_rate, gradient))
        self._note(PUSHED, replica, clock, index, self.versions[index:index + 1])

    def _apply(self, index: int, base: int, pushed: "_Gradient") -> None:
        update = self.config.update
        self.newest = max(self.newest, pushed.clock + 1)
        staleness = int(self.versions[index]) - base
        self.versions[index] += 1
        self.counters.pushes += 1
        self.counters.note_staleness(staleness)
        learning_rate, version = pushed.learning_rate, int(self.versions[index])
        if update.staleness_scaled:
            learning_rate /= 1 + staleness
        with self._changing(index, version):  # which may give the chunk other memory
            w = self.values[index]
            if self.config.parallel.elastic:
                w += pushed.values
            else:
                self.kernel.apply(w, pushed.values, [vector[index] for vector in
                                                     self.state.values()],
                                  learning_rate, self.chunks[index].fan_in, version)

    def _gather(self, index: int, replica: int, base: int, pushed: "_Gradient") -> None:
        """Keep a gradient until the others of its round are there, then apply their mean."""
        parallel = self.config.parallel
        if base != self.versions[index]:
            self.counters.dropped += 1
            self._note(PUSHED, replica, pushed.clock, index, np.array([-1]))
            return
        self._note(PUSHED, replica, pushed.clock, index, self.versions[index:index + 1] + 1)
        waiting = self._waiting[index]
        waiting[replica] = pushed._replace(values=pushed.values.copy())
        if len(waiting) >= parallel.replicas - parallel.backup:
            self._finish_round(index)

    def _collect(self, index: int, replica: int, base: int, pushed: "_Gradient") -> None:
        """Keep what a replica's own steps have made until its round ends."""
        parallel, waiting = self.config.parallel, self._waiting[index]
        self._note(PUSHED, replica, pushed.clock, index, self.versions[index:index + 1] + 1)
        self.counters.note_staleness(int(self.versions[index]) - base)
        images, values = pushed.learning_rate, pushed.values * self.dtype.type(pushed.learning_rate)
        if replica in waiting:  # it came too late for the round before
            images += waiting[replica].learning_rate
            values += waiting[replica].values
        waiting[replica] = _Gradient(pushed.clock, images, values)
        if len(waiting) == parallel.replicas:
            self._finish_round(index)
        elif len(waiting) >= (parallel.quorum or parallel.replicas):
            self._quorums.setdefault(index, self.clock())

    def _outer_step(self, index: int) -> None:
        """Nesterov's momentum with the mean of all ways, weighted by images."""
        parallel, waiting = self.config.parallel, self._waiting[index]
        pushed = [waiting[replica] for replica in sorted(waiting)]
        waiting.clear()
        self._quorums.pop(index, None)
        way = pushed[0].values
        for other in pushed[1:]:
            way += other.values
        way /= self.dtype.type(sum(one.learning_rate for one in pushed))
        self.newest = max(self.newest, 1 + min(one.clock for one in pushed))
        self.versions[index] += 1
        self.counters.pushes += 1
        with self._changing(index, int(self.versions[index])):
            velocity = self.state[OUTER][index]
            velocity *= self.dtype.type(parallel.outer_momentum)
            velocity += way
            way += self.dtype.type(parallel.outer_momentum) * velocity
            way *= self.dtype.type(parallel.outer_rate)
            self.values[index] -= way

    @property
    def is_due(self) -> bool:
        """Whether a round has waited long enough for those that its quorum does not need."""
        return any(self.clock() - since >= self.config.parallel.grace
                   for since in self._quorums.values())

    def _close_due_rounds(self) -> None:
        for index, since in list(self._quorums.items()):
            if self.clock() - since >= self.config.parallel.grace:
                self.close_round(index)

    def _finish_round(self, index: int) -> None:
        """Apply the mean of the gradients that are there, at the rate of the furthest replica."""
        if self.config.parallel.outer_rate:
            self._outer_step(index)
            return
        waiting = self._waiting[index]
        replicas = sorted(waiting)
        pushed = [waiting[replica] for replica in replicas]
        waiting.clear()
        total = pushed[0].values
        for other in pushed[1:]:
            total += other.values
        if len(pushed) > 1:
            total /= len(pushed)
        learning_rate = max(pushed, key=lambda one: one.clock).learning_rate
        clock = min(one.clock for one in pushed)
        self._apply(index, int(self.versions[index]), _Gradient(clock, learning_rate, total))

    @property
    def _closes_rounds(self) -> bool:
        """Whether a round may end without all replicas."""
        return self.config.parallel.backup > 0 or self.config.parallel.outer_rate > 0

    def close_round(self, index: int) -> None:
        """Finish the round of a chunk without the gradients that it lacks."""
        if self._waiting[index]:
            self._note(ROUND_CLOSED, -1, -1, index, self.versions[index:index + 1] + 1)
            self._finish_round(index)

    def _close_rounds_without(self, away: set[tuple[int, int]], indices: Iterable[int]) -> None:
        """Close the rounds that lack only gradients of workers that are away."""
        for index in indices:
            block, waiting = self.chunks[index].block, self._waiting[index]
            if all(replica in waiting or (replica, block) in away
                   for replica in range(self.config.parallel.replicas)):
                self.close_round(index)

    def _compensate(self, index: int, gradient: np.ndarray, then: np.ndarray) -> None:
        """g + lambda g g (w - w then): a first-order guess of the gradient at today's parameters
        (DC-ASGD)."""
        moved = self.values[index] - then
        moved *= gradient
        moved *= gradient
        moved *= self.config.update.delay_compensation
        gradient += moved

    # ---- fetches ---------------------------------------------------------------------------------

    def try_fetch(self, replica: int, pushes: int, first: int, wanted: np.ndarray) -> bool:
        """Note how far a replica is; returns whether it gets its chunks now, or has to wait.

        With backups or an outer optimizer, rounds that it would wait for in vain are closed.

        Parameters
        ----------
        pushes : int
            Pushes that the replica has made.
        first : int
        wanted : ndarray of int64
            The versions that it must at least get of chunks first, first + 1, ...
        """
        self._advance(replica, pushes)
        if self._closes_rounds and not self.missing:
            self._close_due_rounds()
            behind = np.flatnonzero(self.versions[first:first + len(wanted)] < wanted)
            self._close_rounds_without(self._ended | self._paused, first + behind)
        return self.may_fetch(replica, pushes, first, wanted)

    def _advance(self, replica: int, pushes: int) -> None:
        """Move the clock of a replica; one that joins later begins with that of the slowest."""
        if replica not in self._credit:
            late = replica not in self._clocks
            self._credit[replica] = min(self._clocks.values(), default=0) if late else 0
            self._clocks.setdefault(replica, 0)
        if replica in self._clocks:
            self._clocks[replica] = max(pushes + self._credit[replica], self._clocks[replica])

    def may_fetch(self, replica: int, pushes: int, first: int, wanted: np.ndarray) -> bool:
        """Whether a replica that has made `pushes` gets its chunks now; changes nothing."""
        if self.missing:
            return False
        parallel = self.config.parallel
        if parallel.consistency == "bounded":
            # Who pauses pushes nothing: nobody who has still to pause may wait for it.
            pushes += self._credit.get(replica, 0)
            slowest = min(self._clocks.values(), default=pushes)
            return bool(self._paused) or pushes - slowest <= parallel.staleness
        return bool((self.versions[first:first + len(wanted)] >= wanted).all())

    def blocked_by_paused_worker(self, first: int, wanted: np.ndarray) -> bool:
        """Whether a round that a fetch waits for lacks a worker that pauses, or has ended.

        Without backups such a round is not closed: it goes on after the checkpoint as if nobody had
        paused.
        """
        away = self._ended | self._paused
        missing = first + np.flatnonzero(self.versions[first:first + len(wanted)] < wanted)
        return self.config.parallel.lockstep and any(
            block == self.chunks[index].block and replica not in self._waiting[index]
            for index in missing for replica, block in away)

    def take_changed(self, replica: int, clock: int, first: int, have: np.ndarray,
                     again: int | None = None) -> np.ndarray:
        """Hand out the chunks first, first + 1, ... of which a replica has another version (a
        mask).

        Counts and logs the fetch; `again`: it has been asked for before, and was that number in the
        replica's life.
        """
        now = self.versions[first:first + len(have)]
        self.note_fetch(replica, clock, first, have, now, again)
        return now != have

    def note_fetch(self, replica: int, clock: int, first: int, have: np.ndarray,
                   got: np.ndarray, again: int | None = None) -> None:
        """Count and log a fetch of chunks first, first + 1, ... that a replica has made by itself.

        Parameters
        ----------
        have, got : ndarray of int64
            Versions before and after it.
        """
        changed = int((got != have).sum())
        self.counters.fetches += changed
        self.counters.unchanged += len(have) - changed
        self._note(FETCHED if again is None else FETCHED_AGAIN, replica, clock, first, got, again)

    # ---- the barrier, and the end ----------------------------------------------------------------

    def pause(self, replica: int, block: int, clock: int) -> None:
        """A worker pauses before step `clock`, and fetches anew when it goes on."""
        self._paused.add((replica, block))
        if self.log is not None:
            self.log(np.array([(PAUSED, replica, -1, -1, clock, -1)], EVENT))

    def all_paused(self) -> None:
        """Everybody pauses until a checkpoint is taken, which is to hold what backups wait with."""
        if self._closes_rounds:
            self._close_rounds_without(self._ended | self._paused, range(len(self.chunks)))
        self._paused.clear()

    def close(self, replica: int, block: int) -> None:
        """A worker makes no more steps: nobody waits for it any more."""
        self._clocks.pop(replica, None)
        self._ended.add((replica, block))
        if self._closes_rounds:
            mine = [index for index, chunk in enumerate(self.chunks) if chunk.block == block]
            self._close_rounds_without(self._ended, mine)

    # ---- replicas that come and go ---------------------------------------------------------------

    def join(self, replica: int, clock: int, life: int) -> None:
        """A replica begins its life number `life` with step `clock`; those before are over.

        What a life before has pushed stays; what it pushes again is dropped (`pushed`).
        """
        self.leave(replica, clock, life - 1)
        self._lives[replica] = life
        self._ended = {who for who in self._ended if who[0] != replica}
        self._note_life(JOINED, replica, clock, life)

    def leave(self, replica: int, clock: int, life: int) -> None:
        """A replica has died or left: nobody waits for it, and nothing of this life counts any
        more."""
        if replica in self._lives and self._lives[replica] <= life:
            del self._lives[replica]
            self._note_life(LEFT, replica, clock, life)
        self._clocks.pop(replica, None)
        self._credit.pop(replica, None)
        self._paused = {who for who in self._paused if who[0] != replica}

    def is_current(self, replica: int, life: int) -> bool:
        """Whether what comes of this life of a replica counts: the fence against those that wake.
        """
        return self._lives.get(replica) == life

    def membership(self) -> dict[str, list[list[int]]]:
        """Who is there and how far, for a copy of this store."""
        return {"lives": [[*item] for item in self._lives.items()],
                "clocks": [[*item] for item in self._clocks.items()],
                "credit": [[*item] for item in self._credit.items()],
                "ended": sorted(map(list, self._ended)), "paused": sorted(map(list, self._paused))}

    def adopt_membership(self, told: Mapping[str, Sequence[Sequence[int]]]) -> None:
        """Take what `membership` of another store says."""
        pairs = {key: [(int(a), int(b)) for a, b in told[key]]
                 for key in ("lives", "clocks", "credit", "ended", "paused")}
        self._lives, self._clocks = dict(pairs["lives"]), dict(pairs["clocks"])
        self._credit = dict(pairs["credit"])
        self._ended, self._paused = set(pairs["ended"]), set(pairs["paused"])

    def _note_life(self, kind: int, replica: int, clock: int, life: int) -> None:
        if self.log is not None:
            self.log(np.array([(kind, replica, -1, -1, clock, life)], EVENT))

    # ---- for checkpoints, and the log ------------------------------------------------------------

    def shaped(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Parameters of a chunk and the update rule's memory of it, as (tile row, tile col, input,
        unit)."""
        shape = self.chunks[index].shape
        return self.values[index].reshape(shape), {s: pieces[index].reshape(shape) for s,
                                                   pieces in self.state.items()}

    def _note(self, kind: int, replica: int, clock: int, first: int, versions: np.ndarray,
              number: int | None = None) -> None:
        """Log one event for each of the chunks first, first + 1, ..."""
        if self.log is not None:
            blocks = (self.chunks[index].block if number is None else number
                      for index in range(first, first + len(versions)))
            self.log(np.array([(kind, replica, block, index, clock, version)
                               for block, (index, version)
                               in zip(blocks, enumerate(versions.tolist(), first))], EVENT))


class _Gradient(NamedTuple):
    """The gradient of a chunk, the step of the replica that made it, and that step's rate (outer
    optimizer: images)."""
    clock: int
    learning_rate: float
    values: np.ndarray
