"""What frames are made from, and how one of them is made.

A frame shows a real face, a rendered thing that shows the concept (a head; a cat, a body) on a
photograph, another rendered thing or a cut-out on a photograph, or part of a photograph alone.
Each has a generator of its own, made from (seed, split, index): one frame can be
made again alone, and any number of processes make the same frames.

In a pair, two frames show the same things at two places, as two frames of a film do: the second
differs only in how far everything lies from the middle, which comes from one more generator.
"""
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.data.frames import compose
from hpclcae.data.frames.cats import random_cat
from hpclcae.data.frames.compose import Crop, Picture
from hpclcae.data.frames.cues import first_not_dull, most_alike
from hpclcae.data.frames.heads import FILLS, HeadModel
from hpclcae.utils.errors import InputError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

    from hpclcae.data.frames.bodies import BodyModel

FACE, HEAD, OTHER, CUTOUT, PHOTOGRAPH = KINDS = ("face", "head", "other", "cut-out", "photograph")
#: What a dataset is about -> the names of its labels. Cats and bodies are rendered.
LABELS = {"faces": ["no face", "face"], "cats": ["no cat", "cat"], "bodies": ["no body", "body"]}
#: What a rendered thing of each is called in groups and tables.
THINGS = {"faces": "head", "cats": "cat", "bodies": "body"}
GROUPS = {"faces": "heads", "cats": "cats", "bodies": "bodies"}
#: Rendered things that do not show the concept; a head is part of a body.
OTHERS = {"faces": ("cats",), "cats": ("faces", "bodies"), "bodies": ("cats",)}
BODY_FILLS = 0.9  # share of a picture's rows between soles and crown
CATS = re.compile(r"cat|kitten|lion|tiger|leopard|cheetah|puma|lynx|jaguar|panther|chelsea", re.I)
SPLITS = ("train", "test", "all")
#: Heads are rendered with some of the shoulders, so that few frames show where these end.
HEAD_ZOOM = 0.7
HEAD_TILT = 12.0  # standard deviation of pitch and of roll, degrees
TRIES = 5         # crops of a photograph, before a dull one is accepted
#: Photographs whose crops compete to be like a face. With more the choice is better, but some
#: photographs are never chosen.
RIVALS = 2
MAX_REACH = 0.5  # with more, frames that are labelled "face" would show none
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
    reach: float | None               # things lie up to this share of the frame off its middle,
    #                                   either way; None: anywhere, as far as they are whole
    pairs: bool                       # frames 2 k and 2 k + 1 show the same at two places
    pixels: float                     # least pixels of the original, along an edge, per pixel
    alike: int                        # of so many crops of photographs, the one most like a face
    head_bank: int                    # different rendered heads
    yaw: float                        # heads turn up to so many degrees to either side
    concept: str = "faces"            # one of LABELS
    others: float = 0.0               # share of the frames with a rendered thing of another concept

    def __post_init__(self) -> None:
        for name, limits in LIMITS.items():
            check_range(name, getattr(self, name), *limits)
        for name in ("face_size", "cutout_size"):
            low, high = getattr(self, name)
            if not 0.05 <= low <= high <= 2:
                raise InputError(f"--{name.replace('_', '-')} {low} {high} are not two shares of "
                                 "the frame, the low one first, between 0.05 and 2")
        if self.reach is not None and not 0 <= self.reach <= MAX_REACH:
            raise InputError(f"--place {self.reach} is not between 0 and {MAX_REACH}: further off, "
                             "the middle of a face would lie outside of its frame")
        shares = self.faces, self.heads, self.others, self.cutouts
        if not all(0 <= share for share in shares) or sum(shares) > 1 + 1e-9:
            raise InputError("--faces {} --heads {} --others {} --cutouts {} are not parts of a "
                             "whole: none may be below 0, together at most 1".format(*shares))
        if self.concept not in LABELS:
            raise InputError(f"--concept {self.concept}: one of {', '.join(LABELS)}")

    @property
    def filled(self) -> float:
        """Share of a rendered picture's rows that `face_size` is about."""
        return BODY_FILLS if self.concept == "bodies" else FILLS * HEAD_ZOOM

    def label_of(self, kind: str, of_people: bool, path: str) -> int:
        """1 if a frame shows the concept, 0 if not, -1 if nobody knows.

        Parameters
        ----------
        kind : str
            One of KINDS.
        of_people : bool
            It is on, or is, a photograph that shows people.
        path : str
            Of the photograph or cut-out.
        """
        if kind == HEAD:
            return 1
        if self.concept == "faces":
            return 1 if kind == FACE else -1 if of_people else 0
        if self.concept == "bodies":
            return -1 if of_people or kind == FACE else 0
        return -1 if CATS.search(path.rsplit("/", 1)[-1]) else 0

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
    heads: list["PillowImage.Image"]  # or cats, or bodies
    others: list[tuple[str, "PillowImage.Image"]] = field(default_factory=list)  # with their groups


