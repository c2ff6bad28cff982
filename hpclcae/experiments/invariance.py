"""How a neuron's response stands shift, scale, rotation and covering of what it responds to.

Paper: the mean response of the best neuron to 10 faces that are shifted, scaled (by cubic
interpolation) and turned out of the plane. Here images with the concept are looked at through
windows: beside the middle, of another size, rotated in the plane, or with a grey patch. Where the
window reaches beyond the image, this is continued by reflection; frames larger than the network's
input have their own surroundings. Heads that turn are rendered (turning_heads.py).

All is in units of what the neuron makes of the unchanged concept: 0 is its mean response to images
without it, 1 that to unchanged ones with it. So its threshold is a level in the same units, and
where a curve falls below it the neuron stops to mean the concept.

Images are read, looked at and forgotten batch by batch, for any number of neurons at once: a number
for each neuron, image and view is kept.
"""
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.data.dataset import Dataset
from hpclcae.experiments.labelled_images import LabelledImages, group_weights, interval
from hpclcae.experiments.ranks import Ranks, cut
from hpclcae.experiments.scan import Asked
from hpclcae.experiments.training_images import read
from hpclcae.utils.errors import InputError, require

FACES = 10  # as in the paper
SCALES = (0.5, 0.6, 0.67, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2)
ROTATIONS = tuple(range(-90, 91, 15))  # degrees
SHIFTS = 8        # to each side, by default
PATCH = 20 / 64   # side of the patch over that of the window
PATCH_PLACES = 5  # along each side of the window; odd, so that one is the middle

#: frames uint8 (image, row, col, channel) -> windows uint8 (image, row, col, channel)
View = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sweep:
    """Views that differ in one thing."""
    name: str         # "shift x", "shift y", "scale", "rotation" or "patch"; of heads "turn", "nod"
    at: np.ndarray    # float64 (view,): pixels, ratio, degrees; of patches (view, 2): top, left
    views: tuple[View, ...] = ()
    centre: float | None = 0.0  # where the concept is as it was; None: nowhere


@dataclass(frozen=True)
class Shown:
    """What some neurons answer to the views of a sweep."""
    sweep: Sweep
    response: np.ndarray  # float64 (neuron, view, image)
    key: np.ndarray       # uint64 (image,): hash of the person, seed of its bootstrap weights


@dataclass(frozen=True)
class Measured:
    """What a sweep's views do to one neuron; arrays are float64 (view, 1 + replicate).

    Column 0 is of the images as they are, the others are bootstrap replicates.
    """
    sweep: Sweep
    response: np.ndarray  # mean, in units of that to the unchanged concept
    share: np.ndarray     # of responses above the threshold; NaN where there is none
    auc: np.ndarray       # against the images without the concept
    level: np.ndarray     # (1 + replicate,): the threshold in the same units; NaN: none is known

    def limits(self, at_threshold: bool) -> np.ndarray:
        """From where to where the response stays above the threshold, or above half.

        float64 (side, 1 + replicate); infinite where it does not fall so far, NaN where it is below
        everywhere.
        """
        assert self.sweep.centre is not None
        levels = self.level if at_threshold else np.full(self.level.shape, 0.5)
        return np.array([crossing(self.sweep.at, column, self.sweep.centre, level)
                         for column, level in zip(self.response.T, levels)]).T


# ---- views ---------------------------------------------------------------------------------------


