"""What frames are made from, and how one of them is made.

A frame shows a real face, a rendered head on a photograph, a cut-out on a photograph, or part of a
photograph alone. Each has a generator of its own, made from (seed, split, index): one frame can be
made again alone, and any number of processes make the same frames.
"""
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.data.frames import compose
from hpclcae.data.frames.compose import Crop, Picture
from hpclcae.data.frames.cues import first_not_dull, most_alike
from hpclcae.data.frames.heads import FILLS, HeadModel
from hpclcae.utils.errors import InputError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

FACE, HEAD, CUTOUT, PHOTOGRAPH = KINDS = ("face", "head", "cut-out", "photograph")
LABELS = ["no face", "face"]
SPLITS = ("train", "test", "all")
#: Heads are rendered with some of the shoulders, so that few frames show where these end.
HEAD_ZOOM = 0.7
HEAD_TILT = 12.0  # standard deviation of pitch and of roll, degrees
TRIES = 5         # crops of a photograph, before a dull one is accepted
#: Photographs whose crops compete to be like a face. With more the choice is better, but some
#: photographs are never chosen.
RIVALS = 2
LIMITS = {"size": (8, 4096), "seed": (0, 2**63), "pixels": (1, 64), "alike": (1, 10**4),
          "head_bank": (1, 10**6), "yaw": (0, 180)}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the frames show; stored in the dataset.

    Raises
    ------
    InputError
        A number is out of its range: names the option of hpclcae data frames.
    """
    split: str                        # one of SPLITS
    seed: int
    size: int                         # rows and cols, pixels
    channels: int                     # 1 or 3
    faces: float                      # share of the frames with a real face
    heads: float                      # with a rendered head
    cutouts: float                    # with a cut-out
    test_share: float                 # of the people and photographs
    face_size: tuple[float, float]    # height of a face or head, chin to crown, share of the frame
    cutout_size: tuple[float, float]  # longer side, as a share of the frame
    anywhere: bool                    # faces, heads and cut-outs lie anywhere, not in the middle
    pixels: float                     # least pixels of the original, along an edge, per pixel
    alike: int                        # of so many crops of photographs, the one most like a face
    head_bank: int                    # different rendered heads
    yaw: float                        # heads turn up to so many degrees to either side

    def __post_init__(self) -> None:
        for name, limits in LIMITS.items():
            check_range(name, getattr(self, name), *limits)
        for name in ("face_size", "cutout_size"):
            low, high = getattr(self, name)
            if not 0.05 <= low <= high <= 2:
                raise InputError(f"--{name.replace('_', '-')} {low} {high} are not two shares of "
                                 "the frame, the low one first, between 0.05 and 2")
        shares = self.faces, self.heads, self.cutouts
        if not all(0 <= share for share in shares) or sum(shares) > 1 + 1e-9:
            raise InputError("--faces {} --heads {} --cutouts {} are not parts of a whole: none "
                             "may be below 0, together at most 1".format(*shares))

    @property
    def least(self) -> float:
        """Smallest side of a crop, pixels of the original."""
        return self.pixels * self.size

    def rng(self, *number: int) -> np.random.Generator:
        """Return the generator of frame `number`; with a second number, of something else."""
        return np.random.default_rng((self.seed, SPLITS.index(self.split), *number))


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Refuse a number that is not between two others (inclusive); `name` is that of its option.

    Raises
    ------
    InputError
        Names the option.
    """
    if not least <= value <= most:
        raise InputError(f"--{name.replace('_', '-')} {value} is not between {least} and {most}")


@dataclass(frozen=True)
class Bank:
    """What frames are made from, in memory."""
    people: list[list[Picture]]  # the pictures of each person
    photographs: list[Picture]
    cutouts: list[Picture]
    heads: list["PillowImage.Image"]


@dataclass(frozen=True)
class Frame:
    """One image and what the dataset says about it."""
    image: np.ndarray                # uint8 (row, col, channel)
    source: str
    group: str                       # the person, else the photograph
    original: tuple[int, int]        # rows and cols, pixels
    crop: tuple[int, int, int, int]  # top, left, bottom, right, pixels of the original
    label: int                       # 1: a face, 0: none, -1: a photograph with people, who knows


