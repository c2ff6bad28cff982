"""Filtering with unshared weights, its decoder, and all their gradients (paper, section 3).

Every output position has filters of its own over an r x r window of all input maps::

    z[y, x, m] = sum_{k, l, c} V[y, x, k, l, c, m] x[y s + k, x s + l, c]            encode
    xhat = sum_{y, x, m} D[y, x, :, :, :, m] z[y, x, m], scattered into its window      decode

How it is made fast, without im2col and without a gather per position (notes/architecture.md):

* Arrays are (row, col, map, image): all images of a minibatch go through one matrix product.
* **Tiles.** The t x t positions of a tile share one window of u = r + (t - 1) s rows and columns.
  Their filters are the columns of one matrix (u u maps_in, t t maps) whose entries outside a
  filter's own window are zero ("dead"), so one product serves the tile.
* **Strip.** The u input rows under a row of tiles lie in a buffer (col, row modulo u, map, image).
  There, every window of the row of tiles is a contiguous matrix (u u maps_in, image). The next row
  of tiles overwrites only the rows that are new, since weights are stored by row *modulo u* as
  well.
* The code of a row of tiles lies as (tile col, image, unit): with the images as rows of the product
  BLAS is 6 % faster than with them as columns (notes/performance.md).
* Scattering (decode, dX) adds inside the matrix product (GEMM with beta = 1) to such a strip.
* **Pieces.** Where BLAS does small products without packing, gradients of weights and scattering
  are cut into such.

A plan has fixed geometry and no memory of a step.
"""
from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.typing import DTypeLike
from scipy.linalg.blas import get_blas_funcs

from hpclcae.geometry import windows
from hpclcae.model.blas import small_product
from hpclcae.model.layers.unit_norm import Filters
from hpclcae.model.workspace import Workspace

#: Receives the finished gradient of one row of tiles: (name, row of tiles, (tile col, input,
#: unit)).
RowSink = Callable[[str, int, np.ndarray], None]
Tiles = tuple[tuple[int, int], tuple[int, int]]  # first and last + 1, of rows and of columns


def choose_tile(field: int, stride: int, maps_in: int, maps: int, rows: int, cols: int,
                images: int = 100) -> int:
    """Side of the tile with the least estimated time for a whole layer.

    The estimate (notes/performance.md): a product of few units runs at N / (N + 2.6) of the full
    rate, each call costs as much as 0.05 MFLOP, and dead entries and padding positions are computed
    too.
    """
    def cost(tile: int) -> float:
        units = tile * tile * maps
        window = field + (tile - 1) * stride
        flop = 2.0 * window * window * maps_in * units * images
        return ceil(rows / tile) * ceil(cols / tile) * (flop * (1 + 2.6 / units) + 5e4)
    return min(range(1, 9), key=cost)


