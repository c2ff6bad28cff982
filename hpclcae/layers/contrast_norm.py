"""Local contrast normalisation, subtractive and divisive, across all maps (paper, section 3).

With G a Gaussian over an l x l window and all maps, whose weights sum to one::

    g = h - sum G h              (subtract the weighted mean of the neighbourhood)
    y = g / max(c, s),  s^2 = sum G g^2   (divide by its weighted standard deviation)

The second window reads g around each position, where g itself is missing at the rim. The paper does not
say what happens there. `border` chooses:

* ``"clip"``: the window is clipped to where g exists and its weights renormalised; the output loses
  l - 1 rows and columns, which gives the paper's 1.15 billion connections;
* ``"valid"``: only whole windows; the output loses 2 (l - 1);
* ``"centre"``: s^2 = sum G h^2 - (sum G h)^2, the window's own variance around the centre's mean; loses l - 1.
"""
import numpy as np

from hpclcae.layers.windows import gaussian, window_scatter, window_sum
from hpclcae.workspace import Workspace


class ContrastNorm:
    """The plan of one normalisation sublayer; arrays are (row, col, map, image).

    Statistics over all maps are (row, col, image).
    """

    def __init__(self, rows: int, cols: int, maps: int, size: int, sigma: float, floor: float = 0.01,
                 border: str = "clip") -> None:
        lost = (size - 1) * (2 if border == "valid" else 1)
        self.rows, self.cols, self.maps = rows, cols, maps
        self.out_rows, self.out_cols = rows - lost, cols - lost
        assert self.out_rows > 0 and self.out_cols > 0, (rows, cols, size)
        self.floor, self.border = floor, border
        self.taps = gaussian(size, sigma)
        self.half = size // 2
        # Rows and cols of g; "clip" divides each sum by the weight that fell on them.
        self.g_rows, self.g_cols = rows - (size - 1), cols - (size - 1)
        self._inside = (_weight_inside(self.g_rows, self.taps)[:, None]
                        * _weight_inside(self.g_cols, self.taps)[None, :])[..., None]

    def forward(self, h: np.ndarray, y: np.ndarray, keep: Workspace, work: Workspace) -> tuple[np.ndarray, np.ndarray]:
        """Overwrite y (out row, out col, map, image); returns g and the divisor d for `backward`, held by `keep`."""
        field = work.array("lcn field", (self.rows, self.cols, h.shape[-1]), h.dtype)
        mean = work.array("lcn mean", (self.g_rows, self.g_cols, h.shape[-1]), h.dtype)
        window_sum(_mean_over_maps(h, field), self.taps, mean, work)
        g = keep.array("lcn g", (self.g_rows, self.g_cols, *h.shape[2:]), h.dtype)
        np.subtract(self._centre(h, self.g_rows, self.g_cols), mean[:, :, None], out=g)

        s2 = keep.array("lcn d", (self.out_rows, self.out_cols, h.shape[-1]), h.dtype)
        square = work.array("lcn square", h.shape, h.dtype)
        if self.border == "centre":
            np.square(h, out=square)
            window_sum(_mean_over_maps(square, field), self.taps, s2, work)
            s2 -= np.square(mean, out=mean)
        else:
            square = np.square(g, out=square[:self.g_rows, :self.g_cols])
            inner = _mean_over_maps(square, field[:self.g_rows, :self.g_cols])
            if self.border == "valid":
                window_sum(inner, self.taps, s2, work)
            else:
                window_sum(self._padded(inner, work), self.taps, s2, work)
                s2 /= self._inside.astype(h.dtype)
        d = np.sqrt(np.maximum(s2, h.dtype.type(self.floor ** 2), out=s2), out=s2)
        np.divide(self._centre(g, self.out_rows, self.out_cols), d[:, :, None], out=y)
        return g, d

    def backward(self, h: np.ndarray, y: np.ndarray, cache: tuple[np.ndarray, np.ndarray], dy: np.ndarray,
                 dh: np.ndarray, work: Workspace) -> None:
        """Add to dh (row, col, map, image) the gradient through y. dy is not changed."""
        g, d = cache
        images = h.shape[-1]
        # y = g / d; d is shared by all maps and, where s > c, d^2 = s^2 is a window sum over h or g.
        product = work.array("lcn square", y.shape, h.dtype)
        np.multiply(dy, y, out=product)
        dvar = work.array("lcn dvar", d.shape, h.dtype)  # gradient with respect to s^2
        product.sum(axis=2, out=dvar)
        dvar /= d
        dvar *= h.dtype.type(-0.5)
        dvar /= d
        dvar[d <= np.sqrt(h.dtype.type(self.floor ** 2))] = 0  # there the divisor is the constant c

        dg = work.array("lcn dg", g.shape, h.dtype)
        if dg.shape != dy.shape:
            dg[...] = 0
        np.divide(dy, d[:, :, None], out=self._centre(dg, self.out_rows, self.out_cols))
        field = work.array("lcn field", (self.rows, self.cols, images), h.dtype)
        twice = h.dtype.type(2 / self.maps)
        term = work.array("lcn square", h.shape, h.dtype)
        dmean = work.array("lcn mean", (self.g_rows, self.g_cols, images), h.dtype)
        if self.border == "centre":
            window_scatter(dvar, self.taps, field, work)
            field *= twice
            dh += np.multiply(h, field[:, :, None], out=term)
            # g = h - mean, so the mean that s^2 subtracts is h - g at the centre of any map.
            np.subtract(self._centre(h, self.g_rows, self.g_cols)[:, :, 0], g[:, :, 0], out=dmean)
            dmean *= dvar
            dmean *= h.dtype.type(-2)
            dmean -= dg.sum(axis=2)
        else:
            inner = field[:self.g_rows, :self.g_cols]
            if self.border == "valid":
                window_scatter(dvar, self.taps, inner, work)
            else:
                dvar /= self._inside.astype(h.dtype)
                window_sum(self._padded(dvar, work), self.taps[::-1], inner, work)
            inner *= twice
            dg += np.multiply(g, inner[:, :, None], out=term[:self.g_rows, :self.g_cols])
            np.negative(dg.sum(axis=2, out=dmean), out=dmean)
        centre = self._centre(dh, self.g_rows, self.g_cols)
        centre += dg
        window_scatter(dmean, self.taps, field, work)
        field /= h.dtype.type(self.maps)
        dh += field[:, :, None]

    def _centre(self, a: np.ndarray, rows: int, cols: int) -> np.ndarray:
        """The middle `rows` x `cols` of a."""
        top, left = (a.shape[0] - rows) // 2, (a.shape[1] - cols) // 2
        return a[top:top + rows, left:left + cols]

    def _padded(self, a: np.ndarray, work: Workspace) -> np.ndarray:
        """a (row, col, image) with a rim of zeros half a window wide."""
        rows, cols = a.shape[0] + 2 * self.half, a.shape[1] + 2 * self.half
        padded = work.array("lcn padded", (rows, cols, a.shape[-1]), a.dtype)
        padded[...] = 0
        padded[self.half:rows - self.half, self.half:cols - self.half] = a
        return padded


def _mean_over_maps(a: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.mean(a, axis=2, out=out)


def _weight_inside(size: int, taps: np.ndarray) -> np.ndarray:
    """For each of `size` positions, the sum of the taps that fall inside."""
    return np.convolve(np.ones(size), taps, "full")[len(taps) // 2:len(taps) // 2 + size]