def surrounded(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames continued by reflection to at least `side` pixels, their middle in the middle."""
    lacking = max(0, side - frames.shape[1])
    around = (lacking // 2, lacking - lacking // 2)
    return np.pad(frames, ((0, 0), around, around, (0, 0)), mode="reflect") if lacking else frames


def window(frames: np.ndarray, size: int, down: int = 0, right: int = 0) -> np.ndarray:
    """The middle of frames, of which the content is shifted by so many pixels."""
    top, left = ((length - size) // 2 - shift
                 for length, shift in zip(frames.shape[1:3], (down, right)))
    return frames[:, top:top + size, left:left + size]


def zoomed(frames: np.ndarray, size: int, scale: float) -> np.ndarray:
    """The middle of frames, of which the content is `scale` times as large (Pillow, bicubic)."""
    half, middle = size / scale / 2, (frames.shape[1] - size) // 2 + size / 2
    box = (middle - half, middle - half, middle + half, middle + half)
    bicubic = require("PIL.Image", "images", "scaling frames").Resampling.BICUBIC
    return _with_pillow(frames, lambda image: image.resize((size, size), bicubic, box=box))


def rotated(frames: np.ndarray, size: int, degrees: float) -> np.ndarray:
    """The middle of frames, of which the content is turned to the left (Pillow, bicubic)."""
    middle = (frames.shape[1] - size) // 2 + size / 2
    bicubic = require("PIL.Image", "images", "rotating frames").Resampling.BICUBIC
    return window(_with_pillow(frames, lambda image: image.rotate(
        degrees, bicubic, center=(middle, middle))), size)


def covered(frames: np.ndarray, size: int, patch: int, top: int, left: int) -> np.ndarray:
    """The middle of frames with a square patch, each in the mean grey of its window."""
    windows = window(frames, size).copy()
    grey = np.rint(windows.mean(axis=(1, 2, 3), keepdims=True)).astype(np.uint8)
    windows[:, top:top + patch, left:left + patch] = grey
    return windows


def _with_pillow(frames: np.ndarray, change: Callable) -> np.ndarray:
    """Change each of some frames as a picture of Pillow."""
    images = require("PIL.Image", "images", "changing frames")
    grey = frames.shape[-1] == 1
    out = [np.asarray(change(images.fromarray(frame[..., 0] if grey else frame)))
           for frame in frames]
    return np.stack(out).reshape(len(frames), *out[0].shape[:2], -1)


def fits(scale: float, size: int, frame: int) -> bool:
    """Whether the part that is scaled to a window lies inside a frame of side `frame`."""
    return size / scale / 2 <= (frame - size) // 2 + size / 2


def room(size: int, scales: Sequence[float]) -> int:
    """Side of frames in which all views of `sweeps` have room, pixels."""
    return int(np.ceil(size * max(2.0, 1 / min(scales)))) + 2


def sweeps(size: int, step: int, scales: Sequence[float] = SCALES,
           rotations: Sequence[float] = ROTATIONS, patch: int | None = None) -> list[Sweep]:
    """All views of frames through windows of side `size`, pixels; the frames have `room`.

    Parameters
    ----------
    step : int
        Pixels from shift to shift, up to half of the window.
    scales, rotations : sequence of float
        1 and 0 are always among them.
    patch : int, optional
        Side of the patch, pixels; without it PATCH of the window.
    """
    reach = size // 2 // step * step
    shifts = np.arange(-reach, reach + 1, step)
    ratios, angles = np.unique([*scales, 1.0]), np.unique([*rotations, 0.0])
    patch = max(1, round(PATCH * size)) if patch is None else patch
    edges = np.rint(np.linspace(0, size - patch, PATCH_PLACES)).astype(int)
    corners = [(int(top), int(left)) for top in edges for left in edges]

    def right(by: int) -> View:
        return lambda frames: window(frames, size, right=by)

    def down(by: int) -> View:
        return lambda frames: window(frames, size, down=by)

    def scaled(by: float) -> View:
        return lambda frames: zoomed(frames, size, by)

    def turned(by: float) -> View:
        return lambda frames: rotated(frames, size, by)

    def patched(top: int, left: int) -> View:
        return lambda frames: covered(frames, size, patch, top, left)

    return [Sweep("shift x", shifts.astype(float), tuple(right(int(by)) for by in shifts)),
            Sweep("shift y", shifts.astype(float), tuple(down(int(by)) for by in shifts)),
            Sweep("scale", ratios, tuple(scaled(float(by)) for by in ratios), 1.0),
            Sweep("rotation", angles, tuple(turned(float(by)) for by in angles)),
            Sweep("patch", np.array(corners, float), tuple(patched(*at) for at in corners), None)]


# ---- responses -----------------------------------------------------------------------------------


def choose_faces(images: LabelledImages, among: np.ndarray, count: int, seed: int) -> np.ndarray:
    """One image with the concept of each of some persons, drawn by the seed.

    Parameters
    ----------
    among : bool array (image,)
        Those that may be chosen.
    count : int
        Persons, at most; 0: all images of all of them.

    Returns
    -------
    int64 array: positions in `images`, sorted.
    """
    shows = np.flatnonzero(images.concept & among)
    if not count:
        return shows
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(shows)
    _, first = np.unique(images.key[drawn], return_index=True)  # a random image of each person
    return np.sort(drawn[rng.permutation(first)[:count]])


def respond(ask: Asked, dataset: Dataset, index: np.ndarray, views: Sequence[View], side: int,
            batch: int, ranks: Ranks = Ranks(), label: str = "invariance") -> np.ndarray:
    """Ask neurons about views of images, float64 (neuron, view, image).

    Processes share the views of each batch.

    Parameters
    ----------
    index : int array (image,)
        Positions in the dataset, sorted.
    side : int
        Frames are continued to so many pixels.
    label : str
        Of the progress.

    Raises
    ------
    InputError
        A response is not finite.
    """
    parts = cut(index.size, batch, 1)
    pieces = list(ranks.mine((part, view) for part in parts for view in views))
    ticks, found = ranks.progress(pieces, label, "views"), []
    for part, some in itertools.groupby(ticks, lambda piece: piece[0]):
        frames = surrounded(read(dataset, index[part]), side)
        found += [ask(view(frames)) for _, view in some]
    answers = iter(ranks.everyones(found))
    return require_finite(np.concatenate(
        [np.stack([next(answers) for _ in views], axis=1) for _ in parts], axis=2
    ).astype(np.float64))


def require_finite(response: np.ndarray) -> np.ndarray:
    """Refuse responses that are not finite, else return them."""
    if not np.isfinite(response).all():
        raise InputError("a response of the network is not finite: training diverged, take an "
                         "earlier checkpoint")
    return response


def ask_about(ask: Asked, dataset: Dataset, images: LabelledImages, faces: np.ndarray,
              others: np.ndarray, swept: Sequence[Sweep], size: int, batch: int,
              ranks: Ranks = Ranks()) -> tuple[np.ndarray, list[Shown]]:
    """Ask neurons about all views of some images with the concept, and about images without it.

    Parameters
    ----------
    faces, others : int arrays
        Positions in `images`.
    swept : sequence of Sweep
        Their views want no more than `room`.

    Returns
    -------
    rest : float64 (neuron, image)
        Responses to the middle of the images without the concept.
    shown : list of Shown
    """
    views = [view for sweep in swept for view in sweep.views]
    rest = respond(ask, dataset, images.index[others], [lambda frames: window(frames, size)], size,
                   batch, ranks, "invariance, without the concept")[:, 0]
    scales = [scale for sweep in swept if sweep.name == "scale" for scale in sweep.at]
    answers = respond(ask, dataset, images.index[faces], views, room(size, scales or [1.0]), batch,
                      ranks)
    ends = np.cumsum([len(sweep.views) for sweep in swept])
    return rest, [Shown(sweep, part, images.key[faces])
                  for sweep, part in zip(swept, np.split(answers, ends[:-1], axis=1))]


def curves(rest: np.ndarray, shown: Sequence[Shown]) -> list[np.ndarray]:
    """Mean responses of every neuron in units, float64 (neuron, view) of each sweep.

    The first sweep has the unchanged concept in it. NaN for neurons that respond no more to it than
    to the rest.
    """
    low = rest.mean(axis=1)[:, None]
    unit = unchanged(shown[0]).mean(axis=-1)[:, None] - low
    unit[unit <= 0] = np.nan
    return [(each.response.mean(axis=2) - low) / unit for each in shown]


def unchanged(shown: Shown) -> np.ndarray:
    """Responses (neuron, image) to the view that changes nothing."""
    return shown.response[:, list(shown.sweep.at).index(shown.sweep.centre)]


# ---- one neuron ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """What one neuron makes of images without the concept and of the unchanged concept.

    Columns are as in `Measured`.
    """
    rest: np.ndarray     # float64 (image,): responses to images without the concept
    lacking: np.ndarray  # float64 (image, 1 + replicate): their weights, each column of sum 1
    low: np.ndarray      # float64 (1 + replicate,): their mean
    unit: np.ndarray     # float64 (1 + replicate,): mean of the unchanged concept above that

    @classmethod
    def of(cls, rest: np.ndarray, rest_key: np.ndarray, faces: np.ndarray, face_key: np.ndarray,
           replicates: int) -> "Unit":
        """From responses (image,) and the persons and photographs that they are of.

        Raises
        ------
        InputError
            The neuron responds no more to the unchanged concept than to the rest.
        """
        lacking = _columns(rest_key, replicates)
        low = rest @ lacking
        unit = faces @ _columns(face_key, replicates) - low
        if not unit[0] > 0:
            raise InputError("the mean response to the unchanged concept is "
                             f"{unit[0] + low[0]:.4g}, that to the rest {low[0]:.4g}, so there is "
                             "no unit: name another --neuron, or --frames with the concept in the "
                             "middle")
        return cls(rest, lacking, low, np.where(unit > 0, unit, np.nan))


def measure(sweep: Sweep, response: np.ndarray, key: np.ndarray, unit: Unit,
            threshold: float | None) -> Measured:
    """Turn responses of one neuron into units, shares and areas, with bootstrap replicates.

    Parameters
    ----------
    response : float array (view, image)
    key : uint64 array (image,)
        Persons.
    unit : Unit
    threshold : float or None
        Above it the neuron means the concept.
    """
    having = _columns(key, unit.low.size - 1)
    above = (np.full((len(response), having.shape[1]), np.nan) if threshold is None
             else (response > threshold) @ having)
    areas = np.stack([area_under_curve(row, unit.rest, having, unit.lacking) for row in response])
    level = np.full(unit.low.shape, np.nan) if threshold is None else threshold - unit.low
    return Measured(sweep, (response @ having - unit.low) / unit.unit, above, areas,
                    level / unit.unit)


def _columns(key: np.ndarray, replicates: int) -> np.ndarray:
    """Weights (image, 1 + replicate) whose columns sum to 1; column 0 weighs all alike.

    NaN in a replicate that draws nobody. One person alone gives no replicates but NaN.
    """
    drawn = group_weights(key, replicates).astype(np.float64)
    if np.unique(key).size == 1:
        drawn[:] = 0
    weights = np.hstack([np.ones((key.size, 1)), drawn])
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


def crossing(at: np.ndarray, response: np.ndarray, centre: float,
             level: float) -> tuple[float, float]:
    """Where a response falls to a level to the left and to the right of `centre`.

    Linear between neighbours, the nearest crossing; infinite where it does not fall so far, NaN
    where it is not above the level at the centre.
    """
    middle = int(np.flatnonzero(at == centre)[0])
    found = []
    for step, beyond in ((-1, -np.inf), (1, np.inf)):
        here = middle
        while 0 <= here < at.size and response[here] > level:
            here += step
        if not 0 <= here < at.size:
            found.append(beyond)
        elif here == middle:
            found.append(np.nan)
        else:
            inside = response[here - step]
            part = (inside - level) / (inside - response[here])
            found.append(float(at[here - step] + part * (at[here] - at[here - step])))
    return found[0], found[1]


def limit_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The same as `interval`, of limits, some of which are infinite."""
    known = replicates[~np.isnan(replicates)]
    if np.isfinite(known).all():
        return interval(known)
    low, high = np.quantile(known, [0.025, 0.975], method="nearest")
    return float(low), float(high)
