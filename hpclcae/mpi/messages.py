"""The two-sided line to the servers: gradients and requests as messages, which servers answer
(server.py).

What a worker sends is one message: a header of eight integers, then what belongs to it. One tag for
all keeps their order, so a fetch finds the pushes before it applied.

| kind | header | then |
|---|---|---|
| INITIALISE | chunk | the parameters of the chunk |
| PUSH | chunk, clock, base, progress | the gradient of the chunk |
| FETCH | first chunk, clock, pushes | versions of the chunks that the worker has, and those that it must at least get |
| BARRIER | clock, base | nothing: the worker stands between two steps (for ever if base is 1) and waits for an answer |
| CLOSE | clock | nothing: the worker has ended |

A server answers FETCH with (newest step, versions), then with the chunks that changed, one message
each, which arrive where they belong without another copy. The worker receives one while the server
copies the next.
"""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from hpclcae.config import Config
from hpclcae.mpi.waiting import Backoff, wait, wait_stream
from hpclcae.parameter_server.chunks import Shards

INITIALISE, PUSH, FETCH, BARRIER, CLOSE = range(5)
TO_SERVER, VERSIONS, CHUNKS, RELEASED = range(1, 5)  # tags
HEADER = 64  # bytes


class Header(NamedTuple):
    """The first 64 bytes of a message to a server; unused fields are zero."""
    kind: int
    chunk: int = 0
    clock: int = 0
    base: int = 0
    pushes: int = 0
    progress: float = 0.0

    def write(self, message: np.ndarray) -> None:
        """Into the first bytes of a message (n,) of uint8."""
        message[:40].view(np.int64)[:] = self[:5]
        message[40:48].view(np.float64)[0] = self.progress
        message[48:HEADER] = 0

    @classmethod
    def read(cls, message: np.ndarray) -> "Header":
        """From the first bytes of a message."""
        kind, chunk, clock, base, pushes = message[:40].view(np.int64).tolist()
        return cls(kind, chunk, clock, base, pushes, message[40:48].view(np.float64).item())


