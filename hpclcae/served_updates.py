"""What a block of a replica does when servers hold the parameters: fetch, compute, push.

`ServedUpdates` decides when; a `Line` carries (in-process here, messages and one-sided sums in parallel/). A gradient
is pushed chunk by chunk while the backward sweep goes on: as soon as the last row of a chunk is there.

With `overlap` the next parameters arrive in a second vector while a step computes with the first.
"""
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hpclcae.config import Config
from hpclcae.parameter_store import Store
from hpclcae.parameters import ParameterVector
from hpclcae.shards import Chunk, Shards
from hpclcae.update_rules import Rule, UpdateRule, clip


class Line(Protocol):
    """One block's line to the servers of its chunks.

    buffers : list of ndarray (n,)
        What is pushed of each chunk of the block.
    newest : int
        The step after the newest one whose gradients the servers have applied, as far as this block has heard.
    fetched_bytes, pushed_bytes : int
    staleness : ndarray of int64
        How many pushes were how stale, if the line learns it; empty where the servers count.
    """
    buffers: list[np.ndarray]
    newest: int
    staleness: np.ndarray
    fetched_bytes: int
    pushed_bytes: int

    def factor(self, index: int, progress: float) -> float:
        """What a gradient of chunk `index` is multiplied with before it is pushed."""

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int, clock: int) -> None:
        """Begin to bring chunks into the flat vector `into`: those whose version is not what it `have`s.

        wanted : versions that the chunks must at least have; pushes : made so far; clock : the step.
        """

    def finish_fetch(self) -> np.ndarray:
        """Wait until all is there; the versions of the chunks. No chunk is half old, half new.

        In lockstep (ParallelConfig.lockstep) it may bring nothing, and versions below `wanted`: a worker that the round
        lacks stands for a checkpoint, or has ended.
        """

    def push(self, index: int, clock: int, base: int, progress: float) -> None:
        """Begin to send buffers[index]."""

    def reuse(self, index: int) -> None:
        """Wait until buffers[index] may be written again."""

    def settle(self) -> None:
        """After the pushes of a step: let nothing that has been sent wait for the next step."""

    def close(self) -> None:
        """Tell the servers that this block has ended, and release what belongs to the line."""


class ServedUpdates:
    """The parameters of one block of a replica, and the `emit` of its gradients (Network.backward).

    Parameters
    ----------
    config : Config
    chunks : sequence of Chunk
        Of the block.
    parameters : ParameterVector
        The block's working copy.
    line : Line
    """

    def __init__(self, config: Config, chunks: Sequence[Chunk], parameters: ParameterVector, line: Line) -> None:
        self.config, self.chunks, self.line = config, list(chunks), line
        self.parallel = config.parallel
        self.parameters = parameters
        self._incoming = parameters.like()
        self.base = np.full(len(chunks), -1, np.int64)       # versions of the working copy
        self._have = self.base.copy()                        # versions of the incoming one
        self._wanted = np.zeros(len(chunks), np.int64)
        self._pushes, self._first, self._fetching = 0, True, False
        self._written = np.full(len(chunks), -1, np.int64)   # step in which a buffer was begun; -1: nothing to push
        self._step, self._progress, self.rate = 0, 0.0, config.update.rate
        self.wait_seconds = 0.0
        self.in_vain = False                                 # the last fetch brought nothing: it is time to stand
        self._rule = Rule(config.update, parameters.vector.dtype)
        # Between fetches a replica goes on from its own gradients (Downpour SGD); only for the rule without memory.
        moves = self.parallel.elastic or (config.update.rule == "sgd" and self.parallel.fetch_every > 1)
        self.local = UpdateRule(config.update, parameters, {c.name: c.fan_in for c in chunks}) if moves else None
        self.overlap = self.parallel.overlap and self.parallel.consistency != "synchronous"
        self._rows: dict[tuple[str, int], list[tuple[int, np.ndarray, slice, bool]]] = defaultdict(list)
        for index, chunk in enumerate(chunks):
            tiles = line.buffers[index].reshape(chunk.shape)
            for row in range(*chunk.rows):
                self._rows[chunk.name, row].append(
                    (index, tiles[row - chunk.rows[0]], slice(*chunk.cols), row == chunk.rows[1] - 1))

    # ---- fetches -------------------------------------------------------------------------------------

    def ask(self, step: int) -> None:
        """Begin the fetch that this step needs, if it needs one and none is under way."""
        self._step = step
        if not self._fetching and (self._first or step % self.parallel.fetch_every == 0):
            self._start_fetch()

    def begin(self, step: int, progress: float) -> None:
        """Make `parameters` what this step computes with, unless that is `in_vain`; it may be another vector then."""
        self._progress, self.rate = progress, self._rule.rate(progress)
        if self.local:
            self.local.begin(step, progress)
        self.ask(step)
        if self._fetching:
            self._finish_fetch()
            if self.in_vain:
                return
            if self.parallel.elastic:
                if self._first:
                    self.parameters.vector[:] = self._incoming.vector
                else:
                    self._average()
            self._first = False
        if self.overlap and (step + 1) % self.parallel.fetch_every == 0:
            self._start_fetch()

    def _start_fetch(self) -> None:
        self.line.start_fetch(self._incoming.vector, self._have, self._wanted, self._pushes, self._step)
        self._fetching = True

    def _finish_fetch(self) -> None:
        began = time.monotonic()
        versions = self.line.finish_fetch()
        self.wait_seconds += time.monotonic() - began
        self._fetching = False
        self.in_vain = self.parallel.lockstep and bool((versions < self._wanted).any())
        if self.in_vain:
            return
        if self.parallel.elastic:  # the working copy stays the replica's own
            self.base = self._have = versions
            return
        self.parameters, self._incoming = self._incoming, self.parameters
        self.base, self._have = versions, self.base
        if self.local:  # what it has moved is no version of the servers' any more
            self.local.parameters = self.parameters
            self._have[:] = -1
        np.maximum(self._wanted, self.base, out=self._wanted)

    def _average(self) -> None:
        """Elastic averaging: the replica and the servers' parameters move towards each other by the same amount."""
        for index, chunk in enumerate(self.chunks):
            self.line.reuse(index)
            mine, centre = self.parameters.vector[chunk.start:chunk.stop], self._incoming.vector[chunk.start:chunk.stop]
            pull = self.line.buffers[index]
            np.subtract(mine, centre, out=pull)
            pull *= self.parallel.elastic
            mine -= pull
            self.line.push(index, self._step, int(self.base[index]), self._progress)
        self._pushes += 1

    # ---- pushes --------------------------------------------------------------------------------------

    @property
    def _pushing(self) -> bool:
        return not self.parallel.elastic and (self._step + 1) % self.parallel.push_every == 0

    def __call__(self, name: str, row: int, gradient: np.ndarray) -> None:
        """Take the gradient (tile col, input, unit) of one row of tiles; it may be clipped in place."""
        if self.local:
            self.local(name, row, gradient)
        else:
            clip(gradient, self.config.update.clip)
        if self.parallel.elastic:
            return
        for index, tiles, cols, last in self._rows[name, row]:
            if self._written[index] < 0:
                self.line.reuse(index)
                self._written[index] = self._step
            factor = tiles.dtype.type(self.line.factor(index, self._progress))
            if self._written[index] == self._step:
                np.multiply(gradient[cols], factor, out=tiles)
            else:
                tiles += factor * gradient[cols]
            if last and self._pushing:
                self._push(index)

    def _push(self, index: int) -> None:
        self.line.push(index, self._step, int(self.base[index]), self._progress)
        self._wanted[index] = self.base[index] + 1
        self._written[index] = -1

    def end(self) -> None:
        """After the backward sweep of a step."""
        if self._pushing:
            for index in np.flatnonzero(self._written >= 0):  # a stage whose training ended between two pushes
                self._push(int(index))
            self._pushes += 1
        self.line.settle()

    def stand(self) -> None:
        """Between two steps, let nothing be under way; the next step fetches anew."""
        if self._fetching:
            self._finish_fetch()
        self._first = self._first or not self.parallel.elastic


