"""What a file is by its first bytes, and pictures whose decoder stumbles over something else.

Endings lie: a JPEG may be called ``.png`` or nothing at all. Metadata that is too large or damaged
is no reason to leave a good picture out, and a JPEG of which a part is gone is no good picture.
"""
import io
import zlib
from pathlib import Path

from hpclcae.utils.errors import MissingExtraError, require

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif",
            ".heic", ".heif", ".hif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
            ".pnm", ".tga", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc")
#: The first bytes of formats that nothing else begins with.
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
COMMON = (JPEG, PNG, b"GIF87a", b"GIF89a")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Brands of ISO media files (bytes 8 to 12) that are pictures; all others are films.
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
STILL = (b"avif", b"avis", *HEIC)
FILM_MAGIC = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1", b"OggS",
              b"\x30\x26\xb2\x75", b"YUV4MPEG2")


def first_bytes(content: bytes | Path, size: int = 16) -> bytes:
    """The beginning of a file."""
    if isinstance(content, bytes):
        return content[:size]
    with content.open("rb") as file:
        return file.read(size)


def is_common(head: bytes) -> bool:
    """Whether a file without an ending is a picture: JPEG, PNG, GIF or WebP by its first bytes."""
    return head.startswith(COMMON) or head[:4] + head[8:12] == b"RIFFWEBP"


def is_heic(head: bytes) -> bool:
    """Whether the first 64 bytes are those of a HEIC picture."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIC and b"avif" not in head


def kind_of(head: bytes) -> str | None:
    """Say by its first bytes whether a file is a "picture" or a "film", whatever its ending says.

    None where they do not tell.
    """
    if is_common(head) or head.startswith(TIFF_MAGIC):
        return "picture"
    if head[4:8] == b"ftyp":
        return "picture" if head[8:12] in STILL else "film"
    if head.startswith(FILM_MAGIC) or head[:4] + head[8:12] == b"RIFFAVI ":
        return "film"
    return None


def without_metadata(content: bytes | Path) -> bytes | None:
    """A JPEG or PNG without text, profiles and broken EXIF, or None if there is nothing to drop."""
    if isinstance(content, Path):
        content = content.read_bytes()
    if content.startswith(JPEG):
        bare = _bare_jpeg(content)
    elif content.startswith(PNG):
        bare = _bare_png(content)
    else:
        return None
    return bare if len(bare) < len(content) else None


def _bare_jpeg(content: bytes) -> bytes:
    """Drop applications' segments, except Adobe's, which says how colours are meant."""
    kept, at = [content[:2]], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        size = 2 + int.from_bytes(content[at + 2:at + 4], "big")
        if not (0xE0 <= content[at + 1] < 0xEE or content[at + 1] in (0xEF, 0xFE)):
            kept.append(content[at:at + size])
        at += size
    return b"".join([*kept, content[at:]])


def _bare_png(content: bytes) -> bytes:
    """Drop chunks that hold no pixels and have a wrong checksum or are text or a profile."""
    kept, at = [content[:8]], 8
    while at + 8 <= len(content):
        size, name = int.from_bytes(content[at:at + 4], "big"), content[at + 4:at + 8]
        chunk = content[at:at + 12 + size]
        sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        xmp = chunk[8:].startswith(b"XML:com.adobe.xmp") and size < 2**20  # may hold an orientation
        optional = bool(name[0] & 0x20)
        if not optional or sound and (xmp or name not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP")):
            kept.append(chunk)
        at += 12 + size
    return b"".join(kept)


def is_whole_jpeg(content: bytes | Path) -> bool:
    """Whether a JPEG's data go on to its last row; libjpeg makes up grey for what is not there."""
    try:
        av = require("av", "images", "examining a JPEG")
    except MissingExtraError:  # nothing tells
        return True
    try:
        data = content if isinstance(content, bytes) else content.read_bytes()
        with av.open(io.BytesIO(data), format="jpeg_pipe") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            return all(not frame.is_corrupt for frame in container.decode(stream))
    except av.error.InvalidDataError:
        return False
    except (av.error.FFmpegError, IndexError):  # a kind of JPEG that FFmpeg does not know
        return True
