"""What might tell faces from other things without seeing either.

That is brightness, contrast, softness and tint. A test in which one of these gives the label away
measures a light meter. So they are measured, and the crops of photographs can be chosen to be like
faces in them.
"""
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image as PillowImage

# of grey frames the first three
CUES = ("brightness", "contrast", "softness", "warmth", "greenness")
#: Differences of this size count the same: about their standard deviations among crops of
#: photographs.
SCALES = np.array([45.0, 0.45, 0.7, 35.0, 10.0])
DULL = np.log(6.0)  # a crop whose grey levels vary less than this shows nothing


def cues(frame: "np.ndarray | PillowImage.Image") -> np.ndarray:
    """Measure the cues of a frame, uint8 (row, col) or (row, col, channel).

    Returns
    -------
    float array (cue,)
        Mean grey level; logarithm of the standard deviation; logarithm of the energy of the
        gradients once mean and standard deviation are normalised: low is soft. Of colour frames
        also how much more red than blue there is in the mean, and how much more green than both.
    """
    pixels = np.atleast_3d(np.asarray(frame, np.float32))
    grey = pixels.mean(2)
    contrast = grey.std() + 1e-3
    energy = (np.diff(grey, axis=0)**2).mean() + (np.diff(grey, axis=1)**2).mean()
    measured = [grey.mean(), np.log(contrast), np.log(energy / contrast**2 + 1e-6)]
    if pixels.shape[2] == 3:
        red, green, blue = pixels.mean((0, 1))
        measured += [red - blue, green - (red + blue) / 2]
    return np.array(measured)


def most_alike(frames: Iterable["PillowImage.Image"], wanted: "PillowImage.Image") -> int:
    """Return the index of the frame whose cues are nearest to those of `wanted`."""
    measured = np.array([cues(frame) for frame in frames])
    return int((((measured - cues(wanted)) / SCALES[:measured.shape[1]])**2).sum(1).argmin())


def first_not_dull(frames: Iterable["PillowImage.Image"]) -> int:
    """Return the index of the first frame that shows something, or of the last."""
    index = 0
    for index, frame in enumerate(frames):
        if cues(frame)[1] >= DULL:
            break
    return index


def best_threshold(values: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of the best single threshold, either way round.

    Parameters
    ----------
    values : float array (image,)
    labels : bool array (image,)
    """
    order = np.argsort(values, kind="stable")
    ordered, concept = values[order], labels[order]
    # right if these and above are it
    above = labels.sum() + np.concatenate([[0], np.cumsum(np.where(concept, -1, 1))])
    # equal values stay together
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    share = above[possible] / len(labels)
    return float(max(share.max(), 1 - share.min()))
