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
from hpclcae.experiments.invariance import Shown, Sweep, require_finite, window
from hpclcae.experiments.ranks import Ranks, cut
from hpclcae.experiments.scan import GREY, Asked
from hpclcae.experiments.training_images import read
from hpclcae.utils.errors import InputError

TURNS = tuple(range(-90, 91, 15))  # degrees: the nose to the left and to the right of the picture
NODS = tuple(range(-60, 61, 15))   # down and up
HEIGHT = 0.7     # of a head, chin to crown, share of the frame, where the dataset does not say
HEADS_SEED = 20  # apart from the heads in training frames
SCANNED = "scanned "  # begins the names of its sweeps


class Head(Protocol):
    """Something to draw from any side."""

    def __call__(self, size: int, yaw: float, pitch: float, zoom: float) -> np.ndarray:
        """uint8 (row, col, 4): red, green, blue, alpha; chin to crown fills FILLS of it at zoom 1.
        """


def find_sources(named: Path | None, test: str | Path) -> Path | None:
    """The folder of fetched images: the one named, or `sources` beside a test set, if it exists.

    Raises
    ------
    InputError
        The one that is named is no folder.
    """
    if named is not None and not named.is_dir():
        raise InputError(f"--sources {named} is not a folder: hpclcae data fetch --out FOLDER "
                         "fills one")
    beside = Path(test).parent / "sources"
    return named or (beside if beside.is_dir() else None)


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
                    size: int, batch: int, label: str, ranks: Ranks = Ranks()) -> list[Shown]:
    """Ask neurons about heads at every angle; processes share the angles.

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
    angles = [*((float(at), 0.0) for at in TURNS), *((0.0, float(at)) for at in NODS)]
    found = []
    for angle in ranks.progress(list(ranks.mine(angles)), f"{label}heads", "angles"):
        frames = np.stack([_before(head(size, *angle, zoom), grounds[number % len(grounds)])
                           for number, head in enumerate(heads)])
        found.append(np.concatenate([ask(frames[part]) for part in cut(len(heads), batch, 1)],
                                    axis=1))
    answers = np.stack(ranks.everyones(found), axis=1).astype(np.float64)
    keys = np.random.default_rng(HEADS_SEED).integers(0, 2 ** 63, len(heads)).astype(np.uint64)
    return [Shown(sweep, require_finite(part), keys)
            for sweep, part in zip(swept, np.split(answers, [len(TURNS)], axis=1))]


def _before(head: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """A head (row, col, 4) before an image (row, col, channel), uint8, in its channels."""
    colours, alpha = head[..., :3].astype(float), head[..., 3:] / 255
    if ground.shape[-1] == 1:
        colours = (colours @ GREY)[..., None]
    return np.rint(alpha * colours + (1 - alpha) * ground).astype(np.uint8)
