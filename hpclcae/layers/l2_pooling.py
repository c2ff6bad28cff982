"""L2 pooling: h = sqrt(epsilon + sum of z^2 over a window of one map) (paper, section 3).

The pooling weights are fixed and uniform. The sum of h is also the sparsity term of the objective.
"""
import numpy as np

from hpclcae.geometry import windows
from hpclcae.layers.windows import box_scatter, box_sum
from hpclcae.workspace import Workspace


class L2Pooling:
    """The plan of one pooling sublayer; arrays are (row, col, map, image)."""

    def __init__(self, rows: int, cols: int, size: int, stride: int = 1, epsilon: float = 0.01) -> None:
        self.rows, self.cols, self.size, self.stride, self.epsilon = rows, cols, size, stride, epsilon
        self.out_rows, self.out_cols = windows(rows, size, stride), windows(cols, size, stride)
        assert self.out_rows and self.out_cols, (rows, cols, size)

    def forward(self, z: np.ndarray, h: np.ndarray, work: Workspace) -> None:
        """Overwrite h (out row, out col, map, image) with the pooled z (row, col, map, image)."""
        square = work.array("pooling full", z.shape, z.dtype)
        np.square(z, out=square)
        if self.stride == 1:
            box_sum(square, self.size, h, work)
        else:
            dense = work.array("pooling dense", self._dense(z), z.dtype)
            h[...] = box_sum(square, self.size, dense, work)[::self.stride, ::self.stride]
        h += h.dtype.type(self.epsilon)
        np.sqrt(h, out=h)

    def backward(self, z: np.ndarray, h: np.ndarray, dh: np.ndarray, dz: np.ndarray, work: Workspace) -> None:
        """Overwrite dz; dh is spoilt. dz = z * (sum of dh / h over the windows that hold z)."""
        dh /= h
        if self.stride > 1:
            dense = work.array("pooling dense", self._dense(z), z.dtype)
            dense[...] = 0
            dense[::self.stride, ::self.stride][:self.out_rows, :self.out_cols] = dh
            dh = dense
        box_scatter(dh, self.size, dz, work)
        dz *= z

    def _dense(self, z: np.ndarray) -> tuple[int, ...]:
        return self.rows - self.size + 1, self.cols - self.size + 1, *z.shape[2:]
