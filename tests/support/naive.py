"""The paper's formulas as plain loops: the oracle that the fast kernels are compared with.

Nothing here is shared with the package: filters are indexed by position, (row, col, krow, kcol, map
in, map), every window is cut out with its own slice, and all arithmetic is float64. Arrays are
(row, col, map, image). Only the images of a minibatch are handled together.
"""
from math import exp, sqrt

import numpy as np


def positions(size, window, stride=1):
    """First rows (or columns) of the whole windows in `size` positions."""
    return range(0, size - window + 1, stride)


# ---- sublayers -----------------------------------------------------------------------------------


def unit(filters, norm=1.0):
    """Every filter scaled to `norm`."""
    out = np.empty_like(filters)
    for row, col in np.ndindex(filters.shape[:2]):
        for m in range(filters.shape[-1]):
            w = filters[row, col, ..., m]
            out[row, col, ..., m] = norm * w / sqrt((w * w).sum())
    return out


def encode(filters, x, stride=1):
    """z[row, col, m]: sum over k, l, c of filters[row, col, k, l, c, m] x[row s + k, col s + l, c].
    """
    rows, cols, field, _, _, maps = filters.shape
    z = np.zeros((rows, cols, maps, x.shape[-1]))
    for row, col in np.ndindex(rows, cols):
        window = x[row * stride:row * stride + field, col * stride:col * stride + field]
        for m in range(maps):
            z[row, col, m] = (filters[row, col, ..., m][..., None] * window).sum(axis=(0, 1, 2))
    return z


def decode(filters, z, shape, stride=1):
    """Every response times its filter, added into its window of images of `shape` (row, col, map).
    """
    rows, cols, field, _, _, maps = filters.shape
    xhat = np.zeros((*shape, z.shape[-1]))
    for row, col in np.ndindex(rows, cols):
        window = xhat[row * stride:row * stride + field, col * stride:col * stride + field]
        for m in range(maps):
            window += filters[row, col, ..., m][..., None] * z[row, col, m]
    return xhat


def l2_pooling(z, size, stride=1, epsilon=0.01):
    """h = sqrt(epsilon + sum of z^2 over a window of one map)."""
    return np.array([[np.sqrt(epsilon + (z[row:row + size, col:col + size] ** 2).sum(axis=(0, 1)))
                      for col in positions(z.shape[1], size, stride)]
                     for row in positions(z.shape[0], size, stride)])


def gaussian(size, sigma, maps):
    """Weights (row, col) of one map; over the window and all maps they sum to one."""
    middle = (size - 1) / 2
    weights = np.array([[exp(-((u - middle) ** 2 + (v - middle) ** 2) / (2 * sigma ** 2))
                         for v in range(size)] for u in range(size)])
    return weights / (maps * weights.sum())


def around(a, weights, half):
    """The weighted mean of a, (row, col, ...), over that part of the window which exists."""
    out = np.empty_like(a)
    for row, col in np.ndindex(a.shape[:2]):
        rows = range(max(0, row - half), min(len(a), row + half + 1))
        cols = range(max(0, col - half), min(a.shape[1], col + half + 1))
        part = weights[rows[0] - row + half:rows[-1] - row + half + 1,
                       cols[0] - col + half:cols[-1] - col + half + 1]
        out[row, col] = ((part * a[rows[0]:rows[-1] + 1, cols[0]:cols[-1] + 1]).sum(axis=(0, 1))
                         / part.sum())
    return out


def contrast_norm(h, size, sigma, floor=0.01, border="clip"):
    """g = h - sum G h, then y = g / max(floor, sqrt(sum G g^2)); three rules for g's border.

    A fourth, "same": both sums go over the part of the window that exists, so that nothing is lost.
    """
    rows, cols, maps, images = h.shape
    weights = gaussian(size, sigma, maps)[:, :, None, None]
    half = size // 2
    if border == "same":
        mean = around(h.sum(axis=2, keepdims=True), maps * weights, half) / maps
        power = around(((h - mean) ** 2).sum(axis=2, keepdims=True), maps * weights, half) / maps
        return (h - mean) / np.maximum(floor, np.sqrt(power))
    g_rows, g_cols = rows - size + 1, cols - size + 1
    mean, spread = np.empty((2, g_rows, g_cols, images))
    for row, col in np.ndindex(g_rows, g_cols):
        window = h[row:row + size, col:col + size]
        mean[row, col] = (weights * window).sum(axis=(0, 1, 2))
        spread[row, col] = (weights * (window - mean[row, col]) ** 2).sum(axis=(0, 1, 2))
    g = h[half:half + g_rows, half:half + g_cols] - mean[:, :, None]

    if border == "centre":  # the window's own variance, around the mean of its centre
        return g / np.maximum(floor, np.sqrt(spread))[:, :, None]
    y = np.empty_like(g)
    for row, col in np.ndindex(g_rows, g_cols):
        total, variance = 0.0, np.zeros(images)
        for u in range(size):
            for v in range(size):
                r, c = row + u - half, col + v - half
                if 0 <= r < g_rows and 0 <= c < g_cols:
                    total += maps * weights[u, v, 0, 0]
                    variance += weights[u, v, 0, 0] * (g[r, c] ** 2).sum(axis=0)
        y[row, col] = g[row, col] / np.maximum(floor, np.sqrt(variance / total))
    if border == "valid":  # only whole windows: the middle
        return y[half:g_rows - half, half:g_cols - half]
    return y


# ---- the objective -------------------------------------------------------------------------------


def stage(config, encoder, decoder, x):
    """One stage on x.

    Parameters
    ----------
    config : StageConfig
    encoder, decoder : (row, col, krow, kcol, map in, map)
        Raw weights; decoder None for tied weights.
    x : (row, col, map, image)

    Returns
    -------
    y : (row, col, map, image)
        The stage's output.
    reconstruction, sparsity : float
        Its two terms, averaged over the images.
    """
    rows, cols, *_, maps = encoder.shape
    norm = sqrt(min(1, np.prod(x.shape[:3]) / (rows * cols * maps)))
    kinds = [config.encoder_norm, config.encoder_norm if decoder is None else config.decoder_norm]
    v, d = [unit(w, norm) if kind == "unit" else w
            for w, kind in zip([encoder, encoder if decoder is None else decoder], kinds)]
    z = encode(v, x, config.stride)
    h = l2_pooling(z, config.pooling, config.pooling_stride, config.epsilon)
    error = decode(d, z, x.shape[:3], config.stride) - x
    y = contrast_norm(h, config.lcn, config.lcn_sigma, config.lcn_floor,
                      config.lcn_border) if config.lcn else h
    images = x.shape[-1]
    return y, (error ** 2).sum() / images, config.sparsity * h.sum() / images


def network(configs, weights, x):
    """The objective of all stages together, each fed with the output of the one below; outputs.

    Parameters
    ----------
    configs : sequence of StageConfig
    weights : sequence of (encoder, decoder)
        As for `stage`.
    """
    objective, outputs = 0.0, []
    for config, (encoder, decoder) in zip(configs, weights):
        x, reconstruction, sparsity = stage(config, encoder, decoder, x)
        objective += config.weight * (reconstruction + sparsity)
        outputs.append(x)
    return objective, outputs
