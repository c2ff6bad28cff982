"""Local contrast normalisation, subtractive and divisive, across all maps (paper, section 3).

With G a Gaussian over an l x l window and all maps, whose weights sum to one::

    g = h - sum G h                      subtract the weighted mean of the neighbourhood
    y = g / d,  d = max(c, s),  s^2 = sum G g^2   divide by its weighted standard deviation

The second window reads g around each position, where g itself is missing at the rim. The paper does
not say what happens there. `border` chooses:

* ``"clip"``: the window is clipped to where g exists and its weights renormalised; the output loses
  l - 1 rows and columns, which gives the paper's 1.15 billion connections;
* ``"valid"``: only whole windows; the output loses 2 (l - 1);
* ``"centre"``: s^2 = sum G h^2 - (sum G h)^2, the window's own variance around the centre's mean;
  loses l - 1;
* ``"same"``: both windows are clipped and their weights renormalised; nothing is lost.

Mean and divisor are the same for all maps, so the windows run over fields without maps, (row, col,
image); what touches all maps goes row by row, in cache. In a network of many blocks only the fields
are exchanged.
"""
import numpy as np

from hpclcae.model.layers.windows import gaussian, window_scatter, window_sum
from hpclcae.model.workspace import Workspace
from hpclcae.partition.blocks import ExchangePlan, Rectangle, StagePlan
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.partition.halo import Exchange


