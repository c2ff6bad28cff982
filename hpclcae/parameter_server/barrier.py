"""Which workers still run, and which of them pause between two steps until all do."""
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import numpy as np

W = TypeVar("W", bound=Hashable)


class Barrier(Generic[W]):
    """Counts the workers of a job, as one server sees them.

    Parameters
    ----------
    workers : iterable of hashable
        One name for each.
    replicas : int

    Attributes
    ----------
    running : set
        Workers that have not closed their connection.
    clocks : ndarray of int64 (replicas,)
        Steps that each replica had made when it was last heard of.
    """

    def __init__(self, workers: Iterable[W], replicas: int) -> None:
        self.running = set(workers)
        self.clocks = np.zeros(replicas, np.int64)
        self._paused: dict[W, bool] = {}  # and whether it is for ever

    def arrive(self, worker: W, replica: int, clock: int, final: bool) -> None:
        """A worker pauses after `clock` steps; `final`: it makes no more."""
        self.clocks[replica] = clock
        self._paused[worker] = final

    def leave(self, worker: W, replica: int, clock: int) -> None:
        """A worker has closed its connection."""
        self.clocks[replica] = clock
        self.running.discard(worker)

    @property
    def complete(self) -> bool:
        """Whether all that run have arrived."""
        return bool(self._paused) and self.running <= self._paused.keys()

    def release(self) -> tuple[list[W], bool]:
        """Let all go on; returns who waited, and whether none of them makes another step."""
        released, over = list(self._paused), all(self._paused.values())
        self._paused.clear()
        return released, over
