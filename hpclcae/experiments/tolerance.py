"""How a neuron's response stands shift, scale and covering of what it responds to.

Paper: the response of the best neuron against translation, scale and rotation. Frames larger than
the network's input, with the concept in their middle, are looked at through windows: beside the
middle (the concept is shifted), of another size (it is scaled, by cubic interpolation), or with a
grey patch. All is in units of what the neuron makes of the concept in the middle: 0 is its mean
response to images without the concept, 1 that to unchanged ones with it.

Frames are read, looked at and forgotten batch by batch: a number for each image and view is kept.
"""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.data.dataset import Dataset
from hpclcae.experiments.labelled_images import LabelledImages, group_weights, interval
from hpclcae.experiments.scan import Detector
from hpclcae.experiments.training_images import read
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.progress import progress

SCALES = (0.5, 0.6, 0.67, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2)
PATCH = 20 / 64   # side of the patch over that of the window
PATCH_PLACES = 5  # along each side of the window; odd, so that one is the middle

#: frames uint8 (image, row, col, channel) -> windows uint8 (image, row, col, channel)
View = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sweep:
    """Views that differ in one thing."""
    name: str         # "shift x", "shift y", "scale" or "patch"
    at: np.ndarray    # float64 (view,): pixels or ratio; of patches (view, 2): top, left
    views: tuple[View, ...]
    centre: float | None = 0.0  # where the concept is as it was; None: nowhere


@dataclass(frozen=True)
class Measured:
    """What a sweep's views do; each array is float64 (view, 1 + replicate).

    Column 0 is of the images as they are, the others are bootstrap replicates.
    """
    sweep: Sweep
    response: np.ndarray  # mean, in units of that to the concept in the middle
    share: np.ndarray     # of responses above the threshold; NaN where there is none
    auc: np.ndarray       # against the images without the concept, unchanged

    def half_widths(self) -> np.ndarray:
        """From where to where the response stays above half; float64 (side, 1 + replicate)."""
        assert self.sweep.centre is not None
        return np.array([half_width(self.sweep.at, column, self.sweep.centre)
                         for column in self.response.T]).T


def window(frames: np.ndarray, size: int, down: int = 0, right: int = 0) -> np.ndarray:
    """The middle of frames, of which the content is shifted by so many pixels."""
    top, left = ((length - size) // 2 - shift
                 for length, shift in zip(frames.shape[1:3], (down, right)))
    return frames[:, top:top + size, left:left + size]


def zoomed(frames: np.ndarray, size: int, scale: float) -> np.ndarray:
    """The middle of frames, of which the content is `scale` times as large (Pillow, bicubic)."""
    images = require("PIL.Image", "images", "scaling frames")
    half, middle = size / scale / 2, (frames.shape[1] - size) // 2 + size / 2
    box = (middle - half, middle - half, middle + half, middle + half)
    grey = frames.shape[-1] == 1
    out = [np.asarray(images.fromarray(frame[..., 0] if grey else frame).resize(
        (size, size), images.Resampling.BICUBIC, box=box)) for frame in frames]
    return np.stack(out).reshape(len(frames), size, size, -1)


def covered(frames: np.ndarray, size: int, patch: int, top: int, left: int) -> np.ndarray:
    """The middle of frames with a square patch, each in the mean grey of its window."""
    windows = window(frames, size).copy()
    grey = np.rint(windows.mean(axis=(1, 2, 3), keepdims=True)).astype(np.uint8)
    windows[:, top:top + patch, left:left + patch] = grey
    return windows


def fits(scale: float, size: int, frame: int) -> bool:
    """Whether the part that is scaled to a window lies inside a frame of side `frame`."""
    return size / scale / 2 <= (frame - size) // 2 + size / 2


def sweeps(size: int, frame: int, step: int, scales: Sequence[float], patch: int) -> list[Sweep]:
    """All views of frames of side `frame` through windows of side `size`, pixels.

    Parameters
    ----------
    step : int
        Pixels from shift to shift, as far as the frame reaches.
    scales : sequence of float
        All must fit; 1 is always among them.
    patch : int
        Side of the patch, pixels.
    """
    reach = (frame - size) // 2 // step * step
    shifts = np.arange(-reach, reach + 1, step)
    ratios = np.unique([*scales, 1.0])
    edges = np.rint(np.linspace(0, size - patch, PATCH_PLACES)).astype(int)
    corners = [(int(top), int(left)) for top in edges for left in edges]

    def right(by: int) -> View:
        return lambda frames: window(frames, size, right=by)

    def down(by: int) -> View:
        return lambda frames: window(frames, size, down=by)

    def scaled(by: float) -> View:
        return lambda frames: zoomed(frames, size, by)

    def patched(top: int, left: int) -> View:
        return lambda frames: covered(frames, size, patch, top, left)

    return [Sweep("shift x", shifts.astype(float), tuple(right(int(by)) for by in shifts)),
            Sweep("shift y", shifts.astype(float), tuple(down(int(by)) for by in shifts)),
            Sweep("scale", ratios, tuple(scaled(float(by)) for by in ratios), 1.0),
            Sweep("patch", np.array(corners, float), tuple(patched(*at) for at in corners), None)]


