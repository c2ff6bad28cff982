"""One picture of any common format becomes red, green and blue bytes, or a reason why it cannot."""
import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae.utils.errors import require

if TYPE_CHECKING:
    from PIL import Image as PillowImage

#: Formats by Pillow's names. A closed list: some others start external programs or are not
#: pictures.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif", ".bmp", ".dib",
            ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k")
MID_GREY = 128  # behind transparency, and beside a picture that does not fill its square
MAX_PIXELS = 150_000_000  # what the largest cameras give; a file that claims more is an attack
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr")
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF
WHITE_IS_ZERO = 0                        # the second's value for negatives
ORIENTATION = 0x0112                     # tag of EXIF


class Undecodable(Exception):
    """A picture or film is left out.

    Attributes
    ----------
    reason, detail : str
        The kind of trouble, to count by, and what exactly.
    """

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(f"{reason} ({detail})" if str(detail) else reason)
        self.reason, self.detail = reason, str(detail)


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""
    pixels: np.ndarray              # uint8 (row, col, 3), upright
    original: tuple[int, int]       # rows, cols of the file, upright; pixels may be fewer (JPEG)
    notes: tuple[str, ...] = ()     # what had to be done to it


def decode(content: bytes | Path, at_least: int | None = None) -> Picture:
    """Decode one picture.

    Turned upright by its EXIF tag; transparency is put on mid-grey; CMYK and palettes become RGB;
    16 bits are scaled to 8; of several frames or pages the first counts.

    Parameters
    ----------
    content : bytes or Path
        The file, or its bytes.
    at_least : int, optional
        A shorter side of so many pixels is enough: a larger JPEG is decoded at a half, quarter or
        eighth, quickly.

    Raises
    ------
    Undecodable
        Damaged, not a picture, too large, or pixels without a defined range.
    """
    image_module = require("PIL.Image", "images", "reading pictures")
    image_module.init()
    formats = [name for name in FORMATS if name in image_module.OPEN]  # AVIF depends on the version
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd tags; what matters is checked here
        try:
            stream = io.BytesIO(content) if isinstance(content, bytes) else content
            with image_module.open(stream, formats=formats) as image:
                return _picture(image, at_least)
        except image_module.DecompressionBombError as error:
            raise Undecodable("too many pixels", error) from error
        except image_module.UnidentifiedImageError as error:
            raise Undecodable("not a picture", "no known format") from error
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError,
                OverflowError, RuntimeError, struct.error, zlib.error) as error:
            # Decoders meet damaged bytes with all of these.
            raise Undecodable("damaged", error) from error


def _picture(image: "PillowImage.Image", at_least: int | None) -> Picture:
    """Decode an opened image; see `decode`."""
    if image.width * image.height > MAX_PIXELS:
        raise Undecodable("too many pixels", f"{image.width} x {image.height}")
    upright = require("PIL.ImageOps", "images", "reading pictures").exif_transpose
    notes = ["first of several frames"] if getattr(image, "n_frames", 1) > 1 else []
    cols, rows = image.size
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    image.load()
    turned = upright(image)
    if image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8):  # orientations that exchange the sides
        rows, cols = cols, rows
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        notes.append("turned by its EXIF tag")
    if turned.mode in ("CMYK", "P"):
        notes.append({"CMYK": "CMYK to RGB", "P": "palette to RGB"}[turned.mode])
    if turned.mode in PLAIN_MODES:
        pixels, extra = _plain(turned)
    else:
        pixels, extra = _sixteen_bits(turned, image.format, getattr(image, "tag_v2", {}))
    return Picture(pixels, (rows, cols), (*notes, *extra))


def _plain(image: "PillowImage.Image") -> tuple[np.ndarray, list[str]]:
    """Convert a mode of 8 bits to RGB, over mid-grey where it is transparent."""
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return np.asarray(image.convert("RGB")), []
    if image.mode == "La":
        image = image.convert("LA")
    pixels = np.asarray(image.convert("RGBA"))
    alpha = pixels[:, :, 3:].astype(np.uint16)
    if alpha.min() == 255:
        return pixels[:, :, :3], []
    return (((pixels[:, :, :3] * alpha + MID_GREY * (255 - alpha) + 127) // 255).astype(np.uint8),
            ["transparency on mid-grey"])


def _sixteen_bits(image: "PillowImage.Image", file_format: str | None,
                  tiff_tags: Mapping[int, Any]) -> tuple[np.ndarray, list[str]]:
    """Scale grey of 16 (in TIFF perhaps 12) bits to 8 bits; anything wider has no defined range."""
    if not (image.mode.startswith("I;16") or image.mode == "I" and file_format in ("PNG", "PPM")):
        raise Undecodable("pixels without a defined range", f"{file_format} of mode {image.mode}")
    white = 2 ** tiff_tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    grey = ((np.asarray(image).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tiff_tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow undoes this for 8 bits only
        grey = 255 - grey
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2), [f"{white.bit_length()} bits to 8"]
