"""Responses of all neurons of an atlas against shift, scale and rotation of some images.

The views are those of invariance.py, and all neurons are asked about the same images. Out of the
plane turn heads that are rendered, and one that was scanned (turning_heads.py).
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t

from hpclcae.data.dataset import Dataset
from hpclcae.experiments import invariance, turning_heads
from hpclcae.experiments.invariance import Sweep
from hpclcae.experiments.report.atlas import Judged
from hpclcae.experiments.scan import Asked
from hpclcae.experiments.turning_heads import SCANNED, Head

LEVEL = 0.95  # of the intervals
UNITS = {"shift x": ("horizontal shift", "pixels to the right"),
         "shift y": ("vertical shift", "pixels down"),
         "scale": ("scale", "times as large"),
         "rotation": ("rotation in the plane", "degrees, to the left"),
         "turn": ("turn of a head", "degrees, nose to the right"),
         "nod": ("nod of a head", "degrees, nose up"),
         f"{SCANNED}turn": ("turn of a scanned head", "degrees, nose to the right"),
         f"{SCANNED}nod": ("nod of a scanned head", "degrees, nose up")}


@dataclass(frozen=True)
class Curve:
    """Mean responses of all neurons to views that differ in one thing."""
    name: str
    unit: str
    at: np.ndarray        # float64 (view,)
    unchanged: float      # where the images are as they were
    mean: np.ndarray      # float64 (neuron, view)
    deviation: np.ndarray  # half of the interval of the mean, float64 (neuron, view); NaN: unknown
    images: int           # whose mean it is: test images, or heads
    beside: str = ""      # name of the curve that it is drawn with; "": it has a chart of its own


def curves(ask: Asked, test: Dataset, judged: Judged,
           heads: Mapping[str, Sequence[Head]] = {}, seed: int = 0,
           batch: int = 100) -> list[Curve]:
    """Measure all neurons on an image of each of FACES persons (or other groups), or fewer.

    Parameters
    ----------
    heads : mapping of str to sequence of Head
        They turn and nod before images without the concept: rendered ones under "", the scanned one
        under SCANNED, which is drawn with them.
    batch : int
        Pictures of heads at a time.
    """
    images = judged.images
    faces = invariance.choose_faces(images, judged.mine, invariance.FACES, seed)
    step = max(1, test.size // (2 * invariance.SHIFTS))
    swept = [sweep for sweep in invariance.sweeps(test.size, step) if sweep.name in UNITS]
    views = [view for sweep in swept for view in sweep.views]
    answers = invariance.respond(ask, test, images.index[faces], views,
                                 invariance.room(test.size, invariance.SCALES), faces.size,
                                 label="curves")
    ends = np.cumsum([len(sweep.views) for sweep in swept])
    found = [curve(sweep, response)
             for sweep, response in zip(swept, np.split(answers, ends[:-1], axis=1))]
    others = np.flatnonzero(judged.mine & ~images.concept)
    behind = np.random.default_rng(seed).permutation(images.index[others])
    for label, some in heads.items():
        for shown in turning_heads.ask_about_heads(ask, some, test, np.sort(behind[:len(some)]),
                                                   test.size, batch, label) if some else ():
            rendered = UNITS[shown.sweep.name.removeprefix(label)][0] if label else ""
            drawn = any(each.name == rendered for each in found)
            found.append(replace(curve(shown.sweep, shown.response),
                                 beside=rendered if drawn else ""))
    return found


def curve(sweep: Sweep, response: np.ndarray) -> Curve:
    """Sum up responses (neuron, view, image)."""
    assert sweep.centre is not None
    count = response.shape[2]
    factor = t.ppf((1 + LEVEL) / 2, count - 1) / np.sqrt(count) if count > 1 else np.nan
    deviation = (factor * response.std(axis=2, ddof=1) if count > 1
                 else np.full(response.shape[:2], np.nan))
    return Curve(*UNITS[sweep.name], sweep.at, sweep.centre, response.mean(axis=2), deviation,
                 count)
