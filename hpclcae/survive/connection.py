"""SocketConnection: a block's connection to servers that may die; SocketControl: to the supervisor.

The protocol is `ServerConnection`, and messages are those of mpi/messages.py. A push is
*acknowledged* when the server has applied it and, where chunks have a copy (`parallel.copies`), the
copy has, too; until then this side keeps it, and pushes it again if the server dies. So no more
than `parallel.slots` pushes of a worker to a shard are ever unacknowledged.
"""
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.connection import ServerConnection
from hpclcae.parameter_server.header import (BARRIER, FETCH, INITIALISE, PUSH, Header, pushed_bytes)
from hpclcae.survive.link import Fetch, Link
from hpclcae.training.coordination import Command, ControlChannel

LOOK_SECONDS = 0.05  # between two looks of a worker that waits at the barrier


class SocketConnection(ServerConnection):
    """One block's connection to the servers of its chunks.

    Parameters
    ----------
    first : int
        The step that this life of the replica begins with.
    begun : bool
        The servers have parameters.
    """

    def __init__(self, link: Link, shards: Shards, block: int, first: int, begun: bool) -> None:
        parallel = shards.layout.config.parallel
        self._link, self._slots, self.dtype = link, parallel.slots, shards.layout.dtype
        self._begun, self._elastic = begun, parallel.elastic > 0
        self.chunks, self.spans = shards.chunks[block], shards.spans(block)
        self._held = {index: (server, number) for server, span in self.spans.items()
                      for index, number in span.at_server.items()}
        self._sizes = pushed_bytes(shards, self.chunks)
        self._spare: dict[int, list[np.ndarray]] = defaultdict(list)  # buffers, by size
        self._filling: dict[int, np.ndarray] = {}
        self._out: list[tuple[int, tuple[int, int, int], np.ndarray]] = []
        self._fetches = 0
        link.step = self._safe = first
        self._pushed = first - 1
        link.safe = self._safe_step
        self.newest = self.fetched_bytes = self.pushed_bytes = 0

    def initialise(self, parameters: np.ndarray) -> None:
        """Every replica does, in a job that has not begun; servers take what comes first."""
        if not self._begun:
            for index, chunk in enumerate(self.chunks):
                server, number = self._held[index]
                self._link.push(server, Header(INITIALISE, number),
                                parameters[chunk.start:chunk.stop].copy())

    # ---- fetches ---------------------------------------------------------------------------------

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        for server, span in self.spans.items():
            def place(number: int, first: int = span.chunk_range.start,
                      base: int = span.first) -> np.ndarray:
                chunk = self.chunks[first + number - base]
                self.fetched_bytes += (chunk.stop - chunk.start) * self.dtype.itemsize
                return into[chunk.start:chunk.stop]
            header = Header(FETCH, span.first, clock, base=self._fetches, pushes=pushes)
            # No version is asked for: what was pushed comes before, and if it was dropped, as a
            # life before had pushed it, it has made no version.
            self._link.fetch(server, Fetch(header, have[span.mine].copy(), place))
        self._fetches += 1

    def finish_fetch(self) -> np.ndarray:
        fetches = [self._link.shards[server].fetch for server in self.spans]
        with self._link.changed:
            self._link.wait_for(lambda: all(fetch and fetch.is_done for fetch in fetches))
        found = [fetch.versions for fetch in fetches if fetch and fetch.versions is not None]
        self.newest = max(self.newest, *(int(versions[0]) for versions in found))
        return np.concatenate([versions[1:] for versions in found])

    # ---- pushes ----------------------------------------------------------------------------------

    def buffer(self, index: int) -> np.ndarray:
        shard, size = self._link.shards[self._held[index][0]], self._sizes[index]
        with self._link.changed:
            self._link.wait_for(lambda: len(shard.sent) < self._slots)
            self._take_back()
        spare = self._spare[size]
        self._filling[index] = spare.pop() if spare else np.empty(size, np.uint8)
        return self._filling[index].view(self.dtype)[:self.chunks[index].size]

    def _take_back(self) -> None:
        """Buffers whose pushes were acknowledged may be written again."""
        kept = []
        for server, key, buffer in self._out:
            if key in self._link.shards[server].sent:
                kept.append((server, key, buffer))
            else:
                self._spare[buffer.size].append(buffer)
        self._out = kept

    def push(self, index: int, clock: int, base: int, learning_rate: float,
             then: np.ndarray | None = None) -> None:
        server, number = self._held[index]
        buffer = self._filling.pop(index)
        if then is not None:
            buffer.view(self.dtype)[self.chunks[index].size:] = then
        self._out.append((server, (PUSH, number, clock), buffer))
        self._link.push(server, Header(PUSH, number, clock, base, learning_rate=learning_rate),
                        buffer)
        self.pushed_bytes += self.chunks[index].size * self.dtype.itemsize
        self._pushed = clock

    def flush(self) -> None:
        """The step has been made; its pushes go by themselves."""
        self._link.progress(self._link.step + 1)

    def _safe_step(self) -> int:
        """The step with which another life of this replica would have to begin: all that was pushed
        before has been acknowledged. The caller holds the lock."""
        if self._elastic:
            return self._link.step
        waiting = [clock for shard in self._link.shards for kind, _, clock in shard.sent
                   if kind == PUSH]
        if not waiting and self._pushed < self._link.step:
            self._safe = max(self._safe, self._pushed + 1)
        elif waiting:
            self._safe = max(self._safe, min(waiting))
        return self._safe

    # ---- the barrier, and the end ----------------------------------------------------------------

    def barrier(self, clock: int, final: bool,
                meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        link = self._link
        for server in range(len(link.shards)):  # also those that hold nothing of this block
            link.push(server, Header(BARRIER, -1, clock, final=int(final)), np.empty(0, np.uint8))
        with link.changed:
            link.wait_for(lambda: not any(shard.sent for shard in link.shards))
            link.told.pop("released", None)
        link.step = clock
        link.tell(kind="barrier", clock=clock, final=final)
        while True:
            with link.changed:
                if link.wait_for(lambda: "released" in link.told, LOOK_SECONDS):
                    told = link.told["released"]
                    return np.array(told["clocks"], np.int64), told["over"]
            meanwhile()

    def give_up(self) -> None:
        """What was pushed before is applied, and in the event logs."""
        with self._link.changed:
            self._link.wait_for(lambda: not any(shard.sent for shard in self._link.shards), 10)

    def close(self, clock: int) -> None:
        """All is acknowledged since the last barrier."""


class SocketControl(ControlChannel):
    """From the supervisor, which leads all replicas, to the first block of each."""

    is_led = True

    def __init__(self, link: Link, block: int) -> None:
        self._link, self._hears = link, block == 0
        self._ended = self._gone = False
        self._paused_for = 0

    @property
    def commits(self) -> bool:
        """The supervisor has said at the barrier which replica does."""
        return bool(self._link.told["released"]["commits"])

    @property
    def abandons(self) -> bool:
        """Whether the checkpoint before will not be whole: a server has died that had to write."""
        return bool(self._link.told["released"]["lost"])

    def _next(self) -> Command | None:
        told = self._link.told
        if "end" in told and not self._ended:
            return Command.END
        if "go" in told and not self._gone:
            return Command.GO
        passed = told.get("released", {}).get("number", 0)
        if told.get("pause", {}).get("number", 0) > max(passed, self._paused_for):
            return Command.CHECKPOINT
        return None

    def broadcast(self, command: Command) -> None:
        if self._hears and command == Command.END and not self._ended:
            self._link.tell(kind="ask", what="end")

    def poll(self) -> bool:
        with self._link.changed:
            return self._hears and self._next() is not None

    def receive(self) -> Command:
        with self._link.changed:
            self._link.wait_for(lambda: self._next() is not None)
            command = self._next()
            assert command is not None
            if command == Command.END:
                self._ended = True
            elif command == Command.GO:
                self._gone = True
            else:
                self._paused_for = self._link.told["pause"]["number"]
            return command

    def close(self) -> None:
        """Nothing to release."""
