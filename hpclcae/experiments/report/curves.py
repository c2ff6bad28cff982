"""Responses of all neurons of an atlas against shift, scale and rotation of some images.

The images are changed as they are, by cubic interpolation; what comes in from outside is their
mirror image at the border. (`hpclcae experiment` cuts its windows out of larger frames, where there
are such.)
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform
from scipy.stats import t

from hpclcae.data.dataset import Dataset
from hpclcae.experiments.report.atlas import Judged
from hpclcae.experiments.training_images import read

IMAGES = 10  # as in the paper
SHIFTS = np.linspace(-0.3, 0.3, 9)  # of the image's side
SCALES = np.array([0.6, 0.7, 0.8, 0.9, 1.0, 1.12, 1.25, 1.43, 1.67])
ANGLES = np.arange(-90.0, 91.0, 15.0)  # degrees
LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Curve:
    """Mean responses of all neurons to views that differ in one thing."""
    name: str
    unit: str
    at: np.ndarray        # float64 (view,)
    unchanged: float      # where the images are as they were
    mean: np.ndarray      # float64 (neuron, view)
    deviation: np.ndarray  # half of the 95 % interval of the mean, float64 (neuron, view)


def examples(judged: Judged) -> np.ndarray:
    """IMAGES positions of judged images of the concept, of as many groups as there are."""
    images = judged.images
    places = np.flatnonzero(judged.mine & images.concept)
    _, first = np.unique(images.key[places], return_index=True)
    others = np.setdiff1d(np.arange(places.size), first)
    chosen = np.concatenate([np.sort(first), others])
    if first.size >= IMAGES:
        chosen = np.sort(first)[np.linspace(0, first.size - 1, IMAGES).round().astype(int)]
    return np.sort(images.index[places[chosen[:IMAGES]]])


def changed(images: np.ndarray, down: float = 0, right: float = 0, scale: float = 1,
            degrees: float = 0) -> np.ndarray:
    """Images whose content is shifted, and scaled and turned around their middle.

    Parameters
    ----------
    images : uint8 array (image, row, col, channel)
    down, right : float
        Pixels.
    scale : float
        So many times as large.
    degrees : float
        Anticlockwise.

    Returns
    -------
    uint8 array (image, row, col, channel)
    """
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    middle = (np.array(images.shape[1:3]) - 1) / 2
    offset = middle - matrix @ (middle + (down, right))
    out = np.empty(images.shape, np.float32)
    for image, into in zip(images, out):
        for channel in range(images.shape[3]):
            into[..., channel] = affine_transform(image[..., channel].astype(np.float32), matrix,
                                                  offset, order=3, mode="mirror")
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def curves(respond: Callable[[np.ndarray], np.ndarray], test: Dataset,
           places: Sequence[int] | np.ndarray) -> list[Curve]:
    """Measure all neurons on the images at these positions.

    Parameters
    ----------
    respond : callable
        uint8 images (image, row, col, channel) to responses (neuron, image).
    """
    images = read(test, np.asarray(places))
    pixels = np.unique(np.rint(SHIFTS * test.size))
    sweeps = (("horizontal shift", "pixels to the right", pixels, 0.0, "right"),
              ("vertical shift", "pixels down", pixels, 0.0, "down"),
              ("scale", "times as large", SCALES, 1.0, "scale"),
              ("rotation", "degrees, anticlockwise", ANGLES, 0.0, "degrees"))
    count = len(images)
    factor = t.ppf((1 + LEVEL) / 2, count - 1) / np.sqrt(count) if count > 1 else np.nan
    found = []
    for name, unit, at, unchanged, key in sweeps:
        means, deviations = [], []
        for value in at:
            answers = respond(changed(images, **{key: float(value)})).astype(np.float64)
            means.append(answers.mean(axis=1))
            deviations.append(factor * answers.std(axis=1, ddof=1) if count > 1
                              else np.full(len(answers), np.nan))
        found.append(Curve(name, unit, at, unchanged, np.stack(means, axis=1),
                           np.stack(deviations, axis=1)))
    return found
