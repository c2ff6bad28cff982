"""Responses of all neurons of an atlas against shift, scale and rotation of some images.

The views are those of invariance.py, and all neurons are asked about the same images.
"""
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from hpclcae.data.dataset import Dataset
from hpclcae.experiments import invariance
from hpclcae.experiments.invariance import Asked
from hpclcae.experiments.report.atlas import Judged
from hpclcae.utils.progress import progress

LEVEL = 0.95  # of the intervals
UNITS = {"shift x": ("horizontal shift", "pixels to the right"),
         "shift y": ("vertical shift", "pixels down"),
         "scale": ("scale", "times as large"),
         "rotation": ("rotation", "degrees, to the left")}


@dataclass(frozen=True)
class Curve:
    """Mean responses of all neurons to views that differ in one thing."""
    name: str
    unit: str
    at: np.ndarray        # float64 (view,)
    unchanged: float      # where the images are as they were
    mean: np.ndarray      # float64 (neuron, view)
    deviation: np.ndarray  # half of the interval of the mean, float64 (neuron, view); NaN: unknown
    images: int           # whose mean it is


def curves(ask: Asked, test: Dataset, judged: Judged, seed: int = 0) -> list[Curve]:
    """Measure all neurons on an image of each of FACES persons (or other groups), or fewer."""
    faces = invariance.choose_faces(judged.images, judged.mine, invariance.FACES, seed)
    step = max(1, test.size // (2 * invariance.SHIFTS))
    swept = [sweep for sweep in invariance.sweeps(test.size, step) if sweep.name in UNITS]
    views = [view for sweep in swept for view in sweep.views]
    ticks = iter(progress(views, "curves", unit="views"))
    answers = invariance.respond(ask, test, judged.images.index[faces], views,
                                 invariance.room(test.size, invariance.SCALES), faces.size,
                                 lambda: next(ticks, None))
    next(ticks, None)
    ends = np.cumsum([len(sweep.views) for sweep in swept])
    count = faces.size
    factor = t.ppf((1 + LEVEL) / 2, count - 1) / np.sqrt(count) if count > 1 else np.nan
    found = []
    for sweep, response in zip(swept, np.split(answers, ends[:-1], axis=1)):
        deviation = (factor * response.std(axis=2, ddof=1) if count > 1
                     else np.full(response.shape[:2], np.nan))
        assert sweep.centre is not None
        found.append(Curve(*UNITS[sweep.name], sweep.at, sweep.centre, response.mean(axis=2),
                           deviation, count))
    return found
