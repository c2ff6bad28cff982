"""The protocol between a block of a replica and the servers of its chunks."""
from typing import Protocol

import numpy as np


class Line(Protocol):
    """One block's line to the servers of its chunks.

    buffers : list of ndarray (n,)
        What is pushed of each chunk of the block.
    newest : int
        The step after the newest one whose gradients the servers have applied, as far as this block
        has heard.
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

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        """Begin to bring chunks into the flat vector `into`: those whose version is not what it
        `have`s.

        wanted : versions that the chunks must at least have; pushes : made so far; clock : the
        step.
        """

    def finish_fetch(self) -> np.ndarray:
        """Wait until all is there; the versions of the chunks. No chunk is half old, half new.

        In lockstep (ParallelConfig.lockstep) it may bring nothing, and versions below `wanted`: a
        worker that the round lacks stands for a checkpoint, or has ended.
        """

    def push(self, index: int, clock: int, base: int, progress: float) -> None:
        """Begin to send buffers[index]."""

    def reuse(self, index: int) -> None:
        """Wait until buffers[index] may be written again."""

    def settle(self) -> None:
        """After the pushes of a step: let nothing that has been sent wait for the next step."""

    def close(self) -> None:
        """Tell the servers that this block has ended, and release what belongs to the line."""