@dataclass(frozen=True)
class Frame:
    """One image and what the dataset says about it."""
    image: np.ndarray                # uint8 (row, col, channel)
    source: str
    group: str                       # the person, else the photograph
    original: tuple[int, int]        # rows and cols, pixels
    crop: tuple[int, int, int, int]  # top, left, bottom, right, pixels of the original
    label: int                       # 1: a face, 0: none, -1: a photograph with people, who knows
    kind: str                        # one of KINDS


def plan(count: int, recipe: Recipe) -> list[tuple[int, str, int]]:
    """Deal out what the frames show.

    Returns
    -------
    list of (index, kind, turn)
        Each kind as often as its share says, in random order. The turn counts the frames of the
        same kind before it: people, photographs, heads and cut-outs take turns, so that all are
        used equally often. A pair counts as one.
    """
    if recipe.pairs:
        count //= 2
    shares = [0, recipe.faces, recipe.heads, recipe.others, recipe.cutouts]
    edges = np.round(np.cumsum(shares) * count).astype(int)
    dealt = np.repeat(np.arange(len(KINDS)), np.diff(edges, append=count))
    turns = np.concatenate([np.arange(np.sum(dealt == kind)) for kind in range(len(KINDS))])
    order = recipe.rng(0, 1).permutation(count)
    if recipe.pairs:
        order = np.repeat(order, 2)
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


def render_thing(recipe: Recipe, concept: str, bodies: "BodyModel | None",
                 number: int) -> "PillowImage.Image":
    """Render a random cat or body, large enough never to be enlarged; with alpha."""
    rng = recipe.rng(number, 4, sorted(LABELS).index(concept))
    if concept == "cats":
        thing, filled = random_cat(rng), FILLS * HEAD_ZOOM
    else:
        assert bodies is not None
        thing, filled = bodies.body(rng), BODY_FILLS
    size = int(np.ceil(recipe.size * recipe.face_size[1] / filled))
    light = (rng.uniform(-0.8, 0.8), rng.uniform(0.1, 0.8), rng.uniform(0.5, 1.0))
    pitch, roll = rng.normal(0, HEAD_TILT if concept == "cats" else HEAD_TILT / 2, 2)
    pixels = thing.render(size, filled, rng.uniform(-recipe.yaw, recipe.yaw), pitch, roll, light)
    return compose.with_alpha(pixels, recipe.channels)


def head_group(recipe: Recipe, number: int, concept: str | None = None) -> str:
    """Return the group of a rendered thing; without a concept one that shows the recipe's."""
    return f"{GROUPS[concept or recipe.concept]}/{recipe.split}-{recipe.seed}-{number}"