class MessageConnection:
    """One block's line to the servers; see served_updates.Line.

    Parameters
    ----------
    comm : Intracomm
        All ranks of the job; it carries nothing else.
    servers : sequence of int
        Rank of every server.
    """

    def __init__(self, comm: MPI.Intracomm, servers: Sequence[int], shards: Shards, block: int,
                 config: Config) -> None:
        self._comm, self._ranks, self._replicas = comm, servers, config.parallel.replicas
        dtype = np.dtype(config.train.dtype)
        self.chunks, self.spans = shards.chunks[block], shards.spans(block)
        self._dtype = dtype
        # All in one piece: the system gives it large pages, of which another process reads twice as
        # fast.
        ends = np.cumsum([HEADER + -(-chunk.size * dtype.itemsize // HEADER) * HEADER
                          for chunk in self.chunks])
        pieces = np.split(np.zeros(ends[-1], np.uint8), ends[:-1])
        self._letters = [piece[:HEADER + chunk.size * dtype.itemsize] for piece,
                         chunk in zip(pieces, self.chunks)]
        self.buffers = [letter[HEADER:].view(dtype) for letter in self._letters]
        self._sent = [MPI.REQUEST_NULL] * len(self.chunks)
        self.place = {index: (server, first + index - numbers[0])
                      for server, (numbers, first) in self.spans.items() for index in numbers}
        self._requests = {server: np.zeros(HEADER + 16 * len(numbers), np.uint8)
                          for server, (numbers, _) in self.spans.items()}
        self._answers = {server: np.zeros(1 + len(numbers), np.int64) for server,
                         (numbers, _) in self.spans.items()}
        self.newest = self.fetched_bytes = self.pushed_bytes = 0
        self.staleness = np.zeros(0, np.int64)  # the servers count it

    def seed(self, parameters: np.ndarray) -> None:
        """Send the initial parameters (flat vector of the block)."""
        for index, chunk in enumerate(self.chunks):
            self.buffers[index][:] = parameters[chunk.start:chunk.stop]
            self._send(index, Header(INITIALISE, self.place[index][1]))
        wait_stream(self._sent)

    def factor(self, index: int, progress: float) -> float:
        """See Line."""
        return 1.0

    # ---- fetches ---------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        """See Line."""
        self._into, self._have = into, have.copy()
        # what has gone to the servers before comes before their answer
        self._asked = list(self._sent)
        self._coming: list[MPI.Request] = []
        self._expected = {server: self._comm.Irecv(answer, self._ranks[server], VERSIONS)
                          for server, answer in self._answers.items()}
        for server, (numbers, first) in self.spans.items():
            request = self._requests[server]
            Header(FETCH, first, clock, 0, pushes).write(request)
            request[HEADER:].view(np.int64)[:] = np.concatenate([have[numbers], wanted[numbers]])
            self._asked.append(self._comm.Isend(request, self._ranks[server], TO_SERVER))

    def _receive_what_changed(self) -> None:
        """For servers whose versions have arrived: let the chunks that changed come."""
        for server in [s for s, request in self._expected.items() if request.Test()]:
            del self._expected[server]
            numbers, _ = self.spans[server]
            for number in np.flatnonzero(self._answers[server][1:] != self._have[numbers]):
                chunk = self.chunks[numbers[number]]
                piece = self._into[chunk.start:chunk.stop]
                self._coming.append(self._comm.Irecv(piece, self._ranks[server], CHUNKS))
                self.fetched_bytes += piece.nbytes

    def finish_fetch(self) -> np.ndarray:
        """See Line."""
        wait_stream(self._asked)
        while self._expected:
            wait([next(iter(self._expected.values()))])
            self._receive_what_changed()
        wait_stream(self._coming)
        self.newest = max(self.newest, *(int(answer[0]) for answer in self._answers.values()))
        return np.concatenate([self._answers[server][1:] for server in self.spans])

    # ---- pushes ----------------------------------------------------------------------------------

    def push(self, index: int, clock: int, base: int, progress: float) -> None:
        """See Line."""
        self._send(index, Header(PUSH, self.place[index][1], clock, base, 0, progress))
        self.pushed_bytes += self.buffers[index].nbytes

    def _send(self, index: int, header: Header) -> None:
        header.write(self._letters[index])
        self._sent[index] = self._comm.Isend(self._letters[index],
                                             self._ranks[self.place[index][0]], TO_SERVER)

    def reuse(self, index: int) -> None:
        """See Line."""
        wait([self._sent[index]])

    def settle(self) -> None:
        """See Line."""

    # ---- standing, and the end -------------------------------------------------------------------

    def mark(self, clock: int, final: bool,
             meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        """Stand after `clock` steps until all workers stand and the servers have taken their
        checkpoint.

        Parameters
        ----------
        final : bool
            The worker makes no more steps.
        meanwhile : callable
            Called while it waits.

        Returns
        -------
        steps of every replica (replicas,), and whether all have made their last.
        """
        answers = np.empty((len(self._ranks), self._replicas + 1), np.int64)
        requests = [self._comm.Irecv(answer, rank, RELEASED) for answer,
                    rank in zip(answers, self._ranks)]
        requests += self._tell(BARRIER, clock, int(final))
        patience = Backoff()
        while not MPI.Request.Testall(requests):
            meanwhile()
            patience.pause()
        return answers[0, 1:], bool(answers[0, 0])

    def _tell(self, kind: int, clock: int, base: int = 0) -> list[MPI.Request]:
        """Send a header alone to every server: also to those that hold nothing of this block."""
        wait_stream(self._sent)
        letter = np.zeros(HEADER, np.uint8)
        Header(kind, clock=clock, base=base).write(letter)
        return [self._comm.Isend(letter, rank, TO_SERVER) for rank in self._ranks]

    def close(self, clock: int = 0) -> None:
        """See Line."""
        wait(self._tell(CLOSE, clock))