def plan(count: int, recipe: Recipe) -> list[tuple[int, str, int]]:
    """Deal out what the frames show.

    Returns
    -------
    list of (index, kind, turn)
        Each kind as often as its share says, in random order. The turn counts the frames of the
        same kind before it: people, photographs, heads and cut-outs take turns, so that all are
        used equally often.
    """
    edges = np.round(np.cumsum([0, recipe.faces, recipe.heads, recipe.cutouts]) * count).astype(int)
    dealt = np.repeat(np.arange(len(KINDS)), np.diff(edges, append=count))
    turns = np.concatenate([np.arange(np.sum(dealt == kind)) for kind in range(len(KINDS))])
    order = recipe.rng(0, 1).permutation(count)
    return [(index, KINDS[dealt[i]], int(turns[i])) for index, i in enumerate(order)]


def render_head(recipe: Recipe, model: HeadModel, number: int) -> "PillowImage.Image":
    """Render a random head, large enough never to be enlarged; with alpha."""
    rng = recipe.rng(number, 2)
    person = model.person(rng)
    pitch, roll = rng.normal(0, HEAD_TILT, 2)
    light = (rng.uniform(-0.8, 0.8), rng.uniform(0.1, 0.8), rng.uniform(0.5, 1.0))
    size = int(np.ceil(recipe.size * recipe.face_size[1] / (FILLS * HEAD_ZOOM)))
    pixels = model.render(person, size, rng.uniform(-recipe.yaw, recipe.yaw), pitch, roll,
                          HEAD_ZOOM, light)
    return compose.with_alpha(pixels, recipe.channels)


def make_frame(recipe: Recipe, bank: Bank, index: int, kind: str, turn: int) -> Frame:
    """Compose frame `index`, which shows the `turn`-th of its `kind`."""
    rng = recipe.rng(index)
    if kind == FACE:
        picture, crop, image = _face(recipe, bank.people[turn % len(bank.people)], rng)
        label = 1
    else:
        picture, crop, image = _photograph(recipe, bank, turn, rng)
        label = -1 if picture.item.kind == "people" else 0
    source, group = picture.item.path, picture.item.group
    if kind == HEAD:
        number = turn % len(bank.heads)
        _paste(recipe, image, bank.heads[number], recipe.face_size, FILLS * HEAD_ZOOM, rng)
        group, label = f"heads/{recipe.split}-{recipe.seed}-{number}", 1
        source = f"{group} on {source}"
    elif kind == CUTOUT:
        thing = bank.cutouts[turn % len(bank.cutouts)]
        _paste(recipe, image, thing.image, recipe.cutout_size, 1.0, rng)
        source = f"{thing.item.path} on {source}"
    pixels = np.asarray(image).reshape(recipe.size, recipe.size, recipe.channels)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return Frame(pixels, source, group, picture.original, crop.of_original(picture), label)


def _face(recipe: Recipe, pictures: list[Picture],
          rng: np.random.Generator) -> tuple[Picture, Crop, "PillowImage.Image"]:
    picture = pictures[rng.integers(len(pictures))]
    crop = compose.face_crop(picture, recipe.least, recipe.face_size, recipe.anywhere, rng)
    return picture, crop, compose.cut(picture, crop, recipe.size)


def _photograph(recipe: Recipe, bank: Bank, turn: int,
                rng: np.random.Generator) -> tuple[Picture, Crop, "PillowImage.Image"]:
    """Cut something out of a photograph.

    It is like a random face of this split in its cues, or at least not dull.
    """
    rivals, tries = (RIVALS, recipe.alike) if recipe.alike > 1 else (1, TRIES)
    tried = [bank.photographs[(rivals * turn + k % rivals) % len(bank.photographs)]
             for k in range(tries)]
    crops = [compose.photograph_crop(picture, recipe.least, rng) for picture in tried]
    frames = (compose.cut(picture, crop, recipe.size) for picture, crop in zip(tried, crops))
    if recipe.alike > 1:
        *_, wanted = _face(recipe, bank.people[rng.integers(len(bank.people))], rng)
        chosen = most_alike(frames, wanted)
    else:
        chosen = first_not_dull(frames)
    return tried[chosen], crops[chosen], compose.cut(tried[chosen], crops[chosen], recipe.size)


def _paste(recipe: Recipe, frame: "PillowImage.Image", thing: "PillowImage.Image",
           sizes: tuple[float, float], filled: float, rng: np.random.Generator) -> None:
    """Put a thing on the frame; the part of it that is `filled` takes a share out of `sizes`."""
    scale = min(1.0, rng.uniform(*sizes) * recipe.size / (filled * max(thing.size)))
    height = scale * filled * max(thing.size) / recipe.size
    row, col = (0.5 + compose.off_centre(height, recipe.anywhere, rng)) * recipe.size
    compose.paste(frame, thing, scale, row, col)