def respond(dataset: Dataset, images: LabelledImages, swept: Sequence[Sweep], size: int,
            detector: Detector, batch: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Ask the neuron about all views.

    Returns
    -------
    rest : float64 (image,)
        Responses to the middle of the images without the concept.
    shown : list of float64 (view, image)
        Of every sweep, responses to the images with the concept.

    Raises
    ------
    InputError
        A response is not finite.
    """
    shows, others = images.index[images.concept], images.index[~images.concept]
    count = sum(len(sweep.views) for sweep in swept)
    total = -(-others.size // batch) + count * -(-shows.size // batch)
    ticks = iter(progress(range(total), "tolerance", unit="batches"))

    def answers(places: np.ndarray, views: Sequence[View]) -> np.ndarray:
        found = np.empty((len(views), places.size))
        for part in _parts(places.size, batch):
            frames = read(dataset, places[part])
            for row, view in zip(found, views):
                row[part] = detector(view(frames))
                next(ticks, None)
        if not np.isfinite(found).all():
            raise InputError("a response of the neuron is not finite: training diverged, take an "
                             "earlier checkpoint")
        return found

    rest = answers(others, [lambda frames: window(frames, size)])[0]
    shown = answers(shows, [view for sweep in swept for view in sweep.views])
    next(ticks, None)
    ends = np.cumsum([len(sweep.views) for sweep in swept])
    return rest, np.split(shown, ends[:-1])


def _parts(count: int, batch: int) -> Iterator[slice]:
    return (slice(first, min(first + batch, count)) for first in range(0, count, batch))


def measure(swept: Sequence[Sweep], rest: np.ndarray, shown: Sequence[np.ndarray],
            images: LabelledImages, threshold: float | None, replicates: int) -> list[Measured]:
    """Turn responses into units, shares and areas, with bootstrap replicates.

    Parameters
    ----------
    swept, rest, shown
        As in `respond`; the first sweep is a shift.
    threshold : float or None
        Above it the neuron means the concept.
    replicates : int
        None are drawn where images come from too few people.

    Raises
    ------
    InputError
        The neuron responds no more to the concept in the middle than to the rest.
    """
    drawn = group_weights(images.key, 0 if images.why_no_interval else replicates)
    weights = np.hstack([np.ones((drawn.shape[0], 1)), drawn])  # column 0: as they are
    having, lacking = _shares(weights[images.concept]), _shares(weights[~images.concept])
    low = rest @ lacking
    middle = shown[0][list(swept[0].at).index(swept[0].centre)]
    unit = middle @ having - low
    if unit[0] <= 0:
        raise InputError(f"the mean response to the concept in the middle is {unit[0] + low[0]:.4g}"
                         f", that to the rest {low[0]:.4g}, so there is no unit: name another "
                         "--neuron, or frames with the concept in the middle")
    unit[unit <= 0] = np.nan  # of a replicate
    found = []
    for sweep, answers in zip(swept, shown):
        mean = answers @ having
        above = (np.full(mean.shape, np.nan) if threshold is None
                 else (answers > threshold) @ having)
        areas = np.stack([area_under_curve(row, rest, having, lacking) for row in answers])
        found.append(Measured(sweep, (mean - low) / unit, above, areas))
    return found


def _shares(weights: np.ndarray) -> np.ndarray:
    """Weights (image, column) whose columns sum to 1; NaN in a column of nothing but zeros."""
    total = weights.sum(axis=0)
    return weights / np.where(total > 0, total, np.nan)


def area_under_curve(shown: np.ndarray, rest: np.ndarray, having: np.ndarray,
                     lacking: np.ndarray) -> np.ndarray:
    """Exact AUC of responses (image,) against those to the rest, float64 (column,).

    The weights `having` and `lacking` are (image, column), each column of sum 1. A tie counts half.
    """
    order = np.argsort(rest)
    below = np.vstack([np.zeros((1, lacking.shape[1])), lacking[order].cumsum(axis=0)])
    sides = [below[np.searchsorted(rest[order], shown, side)] for side in ("left", "right")]
    return (having * (sides[0] + sides[1])).sum(axis=0) / 2


def half_width(at: np.ndarray, response: np.ndarray, centre: float) -> tuple[float, float]:
    """Where a response falls to one half to the left and to the right of `centre`.

    Linear between neighbours, the nearest crossing; infinite where it does not fall so far.
    """
    middle = int(np.flatnonzero(at == centre)[0])
    found = []
    for step, beyond in ((-1, -np.inf), (1, np.inf)):
        here = middle
        while 0 <= here < at.size and response[here] > 0.5:
            here += step
        if not 0 <= here < at.size:
            found.append(beyond)
        elif here == middle:  # a replicate without a unit
            found.append(np.nan)
        else:
            inside = response[here - step]
            part = (inside - 0.5) / (inside - response[here])
            found.append(float(at[here - step] + part * (at[here] - at[here - step])))
    return found[0], found[1]


def width_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The same as `interval`, of half-widths, some of which are infinite."""
    known = replicates[~np.isnan(replicates)]
    if np.isfinite(known).all():
        return interval(known)
    low, high = np.quantile(known, [0.025, 0.975], method="nearest")
    return float(low), float(high)