def make_frame(recipe: Recipe, bank: Bank, index: int, kind: str, turn: int) -> Frame:
    """Compose frame `index`, which shows the `turn`-th of its `kind`.

    The first frame of pair k is frame k of the same recipe without pairs.
    """
    scene, second = divmod(index, 2) if recipe.pairs else (index, 0)
    rng, again = recipe.rng(scene), recipe.rng(scene, 3) if second else None
    if kind == FACE:
        picture, crop = _face(recipe, bank.people[turn % len(bank.people)], rng, again)
    else:
        picture, crop = _photograph(recipe, bank, turn, rng)
    label = recipe.label_of(kind, picture.item.kind == "people", picture.item.path)
    source, group = picture.item.path, picture.item.group
    if kind == HEAD:
        number = turn % len(bank.heads)
        crop, image = _pasted(recipe, picture, crop, bank.heads[number], recipe.face_size,
                              recipe.filled, rng, again)
        group = head_group(recipe, number)
        source = f"{group} on {source}"
    elif kind == OTHER:
        name, thing_shown = bank.others[turn % len(bank.others)]
        filled = BODY_FILLS if name.startswith(GROUPS["bodies"]) else FILLS * HEAD_ZOOM
        crop, image = _pasted(recipe, picture, crop, thing_shown, recipe.face_size, filled, rng,
                              again)
        source = f"{name} on {source}"
    elif kind == CUTOUT:
        thing = bank.cutouts[turn % len(bank.cutouts)]
        crop, image = _pasted(recipe, picture, crop, thing.image, recipe.cutout_size, 1.0, rng,
                              again)
        source = f"{thing.item.path} on {source}"
        label = min(label, recipe.label_of(kind, False, thing.item.path))
    else:
        if kind == PHOTOGRAPH and again:  # it moves as a face would
            first, shown = compose.places(again.uniform(*recipe.face_size), recipe.reach, again,
                                          again)
            crop = crop.moved(picture, first - shown)
        image = compose.cut(picture, crop, recipe.size)
    pixels = np.asarray(image).reshape(recipe.size, recipe.size, recipe.channels)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return Frame(pixels, source, group, picture.original, crop.of_original(picture), label, kind)


def _face(recipe: Recipe, pictures: list[Picture], rng: np.random.Generator,
          again: np.random.Generator | None = None) -> tuple[Picture, Crop]:
    picture = pictures[rng.integers(len(pictures))]
    return picture, compose.face_crop(picture, recipe.least, recipe.face_size, recipe.reach, rng,
                                      again)


def _photograph(recipe: Recipe, bank: Bank, turn: int,
                rng: np.random.Generator) -> tuple[Picture, Crop]:
    """Choose a part of a photograph.

    It is like a random face of this split in its cues, or at least not dull.
    """
    rivals, tries = (RIVALS, recipe.alike) if recipe.alike > 1 else (1, TRIES)
    tried = [bank.photographs[(rivals * turn + k % rivals) % len(bank.photographs)]
             for k in range(tries)]
    crops = [compose.photograph_crop(picture, recipe.least, rng) for picture in tried]
    frames = (compose.cut(picture, crop, recipe.size) for picture, crop in zip(tried, crops))
    if recipe.alike > 1:
        chosen = most_alike(frames, _wanted(recipe, bank, rng))
    else:
        chosen = first_not_dull(frames)
    return tried[chosen], crops[chosen]


def _wanted(recipe: Recipe, bank: Bank, rng: np.random.Generator) -> "PillowImage.Image":
    """A random frame that shows the concept, for photographs to be like."""
    if recipe.concept == "faces":
        face = _face(recipe, bank.people[rng.integers(len(bank.people))], rng)
        return compose.cut(*face, recipe.size)
    picture = bank.photographs[rng.integers(len(bank.photographs))]
    crop = compose.photograph_crop(picture, recipe.least, rng)
    thing = bank.heads[rng.integers(len(bank.heads))]
    return _pasted(recipe, picture, crop, thing, recipe.face_size, recipe.filled, rng, None)[1]


def _pasted(recipe: Recipe, picture: Picture, crop: Crop, thing: "PillowImage.Image",
            sizes: tuple[float, float], filled: float, rng: np.random.Generator,
            again: np.random.Generator | None) -> tuple[Crop, "PillowImage.Image"]:
    """Put a thing on a crop of a photograph; the part that is `filled` takes one of `sizes`."""
    scale = min(1.0, rng.uniform(*sizes) * recipe.size / (filled * max(thing.size)))
    height = scale * filled * max(thing.size) / recipe.size
    first, shown = compose.places(height, recipe.reach, rng, again)
    crop = crop.moved(picture, first - shown)  # what is behind the thing moves with it
    image = compose.cut(picture, crop, recipe.size)
    row, col = (0.5 + shown) * recipe.size
    compose.paste(image, thing, scale, row, col)
    return crop, image
