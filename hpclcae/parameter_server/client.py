"""What a block of a replica does when servers hold the parameters: fetch, compute, push.

`ParameterClient` decides when; a `ServerConnection` carries (connection.py). A gradient is pushed
chunk by chunk while the backward sweep goes on: as soon as the last row of a chunk is there.

With `overlap` the next parameters arrive in a second vector while a step computes with the first.
"""
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hpclcae.config import Config
from hpclcae.model.optimizers import Optimizer, clip
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import phase_of
from hpclcae.parameter_server.chunks import Chunk
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.store import compensates


class ParameterClient:
    """The parameters of one block of a replica, and what becomes of its gradients.

    Parameters
    ----------
    config : Config
    chunks : sequence of Chunk
        Of the block.
    parameters : ParameterVector
        The block's working copy.
    connection : ServerConnection

    Attributes
    ----------
    base : ndarray of int64 (chunks,)
        Versions of `parameters`.
    wait_seconds : float
        Spent in waiting for fetches.
    """

    def __init__(self, config: Config, chunks: Sequence[Chunk], parameters: ParameterVector,
                 connection: ServerConnection) -> None:
        self.config, self.chunks, self.connection = config, list(chunks), connection
        self.parallel = config.parallel
        self.parameters = parameters
        self._incoming = parameters.like()
        self.base = np.full(len(chunks), -1, np.int64)
        self._have = self.base.copy()  # versions of the incoming vector
        self._wanted = np.zeros(len(chunks), np.int64)
        self._pushes, self._first, self._fetching = 0, True, False
        self._compensates = compensates(config)
        #: What is to be pushed: a chunk's buffer in its shape, and the step in which it was begun.
        self._begun: dict[int, tuple[np.ndarray, int]] = {}
        self._step, self.learning_rate = 0, config.update.rate
        self.wait_seconds = 0.0
        # Between fetches a replica goes on from its own gradients (Downpour SGD); only for the rule
        # without memory.
        moves = self.parallel.is_local or (config.update.rule == "sgd"
                                           and self.parallel.fetch_every > 1)
        self.local = Optimizer(config.update, parameters,
                               {c.name: c.fan_in for c in chunks}) if moves else None
        self.overlap = (self.parallel.overlap and self.parallel.consistency != "synchronous"
                        and not self.parallel.outer_rate)
        # Outer optimizer: images and parameters of the steps since the last fetch. What was fetched
        # stays in the incoming vector.
        self._images, self._moved = 0, set[str]()
        self._rows: dict[tuple[str, int], list[int]] = defaultdict(list)  # chunks of a row
        for index, chunk in enumerate(chunks):
            for row in range(*chunk.rows):
                self._rows[chunk.name, row].append(index)

    # ---- fetches ---------------------------------------------------------------------------------

    def request(self, step: int) -> None:
        """Begin the fetch that this step needs, if it needs one and none is under way."""
        self._step = step
        if not self._fetching and (self._first or step % self.parallel.fetch_every == 0):
            self._start_fetch()

    def begin(self, step: int, learning_rate: float) -> bool:
        """Make `parameters` what this step computes with; it may be another vector then.

        Returns False, in lockstep, if a worker that the step waits for pauses or has ended: this
        one is to pause too, and to begin the step again.
        """
        self.learning_rate = learning_rate
        if self.local:
            self.local.begin(learning_rate)
        self.request(step)
        if self._fetching:
            if not self._finish_fetch():
                return False
            if self.parallel.is_local:
                if self._first or self.parallel.outer_rate:
                    self.parameters.vector[:] = self._incoming.vector
                else:
                    self._average()
            self._first = False
        if self.overlap and (step + 1) % self.parallel.fetch_every == 0:
            self._start_fetch()
        return True

    @property
    def is_fetching(self) -> bool:
        """Whether a fetch has begun that no step has waited for yet."""
        return self._fetching

    def _start_fetch(self) -> None:
        self.connection.start_fetch(self._incoming.vector, self._have, self._wanted,
                                    self._pushes, self._step)
        self._fetching = True

    def _finish_fetch(self) -> bool:
        """Wait for the fetch; returns whether it has brought what is wanted."""
        began = time.monotonic()
        versions = self.connection.finish_fetch()
        self.wait_seconds += time.monotonic() - began
        self._fetching = False
        if self.parallel.lockstep and (versions < self._wanted).any():
            return False
        if self.parallel.is_local:  # the working copy stays the replica's own
            self.base = self._have = versions
            return True
        self.parameters, self._incoming = self._incoming, self.parameters
        self.base, self._have = versions, self.base
        if self.local:  # what it has moved is no version of the servers' any more
            self.local.parameters = self.parameters
            self._have[:] = -1
        np.maximum(self._wanted, self.base, out=self._wanted)
        return True

    def _average(self) -> None:
        """Elastic averaging: the replica and the servers' parameters move towards each other."""
        for index, chunk in enumerate(self.chunks):
            mine, centre = (vector.vector[chunk.start:chunk.stop]
                            for vector in (self.parameters, self._incoming))
            pull = self.connection.buffer(index)
            np.subtract(mine, centre, out=pull)
            pull *= self.parallel.elastic
            mine -= pull
            self.connection.push(index, self._step, int(self.base[index]), self.learning_rate)
        self._pushes += 1

    # ---- pushes ----------------------------------------------------------------------------------

    @property
    def _pushing(self) -> bool:
        return not self.parallel.is_local and (self._step + 1) % self.parallel.push_every == 0

    def on_gradient(self, name: str, row: int, gradient: np.ndarray) -> None:
        """Take the gradient (tile col, input, unit) of one row of tiles.

        It may be clipped in place.
        """
        if self.local:
            self.local.on_gradient(name, row, gradient)
        else:
            clip(gradient, self.config.update.clip)
        if self.parallel.is_local:
            self._moved.add(name)
            return
        for index in self._rows[name, row]:
            chunk = self.chunks[index]
            if index not in self._begun:
                self._begun[index] = self.connection.buffer(index).reshape(chunk.shape), self._step
            tiles, begun = self._begun[index]
            into = tiles[row - chunk.rows[0]]
            if begun == self._step:
                into[:] = gradient[slice(*chunk.cols)]
            else:
                into += gradient[slice(*chunk.cols)]
            if row == chunk.rows[1] - 1 and self._pushing:
                self._push(index)

    def _push(self, index: int) -> None:
        del self._begun[index]
        then = None
        if self._compensates:
            chunk = self.chunks[index]
            then = self.parameters.vector[chunk.start:chunk.stop]
        self.connection.push(index, self._step, int(self.base[index]), self.learning_rate, then)
        self._wanted[index] = self.base[index] + 1

    def end(self) -> None:
        """After the backward sweep of a step."""
        if self._pushing:
            for index in sorted(self._begun):
                self._push(index)  # of a stage whose training ended between two pushes
            self._pushes += 1
        if self.parallel.outer_rate:
            self._images += phase_of(self.config, self._step).batch
            if (self._step + 1) % self.parallel.push_every == 0:
                self._push_way()
        self.connection.flush()

    def _push_way(self) -> None:
        """Outer optimizer: from where this replica is to what it had fetched, as a gradient."""
        for index, chunk in enumerate(self.chunks):
            if chunk.name in self._moved:
                mine, began = (vector.vector[chunk.start:chunk.stop]
                               for vector in (self.parameters, self._incoming))
                np.subtract(began, mine, out=self.connection.buffer(index))
                self.connection.push(index, self._step, int(self.base[index]), self._images)
                self._wanted[index] = self.base[index] + 1
        self._pushes += 1
        self._images = 0
        self._moved.clear()

    def pause(self) -> None:
        """Between two steps, let nothing be under way; the next step fetches anew.

        With an outer optimizer the steps since the last fetch are pushed: a checkpoint has them.
        """
        if self._fetching:
            self._finish_fetch()
        if self.parallel.outer_rate and self._images:
            self._push_way()
            self.connection.flush()
        self._first = self._first or not self.parallel.elastic

    def adopt(self) -> None:
        """Begin the next step with the servers' parameters, also in elastic averaging."""
        self._first = True
