"""Filters of unit norm by construction: V = gain * W / ||W||, filter by filter.

The objective with separate encoder and decoder has a scale degeneracy: (a W1, W2 / a) reconstructs
the same and makes the sparsity term as small as one likes. Normalising in the forward pass, and
differentiating through it, holds the scale whatever updates arrive in whatever order; a projection
after each update would not survive sums that arrive at a server (notes/decisions.md).

With w one filter, n = ||w||, s = gain / n, v = s w, and g the gradient with respect to v
(notes/equations.md)::

    dw = s g - w (v, g) / n^2

(v, g) is a sum over images of z dz, which the backward sweep has at hand, so no pass over the
weights is needed for it.
"""
from dataclasses import dataclass

import numpy as np

from hpclcae.model.workspace import Workspace


@dataclass(frozen=True)
class Filters:
    """Weights of one local filter and, if they are normalised, what normalises them.

    weights : (tile row, tile col, input, unit)
    squared_norms, scale : (tile row, tile col, unit) or None
        ||w||^2 and gain / ||w||; None: the filters are the weights.
    """
    weights: np.ndarray
    squared_norms: np.ndarray | None = None
    scale: np.ndarray | None = None

    def scaled(self, code: np.ndarray, j: int, factor: float = 1.0) -> None:
        """Multiply the code of tile row j by factor and the filters' scale, in place.

        The code is (tile col, image, unit).
        """
        if self.scale is not None:
            code *= (self.scale[j] * code.dtype.type(factor))[:, None, :]
        elif factor != 1.0:
            code *= code.dtype.type(factor)

    def add_norm_gradient(self, d_weights: np.ndarray, inner: np.ndarray, j: int,
                          work: Workspace) -> None:
        """Complete s g, given as `d_weights` (tile col, input, unit), to dw.

        Inner = (v, g), (tile col, unit).
        """
        if self.squared_norms is not None:
            along = work.array("along filter", d_weights.shape, d_weights.dtype)
            np.multiply(self.weights[j], (inner / self.squared_norms[j])[:, None, :], out=along)
            d_weights -= along


def filters(weights: np.ndarray, norm: str, gain: float) -> Filters:
    """The filters that `weights` stand for; `norm` is "free" or "unit" (then of norm `gain`)."""
    if norm == "free":
        return Filters(weights)
    norms = np.einsum("yxiu,yxiu->yxu", weights, weights)
    norms[norms == 0] = 1  # padding positions of edge tiles have no filter
    return Filters(weights, norms, norms.dtype.type(gain) / np.sqrt(norms))
