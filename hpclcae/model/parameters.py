"""Parameters as one flat vector with named views.

Gradients and update state have the same layout.
"""
import math
import sys
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike


class ParameterVector:
    """A flat vector and its named parts.

    Parameters
    ----------
    shapes : mapping of str to shape
        Parts in the order in which they lie in the vector.
    dtype : dtype
        Of every part.

    Attributes
    ----------
    vector : ndarray (total,)
        What is sent, stored or updated as a whole.
    views : dict of str to ndarray
        The parts, as views into `vector`.

    Raises
    ------
    MemoryError
        They are more than fit.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]],
                 dtype: DTypeLike = np.float32) -> None:
        self.shapes = dict(shapes)
        sizes = [math.prod(shape) for shape in self.shapes.values()]  # NumPy's would overflow
        if sum(sizes) * np.dtype(dtype).itemsize > sys.maxsize:
            raise MemoryError(f"{sum(sizes):,} parameters")
        self.vector = np.zeros(sum(sizes), dtype)
        ends = np.cumsum([0, *sizes])
        self.views = {name: self.vector[start:end].reshape(shape) for (name, shape), start,
                      end in zip(self.shapes.items(), ends[:-1], ends[1:])}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.views[name]

    def like(self) -> "ParameterVector":
        """A vector of zeros with the same layout."""
        return ParameterVector(self.shapes, self.vector.dtype)
