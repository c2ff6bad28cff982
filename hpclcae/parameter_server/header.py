"""The 64 bytes before whatever a worker sends to a server: a message, mail, or a frame of a socket.

mpi/messages.py has the table of kinds; survive/wire.py adds those that only sockets carry.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpclcae.parameter_server.chunks import Chunk, Shards
from hpclcae.parameter_server.mailbox import HEADER
from hpclcae.parameter_server.store import compensates

INITIALISE, PUSH, FETCH, FETCHED, BARRIER, CLOSE = range(6)


class Header(NamedTuple):
    """The first 64 bytes of a message to a server, or of mail; unused fields are zero."""
    kind: int
    chunk: int = 0
    clock: int = 0
    base: int = 0
    pushes: int = 0
    final: int = 0
    learning_rate: float = 0.0

    def write(self, message: np.ndarray, rest: int | None = None) -> None:
        """Into the first bytes of a message (n,) of uint8; `rest`: bytes that follow, if not all.
        """
        message[:48].view(np.int64)[:] = self[:6]
        message[48:56].view(np.float64)[0] = self.learning_rate
        message[56:HEADER].view(np.int64)[0] = message.size - HEADER if rest is None else rest

    @classmethod
    def read(cls, message: np.ndarray) -> tuple["Header", np.ndarray]:
        """The header of a message, and the bytes that follow."""
        kind, chunk, clock, base, pushes, final = message[:48].view(np.int64).tolist()
        learning_rate = message[48:56].view(np.float64).item()
        rest = message[56:HEADER].view(np.int64).item()
        return (cls(kind, chunk, clock, base, pushes, final, learning_rate),
                message[HEADER:HEADER + rest])


def pushed_bytes(shards: Shards, chunks: Sequence[Chunk]) -> list[int]:
    """Bytes of what is pushed of each chunk."""
    each = shards.layout.dtype.itemsize * (1 + compensates(shards.layout.config))
    return [chunk.size * each for chunk in chunks]


def gradient_in(message: np.ndarray, size: int, dtype: np.dtype) -> np.ndarray:
    """The gradient (size,) in a message or a slot of the mailbox."""
    return message[HEADER:HEADER + size * dtype.itemsize].view(dtype)
