"""One picture of any common format becomes red, green and blue bytes, or a reason why it cannot."""
import errno
import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae.data import formats
from hpclcae.utils.errors import MissingExtraError, require

if TYPE_CHECKING:
    from PIL import Image as PillowImage

#: Formats by Pillow's names. A closed list: some others start external programs or are not
#: pictures.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000")
HEAD = 64           # first bytes, which tell what a file is
MISSING_GREY = 128  # what libjpeg makes up
MID_GREY = 128  # behind transparency, and beside a picture that does not fill its square
MAX_PIXELS = 150_000_000  # what the largest cameras give; a file that claims more is an attack
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr")
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
WHITE_IS_ZERO = 0                        # the second's value for negatives
UNSIGNED, UNDEFINED = 1, 4               # the third's, of whole numbers from 0
ORIENTATION = 0x0112                     # tag of EXIF
#: What each value of that tag asks for, by the names of Pillow's transpositions.
UPRIGHT = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
           6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
UNREADABLE = "unreadable file"


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


def is_of_disk(error: OSError) -> bool:
    """Whether the disk is to blame, not the bytes: those make a decoder look at place -5."""
    return error.errno not in (None, errno.EINVAL, errno.EOVERFLOW)


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""
    image: "PillowImage.Image"      # red, green and blue, upright
    original: tuple[int, int]       # rows, cols of the file, upright; the image may be smaller
    notes: tuple[str, ...] = ()     # what had to be done to it

    @property
    def pixels(self) -> np.ndarray:
        """Uint8 (row, col, 3): a copy."""
        return np.asarray(self.image)


def decode(content: bytes | Path, at_least: int | None = None,
           head: bytes | None = None) -> Picture:
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
    head : bytes, optional
        The first 64 bytes, where they are known.

    Raises
    ------
    Undecodable
        Damaged, not a picture, too large, or pixels without a defined range.
    """
    try:
        head = formats.first_bytes(content, HEAD) if head is None else head
        picture = _decoded(content, at_least, head)
        if head.startswith(formats.JPEG) and _may_end_early(picture.image) \
                and not formats.is_whole_jpeg(content):
            raise Undecodable("JPEG of which a part is missing", "the rest would be grey")
        return picture
    except OSError as error:
        raise Undecodable(UNREADABLE, error.strerror) from error


def _decoded(content: bytes | Path, at_least: int | None, head: bytes) -> Picture:
    """Decode a file; if that fails, without what it says about itself."""
    try:
        return _decode(content, at_least, head)
    except Undecodable as refusal:
        bare = (formats.without_metadata(content)
                if refusal.reason in ("damaged", "not a picture") else None)
        if bare is None:
            raise
        try:
            picture = _decode(bare, at_least, head)
        except Undecodable:
            raise refusal from None
        return replace(picture, notes=(*picture.notes, "metadata left out, damaged or too large"))


def _may_end_early(image: "PillowImage.Image") -> bool:
    """Whether a corner is of the grey that libjpeg puts in the place of data that are missing."""
    pixels, missing = image.load(), (MISSING_GREY,) * 3
    assert pixels is not None
    return missing in (pixels[0, 0], pixels[-1, 0], pixels[0, -1], pixels[-1, -1])


def _decode(content: bytes | Path, at_least: int | None, head: bytes) -> Picture:
    """Decode a file that begins with `head`; see `decode`."""
    image_module = require("PIL.Image", "images", "reading pictures")
    image_module.init()
    if formats.is_heic(head):
        _require_heif()
    known = [name for name in FORMATS if name in image_module.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd tags; what matters is checked here
        try:
            stream = io.BytesIO(content) if isinstance(content, bytes) else content
            with image_module.open(stream, formats=known) as image:
                return _picture(image, at_least)
        except image_module.DecompressionBombError as error:
            raise Undecodable("too many pixels", error) from error
        except image_module.UnidentifiedImageError as error:
            if formats.kind_of(head) == "picture":
                raise Undecodable("damaged", "or a variant that is not read") from error
            raise Undecodable("not a picture", "no known format") from error
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError,
                OverflowError, RuntimeError, AttributeError, AssertionError, struct.error,
                zlib.error) as error:
            # Decoders meet damaged bytes with all of these.
            if isinstance(error, OSError) and is_of_disk(error):
                raise
            raise Undecodable("damaged", error) from error


def _require_heif() -> None:
    """Teach Pillow to read HEIC."""
    try:
        require("pillow_heif", "heif", "reading HEIC").register_heif_opener()
    except MissingExtraError as error:
        raise Undecodable("HEIC, whose library is not installed",
                          "pip install 'hpclcae[heif]'") from error


def _picture(image: "PillowImage.Image", at_least: int | None) -> Picture:
    """Decode an opened image; see `decode`."""
    if image.width * image.height > MAX_PIXELS:
        raise Undecodable("too many pixels", f"{image.width} x {image.height}")
    cols, rows = image.size
    tags = dict(getattr(image, "tag_v2", {}))
    tiles = getattr(image, "tile", None)
    raw = str(tiles[0][3]) if image.format == "PNG" and tiles else ""
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    image.load()
    _scale_transparency(image, raw)
    orientation, notes = _orientation(image)
    if image.format == "TIFF":  # Pillow has turned it
        orientation = tags.get(ORIENTATION, 1)
        cols, rows = image.size
        turned = image
    else:
        if orientation in (5, 6, 7, 8):  # orientations that exchange the sides
            rows, cols = cols, rows
        turned = image.transpose(
            getattr(require("PIL.Image", "images", "reading pictures").Transpose,
                    UPRIGHT[orientation])) if orientation in UPRIGHT else image
    if orientation in UPRIGHT:
        notes.append("turned by its EXIF tag")
    if turned.mode in ("CMYK", "P"):
        notes.append({"CMYK": "CMYK to RGB", "P": "palette to RGB"}[turned.mode])
    signed = any(kind not in (UNSIGNED, UNDEFINED) for kind in tags.get(SAMPLE_FORMAT, ()))
    if signed and turned.mode in PLAIN_MODES:
        raise Undecodable("pixels without a defined range", "TIFF of signed numbers")
    upright, extra = (_plain(turned) if turned.mode in PLAIN_MODES
                      else _sixteen_bits(turned, image.format, tags))
    if _several(image):
        notes.insert(0, "first of several frames")
    return Picture(upright, (rows, cols), (*notes, *extra))


def _orientation(image: "PillowImage.Image") -> tuple[int, list[str]]:
    """The orientation that EXIF states, and a note if EXIF cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # any of a dozen errors, none of which concerns the pixels
        return 1, ["EXIF that cannot be read"]
    return (value if isinstance(value, int) else 1), []


