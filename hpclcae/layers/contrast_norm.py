"""Local contrast normalisation, subtractive and divisive, across all maps (paper, section 3).

With G a Gaussian over an l x l window and all maps, whose weights sum to one::

    g = h - sum G h                      subtract the weighted mean of the neighbourhood
    y = g / d,  d = max(c, s),  s^2 = sum G g^2   divide by its weighted standard deviation

The second window reads g around each position, where g itself is missing at the rim. The paper does not
say what happens there. `border` chooses:

* ``"clip"``: the window is clipped to where g exists and its weights renormalised; the output loses
  l - 1 rows and columns, which gives the paper's 1.15 billion connections;
* ``"valid"``: only whole windows; the output loses 2 (l - 1);
* ``"centre"``: s^2 = sum G h^2 - (sum G h)^2, the window's own variance around the centre's mean; loses l - 1.

Mean and divisor are the same for all maps, so the windows run over fields without maps, (row, col, image);
what touches all maps goes row by row, in cache.
"""
import numpy as np

from hpclcae.layers.windows import gaussian, window_scatter, window_sum
from hpclcae.workspace import Workspace


class ContrastNorm:
    """The plan of one normalisation sublayer; arrays are (row, col, map, image)."""

    def __init__(self, rows: int, cols: int, maps: int, size: int, sigma: float, floor: float = 0.01,
                 border: str = "clip") -> None:
        lost = (size - 1) * (2 if border == "valid" else 1)
        self.rows, self.cols, self.maps = rows, cols, maps
        self.out_rows, self.out_cols = rows - lost, cols - lost
        assert self.out_rows > 0 and self.out_cols > 0, (rows, cols, size)
        self.floor, self.border = floor, border
        self.taps = gaussian(size, sigma)
        self.half = size // 2
        self.g_rows, self.g_cols = rows - (size - 1), cols - (size - 1)
        # "clip" divides each sum over g by the weight that fell on existing positions.
        self._inside = (_weight_inside(self.g_rows, self.taps)[:, None]
                        * _weight_inside(self.g_cols, self.taps)[None, :])[..., None]

    def forward(self, h: np.ndarray, y: np.ndarray, keep: Workspace, work: Workspace) -> tuple[np.ndarray, np.ndarray]:
        """Overwrite y (out row, out col, map, image).

        Returns what `backward` needs, held by `keep`: the mean, defined wherever g is, and the divisor d, wherever y
        is; both (row, col, image).
        """
        images = h.shape[-1]
        field = work.array("lcn field", (self.rows, self.cols, images), h.dtype)
        mean = keep.array("lcn mean", (self.g_rows, self.g_cols, images), h.dtype)
        window_sum(np.mean(h, axis=2, out=field), self.taps, mean, work)
        d = keep.array("lcn d", (self.out_rows, self.out_cols, images), h.dtype)
        self._variance(h, mean, d, field, work)
        np.sqrt(np.maximum(d, h.dtype.type(self.floor ** 2), out=d), out=d)
        inset = (self.rows - self.out_rows) // 2
        m = _centre(mean, self.out_rows, self.out_cols)
        for row, out in enumerate(y):
            np.subtract(h[row + inset, inset:inset + self.out_cols], m[row][:, None], out=out)
            out /= d[row][:, None]
        return mean, d

    def _variance(self, h: np.ndarray, mean: np.ndarray, variance: np.ndarray, field: np.ndarray,
                  work: Workspace) -> None:
        """Overwrite `variance` with s^2; `field` is scratch of h's rows and cols."""
        if self.border == "centre":
            np.einsum("yxmi,yxmi->yxi", h, h, out=field)
            field /= h.dtype.type(self.maps)
            window_sum(field, self.taps, variance, work)
            square = np.square(mean, out=work.array("lcn mean square", mean.shape, h.dtype))
            variance -= square
            return
        g = work.array("lcn row", (self.g_cols, *h.shape[2:]), h.dtype)
        power = field[:self.g_rows, :self.g_cols]
        for row, out in enumerate(power):
            np.subtract(h[row + self.half, self.half:self.half + self.g_cols], mean[row][:, None], out=g)
            np.einsum("xmi,xmi->xi", g, g, out=out)
        power /= h.dtype.type(self.maps)
        if self.border == "valid":
            window_sum(power, self.taps, variance, work)
        else:
            window_sum(self._padded(power, work), self.taps, variance, work)
            variance /= self._inside.astype(h.dtype)

    def backward(self, h: np.ndarray, y: np.ndarray, cache: tuple[np.ndarray, np.ndarray], dy: np.ndarray,
                 dh: np.ndarray, work: Workspace) -> None:
        """Add to dh (row, col, map, image) the gradient through y. dy is not changed."""
        mean, d = cache
        images = h.shape[-1]
        # y = g / d, and d^2 = s^2 unless the floor holds: the gradient with respect to s^2.
        dvar = work.array("lcn dvar", d.shape, h.dtype)
        np.einsum("yxmi,yxmi->yxi", dy, y, out=dvar)
        dvar *= h.dtype.type(-0.5)
        dvar /= d
        dvar /= d
        dvar[d <= np.sqrt(h.dtype.type(self.floor ** 2))] = 0

        field = work.array("lcn field", (self.rows, self.cols, images), h.dtype)
        twice = h.dtype.type(2 / self.maps)
        dmean = work.array("lcn dmean", mean.shape, h.dtype)
        if self.border == "centre":  # s^2 = sum G h^2 - mean^2
            window_scatter(dvar, self.taps, field, work)
            field *= twice
            term = work.array("lcn row", h.shape[1:], h.dtype)
            for row, out in enumerate(dh):
                out += np.multiply(h[row], field[row][:, None], out=term)
            np.multiply(mean, dvar, out=dmean)
            dmean *= h.dtype.type(-2)
            power = None
        else:
            power = field[:self.g_rows, :self.g_cols]
            if self.border == "valid":
                window_scatter(dvar, self.taps, power, work)
            else:
                dvar /= self._inside.astype(h.dtype)
                window_sum(self._padded(dvar, work), self.taps[::-1], power, work)
            power *= twice
            dmean[...] = 0
        self._subtract_backward(h, mean, d, dy, power, dmean, dh, work)
        window_scatter(dmean, self.taps, field, work)
        field /= h.dtype.type(self.maps)
        for row, out in enumerate(dh):
            out += field[row][:, None]

    def _subtract_backward(self, h: np.ndarray, mean: np.ndarray, d: np.ndarray, dy: np.ndarray,
                           power: np.ndarray | None, dmean: np.ndarray, dh: np.ndarray, work: Workspace) -> None:
        """With dg = dy / d + g * power, add dg to the centre of dh and take its sum over maps from dmean."""
        dg = work.array("lcn row", (self.g_cols, *h.shape[2:]), h.dtype)
        g = work.array("lcn row 2", dg.shape, h.dtype)
        inset = (self.g_rows - self.out_rows) // 2  # where y lies within g
        for row in range(self.g_rows):
            if 0 <= row - inset < self.out_rows:
                dg[:inset] = 0
                dg[inset + self.out_cols:] = 0
                np.divide(dy[row - inset], d[row - inset][:, None], out=dg[inset:inset + self.out_cols])
            else:
                dg[...] = 0
            centre = np.s_[row + self.half, self.half:self.half + self.g_cols]
            if power is not None:
                np.subtract(h[centre], mean[row][:, None], out=g)
                g *= power[row][:, None]
                dg += g
            dmean[row] -= dg.sum(axis=1)
            dh[centre] += dg

    def _padded(self, a: np.ndarray, work: Workspace) -> np.ndarray:
        """a (row, col, image) with a rim of zeros half a window wide."""
        rows, cols = a.shape[0] + 2 * self.half, a.shape[1] + 2 * self.half
        padded = work.array("lcn padded", (rows, cols, a.shape[-1]), a.dtype)
        padded[...] = 0
        padded[self.half:rows - self.half, self.half:cols - self.half] = a
        return padded


def _centre(a: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """The middle `rows` x `cols` of a."""
    top, left = (a.shape[0] - rows) // 2, (a.shape[1] - cols) // 2
    return a[top:top + rows, left:left + cols]


def _weight_inside(size: int, taps: np.ndarray) -> np.ndarray:
    """For each of `size` positions, the sum of the taps that fall inside."""
    return np.convolve(np.ones(size), taps, "full")[len(taps) // 2:len(taps) // 2 + size]