class InProcess:
    """A line to stores in the same process, for tests and replays; replicas and blocks may be threads of it.

    Parameters
    ----------
    office : Condition
        Shared by all lines: who holds it may use the stores; it is notified when they change.
    """

    def __init__(self, office: threading.Condition, stores: Sequence[Store], shards: Shards, replica: int,
                 block: int) -> None:
        self._office, self._stores, self._replica, self._block = office, stores, replica, block
        self._chunks, self._spans = shards.chunks[block], shards.spans(block)
        dtype = stores[0].dtype
        self.buffers = [np.empty(chunk.size, dtype) for chunk in self._chunks]
        self.newest = self.fetched_bytes = self.pushed_bytes = 0
        self.staleness = np.zeros(0, np.int64)
        self._place = {index: (server, first + index - numbers[0])
                       for server, (numbers, first) in self._spans.items() for index in numbers}

    def factor(self, index: int, progress: float) -> float:
        """See Line."""
        return 1.0

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int, clock: int) -> None:
        """See Line."""
        self._versions = np.empty(len(self._chunks), np.int64)
        self._request = into, have, wanted, pushes, clock
        with self._office:
            self._missing = [server for server in self._spans if not self._answer(server)]
            self._office.notify_all()  # this replica's clock may be what another one waits for

    def finish_fetch(self) -> np.ndarray:
        """See Line."""
        with self._office:
            for server in self._missing:
                self._office.wait_for(lambda: self._answer(server))
        return self._versions

    def _answer(self, server: int) -> bool:
        """Copy what a server has, unless the replica has to wait."""
        into, have, wanted, pushes, clock = self._request
        numbers, first = self._spans[server]
        store, mine = self._stores[server], slice(numbers.start, numbers.stop)
        if not store.may_fetch(self._replica, pushes, first, wanted[mine]):
            return False
        self._versions[mine] = store.versions[first:first + len(numbers)]
        for number in np.flatnonzero(store.changed(self._replica, clock, first, have[mine])):
            chunk = self._chunks[numbers.start + number]
            into[chunk.start:chunk.stop] = store.values[first + number]
        self.newest = max(self.newest, store.newest)
        return True

    def push(self, index: int, clock: int, base: int, progress: float) -> None:
        """See Line."""
        server, number = self._place[index]
        with self._office:
            self._stores[server].push(number, self._replica, clock, base, progress, self.buffers[index])
            self._office.notify_all()

    def reuse(self, index: int) -> None:
        """See Line."""

    def settle(self) -> None:
        """See Line."""

    def close(self) -> None:
        """See Line."""
        with self._office:
            for store in self._stores:
                store.close(self._replica, self._block)
            self._office.notify_all()
