"""The two-sided connection to servers: gradients and requests as messages, answered by server.py.

What a worker sends is one message: a header of 64 bytes, then what belongs to it. One tag for all
keeps their order, so a fetch finds the pushes before it applied.

| kind | header | then |
|---|---|---|
| INITIALISE | chunk | the parameters of the chunk |
| PUSH | chunk, clock, base, learning rate | the gradient of the chunk; what it was made from |
| FETCH | first chunk, clock, pushes | versions of the chunks: what it has, what it wants |
| FETCHED | first chunk, clock | versions of the chunks: what it had, what it has read by itself |
| BARRIER | clock, final | nothing: the worker pauses (for ever if final is 1) and waits |
| CLOSE | clock | nothing: the worker has ended |

The same headers stand before mail in a server's memory (mailbox.py), from where FETCHED comes.

A server answers FETCH with (newest step, versions), then with the chunks that changed, one message
each, which arrive where they belong without another copy. The worker receives one while the server
copies the next. It answers BARRIER, when all workers have come, with (over, steps of every
replica).
"""
from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI

from hpclcae.mpi.waiting import Backoff, wait, wait_stream
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.header import (BARRIER, CLOSE, FETCH, HEADER, INITIALISE, PUSH,
                                             Header, gradient_in, pushed_bytes)

TO_SERVER, VERSIONS, CHUNKS, RELEASED = range(1, 5)  # tags


class MessageConnection(ServerConnection):
    """One block's connection to the servers.

    Parameters
    ----------
    comm : Intracomm
        All ranks of the job; it carries nothing else.
    servers : sequence of int
        Rank of every server.
    """

    def __init__(self, comm: MPI.Intracomm, servers: Sequence[int], shards: Shards,
                 block: int) -> None:
        self._comm, self._ranks = comm, servers
        self._replicas, self.dtype = shards.layout.config.parallel.replicas, shards.layout.dtype
        self.chunks, self.spans = shards.chunks[block], shards.spans(block)
        self._sizes = [HEADER + size for size in pushed_bytes(shards, self.chunks)]
        self.renew_messages()
        self._sent = [MPI.REQUEST_NULL] * len(self.chunks)
        #: Chunk of the block -> (server, its number there).
        self.held = {index: (server, number) for server, span in self.spans.items()
                     for index, number in span.at_server.items()}
        counts = {server: len(span.chunk_range) for server, span in self.spans.items()}
        self._requests = {server: np.zeros(HEADER + 16 * count, np.uint8)
                          for server, count in counts.items()}
        self._answers = {server: np.zeros(1 + count, np.int64) for server, count in counts.items()}
        self.newest = self.fetched_bytes = self.pushed_bytes = 0

    def renew_messages(self) -> None:
        """Take fresh memory, which the system gives when it is written to, for what is sent.

        All in one piece: it gets large pages, of which another process reads twice as fast.
        """
        ends = np.cumsum([-(-size // HEADER) * HEADER for size in self._sizes])
        pieces = np.split(np.zeros(ends[-1], np.uint8), ends[:-1])
        self.messages = [piece[:size] for piece, size in zip(pieces, self._sizes)]

    def initialise(self, parameters: np.ndarray) -> None:
        for index, chunk in enumerate(self.chunks):
            self.buffer(index)[:] = parameters[chunk.start:chunk.stop]
            self._send(index, Header(INITIALISE, self.held[index][1]))
        wait_stream(self._sent)

    def await_initialised(self) -> None:
        """Return when the servers have parameters: they are asked for nothing, and answer then."""
        nothing = np.zeros(HEADER, np.uint8)
        Header(FETCH).write(nothing)
        answers = [np.empty(1, np.int64) for _ in self.spans]
        ranks = [self._ranks[server] for server in self.spans]
        wait([*(self._comm.Irecv(answer, rank, VERSIONS) for rank, answer in zip(ranks, answers)),
              *(self._comm.Isend(nothing, rank, TO_SERVER) for rank in ranks)])

    # ---- fetches ---------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        self._into, self._have = into, have.copy()
        self._asked = list(self._sent)  # what has gone to servers before comes before the answer
        self._coming: list[MPI.Request] = []
        self._expected = {server: self._comm.Irecv(answer, self._ranks[server], VERSIONS)
                          for server, answer in self._answers.items()}
        for server, span in self.spans.items():
            request = self._requests[server]
            Header(FETCH, span.first, clock, pushes=pushes).write(request)
            versions = np.concatenate([have[span.mine], wanted[span.mine]])
            request[HEADER:].view(np.int64)[:] = versions
            self._asked.append(self._comm.Isend(request, self._ranks[server], TO_SERVER))

    def _receive_what_changed(self) -> None:
        """For servers whose versions have arrived: let the chunks that changed come."""
        for server in [s for s, request in self._expected.items() if request.Test()]:
            del self._expected[server]
            span = self.spans[server]
            for number in np.flatnonzero(self._answers[server][1:] != self._have[span.mine]):
                chunk = self.chunks[span.chunk_range[number]]
                piece = self._into[chunk.start:chunk.stop]
                self._coming.append(self._comm.Irecv(piece, self._ranks[server], CHUNKS))
                self.fetched_bytes += piece.nbytes

    def finish_fetch(self) -> np.ndarray:
        wait_stream(self._asked)
        while self._expected:
            wait([next(iter(self._expected.values()))])
            self._receive_what_changed()
        wait_stream(self._coming)
        self.newest = max(self.newest, *(int(answer[0]) for answer in self._answers.values()))
        return np.concatenate([self._answers[server][1:] for server in self.spans])

    # ---- pushes ----------------------------------------------------------------------------------

    def buffer(self, index: int) -> np.ndarray:
        wait([self._sent[index]])
        return gradient_in(self.messages[index], self.chunks[index].size, self.dtype)

    def push(self, index: int, clock: int, base: int, learning_rate: float,
             then: np.ndarray | None = None) -> None:
        chunk, header = self.chunks[index], Header(PUSH, self.held[index][1], clock, base,
                                                   learning_rate=learning_rate)
        if then is not None:
            self.messages[index][HEADER:].view(self.dtype)[chunk.size:] = then
        self._send(index, header)
        self.pushed_bytes += chunk.size * self.dtype.itemsize

    def _send(self, index: int, header: Header) -> None:
        message, rank = self.messages[index], self._ranks[self.held[index][0]]
        header.write(message)
        self._sent[index] = self._comm.Isend(message, rank, TO_SERVER)

    def flush(self) -> None:
        """Messages go by themselves."""

    # ---- the barrier, and the end ----------------------------------------------------------------

    def barrier(self, clock: int, final: bool,
                meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        answers = np.empty((len(self._ranks), self._replicas + 1), np.int64)
        requests = [self._comm.Irecv(answer, rank, RELEASED)
                    for answer, rank in zip(answers, self._ranks)]
        requests += self._tell_all(Header(BARRIER, clock=clock, final=int(final)))
        backoff = Backoff()
        while not MPI.Request.Testall(requests):
            meanwhile()
            backoff.pause()
        return answers[0, 1:], bool(answers[0, 0])

    def _tell_all(self, header: Header) -> list[MPI.Request]:
        """Send a header alone to every server: also to those that hold nothing of this block."""
        wait_stream(self._sent)
        message = np.zeros(HEADER, np.uint8)
        header.write(message)
        return [self._comm.Isend(message, rank, TO_SERVER) for rank in self._ranks]

    def close(self, clock: int) -> None:
        wait(self._tell_all(Header(CLOSE, clock=clock)))
