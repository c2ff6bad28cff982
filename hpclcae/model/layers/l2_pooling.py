"""L2 pooling: h = sqrt(epsilon + sum of z^2 over a window of one map) (paper, section 3).

The pooling weights are fixed and uniform. The sum of h is also the sparsity term of the objective.

Windows overlap, and what neighbouring ones share is summed once: squares are first added within
blocks of g x g positions, g the greatest common divisor of size and stride, then blocks within
windows. Rows of blocks stream through a ring of as many as a window has, so that what is summed
stays in cache.
"""
from math import gcd

import numpy as np

from hpclcae.geometry import windows
from hpclcae.model.layers.windows import box_cols
from hpclcae.model.workspace import Workspace


class L2Pooling:
    """The plan of one pooling sublayer; arrays are (row, col, map, image)."""

    def __init__(self, rows: int, cols: int, size: int, stride: int = 1,
                 epsilon: float = 0.01) -> None:
        self.rows, self.cols, self.epsilon = rows, cols, epsilon
        self.size, self.stride = size, stride
        self.out_rows, self.out_cols = windows(rows, size, stride), windows(cols, size, stride)

    def forward(self, z: np.ndarray, h: np.ndarray, work: Workspace) -> None:
        """Overwrite h (out row, out col, map, image) with the pooled z (row, col, map, image)."""
        if not h.size:  # a block that owns nothing here
            return
        side = gcd(self.size, self.stride)
        size, stride, cols = self.size // side, self.stride // side, self.cols // side
        squares = work.array("pooling row", (cols, *z.shape[2:]), z.dtype)
        ring = work.array("pooling ring", (size, cols - size + 1, *z.shape[2:]), z.dtype)
        for row in range((self.out_rows - 1) * stride + size):
            blocks = z[row * side:(row + 1) * side, :cols * side].reshape(
                side, cols, side, *z.shape[2:])
            np.einsum("acbmi,acbmi->cmi", blocks, blocks, out=squares)
            box_cols(squares, size, ring[row % size], work)
            out, offset = divmod(row - size + 1, stride)
            if out >= 0 and offset == 0:
                np.add.reduce(ring[:, ::stride], axis=0, out=h[out], initial=self.epsilon)
                np.sqrt(h[out], out=h[out])

    def backward(self, z: np.ndarray, h: np.ndarray, dh: np.ndarray, dz: np.ndarray,
                 work: Workspace) -> None:
        """Overwrite dz; dh is spoilt. dz = z * (sum of dh / h over the windows that hold z)."""
        if not h.size:
            return
        slots = -(-self.size // self.stride)  # windows that overlap in one row
        margin = self.size - 1
        ring = work.array("pooling ring", (slots, *z.shape[1:]), z.dtype)
        ring[...] = 0
        # A row of dh / h, spread to the stride and with margins of zeros: box sums scatter it.
        spread = work.array("pooling row", (self.cols + margin, *z.shape[2:]), z.dtype)
        spread[...] = 0
        inner = spread[margin:margin + (self.out_cols - 1) * self.stride + 1:self.stride]
        for row in range(self.rows):
            out, offset = divmod(row, self.stride)
            if offset == 0:
                slot = ring[out % slots]
                if out < self.out_rows:
                    np.divide(dh[out], h[out], out=inner)
                    box_cols(spread, self.size, slot, work)
                else:
                    slot[...] = 0
            if self.stride > 1 and offset + (slots - 1) * self.stride == self.size:
                ring[(out + 1) % slots] = 0  # the oldest window ended one row above
            np.add.reduce(ring, axis=0, out=dz[row])
            dz[row] *= z[row]
