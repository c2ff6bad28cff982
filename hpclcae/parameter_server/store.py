"""What a parameter server knows and decides: chunks, versions, the update rule, and who has to wait
for whom.

No communication: parallel/server.py brings the messages; `LocalConnection` in served_updates.py
calls it directly and is what the others are compared with.

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
  whose gradients a round still lacks have all ended, the round is settled: it is the mean of the
  gradients that are there. So every gradient is applied once, or counted as dropped.
"""
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from hpclcae.config import Config
from hpclcae.model.optimizers import SLOTS, OptimizerKernel
from hpclcae.parameter_server.chunks import Chunk

STALENESS_BINS = 65  # 0, 1, ... 63, and more
#: What an event log tells: a replica fetched or pushed chunk `chunk` of the server, of block
#: `block`, in its step `clock`; `version` is what it got, or what the push makes (synchronous:
#: helps to make); -1: the push was dropped. Or it stood before step `clock` (block, chunk and
#: version are -1). Or the round of a chunk was settled and made `version` (replica and clock are
#: -1).
EVENT = np.dtype([("kind", "i1"), ("replica", "i4"), ("block", "i4"), ("chunk", "i4"),
                  ("clock", "i8"), ("version", "i8")])
FETCHED, PUSHED, PAUSED, ROUND_CLOSED = range(4)  # kinds of events


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


def owned_slots(config: Config) -> tuple[str, ...]:
    """The update rule's vectors that lie beside the parameters.

    In elastic averaging each replica has its own.
    """
    return () if config.parallel.elastic else SLOTS[config.update.rule]