def _several(image: "PillowImage.Image") -> bool:
    """Whether there are more frames or pages; those may be damaged, and do not matter."""
    try:
        return getattr(image, "n_frames", 1) > 1
    except Exception:
        return True


def _scale_transparency(image: "PillowImage.Image", raw: str) -> None:
    """Bring a PNG's transparent value to the bits of the pixels, where Pillow leaves it as it was.

    `raw` is how Pillow unpacks the file, for instance "L;4" for grey of 4 bits.
    """
    if "transparency" not in image.info:
        return
    bits = {"L;2": 2, "L;4": 4}
    for name, count in bits.items():
        if name in raw:
            image.info["transparency"] = image.info["transparency"] * 255 // (2**count - 1)
    if "RGB;16" in raw:
        raise Undecodable("transparency of a colour of 16 bits", "which is read with 8")


def _plain(image: "PillowImage.Image") -> tuple["PillowImage.Image", list[str]]:
    """Convert a mode of 8 bits to RGB, over mid-grey where it is transparent."""
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        # a JPEG is all there; of several frames Pillow may want the file again
        is_read = (image.format, image.mode) == ("JPEG", "RGB")
        return (image if is_read else image.convert("RGB")), []
    if image.mode == "1":  # some versions of Pillow call white 1 here, others 255
        clear = 255 if image.info["transparency"] else 0
        image = image.convert("L")
        image.info["transparency"] = clear
    if image.mode == "La":
        image = image.convert("LA")
    pixels, notes = over_grey(np.asarray(image.convert("RGBA")))
    return as_image(pixels), notes


def as_image(pixels: np.ndarray) -> "PillowImage.Image":
    """Uint8 (row, col, 3) as an image."""
    module = require("PIL.Image", "images", "reading pictures")
    image: "PillowImage.Image" = module.fromarray(np.ascontiguousarray(pixels))
    return image


def over_grey(pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Put uint8 (row, col, red green blue alpha) on mid-grey; say so if anything was transparent.
    """
    alpha = pixels[:, :, 3:].astype(np.uint16)
    if alpha.min() == 255:
        return pixels[:, :, :3], []
    return (((pixels[:, :, :3] * alpha + MID_GREY * (255 - alpha) + 127) // 255).astype(np.uint8),
            ["transparency on mid-grey"])


def _sixteen_bits(image: "PillowImage.Image", file_format: str | None,
                  tiff_tags: Mapping[int, Any]) -> tuple["PillowImage.Image", list[str]]:
    """Scale grey of 16 (in TIFF perhaps 12) bits to 8 bits; anything wider has no defined range."""
    if not (image.mode.startswith("I;16") or image.mode == "I" and file_format in ("PNG", "PPM")):
        raise Undecodable("pixels without a defined range", f"{file_format} of mode {image.mode}")
    white = 2 ** tiff_tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.asarray(image).astype(np.uint32)
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)
    if tiff_tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow undoes this for 8 bits only
        grey = 255 - grey
    notes = [f"{white.bit_length()} bits to 8"]
    if "transparency" in image.info and (clear := values == image.info["transparency"]).any():
        grey[clear] = MID_GREY
        notes.append("transparency on mid-grey")
    return as_image(np.repeat(grey[:, :, np.newaxis], 3, axis=2)), notes
