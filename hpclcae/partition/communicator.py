"""How the blocks of one network talk to each other; and the communicator of a single block.

The others: mpi/communicator.py with MPI; threads.py for all blocks of a grid in one process. Sums
are taken in the order of ranks by all of them, so they give the same bits.
"""
import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

T = TypeVar("T")
Buffers = Sequence[tuple[int, np.ndarray]]  # (rank of the other block, contiguous buffer)


class Channel(Protocol):
    """Buffers that go to and come from fixed blocks, again and again."""

    def start(self) -> None:
        """Begin to send what the send buffers hold and to receive."""

    def wait(self) -> None:
        """Return when everything has arrived and the send buffers may be written again."""

    def close(self) -> None:
        """Release what belongs to the channel."""


class Communicator(Protocol):
    """From one block to the other blocks of its network.

    waited : float
        Seconds spent waiting for other blocks so far, as far as they are counted.
    """
    rank: int
    size: int
    waited: float = 0.0

    def channel(self, tag: int, sends: Buffers, receives: Buffers) -> Channel:
        """A channel for these buffers.

        The nth message to a block under a tag is the nth that it receives.
        """

    def allreduce_sum(self, values: ArrayLike) -> np.ndarray:
        """The sum over all blocks, float64 and of the same shape, on every block.

        For a few numbers.
        """

    def combine(self, values: np.ndarray, how: str) -> None:
        """Put into an array the "sum", "minimum" or "maximum" over all blocks of its every number.

        For many numbers; those of a sum are whole numbers, so that its order does not matter.
        """

    def sum_in_place(self, array: np.ndarray) -> None:
        """Make a contiguous array the sum over all blocks, in place and in its own dtype.

        For many numbers: each block adds its share of them up.
        """

    def gather(self, value: T, patience: float = math.inf) -> list[T]:
        """What every block has, on every block, in order of ranks.

        For results of any kind, after long work: who waits leaves the core to others.

        Raises
        ------
        TimeoutError
            The others have not come within so many seconds.
        """

    def close(self) -> None:
        """Release what belongs to the communicator; every block does."""


class SerialCommunicator(Communicator):
    """The communicator of a network that has one block."""
    rank, size = 0, 1

    def channel(self, tag: int, sends: Buffers, receives: Buffers) -> Channel:
        """Never asked for: one block receives nothing."""
        raise AssertionError(f"one block has nobody to exchange with: {len(sends)} sends, "
                             f"{len(receives)} receives")

    def allreduce_sum(self, values: ArrayLike) -> np.ndarray:
        """The values themselves."""
        return np.array(values, np.float64)

    def combine(self, values: np.ndarray, how: str) -> None:
        """The values stay as they are."""

    def sum_in_place(self, array: np.ndarray) -> None:
        """They are the sum already."""

    def gather(self, value: T, patience: float = math.inf) -> list[T]:
        """There is nobody else."""
        return [value]

    def close(self) -> None:
        """Nothing to release."""