class Store:
    """The chunks of one server.

    Parameters
    ----------
    chunks : sequence of Chunk
        In the server's order.
    config : Config
    memory : ndarray (numbers of all chunks,), optional
        Where the parameters lie; an RMA window brings its own.
    log : callable, optional
        Called with every few events (n,) of EVENT when they have happened.

    Attributes
    ----------
    values : list of ndarray (n,)
        The parameters of each chunk.
    state : dict of str to list of ndarray (n,)
        The update rule's memory.
    versions : ndarray of int64
        Updates that each chunk has had, with those that were dropped not counted.
    """

    def __init__(self, chunks: Sequence[Chunk], config: Config, memory: np.ndarray | None = None,
                 log: Callable[[np.ndarray], object] | None = None) -> None:
        self.chunks, self.config = list(chunks), config
        self.rule = OptimizerKernel(config.update, config.train.dtype)
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
        #: Synchronous: clock, progress and gradient of the replicas whose gradients are there, in
        #: this round.
        self._waiting: list[dict[int, tuple[int, float, np.ndarray]]] = [{} for _ in chunks]
        # workers (replica, block) that make no more steps
        self._ended: set[tuple[int, int]] = set()
        # workers that make none until the checkpoint has been taken
        self._standing: set[tuple[int, int]] = set()
        self._seen: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = defaultdict(list)

    def _pieces(self, memory: np.ndarray) -> list[np.ndarray]:
        return [memory[start:stop] for start, stop in zip(self.bounds[:-1], self.bounds[1:])]

    def seed(self, index: int, values: np.ndarray,
             state: Mapping[str, np.ndarray] = MappingProxyType({}), version: int = 0) -> None:
        """Set chunk `index` at the start: its parameters (n,), and the update rule's memory of it
        as far as known."""
        self.values[index][:] = values
        for slot in self.state.keys() & state.keys():
            self.state[slot][index][:] = state[slot].ravel()
        self.versions[index] = version
        self.missing.discard(index)

    # ---- pushes ----------------------------------------------------------------------------------

    def push(self, index: int, replica: int, clock: int, base: int, progress: float,
             gradient: np.ndarray) -> None:
        """Take the gradient (n,) of chunk `index`; it may be changed in place, and is not kept.

        Parameters
        ----------
        clock : int
            Step of the replica.
        base : int
            Version of the parameters that it was computed from.
        progress : float
            How far the replica's training has come, 0 to 1 (update_rules.Rule.rate).
        """
        if self.config.parallel.consistency == "synchronous":
            self._gather(index, replica, clock, base, progress, gradient)
            return
        self._apply(index, replica, clock, base, progress, gradient)
        self._note(PUSHED, replica, clock, index, self.versions[index:index + 1])

    def _apply(self, index: int, replica: int, clock: int, base: int, progress: float,
               gradient: np.ndarray) -> None:
        update, w = self.config.update, self.values[index]
        self.newest = max(self.newest, clock + 1)
        staleness = int(self.versions[index]) - base
        self.versions[index] += 1
        self.counters.pushes += 1
        self.counters.note_staleness(staleness)
        if self.config.parallel.elastic:
            w += gradient
            return
        if update.delay_compensation:
            self._compensate(index, replica, base, gradient)
        rate = self.rule.rate(progress)
        if update.staleness_scaled:
            rate /= 1 + staleness
        self.rule.apply(w, gradient, [pieces[index] for pieces in self.state.values()], rate,
                        self.chunks[index].fan_in, int(self.versions[index]))

    def _gather(self, index: int, replica: int, clock: int, base: int, progress: float,
                gradient: np.ndarray) -> None:
        """Keep a gradient until the others of its round are there, then apply their mean."""
        parallel = self.config.parallel
        if base != self.versions[index]:
            self.counters.dropped += 1
            self._note(PUSHED, replica, clock, index, np.array([-1]))
            return
        self._note(PUSHED, replica, clock, index, self.versions[index:index + 1] + 1)
        waiting = self._waiting[index]
        waiting[replica] = clock, progress, gradient.copy()
        if len(waiting) >= parallel.replicas - parallel.backup:
            self._finish_round(index)

    def _finish_round(self, index: int) -> None:
        """Apply the mean of the gradients that are there."""
        waiting = self._waiting[index]
        replicas = sorted(waiting)
        clocks, progresses, gradients = zip(*(waiting[number] for number in replicas))
        waiting.clear()
        total = gradients[0]
        for other in gradients[1:]:
            total += other
        if len(gradients) > 1:
            total /= len(gradients)
        self._apply(index, replicas[0], min(clocks), int(self.versions[index]), max(progresses),
                    total)

    def settle(self, index: int) -> None:
        """Finish the round of a chunk without the gradients that it lacks."""
        if self._waiting[index]:
            self._note(ROUND_CLOSED, -1, -1, index, self.versions[index:index + 1] + 1)
            self._finish_round(index)

    def _settle_without(self, away: set[tuple[int, int]], indices: Iterable[int]) -> None:
        """Settle the rounds that lack only gradients of workers that are away."""
        for index in indices:
            block, waiting = self.chunks[index].block, self._waiting[index]
            if all(replica in waiting or (replica, block) in away
                   for replica in range(self.config.parallel.replicas)):
                self.settle(index)

    def _compensate(self, index: int, replica: int, base: int, gradient: np.ndarray) -> None:
        """g + lambda g g (w - w then): a first-order guess of the gradient at today's parameters
        (DC-ASGD)."""
        then = [values for version, values in self._seen[replica, index] if version == base]
        if then:
            moved = self.values[index] - then[0]
            moved *= gradient
            moved *= gradient
            moved *= self.config.update.delay_compensation
            gradient += moved

    # ---- fetches ---------------------------------------------------------------------------------

    def try_fetch(self, replica: int, pushes: int, first: int, wanted: np.ndarray) -> bool:
        """Whether a replica gets its chunks now, or has to wait; with backups, settles what it
        would wait for in vain.

        Parameters
        ----------
        pushes : int
            Pushes that the replica has made.
        first : int
        wanted : ndarray of int64
            The versions that it must at least get of chunks first, first + 1, ...
        """
        if replica not in self._credit:
            self._credit[replica] = 0 if replica in self._clocks else min(self._clocks.values(),
                                                                          default=0)
            self._clocks.setdefault(replica, 0)
        pushes += self._credit[replica]
        if replica in self._clocks:
            self._clocks[replica] = max(pushes, self._clocks[replica])
        parallel = self.config.parallel
        if self.missing:
            return False
        # Who stands pushes nothing: nobody who has still to come to stand may wait for it.
        if parallel.consistency == "bounded":
            return bool(self._standing) or pushes - min(self._clocks.values(),
                                                        default=pushes) <= parallel.staleness
        now = self.versions[first:first + len(wanted)]
        if parallel.backup:
            self._settle_without(self._ended | self._standing, first + np.flatnonzero(now < wanted))
        return bool((now >= wanted).all())

    def in_vain(self, first: int, wanted: np.ndarray) -> bool:
        """Whether a round that a fetch waits for lacks a worker that stands, or has ended.

        Without backups such a round is not settled: it goes on after the checkpoint as if nobody
        had stood.
        """
        away = self._ended | self._standing
        missing = first + np.flatnonzero(self.versions[first:first + len(wanted)] < wanted)
        return self.config.parallel.lockstep and any(
            block == self.chunks[index].block and replica not in self._waiting[index]
            for index in missing for replica, block in away)

    def changed(self, replica: int, clock: int, first: int, have: np.ndarray) -> np.ndarray:
        """Which of the chunks first, first + 1, ... a replica has another version of (a mask).

        Notes the fetch.
        """
        now = self.versions[first:first + len(have)]
        mask = now != have
        self.counters.fetches += int(mask.sum())
        self.counters.unchanged += int((~mask).sum())
        self._note(FETCHED, replica, clock, first, now)
        if self.config.update.delay_compensation:
            for index in range(first, first + len(have)):
                seen = self._seen[replica, index]
                if not seen or seen[-1][0] != self.versions[index]:
                    # Two are enough: the replica computes with one while it fetches the next.
                    seen[:] = [*seen[-1:], (int(self.versions[index]), self.values[index].copy())]
        return mask

    def stand(self, replica: int, block: int, clock: int) -> None:
        """A worker stands before step `clock`, and fetches anew when it goes on."""
        self._standing.add((replica, block))
        if self.log is not None:
            self.log(np.array([(PAUSED, replica, -1, -1, clock, -1)], EVENT))

    def all_paused(self) -> None:
        """Everybody stands, and goes on when a checkpoint has been taken.

        It is to hold what backups wait with.
        """
        if self.config.parallel.backup:
            self._settle_without(self._ended | self._standing, range(len(self.chunks)))
        self._standing.clear()

    def close(self, replica: int, block: int) -> None:
        """A worker makes no more steps: nobody waits for it any more."""
        self._clocks.pop(replica, None)
        self._ended.add((replica, block))
        if self.config.parallel.backup:
            self._settle_without(self._ended,
                                 [i for i, chunk in enumerate(self.chunks) if chunk.block == block])

    def shaped(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Parameters of a chunk and the update rule's memory of it, as (tile row, tile col, input,
        unit)."""
        shape = self.chunks[index].shape
        return self.values[index].reshape(shape), {s: pieces[index].reshape(shape) for s,
                                                   pieces in self.state.items()}

    def _note(self, kind: int, replica: int, clock: int, first: int, versions: np.ndarray) -> None:
        """Log one event for each of the chunks first, first + 1, ..."""
        if self.log is not None:
            self.log(np.array([(kind, replica, self.chunks[index].block, index, clock, version)
                               for index, version in enumerate(versions.tolist(), first)], EVENT))
