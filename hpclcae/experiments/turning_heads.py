"""Heads that turn, as frames to ask a neuron about: out-of-plane rotation.

Paper: sequences of heads that turn in 3-D. Here people are rendered (data/frames/heads.py) who were
in no training frame, or one real head that was scanned (data/frames/scanned_head.py), in front of
images without the concept: one for each person, the same at every angle.
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from hpclcae.data import catalogue
from hpclcae.data.dataset import Dataset
from hpclcae.data.frames.heads import FILLS, HeadModel
from hpclcae.data.frames.scanned_head import ScannedHead
from hpclcae.experiments.invariance import Asked, Shown, Sweep, require_finite, window
from hpclcae.experiments.scan import GREY
from hpclcae.experiments.training_images import read
from hpclcae.utils.progress import progress

TURNS = tuple(range(-90, 91, 15))  # degrees: the nose to the left and to the right of the picture
NODS = tuple(range(-60, 61, 15))   # down and up
HEIGHT = 0.7     # of a head, chin to crown, share of the frame, where the dataset does not say
HEADS_SEED = 20  # apart from the heads in training frames


class Head(Protocol):
    """Something to draw from any side."""

    def __call__(self, size: int, yaw: float, pitch: float, zoom: float) -> np.ndarray:
        """uint8 (row, col, 4): red, green, blue, alpha; chin to crown fills FILLS of it at zoom 1.
        """


def head_height(dataset: Dataset) -> float:
    """How large faces are in the frames of a dataset, chin to crown, share of a frame."""
    low, high = dataset.settings.get("face_size", (HEIGHT, HEIGHT))
    return (low + high) / 2


def rendered_heads(sources: Path | None, count: int, seed: int) -> list[Head]:
    """Random people, from the folder that hpclcae data fetch filled; none without the mesh.

    Raises
    ------
    InputError
        The mesh is damaged.
    """
    mesh = None if sources is None else catalogue.heads_folder(sources)
    if mesh is None:
        return []
    model = HeadModel(mesh)
    return [_rendered(model, np.random.default_rng([HEADS_SEED, seed, number]))
            for number in range(count)]


def _rendered(model: HeadModel, rng: np.random.Generator) -> Head:
    person = model.person(rng)
    light = (rng.uniform(-0.6, 0.6), rng.uniform(0.2, 0.8), rng.uniform(0.6, 1.0))

    def draw(size: int, yaw: float, pitch: float, zoom: float) -> np.ndarray:
        return model.render(person, size, yaw, pitch, zoom=zoom, light=light)
    return draw


def scanned_heads(sources: Path | None) -> list[Head]:
    """The scanned head, if it has been fetched."""
    head = None if sources is None else ScannedHead.find(sources)
    return [] if head is None else [head.render]


def ask_about_heads(ask: Asked, heads: Sequence[Head], dataset: Dataset, behind: np.ndarray,
                    size: int, batch: int, label: str) -> list[Shown]:
    """Ask neurons about heads at every angle.

    Parameters
    ----------
    heads : sequence of Head
    dataset : Dataset
        Says how large faces are, and has the images that stand behind the heads.
    behind : int array
        Positions of images without the concept in the dataset, sorted; they are taken in turns.
    size : int
        Of the network's input.
    batch : int
        Images at a time.
    label : str
        Of the progress, and the first word of the sweeps' names, "" for none.

    Returns
    -------
    list of Shown
        Of two sweeps, "turn" and "nod", degrees.
    """
    zoom = head_height(dataset) * dataset.size / size / FILLS
    grounds = window(read(dataset, behind[:len(heads)]), size)
    swept = [Sweep(f"{label}turn", np.array(TURNS, float)),
             Sweep(f"{label}nod", np.array(NODS, float))]
    total = len(heads) * (len(TURNS) + len(NODS))
    ticks = iter(progress(range(total), f"{label}heads", unit="pictures"))
    shown = []
    for sweep, angles in zip(swept, (lambda at: (at, 0.0), lambda at: (0.0, at))):
        answers = []
        for at in sweep.at:
            frames = []
            for number, head in enumerate(heads):
                ground = grounds[number % len(grounds)]
                frames.append(_before(head(size, *angles(float(at)), zoom), ground))
                next(ticks, None)
            parts = [ask(np.stack(frames[first:first + batch]))
                     for first in range(0, len(frames), batch)]
            answers.append(np.concatenate(parts, axis=1))
        keys = np.random.default_rng(HEADS_SEED).integers(0, 2 ** 63, len(heads)).astype(np.uint64)
        shown.append(Shown(sweep, require_finite(np.stack(answers, axis=1).astype(float)), keys))
    next(ticks, None)
    return shown


def _before(head: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """A head (row, col, 4) before an image (row, col, channel), uint8, in its channels."""
    colours, alpha = head[..., :3].astype(float), head[..., 3:] / 255
    if ground.shape[-1] == 1:
        colours = (colours @ GREY)[..., None]
    return np.rint(alpha * colours + (1 - alpha) * ground).astype(np.uint8)
