"""A file that was found becomes square images, or reasons why not: what one process does alone."""
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.data.decode import HEAD, MID_GREY, UNREADABLE, Picture, Undecodable, decode
from hpclcae.data.faces import find_faces
from hpclcae.data.formats import first_bytes, kind_of
from hpclcae.data.ingest import film, walk
from hpclcae.data.ingest.settings import Settings
from hpclcae.utils.errors import require

if TYPE_CHECKING:
    from PIL import Image as PillowImage

DARK, BLACK_SHARE = 20, 0.99  # below this level lies this share of the pixels of a black image
#: Of every level: whether it is dark, itself, and its square.
OF_LEVELS = np.array([(level < DARK, level, level**2) for level in range(256)], float)

Box = tuple[int, int, int, int]  # top, left, bottom, right, pixels


@dataclass(frozen=True)
class Square:
    """One image on its way into the dataset."""
    pixels: np.ndarray         # uint8 (size, size, channel)
    source: str                # file, member of an archive, or time in a film
    seconds: float             # that time; not a number for a picture
    original: tuple[int, int]  # rows and cols, pixels
    crop: Box                  # what it shows of the original
    notes: tuple[str, ...]     # conversions
    faces: int                 # that were found, where they are counted
    is_second: bool            # it is the second of two frames of a film


@dataclass(frozen=True)
class TooSmall(walk.Skipped):
    """A picture that would have to be enlarged."""
    side: int = 0  # the shorter one, pixels


def squares(entry: walk.Entry, settings: Settings) -> Iterator[Square | walk.Skipped]:
    """Yield every image of a file, and what is left out of it."""
    try:
        for source, seconds, picture, second in _pictures(entry, settings):
            if min(picture.original) < (settings.min_side or settings.size):
                yield TooSmall(source, "too small",
                               f"{picture.original[1]} x {picture.original[0]} pixels",
                               min(picture.original))
                continue
            square, crop = to_square(picture, settings.size, settings.crop)
            brightness = square.convert("L")
            pixels = (np.asarray(brightness)[:, :, np.newaxis] if settings.channels == "grey"
                      else np.asarray(square))
            reason = _shows_nothing(brightness, settings.contrast) if settings.contrast else ""
            faces = 0 if reason or settings.faces == "ignore" else len(find_faces(pixels))
            if faces and settings.faces == "drop":
                reason = "shows a face"
            if reason:
                yield walk.Skipped(source, reason)
            else:
                yield Square(pixels, source, seconds, picture.original, crop, picture.notes, faces,
                             second)
    except Undecodable as error:
        yield walk.Skipped(entry.name, error.reason, error.detail)


def _pictures(entry: walk.Entry,
              settings: Settings) -> Iterator[tuple[str, float, Picture, bool]]:
    """Yield the pictures of a file, whatever its ending says that it is.

    Name, seconds, picture, and whether it is the second of a pair.
    """
    try:
        head = first_bytes(entry.content, HEAD)
    except OSError as error:
        raise Undecodable(UNREADABLE, error.strerror) from error
    kind = kind_of(head) or ("film" if entry.is_film else "picture")
    if kind == "film":
        draw = None
        if settings.film == "random":
            digest = hashlib.blake2b(f"{settings.seed}:{entry.name}".encode(), digest_size=8)
            draw = np.random.default_rng(int.from_bytes(digest.digest(), "little"))
        taken = film.frames(entry.content, settings.every, settings.pairs,
                            scenes=settings.film == "scenes", draw=draw)
        for number, (seconds, picture) in enumerate(taken):
            second = settings.pairs is not None and number % 2 == 1
            yield f"{entry.name}@{seconds:.2f}s", seconds, picture, second
    else:
        yield entry.name, nan, decode(entry.content, settings.size, head), False


def to_square(picture: Picture, size: int, how: str) -> tuple["PillowImage.Image", Box]:
    """Resample a picture to a square.

    Parameters
    ----------
    picture : Picture
    size : int
        Rows and cols of the result, pixels.
    how : {"centre", "fit"}
        The largest central square, or the whole picture with mid-grey beside it.

    Returns
    -------
    image (size, size)
    Box
        The part of the original that it shows.
    """
    module = require("PIL.Image", "images", "reading pictures")
    image = picture.image
    cols, rows = image.size
    if how == "fit":
        scale = size / max(rows, cols)
        fitted = image.resize((max(1, round(cols * scale)), max(1, round(rows * scale))),
                              module.Resampling.LANCZOS)
        square: "PillowImage.Image" = module.new("RGB", (size, size), (MID_GREY,) * 3)
        square.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
        return square, (0, 0, *picture.original)
    side = min(picture.original)
    top, left = ((extent - side) // 2 for extent in picture.original)
    # below 1 if a large JPEG was decoded smaller
    factor = rows / picture.original[0], cols / picture.original[1]
    box = (left * factor[1], top * factor[0], (left + side) * factor[1], (top + side) * factor[0])
    square = image.resize((size, size), module.Resampling.LANCZOS, box=box)
    return square, (top, left, top + side, left + side)


def _shows_nothing(brightness: "PillowImage.Image", contrast: float) -> str:
    """Say why an image is good for nothing, or ""."""
    counts = np.array(brightness.histogram(), float)  # in a fifth of NumPy's time
    dark, mean, square = counts @ OF_LEVELS / (brightness.width * brightness.height)
    if dark >= BLACK_SHARE:
        return "black"
    return "uniform" if square - mean**2 < contrast**2 else ""
