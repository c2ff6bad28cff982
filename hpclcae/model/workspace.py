"""Named arrays that live from step to step.

Large arrays that are freed and allocated again in every step cost page faults (measured: they
doubled the time of a step), so each plan asks for its arrays by name and gets the same memory every
time.
"""
import math

import numpy as np
from numpy.typing import DTypeLike


class Workspace:
    """Arrays by name; a name is allocated once and grows only if a larger shape is asked for."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, np.dtype], np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An uninitialised C-contiguous array; what the same name held before is overwritten."""
        key = name, np.dtype(dtype)
        size = math.prod(shape)
        if key not in self.buffers or self.buffers[key].size < size:
            self.buffers[key] = np.empty(size, dtype)
        return self.buffers[key][:size].reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(b.nbytes for b in self.buffers.values())
