"""What a block of a replica does when servers hold the parameters: fetch, compute, push.

`ParameterClient` decides when; a `Line` carries (in-process here, messages and one-sided sums in
parallel/). A gradient is pushed chunk by chunk while the backward sweep goes on: as soon as the
last row of a chunk is there.

With `overlap` the next parameters arrive in a second vector while a step computes with the first.
"""
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hpclcae.config import Config
from hpclcae.model.optimizers import Optimizer, OptimizerKernel, clip
from hpclcae.model.parameters import ParameterVector
from hpclcae.parameter_server.chunks import Chunk
from hpclcae.parameter_server.connection import Line


class ParameterClient:
    """The parameters of one block of a replica, and the `on_gradient` of its gradients
    (Network.backward).

    Parameters
    ----------
    config : Config
    chunks : sequence of Chunk
        Of the block.
    parameters : ParameterVector
        The block's working copy.
    line : Line
    """

    def __init__(self, config: Config, chunks: Sequence[Chunk], parameters: ParameterVector,
                 line: Line) -> None:
        self.config, self.chunks, self.line = config, list(chunks), line
        self.parallel = config.parallel
        self.parameters = parameters
        self._incoming = parameters.like()
        self.base = np.full(len(chunks), -1, np.int64)       # versions of the working copy
        self._have = self.base.copy()                        # versions of the incoming one
        self._wanted = np.zeros(len(chunks), np.int64)
        self._pushes, self._first, self._fetching = 0, True, False
        # step in which a buffer was begun; -1: nothing to push
        self._written = np.full(len(chunks), -1, np.int64)
        self._step, self._progress, self.rate = 0, 0.0, config.update.rate
        self.wait_seconds = 0.0
        # the last fetch brought nothing: it is time to stand
        self.in_vain = False
        self._rule = OptimizerKernel(config.update, parameters.vector.dtype)
        # Between fetches a replica goes on from its own gradients (Downpour SGD); only for the rule
        # without memory.
        moves = self.parallel.elastic or (config.update.rule == "sgd"
                                          and self.parallel.fetch_every > 1)
        self.local = Optimizer(config.update, parameters,
                               {c.name: c.fan_in for c in chunks}) if moves else None
        self.overlap = self.parallel.overlap and self.parallel.consistency != "synchronous"
        self._rows: dict[tuple[str, int], list[tuple[int, np.ndarray, slice, bool]]] = defaultdict(
            list)
        for index, chunk in enumerate(chunks):
            tiles = line.buffers[index].reshape(chunk.shape)
            for row in range(*chunk.rows):
                self._rows[chunk.name, row].append((index, tiles[row - chunk.rows[0]],
                                                    slice(*chunk.cols), row == chunk.rows[1] - 1))

    # ---- fetches ---------------------------------------------------------------------------------

    def ask(self, step: int) -> None:
        """Begin the fetch that this step needs, if it needs one and none is under way."""
        self._step = step
        if not self._fetching and (self._first or step % self.parallel.fetch_every == 0):
            self._start_fetch()

    def begin(self, step: int, progress: float) -> None:
        """Make `parameters` what this step computes with, unless that is `in_vain`.

        It may be another vector then.
        """
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
        self.line.start_fetch(self._incoming.vector, self._have, self._wanted, self._pushes,
                              self._step)
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
        """Elastic averaging: the replica and the servers' parameters move towards each other by the
        same amount."""
        for index, chunk in enumerate(self.chunks):
            self.line.reuse(index)
            mine, centre = self.parameters.vector[chunk.start:chunk.stop], self._incoming.vector[
                chunk.start:chunk.stop]
            pull = self.line.buffers[index]
            np.subtract(mine, centre, out=pull)
            pull *= self.parallel.elastic
            mine -= pull
            self.line.push(index, self._step, int(self.base[index]), self._progress)
        self._pushes += 1

    # ---- pushes ----------------------------------------------------------------------------------

    @property
    def _pushing(self) -> bool:
        return not self.parallel.elastic and (self._step + 1) % self.parallel.push_every == 0

    def __call__(self, name: str, row: int, gradient: np.ndarray) -> None:
        """Take the gradient (tile col, input, unit) of one row of tiles.

        It may be clipped in place.
        """
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
            # a stage whose training ended between two pushes
            for index in np.flatnonzero(self._written >= 0):
                self._push(int(index))
            self._pushes += 1
        self.line.settle()

    def stand(self) -> None:
        """Between two steps, let nothing be under way; the next step fetches anew."""
        if self._fetching:
            self._finish_fetch()
        self._first = self._first or not self.parallel.elastic
