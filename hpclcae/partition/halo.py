"""Halo exchanges: what blocks.py planned is carried out, through any kind of communicator.

A block's array holds what the block owns and what it needs (`ExchangePlan.held`), so `fill` writes
into its halo and `fold` adds to its owned part; the block's own positions are never copied. Both
take arrays of any trailing shape: (row, col, map, image), (row, col, image), ...

The communicators: `SerialCommunicator` (communicator.py) for one block, mpi/communicator.py with
MPI, threads.py for all blocks of a grid in one process. Sums are taken in the order of ranks by all
of them, so they give the same bits.
"""
from collections.abc import Callable

import numpy as np

from hpclcae.partition.blocks import ExchangePlan, Part
from hpclcae.partition.communicator import Buffers, Communicator

Packed = list[tuple[tuple[slice, slice], np.ndarray]]  # (where in the array, buffer)


class Exchange:
    """Fill and fold of one array.

    Buffers and channels are made at the first use of a trailing shape and dtype and kept. One fill
    and one fold may be under way at the same time, not two fills or two folds.

    Parameters
    ----------
    plan : ExchangePlan
    communicator : Communicator
        Of the block that the plan is for.
    """

    def __init__(self, plan: ExchangePlan, communicator: Communicator) -> None:
        self.plan, self.communicator = plan, communicator
        self._links: dict[tuple[str, tuple[int, ...], np.dtype], _Link] = {}

    def fill(self, array: np.ndarray) -> None:
        """Overwrite the halo of array (held row, held col, ...) with what its owners hold."""
        self.start_fill(array)()

    def fold(self, array: np.ndarray) -> None:
        """Add what other blocks hold in their halos to what this one owns.

        `array` is (held row, held col, ...); its halo keeps what this block put there.
        """
        self.start_fold(array)()

    def start_fill(self, array: np.ndarray) -> Callable[[], None]:
        """Begin a fill; the function that is returned ends it.

        Until then the owned part may be changed (it has been copied), the halo may not be used.
        """
        link = self._link("fill", array, self.plan.send, self.plan.recv)
        link.start(array)

        def finish() -> None:
            for where, buffer in link.finish():
                array[where] = buffer
        return finish

    def start_fold(self, array: np.ndarray) -> Callable[[], None]:
        """Begin a fold; the function that is returned ends it.

        Until then the owned part may be added to, the halo may be changed (it has been copied).
        """
        link = self._link("fold", array, self.plan.recv, self.plan.send)
        link.start(array)

        def finish() -> None:
            for where, buffer in link.finish():
                array[where] += buffer
        return finish

    def close(self) -> None:
        """Release the channels."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    def _link(self, kind: str, array: np.ndarray, sent: tuple[Part, ...],
              received: tuple[Part, ...]) -> "_Link":
        assert array.shape[:2] == self.plan.held.shape, (array.shape, self.plan.held)
        key = kind, array.shape[2:], array.dtype
        if key not in self._links:
            tag = 2 * self.plan.tag + (kind == "fold")
            self._links[key] = _Link(self.plan, self.communicator, tag, sent, received, array)
        return self._links[key]


class _Link:
    """The buffers of one direction for arrays like `array`."""

    def __init__(self, plan: ExchangePlan, communicator: Communicator, tag: int,
                 sent: tuple[Part, ...], received: tuple[Part, ...], array: np.ndarray) -> None:
        def packed(parts: tuple[Part, ...]) -> Packed:
            return [(part.positions.within(plan.held),
                     np.empty((*part.positions.shape, *array.shape[2:]), array.dtype))
                    for part in parts]

        def addressed(parts: tuple[Part, ...], buffers: Packed) -> Buffers:
            return [(part.peer, buffer) for part, (_, buffer) in zip(parts, buffers)]
        self.sends, self.receives = packed(sent), packed(received)
        self.under_way = False
        self._channel = None
        if sent or received:
            self._channel = communicator.channel(tag, addressed(sent, self.sends),
                                                 addressed(received, self.receives))

    def start(self, array: np.ndarray) -> None:
        """Pack and send."""
        assert not self.under_way, "the last exchange of this kind has not been finished"
        self.under_way = True
        for where, buffer in self.sends:
            buffer[...] = array[where]
        if self._channel:
            self._channel.start()

    def finish(self) -> Packed:
        """Wait; what has been received, in order of rank, and where it belongs."""
        if self._channel:
            self._channel.wait()
        self.under_way = False
        return self.receives

    def close(self) -> None:
        """Release the channel."""
        if self._channel:
            self._channel.close()
