"""Which triangle does each pixel see: a z-buffer in NumPy, over all triangles at once."""
from collections.abc import Callable

import numpy as np

SLACK = 1e-4  # rounding must not leave a gap between two triangles with a common edge


def rasterize(points: np.ndarray, triangles: np.ndarray, size: int,
              keep: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the nearest triangle of each pixel, and the place of the pixel in it.

    Every pixel of every triangle's bounding box is a candidate. The candidates inside their
    triangle are written from far to near, so that the nearest is what stays.

    Parameters
    ----------
    points : float array (vertex, 3)
        col and row in pixels (pixel centres at half integers) and height towards the viewer.
    triangles : int array (triangle, 3)
        Vertices, anticlockwise for the viewer; other triangles show their back and are left out.
    size : int
        Rows and cols of the picture, pixels.
    keep : callable, optional
        Called with the triangle (candidate,) and weights (candidate, 3) of every pixel of every
        triangle; where it answers False the triangle is transparent.

    Returns
    -------
    pixels : int array (pixel,)
        ``row * size + col`` of each covered pixel.
    seen : int array (pixel,)
        Index of the triangle seen there.
    weights : float32 array (pixel, 3)
        Barycentric weights of the triangle's vertices, sum 1.
    """
    # (triangle, corner, xyz)
    corners = points[triangles].astype(np.float32)
    first = corners[:, 0]
    to_second, to_third = corners[:, 1] - first, corners[:, 2] - first
    twice_area = to_third[:, 0] * to_second[:, 1] - to_second[:, 0] * to_third[:, 1]
    low = np.clip(np.ceil(corners[:, :, :2].min(1) - 0.5), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners[:, :, :2].max(1) - 0.5) + 1, 0, size).astype(np.int64)
    width, height = np.maximum(high - low, 0).T
    width, height = np.where(twice_area > 1e-9, (width, height), 0)

    count = width * height
    index = np.repeat(np.arange(len(triangles)), count)
    # within the bounding box
    place = np.arange(index.size) - np.repeat(np.cumsum(count) - count, count)
    row, col = np.divmod(place, width[index])
    col, row = col + low[index, 0], row + low[index, 1]

    right, down = col + np.float32(0.5) - first[index, 0], row + np.float32(0.5) - first[index, 1]
    second = (to_third[index, 0] * down - to_third[index, 1] * right) / twice_area[index]
    third = (to_second[index, 1] * right - to_second[index, 0] * down) / twice_area[index]
    inside = np.flatnonzero((second >= -SLACK) & (third >= -SLACK) & (second + third <= 1 + SLACK))
    index, pixel, second, third = index[inside], (row * size
                                                  + col)[inside], second[inside], third[inside]
    weights = np.stack([1 - second - third, second, third], 1)
    if keep is not None:
        opaque = keep(index, weights)
        index, pixel, weights = index[opaque], pixel[opaque], weights[opaque]

    order = np.argsort((corners[index, :, 2] * weights).sum(1))
    nearest = np.full(size * size, -1)
    nearest[pixel[order]] = order  # of several the last, nearest one stays
    pixels = np.flatnonzero(nearest >= 0)
    chosen = nearest[pixels]
    return pixels, index[chosen], weights[chosen]
