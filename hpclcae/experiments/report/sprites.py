"""Many small pictures as few large ones: data URIs that the page shows parts of."""
import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np

from hpclcae.utils.errors import require

SIDE = 2000     # of a sheet, pixels, at most: phones refuse much larger ones
QUALITY = 80    # of photographs
PURPOSE = "the pictures of a report"


@dataclass
class Sprites:
    """Pictures of one size, side by side on sheets.

    Attributes
    ----------
    shape : tuple of int
        Rows, cols, channels of every picture.
    exact : bool
        Without loss: for what was computed; photographs are compressed.
    """
    shape: tuple[int, ...]
    exact: bool
    _pictures: list[np.ndarray] = field(default_factory=list)

    @property
    def across(self) -> int:
        """Pictures in a row of a sheet."""
        return max(1, min(SIDE // self.shape[1], len(self._pictures)))

    @property
    def each(self) -> int:
        """Pictures on a sheet, at most."""
        return self.across * max(1, SIDE // self.shape[0])

    @classmethod
    def of(cls, pictures: Sequence[np.ndarray] | np.ndarray, exact: bool = True) -> "Sprites":
        """Take in uint8 pictures of one shape."""
        made = cls(pictures[0].shape, exact)
        for picture in pictures:
            made.add(picture)
        return made

    def add(self, picture: np.ndarray) -> int:
        """Take in a uint8 picture (row, col, channel); return its number."""
        if picture.shape != self.shape:
            raise ValueError(f"a picture of {picture.shape} among those of {self.shape}")
        self._pictures.append(picture)
        return len(self._pictures) - 1

    def layout(self) -> dict[str, object]:
        """What the page needs to find a picture: how sheets are divided, and their data URIs."""
        sheets = [data_uri(self._sheet(self._pictures[first:first + self.each]), self.exact)
                  for first in range(0, len(self._pictures), self.each)]
        return {"rows": self.shape[0], "cols": self.shape[1], "across": self.across,
                "each": self.each, "count": len(self._pictures), "sheets": sheets}

    def _sheet(self, pictures: list[np.ndarray]) -> np.ndarray:
        rows, cols, channels = self.shape
        down = -(-len(pictures) // self.across)
        sheet = np.zeros((down * rows, self.across * cols, channels), np.uint8)
        for number, picture in enumerate(pictures):
            row, col = divmod(number, self.across)
            sheet[row * rows:(row + 1) * rows, col * cols:(col + 1) * cols] = picture
        return sheet


def data_uri(pixels: np.ndarray, exact: bool) -> str:
    """A uint8 picture (row, col, 1 or 3 channels) as the text that stands for it in a page.

    WebP where Pillow can write it, else PNG.

    Raises
    ------
    MissingExtraError
        Pillow is not installed.
    """
    images = require("PIL.Image", "report", PURPOSE)
    features = require("PIL.features", "report", PURPOSE)
    picture = images.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    content = io.BytesIO()
    kind = "webp" if features.check("webp") else "png"
    if kind == "webp":
        picture.convert("RGB").save(content, "WEBP", lossless=exact, quality=QUALITY, method=4)
    else:
        picture.save(content, "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def require_picture(content: bytes) -> None:
    """See that PNG or SVG is whole; call it inside `reading`.

    Raises
    ------
    ValueError, OSError
        It is not.
    """
    if not content.startswith(b"\x89PNG"):
        try:
            ElementTree.fromstring(content)
        except ElementTree.ParseError as error:
            raise ValueError(str(error)) from error
        return
    try:
        require("PIL.Image", "report", PURPOSE).open(io.BytesIO(content)).load()
    except SyntaxError as error:  # so Pillow says that a chunk is broken
        raise ValueError(str(error)) from error


def signed(picture: np.ndarray) -> np.ndarray:
    """Numbers around zero as uint8: grey is zero, white the largest, black its negative."""
    largest = np.abs(picture).max(initial=0) or 1.0
    return np.rint(127.5 + 127.5 * picture / largest).astype(np.uint8)


def mosaic(pictures: np.ndarray, across: int, gap: int = 1, ground: int = 255) -> np.ndarray:
    """uint8 pictures (picture, row, col, channel) in rows of `across`, as one."""
    count, rows, cols, channels = pictures.shape
    down = -(-count // across)
    out = np.full((down * (rows + gap) - gap, across * (cols + gap) - gap, channels), ground,
                  np.uint8)
    for number, picture in enumerate(pictures):
        row, col = divmod(number, across)
        out[row * (rows + gap):row * (rows + gap) + rows,
            col * (cols + gap):col * (cols + gap) + cols] = picture
    return out