class LocalFilter:
    """The plan of one filtering sublayer.

    Parameters
    ----------
    rows, cols, maps_in : int
        Input positions and maps. In a network of many blocks these are what the block needs; no
        position at all makes a plan that does nothing.
    maps, field, stride : int
        Filters per position, side of their window, distance of neighbouring windows.
    tile : int
        Side of a tile; 0 lets `choose_tile` decide. It changes speed and layout, not values.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    shape : tuple
        Of a weight array: (tile row, tile col, input, unit); input = (col, row modulo u, map in)
        and unit = (row in tile, col in tile, map), each flattened.
    small : int
        Up to so many multiplications make a product that BLAS does without packing
        (blas.small_product).
    """

    def __init__(self, rows: int, cols: int, maps_in: int, maps: int, field: int, stride: int = 1,
                 tile: int = 0, dtype: DTypeLike = np.float32) -> None:
        self.rows, self.cols, self.maps_in = rows, cols, maps_in
        self.maps, self.field, self.stride, self.dtype = maps, field, stride, np.dtype(dtype)
        self.out_rows, self.out_cols = windows(rows, field, stride), windows(cols, field, stride)
        self.tile = tile or choose_tile(field, stride, maps_in, maps, self.out_rows, self.out_cols)
        self.window = field + (self.tile - 1) * stride          # u
        self.step = self.tile * stride                          # input rows between rows of tiles
        self.tile_rows, self.tile_cols = (ceil(self.out_rows / self.tile),
                                          ceil(self.out_cols / self.tile))
        self.strip_cols = max(0, (self.tile_cols - 1) * self.step + self.window)
        self.inputs = self.window ** 2 * maps_in
        self.units = self.tile ** 2 * maps
        self.shape = self.tile_rows, self.tile_cols, self.inputs, self.units
        self.fan_in = field * field * maps_in
        self.small = small_product()
        self._gemm = get_blas_funcs("gemm", dtype=self.dtype)

    # ---- forward ---------------------------------------------------------------------------------

    def encode(self, encoder: Filters, x: np.ndarray, z: np.ndarray, work: Workspace) -> None:
        """z = V' x.

        Parameters
        ----------
        encoder : Filters
        x : (row, col, map in, image)
        z : (out row, out col, map, image)
            Overwritten.
        """
        inputs = _Strip(self, work, "inputs", x.shape[-1])
        for j in range(self.tile_rows):
            inputs.load(x, j)
            self._encode_row(encoder, inputs, z, j, work)

    def encode_decode(self, encoder: Filters, decoder: Filters, x: np.ndarray, z: np.ndarray,
                      residual: np.ndarray, work: Workspace) -> None:
        """z = V' x, and D z is added to `residual`, of x's shape, in one sweep."""
        inputs = _Strip(self, work, "inputs", x.shape[-1])
        sums = _Strip(self, work, "sums", x.shape[-1])
        for j in range(self.tile_rows):
            inputs.load(x, j)
            code = self._encode_row(encoder, inputs, z, j, work)
            decoder.scaled(code, j)
            self._scatter_row(decoder.weights[j], code, sums, j, work)
            sums.retire(residual, j)

    # ---- backward --------------------------------------------------------------------------------

    def backward(self, encoder: Filters, decoder: Filters | None, x: np.ndarray, z: np.ndarray,
                 residual: np.ndarray | None, factor: float, dz: np.ndarray, dx: np.ndarray | None,
                 on_gradient: RowSink | None, work: Workspace) -> None:
        """Gradients of factor/2 ||D z - x||^2 + f(z), given dz = df/dz.

        One sweep over rows of tiles.

        Parameters
        ----------
        encoder, decoder : Filters
            The same object for tied weights; no decoder: f alone.
        x, z, residual : as left by `encode_decode`
        dz : (out row, out col, map, image)
        dx : (row, col, map in, image) or None
            V (dz + factor D' residual) is added to it. The term of the target, -factor residual, is
            not.
        on_gradient : callable or None
            Called as on_gradient(name, row of tiles, gradient (tile col, input, unit)) with name
            "decode" or "encode" as soon as a row's gradient is complete; it may change that row's
            weights, which are not read again. The array is overwritten by the next row. None: no
            weight gradients.
        """
        images = x.shape[-1]
        inputs, residuals, sums = (_Strip(self, work, n, images)
                                   for n in ("inputs", "residuals", "sums"))
        shape = self.tile_cols, images, self.units
        code, dcode, answer = (work.array(n, shape, self.dtype)
                               for n in ("code", "dcode", "answer"))
        d_encoder, d_decoder = (work.array(n, self.shape[1:], self.dtype)
                                for n in ("d encoder", "d decoder"))
        for j in range(self.tile_rows):
            self._to_tiles(dz, j, dcode)
            self._to_tiles(z, j, code)
            if decoder is not None:
                assert residual is not None
                residuals.load(residual, j)
                np.matmul(residuals.windows().transpose(0, 2, 1), decoder.weights[j], out=answer)
                decoder.scaled(answer, j, factor)
                dcode += answer
            if on_gradient is not None:
                inner_encoder = np.einsum("xbu,xbu->xu", dcode, code)
                if decoder is not None:
                    inner_decoder = np.einsum("xbu,xbu->xu", answer, code)
                    decoder.scaled(code, j, factor)
                    self._correlate(residuals, code, d_decoder)
            encoder.scaled(dcode, j)
            if on_gradient is not None:
                inputs.load(x, j)
                self._correlate(inputs, dcode, d_encoder)
            if dx is not None:
                self._scatter_row(encoder.weights[j], dcode, sums, j, work)
                sums.retire(dx, j)
            if on_gradient is None:
                continue
            if decoder is encoder:
                d_encoder += d_decoder
                inner_encoder += inner_decoder
            elif decoder is not None:
                decoder.add_norm_gradient(d_decoder, inner_decoder, j, work)
                self._clear_dead(d_decoder, j)
                on_gradient("decode", j, d_decoder)
            encoder.add_norm_gradient(d_encoder, inner_encoder, j, work)
            self._clear_dead(d_encoder, j)
            on_gradient("encode", j, d_encoder)

    # ---- one row of tiles ------------------------------------------------------------------------

    def _encode_row(self, encoder: Filters, inputs: "_Strip", z: np.ndarray, j: int,
                    work: Workspace) -> np.ndarray:
        """Encode one row of tiles into `z`; returns it as (tile col, image, unit)."""
        code = work.array("code", (self.tile_cols, z.shape[-1], self.units), self.dtype)
        np.matmul(inputs.windows().transpose(0, 2, 1), encoder.weights[j], out=code)
        encoder.scaled(code, j)
        self._to_positions(code, z, j)
        return code

    def _correlate(self, inputs: "_Strip", code: np.ndarray, d_weights: np.ndarray) -> None:
        """The gradient of weights (tile col, input, unit) between a strip and the code.

        The code is (tile col, image, unit).
        """
        for piece in self.pieces(code.shape[1]):
            np.matmul(inputs.windows()[:, piece], code, out=d_weights[:, piece])

    def _scatter_row(self, weights: np.ndarray, code: np.ndarray, sums: "_Strip", j: int,
                     work: Workspace) -> None:
        """Add weights @ code of every tile of row j to its window of `sums`."""
        sums.clear_new_rows(j)
        units_first = work.array("units first", (self.units, code.shape[1]), self.dtype)
        pieces = self.pieces(code.shape[1])
        for i in range(self.tile_cols):
            units_first[...] = code[i].T
            window = sums.window(i)
            for piece in pieces:
                # Row-major (input, image) += (input, unit) (unit, image); BLAS sees its transpose.
                self._gemm(1.0, units_first.T, weights[i, piece].T,
                           1.0, window[piece].T, overwrite_c=1)

    def pieces(self, images: int) -> list[slice]:
        """Cuts of a window's inputs into products that BLAS does without packing.

        One where it always packs.
        """
        most = max(1, self.small // (self.units * images)) if self.small else self.inputs
        each = ceil(self.inputs / ceil(self.inputs / most))
        return [slice(start, start + each) for start in range(0, self.inputs, each)]

    # ---- layout ----------------------------------------------------------------------------------

    def _to_positions(self, code: np.ndarray, z: np.ndarray, j: int) -> None:
        """Copy (tile col, image, unit) of tile row j to its positions of z (row, col, map, image).
        """
        t = self.tile
        tiles = code.reshape(self.tile_cols, -1, t, t, self.maps).transpose(0, 2, 3, 4, 1)
        for a in range(min(t, self.out_rows - j * t)):
            for b in range(t):
                columns = z[j * t + a, b::t]
                columns[...] = tiles[:len(columns), a, b]

    def _to_tiles(self, z: np.ndarray, j: int, code: np.ndarray) -> None:
        """The reverse of `_to_positions`; padding positions become zero."""
        t = self.tile
        tiles = code.reshape(self.tile_cols, -1, t, t, self.maps).transpose(0, 2, 3, 4, 1)
        for a in range(t):
            for b in range(t):
                columns = z[j * t + a, b::t] if j * t + a < self.out_rows else z[:0, 0]
                tiles[:len(columns), a, b] = columns
                tiles[len(columns):, a, b] = 0

    def _clear_dead(self, d_weights: np.ndarray, j: int) -> None:
        """Zero the entries of one row of tiles that lie outside their filter's own window."""
        t, s, r, u = self.tile, self.stride, self.field, self.window
        grid = d_weights.reshape(self.tile_cols, u, u, self.maps_in, t, t, self.maps)
        for a in range(t):
            dead = [k for k in range(u) if not a * s <= k < a * s + r]
            for k in dead:
                grid[:, k, :, :, :, a] = 0                                 # columns
                grid[:, :, (k + j * self.step) % u, :, a] = 0              # rows, stored modulo u

    def positions(self, tiles: Tiles) -> Tiles:
        """The positions of rows tiles[0] and columns tiles[1] of tiles.

        They are ((first, last + 1), (first, last + 1)).
        """
        (top, bottom), (left, right) = tiles
        t = self.tile
        return (top * t, min(bottom * t, self.out_rows)), (left * t, min(right * t, self.out_cols))

    def pack_row(self, filters: np.ndarray, weights: np.ndarray, j: int,
                 tiles: Tiles | None = None) -> None:
        """Write the filters of tile row j's positions into `weights`.

        Parameters
        ----------
        filters : (row, col, krow, kcol, map in, map)
            The rows j t ... of positions (t of them, or what is left).
        weights : (tile row, tile col, input, unit)
            The whole weight array, or `tiles` of it; entries of its row that belong to no filter
            become zero.
        tiles : ((first, last + 1), (first, last + 1)), optional
            Rows and columns of tiles that `weights` holds (a chunk); without it all.
        """
        row = weights[j - tiles[0][0] if tiles else j]
        row[:] = 0
        for filter_view, weight_view, krows in self._correspondence(filters, row, j):
            for k, krow in enumerate(krows):
                weight_view[:, :, krow] = filter_view[:, k]

    def unpack_row(self, weights: np.ndarray, j: int, tiles: Tiles | None = None) -> np.ndarray:
        """The filters (row, col, krow, kcol, map in, map) of tile row j's positions.

        Arguments as in `pack_row`.
        """
        (first, _), cols = tiles or ((0, self.tile_rows), (0, self.tile_cols))
        (top, bottom), (left, right) = self.positions(((j, j + 1), cols))
        filters = np.empty((bottom - top, right - left, self.field, self.field, self.maps_in,
                            self.maps), weights.dtype)
        for filter_view, weight_view, krows in self._correspondence(filters, weights[j - first], j):
            for k, krow in enumerate(krows):
                filter_view[:, k] = weight_view[:, :, krow]
        return filters

    def _correspondence(self, filters: np.ndarray, row: np.ndarray, j: int) \
            -> "list[tuple[np.ndarray, np.ndarray, list[int]]]":
        """Views of the same numbers in filters and in a row of weights.

        Each entry is (col, krow, kcol, map in, map), (col, kcol, row modulo u, ...), rows.
        """
        t, s, r, u = self.tile, self.stride, self.field, self.window
        grid = row.reshape(len(row), u, u, self.maps_in, t, t, self.maps)
        pairs = []
        for a in range(filters.shape[0]):
            krows = [(j * self.step + a * s + k) % u for k in range(r)]
            for b in range(t):
                columns = filters[a, b::t]
                pairs.append((columns, grid[:len(columns), b * s:b * s + r, :, :, a, b], krows))
        return pairs


class _Strip:
    """u rows of an input array in a circular buffer (col, row modulo u, map, image)."""

    def __init__(self, plan: LocalFilter, work: Workspace, name: str, images: int) -> None:
        self.plan = plan
        self.buffer = work.array(f"strip {name}",
                                 (plan.strip_cols, plan.window, plan.maps_in, images), plan.dtype)
        self.buffer[plan.cols:] = 0  # columns beyond the image, read by padding positions only
        self.end = 0                 # rows before this one are loaded, or cleared

    def load(self, x: np.ndarray, j: int) -> None:
        """Bring in the rows of `x` that row of tiles j needs and that are new.

        `x` is (row, col, map, image).
        """
        cols = min(self.plan.cols, self.plan.strip_cols)
        for y in self._new_rows(j):
            if y < self.plan.rows:
                self.buffer[:cols, y % self.plan.window] = x[y, :cols]
            else:
                self.buffer[:cols, y % self.plan.window] = 0

    def clear_new_rows(self, j: int) -> None:
        """Zero the rows that row of tiles j is the first to add to."""
        for y in self._new_rows(j):
            self.buffer[:, y % self.plan.window] = 0

    def retire(self, out: np.ndarray, j: int) -> None:
        """Add to `out` (row, col, map, image) the rows that no later row of tiles adds to."""
        plan = self.plan
        last = j == plan.tile_rows - 1
        end = j * plan.step + (plan.window if last else min(plan.step, plan.window))
        cols = min(plan.cols, plan.strip_cols)
        for y in range(j * plan.step, min(end, plan.rows)):
            out[y, :cols] += self.buffer[:cols, y % plan.window]

    def window(self, i: int) -> np.ndarray:
        """The window of tile column i as a contiguous matrix (input, image)."""
        start = i * self.plan.step
        return self.buffer[start:start + self.plan.window].reshape(self.plan.inputs, -1)

    def windows(self) -> np.ndarray:
        """All windows of the row of tiles as an overlapping view (tile col, input, image)."""
        col, _, _, image = self.buffer.strides
        images = self.buffer.shape[-1]
        return np.lib.stride_tricks.as_strided(
            self.buffer, (self.plan.tile_cols, self.plan.inputs, images),
            (col * self.plan.step, images * image, image), writeable=False)

    def _new_rows(self, j: int) -> range:
        start, end = j * self.plan.step, j * self.plan.step + self.plan.window
        new = range(max(start, self.end), end)
        self.end = end
        return new
