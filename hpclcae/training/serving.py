"""A server's chunks from their first values to their last checkpoint, whoever moves the bytes."""
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.checkpoint import ChunkState, ShardWriter, load_chunk_states
from hpclcae.checkpoint.event_log import EventLog
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.roles import joint_step
from hpclcae.parameter_server.store import Changing, Store, unguarded
from hpclcae.training.cache import spare_memory
from hpclcae.utils.errors import InputError


@dataclass(frozen=True)
class ServerReport:
    """What one server has done; see store.Counters."""
    chunks: int
    bytes: int
    pushes: int
    dropped: int
    fetched_chunks: int
    unchanged_chunks: int
    staleness: tuple[int, ...]
    wait_seconds: float
    versions: tuple[int, ...]  # the smallest and the largest; none without chunks


class Serving:
    """The store of one server, its shard of checkpoints and its event log.

    Parameters
    ----------
    shards : Shards
    number : int
        Of the server.
    run : Path
        Run folder.
    start : Path or None
        Checkpoint that it begins with.
    memory : ndarray (elements of all chunks,), optional
        Where the parameters lie, if others read them there.
    changing : callable, optional
        What keeps them from reading half of a change (Store).
    part : int or None
        Replicas and servers come and go (survive/): how many servers have had this shard before.
    is_copy : bool
        Another server has the parameters, and will send them.
    """

    def __init__(self, shards: Shards, number: int, run: Path, start: Path | None,
                 memory: np.ndarray | None = None, changing: Changing = unguarded,
                 part: int | None = None, is_copy: bool = False) -> None:
        layout, chunks = shards.layout, shards.held_by(number)
        self.number, self.config = number, layout.config
        self._log = None
        if self.config.parallel.log_events:
            self._log = EventLog(run, start, number, self.config, layout.grid, part or 0)
        self.store = Store(chunks, self.config, memory, self._log, changing, part is not None)
        if start and not is_copy:
            for index, held in enumerate(load_chunk_states(start, layout, chunks)):
                self.store.initialise(index, held.values.ravel(), held.state, held.version)
        self._first = self.store.versions.copy()
        # A server of a surviving job is watched and may not fall silent while it writes: it copies.
        spare = spare_memory if part is None else (lambda: math.inf)
        self._writer = ShardWriter(run, number, layout, spare)

    def check(self) -> None:
        """Raise what went wrong in the background."""
        self._writer.check()

    def checkpoint(self, clocks: np.ndarray) -> None:
        """Begin to write the shard of a checkpoint; every worker pauses.

        clocks : ndarray of int64 (replicas,)
            Steps that the replicas have made.

        Raises
        ------
        InputError
            Weights are not finite.
        """
        store = self.store
        if not all(np.isfinite(values).all() for values in store.values):
            raise InputError(f"server {self.number} holds weights that are not finite: update.rate "
                             f"= {self.config.update.rate:g} is likely too large for "
                             f"{self.config.parallel.replicas} replicas; the last checkpoint is "
                             "untouched")
        self._writer.start(joint_step(clocks.tolist()), [
            ChunkState(chunk, *store.shaped(index), count=version, version=version)
            for index, (chunk, version) in enumerate(zip(store.chunks, store.versions.tolist()))])

    def close(self, wait_seconds: float = 0.0) -> ServerReport:
        """Wait for what is being written; say what was done."""
        self._writer.wait()
        self._writer.close()
        if self._log:
            self._log.close()
        store, counters = self.store, self.store.counters
        limits = (np.min, np.max) if store.chunks else ()
        return ServerReport(
            len(store.chunks), store.memory.nbytes, int((store.versions - self._first).sum()),
            counters.dropped, counters.fetches, counters.unchanged,
            tuple(counters.staleness.tolist()), wait_seconds,
            tuple(int(limit(store.versions)) for limit in limits))