class ContrastNorm:
    """The plan of one normalisation sublayer on one block; arrays are (row, col, map, image).

    Parameters
    ----------
    rows, cols, maps, size, sigma, floor, border
        Of the whole h, and see StageConfig.
    plan : StagePlan
        What the block owns and needs of h, g and y.
    communicator : Communicator
        To the other blocks.
    """

    def __init__(self, rows: int, cols: int, maps: int, size: int, sigma: float, floor: float,
                 border: str, plan: StagePlan, communicator: Communicator | None = None) -> None:
        self.maps, self.floor, self.border = maps, floor, border
        self.taps = gaussian(size, sigma)
        self.half = half = size // 2
        self.plan = plan
        self._h, self._g = (Exchange(p, communicator or SerialCommunicator())
                            for p in (plan.h, plan.g))
        # Position p of g is p + inset of h; position p of y is p + shift of g.
        inset, shift = 0 if border == "same" else half, half if border == "valid" else 0
        self._h_at_g = _moved(plan.g.owned, inset).within(plan.h.owned)
        self._h_at_y = _moved(plan.y.owned, inset + shift).within(plan.h.owned)
        self._g_at_y = _moved(plan.y.owned, shift).within(plan.g.owned)
        # Sums over clipped windows are divided by the weight that fell on existing positions; y
        # lies where g lies wherever windows are clipped.
        inside = [_weight_inside(n - 2 * inset, self.taps) for n in (rows, cols)]
        self._inside = np.outer(inside[0][slice(*plan.y.owned.rows)],
                                inside[1][slice(*plan.y.owned.cols)])[..., None]

    def forward(self, h: np.ndarray, y: np.ndarray, keep: Workspace,
                work: Workspace) -> tuple[np.ndarray, np.ndarray]:
        """Overwrite the owned y; h is the owned h.

        Returns what `backward` needs, held by `keep`: the mean, on the owned g, and the divisor d,
        on the owned y; both (row, col, image).
        """
        images, plan = h.shape[-1], self.plan
        field = work.array("lcn field", (*plan.h.held.shape, images), h.dtype)
        mean = keep.array("lcn mean", (*plan.g.owned.shape, images), h.dtype)
        np.mean(h, axis=2, out=field[plan.h.own])
        self._h.fill(field)
        if self.border == "same":
            self._clipped_sum(field, plan.h, mean, work)
        else:
            window_sum(field[plan.h.read], self.taps, mean, work)
        d = keep.array("lcn d", (*plan.y.owned.shape, images), h.dtype)
        self._variance(h, mean, d, field, work)
        np.sqrt(np.maximum(d, h.dtype.type(self.floor ** 2), out=d), out=d)
        centre, m = h[self._h_at_y], mean[self._g_at_y]
        for row, out in enumerate(y):
            np.subtract(centre[row], m[row][:, None], out=out)
            out /= d[row][:, None]
        return mean, d

    def _variance(self, h: np.ndarray, mean: np.ndarray, variance: np.ndarray, field: np.ndarray,
                  work: Workspace) -> None:
        """Overwrite `variance` with s^2; `field`, of the held h, is scratch."""
        plan, maps = self.plan, h.dtype.type(self.maps)
        if self.border == "centre":
            own = field[plan.h.own]
            np.einsum("yxmi,yxmi->yxi", h, h, out=own)
            own /= maps
            self._h.fill(field)
            window_sum(field[plan.h.read], self.taps, variance, work)
            variance -= np.square(mean, out=work.array("lcn mean square", mean.shape, h.dtype))
            return
        power = work.array("lcn power", (*plan.g.held.shape, h.shape[-1]), h.dtype)
        own, centre = power[plan.g.own], h[self._h_at_g]
        g = work.array("lcn row", centre.shape[1:], h.dtype)
        for row, out in enumerate(own):
            np.subtract(centre[row], mean[row][:, None], out=g)
            np.einsum("xmi,xmi->xi", g, g, out=out)
        own /= maps
        self._g.fill(power)
        if self.border == "valid":
            window_sum(power[plan.g.read], self.taps, variance, work)
        else:
            self._clipped_sum(power, plan.g, variance, work)

    def backward(self, h: np.ndarray, y: np.ndarray, cache: tuple[np.ndarray, np.ndarray],
                 dy: np.ndarray, dh: np.ndarray, work: Workspace) -> None:
        """Add to the owned dh (row, col, map, image) the gradient through y.

        Dy, the owned one, is not changed.
        """
        mean, d = cache
        plan, maps = self.plan, h.dtype.type(self.maps)
        # y = g / d, and d^2 = s^2 unless the floor holds: the gradient with respect to s^2.
        dvar = work.array("lcn dvar", d.shape, h.dtype)
        np.einsum("yxmi,yxmi->yxi", dy, y, out=dvar)
        dvar *= h.dtype.type(-0.5)
        dvar /= d
        dvar /= d
        dvar[d <= np.sqrt(h.dtype.type(self.floor ** 2))] = 0

        field = work.array("lcn field", (*plan.h.held.shape, h.shape[-1]), h.dtype)
        dmean = work.array("lcn dmean", mean.shape, h.dtype)
        power = None
        if self.border == "centre":  # s^2 = sum G h^2 - mean^2
            self._to_h(dvar, field, work)
            own = field[plan.h.own]
            own *= 2 / maps
            term = work.array("lcn row", h.shape[1:], h.dtype)
            for row, out in enumerate(dh):
                out += np.multiply(h[row], own[row][:, None], out=term)
            np.multiply(mean, dvar, out=dmean)
            dmean *= h.dtype.type(-2)
        else:
            power = self._to_g(dvar, work)
            power *= 2 / maps
            dmean[...] = 0
        self._subtract_backward(h, mean, d, dy, power, dmean, dh, work)
        self._to_h(dmean, field, work)
        own = field[plan.h.own]
        own /= maps
        for row, out in enumerate(dh):
            out += own[row][:, None]

    def _subtract_backward(self, h: np.ndarray, mean: np.ndarray, d: np.ndarray, dy: np.ndarray,
                           power: np.ndarray | None, dmean: np.ndarray, dh: np.ndarray,
                           work: Workspace) -> None:
        """Add dg = dy / d + g * power to dh, and take its sum over maps from dmean.

        It goes to those positions of dh that the windows of g are centred on.
        """
        centre, dcentre = h[self._h_at_g], dh[self._h_at_g]
        dg = work.array("lcn row", centre.shape[1:], h.dtype)
        g = work.array("lcn row 2", dg.shape, h.dtype)
        rows, cols = self._g_at_y
        for row in range(len(centre)):
            dg[...] = 0
            if rows.start is not None and rows.start <= row < rows.stop:
                np.divide(dy[row - rows.start], d[row - rows.start][:, None], out=dg[cols])
            if power is not None:
                np.subtract(centre[row], mean[row][:, None], out=g)
                g *= power[row][:, None]
                dg += g
            dmean[row] -= dg.sum(axis=1)
            dcentre[row] += dg

    def _to_h(self, scattered: np.ndarray, field: np.ndarray, work: Workspace) -> None:
        """Scatter a field over the owned g into the windows of h, and sum at h's owners.

        The first may be spoilt.
        """
        field[...] = 0
        if scattered.size and self.border == "same":
            self._clipped_scatter(scattered, self.plan.h, field, work)
        elif scattered.size:
            window_scatter(scattered, self.taps, field[self.plan.h.read], work)
        self._h.fold(field)

    def _to_g(self, dvar: np.ndarray, work: Workspace) -> np.ndarray:
        """The gradient with respect to the mean square of g at the owned g; dvar is spoilt."""
        plan = self.plan
        power = work.array("lcn power", (*plan.g.held.shape, dvar.shape[-1]), dvar.dtype)
        power[...] = 0
        if self.border == "valid":
            if dvar.size:
                window_scatter(dvar, self.taps, power[plan.g.read], work)
        elif dvar.size:
            self._clipped_scatter(dvar, plan.g, power, work)
        self._g.fold(power)
        return power[plan.g.own]

    def _clipped_sum(self, held: np.ndarray, plan: ExchangePlan, out: np.ndarray,
                     work: Workspace) -> None:
        """Overwrite `out`, of the owned y, with mean values of the windows around it."""
        padded, existing = self._around_y(held, plan, work)
        padded[...] = 0
        padded[existing] = held[plan.read]
        window_sum(padded, self.taps, out, work)
        out /= self._inside.astype(out.dtype)

    def _clipped_scatter(self, scattered: np.ndarray, plan: ExchangePlan, held: np.ndarray,
                         work: Workspace) -> None:
        """The transpose of `_clipped_sum`, into what is needed; the first argument is spoilt."""
        scattered /= self._inside.astype(scattered.dtype)
        padded, existing = self._around_y(held, plan, work)
        window_scatter(scattered, self.taps, padded, work)
        held[plan.read] = padded[existing]

    def _around_y(self, held: np.ndarray, plan: ExchangePlan,
                  work: Workspace) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Scratch for the windows around the owned y, and where in it there is something.

        The windows reach beyond the border, too, where there is nothing.
        """
        y, needed = self.plan.y.owned, plan.needed
        shape = tuple(n + 2 * self.half if n else 0 for n in y.shape)
        (top, bottom), (left, right) = y.rows, y.cols
        around = Rectangle((top - self.half, bottom + self.half),
                           (left - self.half, right + self.half))
        return (work.array("lcn padded", (*shape, held.shape[-1]), held.dtype),
                needed.within(around))


def _moved(rectangle: Rectangle, by: int) -> Rectangle:
    """The rectangle `by` rows and columns further on."""
    (top, bottom), (left, right) = rectangle.rows, rectangle.cols
    return Rectangle((top + by, bottom + by), (left + by, right + by))


def _weight_inside(size: int, taps: np.ndarray) -> np.ndarray:
    """For each of `size` positions, the sum of the taps that fall inside."""
    return np.convolve(np.ones(size), taps, "full")[len(taps) // 2:len(taps) // 2 + size]
