"""Two checks that every hand-written gradient has to pass, in float64.

* Along one direction, the gradient's projection equals a numerical derivative.
* A linear operation and its transpose agree: <A x, y> = <x, A' y>.
"""
import numpy as np


def directional_error(value, at, gradient, live=None, seed=0, step=1e-4):
    """Relative difference of a gradient's projection and a central difference of fourth order.

    The direction is random and leans towards the signs of the gradient. Its projection is then
    about the sum of the gradient's magnitudes, never by chance a small difference of large numbers,
    so that a tolerance relative to it means something; and no entry that the gradient wrongly
    leaves at zero is left out.

    Parameters
    ----------
    value : callable
        Takes nothing, returns the objective as a float; reads `at`.
    at : ndarray of float64
        Where the derivative is taken; moved in place and put back.
    gradient : ndarray
        Of at's shape.
    live : ndarray of bool, optional
        Entries that exist; the others are not moved (padding of a layout).
    step : float
        Length of the step, relative to the norm of `at`.
    """
    assert at.dtype == gradient.dtype == np.float64 and at.shape == gradient.shape
    assert np.any(gradient), "a gradient of zeros proves nothing"
    start, gradient = at.copy(), gradient.copy()
    direction = np.random.default_rng(seed).standard_normal(at.shape) + np.sign(gradient)
    if live is not None:
        direction *= live
    direction *= np.linalg.norm(start) / np.linalg.norm(direction)
    projection = np.vdot(gradient, direction)

    def along(distance):
        at[...] = start + distance * direction
        return value()
    numeric = 8 * (along(step) - along(-step)) - (along(2 * step) - along(-2 * step))
    numeric = numeric / (12 * step)
    at[...] = start
    return abs(numeric - projection) / abs(projection)


def adjoint_gap(forward, transpose, x, y):
    """|<A x, y> - <x, A' y>| relative to ||x|| ||A' y||."""
    back = transpose(y)
    scale = np.linalg.norm(x) * np.linalg.norm(back)
    return abs(np.vdot(forward(x), y) - np.vdot(x, back)) / scale
