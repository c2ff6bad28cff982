"""Sums over sliding windows of rows and columns, and their transposes.

Arrays are (row, col, ...). A weighted sum with taps w is ``out[y] = sum_i w[i] a[y + i]`` along
rows and then along columns (VALID). Its transpose scatters: ``a[y + i] += w[i] out[y]``.
"""
import numpy as np

from hpclcae.model.workspace import Workspace


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


def box_cols(a: np.ndarray, size: int, out: np.ndarray, work: Workspace) -> None:
    """Sums of `size` neighbouring columns of one row, a (col, ...) into out (col - size + 1, ...).

    By doubling: sums of 1, 2, 4, ... columns are combined by size's binary digits, which takes
    about 2 log2(size) additions whatever the size.
    """
    cols = len(out)
    doubled, width, done = a, 1, 0
    while True:
        if size & width:
            if done:
                out += doubled[done:done + cols]
            else:
                out[...] = doubled[:cols]
            done += width
        if done == size:
            return
        following = work.array(f"box doubled {width.bit_length() % 2}",
                               (len(doubled) - width, *a.shape[1:]), a.dtype)
        np.add(doubled[:-width], doubled[width:], out=following)
        doubled, width = following, 2 * width


def window_scatter(out: np.ndarray, taps: np.ndarray, a: np.ndarray, work: Workspace) -> np.ndarray:
    """The transpose of `window_sum`: overwrites a (row, col, ...) with out's scattered sum."""
    n = len(taps)
    rows, cols = out.shape[:2]
    padded = work.array("window padded", (rows + 2 * (n - 1), cols + 2 * (n - 1), *out.shape[2:]),
                        out.dtype)
    padded[...] = 0
    padded[n - 1:n - 1 + rows, n - 1:n - 1 + cols] = out
    return window_sum(padded, taps[::-1], a, work)


def _accumulate(terms: list[np.ndarray], taps: np.ndarray, out: np.ndarray,
                scratch: np.ndarray) -> None:
    weights = taps.astype(out.dtype)
    np.multiply(terms[0], weights[0], out=out)
    for term, weight in zip(terms[1:], weights[1:]):
        np.multiply(term, weight, out=scratch)
        out += scratch
