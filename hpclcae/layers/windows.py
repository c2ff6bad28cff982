"""Sums over sliding windows of rows and columns, and their transposes.

Arrays are (row, col, ...). A weighted sum with taps w is ``out[y] = sum_i w[i] a[y + i]`` along rows and then
along columns (VALID). Its transpose scatters: ``a[y + i] += w[i] out[y]``.
"""
import numpy as np

from hpclcae.workspace import Workspace


def gaussian(size: int, sigma: float) -> np.ndarray:
    """Taps of a Gaussian of standard deviation `sigma` over `size` positions; they sum to one."""
    x = np.arange(size) - (size - 1) / 2
    taps = np.exp(-x * x / (2 * sigma * sigma))
    return taps / taps.sum()


def window_sum(a: np.ndarray, taps: np.ndarray, out: np.ndarray, work: Workspace) -> np.ndarray:
    """VALID weighted window sum of a (row, col, ...) into out (row - n + 1, col - n + 1, ...)."""
    rows = out.shape[0]
    part = work.array("window part", (rows, *a.shape[1:]), a.dtype)
    term = work.array("window term", part.shape, a.dtype)
    _accumulate([a[i:i + rows] for i in range(len(taps))], taps, part, term)
    cols = out.shape[1]
    _accumulate([part[:, i:i + cols] for i in range(len(taps))], taps, out, term[:, :cols])
    return out


def box_sum(a: np.ndarray, size: int, out: np.ndarray, work: Workspace) -> np.ndarray:
    """The same with all taps one, by doubling: about 2 log2(size) additions instead of 2 size."""
    rows, cols = out.shape[:2]
    part = work.array("window part", (rows, *a.shape[1:]), a.dtype)
    _box(a, size, part, 0, work)
    _box(part, size, out, 1, work)
    return out


def window_scatter(out: np.ndarray, taps: np.ndarray, a: np.ndarray, work: Workspace) -> np.ndarray:
    """The transpose of `window_sum`: overwrites a (row, col, ...) with out's scattered sum."""
    n = len(taps)
    rows, cols = out.shape[:2]
    padded = work.array("window padded", (rows + 2 * (n - 1), cols + 2 * (n - 1), *out.shape[2:]), out.dtype)
    padded[...] = 0
    padded[n - 1:n - 1 + rows, n - 1:n - 1 + cols] = out
    return window_sum(padded, taps[::-1], a, work)


def box_scatter(out: np.ndarray, size: int, a: np.ndarray, work: Workspace) -> np.ndarray:
    """The transpose of `box_sum`."""
    n = size
    rows, cols = out.shape[:2]
    padded = work.array("window padded", (rows + 2 * (n - 1), cols + 2 * (n - 1), *out.shape[2:]), out.dtype)
    padded[...] = 0
    padded[n - 1:n - 1 + rows, n - 1:n - 1 + cols] = out
    return box_sum(padded, size, a, work)


def _accumulate(terms: list[np.ndarray], taps: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    weights = taps.astype(out.dtype)
    np.multiply(terms[0], weights[0], out=out)
    for term, weight in zip(terms[1:], weights[1:]):
        np.multiply(term, weight, out=scratch)
        out += scratch


def _box(a: np.ndarray, size: int, out: np.ndarray, axis: int, work: Workspace) -> None:
    """Sums of `size` neighbours along an axis: sums of 1, 2, 4, ... are combined by size's binary digits."""
    def cut(array: np.ndarray, start: int, length: int) -> np.ndarray:
        return array[start:start + length] if axis == 0 else array[:, start:start + length]

    length = out.shape[axis]
    doubled, width, done = a, 1, 0
    while True:
        if size & width:
            if done:
                out += cut(doubled, done, length)
            else:
                out[...] = cut(doubled, 0, length)
            done += width
        if done == size:
            return
        shorter = doubled.shape[axis] - width
        shape = list(doubled.shape)
        shape[axis] = shorter
        following = work.array(f"window doubled {width.bit_length() % 2}", tuple(shape), a.dtype)
        np.add(cut(doubled, 0, shorter), cut(doubled, width, shorter), out=following)
        doubled, width = following, 2 * width
