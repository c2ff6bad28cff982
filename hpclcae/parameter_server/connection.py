"""The protocol between a block of a replica and the servers of its chunks.

A worker's step, in four lines (`ParameterClient` in client.py)::

    connection.start_fetch(...); versions = connection.finish_fetch()    # what others changed
    for every chunk, while the sweep goes on:
        write its gradient into connection.buffer(chunk); connection.push(chunk, ...)
    connection.flush()

Before the first step one replica calls `initialise`; between two steps all may meet at `barrier`,
where servers take a checkpoint; `close` is the end. Implementations: `LocalConnection` (local.py),
`MailboxConnection` and `MessageConnection` (mpi/), `ReplayConnection` (training/replay_server.py).
"""
from collections.abc import Callable
from typing import Protocol

import numpy as np


class ServerConnection(Protocol):
    """One block's connection to the servers of its chunks.

    newest : int
        The step after the newest one whose gradients the servers have applied, as far as this block
        has heard.
    fetched_bytes, pushed_bytes : int
    """
    newest: int
    fetched_bytes: int
    pushed_bytes: int

    def initialise(self, parameters: np.ndarray) -> None:
        """Give the servers the initial parameters (flat vector of the block)."""

    def start_fetch(self, into: np.ndarray, have: np.ndarray, wanted: np.ndarray, pushes: int,
                    clock: int) -> None:
        """Begin to bring chunks into a flat vector.

        Parameters
        ----------
        into : ndarray (total,)
        have : ndarray of int64 (chunks,)
            Versions that it holds: only chunks of another one are brought.
        wanted : ndarray of int64 (chunks,)
            Versions that the chunks must at least have.
        pushes, clock : int
            Pushes made so far, and the step.
        """

    def finish_fetch(self) -> np.ndarray:
        """Wait until all is there; the versions of the chunks. No chunk is half old, half new.

        In lockstep (ParallelConfig.lockstep) it may bring nothing, and versions below `wanted`: a
        worker that the round lacks pauses for a checkpoint, or has ended.
        """

    def buffer(self, index: int) -> np.ndarray:
        """Where the gradient (n,) of chunk `index` is written before it is pushed.

        Asked for once before each push; waits until it may be written.
        """

    def push(self, index: int, clock: int, base: int, learning_rate: float,
             then: np.ndarray | None = None) -> None:
        """Begin to send the buffer of chunk `index`: what step `clock` made from version `base`.

        then : ndarray (n,), optional
            The parameters that it was made from, for delay compensation (store.compensates).
        """

    def flush(self) -> None:
        """After the pushes of a step: nothing that was sent shall wait for the next step."""

    def barrier(self, clock: int, final: bool,
                meanwhile: Callable[[], None]) -> tuple[np.ndarray, bool]:
        """Pause after `clock` steps until all workers do and servers have taken their checkpoint.

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

    def give_up(self) -> None:
        """The worker ends with an error: what it has said reaches the servers' event logs first."""
        return

    def close(self, clock: int) -> None:
        """Tell the servers that this block has ended, and release what belongs to it."""
