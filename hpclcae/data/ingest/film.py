"""Take frames out of a film: one that shows something, one of every scene, or one every so many
seconds."""
import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hpclcae.data.decode import MAX_PIXELS, UNREADABLE, Picture, Undecodable, as_image, over_grey
from hpclcae.utils.errors import require

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Where to look for the one frame, in shares of the duration.
PLACES = (0.5, 0.35, 0.65, 0.2, 0.8, 0.1, 0.9)
CONTRAST = 12.0  # standard deviation, of 256 levels, of a frame that shows something
SCANNED = 600    # frames looked at when a film does not say how long it is
KEPT = 8         # of these, evenly spread, to choose from
#: Scenes: frames are compared by small grey versions of SMALL rows and cols; where the mean
#: difference is more than CUT levels of 256, and CUT_RATIO times what it was of late, one ends.
SMALL, CUT, CUT_RATIO = 32, 20.0, 4.0
LOOKED_AT = 0.5  # seconds from one frame of a scene that may be taken to the next
#: Formats with transparency, by the beginning of FFmpeg's names.
ALPHA = ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya8", "ya16", "pal8")
#: Transfer characteristics (ITU-T H.273) of more brightness than eight bits show.
HDR = {16: "PQ", 18: "HLG"}


def frames(content: bytes | Path, every: float | None = None, later: float | None = None, *,
           scenes: bool = False,
           draw: np.random.Generator | None = None) -> Iterator[tuple[float, Picture]]:
    """Yield (seconds, picture) of a film.

    Upright and the right way round by its display matrix, with square pixels, colours by the matrix
    and range that the film states. Frames without contrast (fades, black, test cards of one colour)
    are passed over.

    Parameters
    ----------
    content : bytes or Path
        The file, or its bytes.
    every : float, optional
        One frame every so many seconds; without it, or from a shorter film, one frame near the
        middle.
    later : float, optional
        Less than `every`: frames come in twos, the second so many seconds after the first. A film
        too short for any gives the one frame near its middle.
    scenes : bool
        One frame of every scene, the one of most contrast.
    draw : Generator, optional
        The one frame is at a time that it draws, in place of near the middle.

    Raises
    ------
    Undecodable
        Damaged, no video in it, or no frame that shows something.
    """
    av = require("av", "images", "reading films")
    found = False
    try:
        with _opened(content) as (container, stream):
            if every is not None or scenes:
                several = (_scenes(container, stream) if every is None
                           else _regular(container, stream, every, later))
                for picture in several:
                    found = True
                    yield picture
            places = PLACES if draw is None else draw.random(len(PLACES))
            best = None if found else _telling(_sought(container, stream, places), stream)
        if not found and best is None:  # a live recording, or it cannot be entered in the middle
            with _opened(content) as (container, stream):
                best = _telling(_scanned(container, stream, draw), stream)
    except (av.error.FFmpegError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        if isinstance(error, PermissionError):
            raise Undecodable(UNREADABLE, error.strerror) from error
        raise Undecodable("damaged film", f"{error}; its frames before that are kept") \
            if found else Undecodable("damaged", error) from error
    if found:
        return
    if best is None:
        raise Undecodable("damaged", "no frame can be decoded")
    if _contrast(best[1]) < CONTRAST:
        raise Undecodable("no frame shows anything",
                          f"best contrast {_contrast(best[1]):.1f} of 256 levels")
    yield best


@contextlib.contextmanager
def _opened(content: bytes | Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """A film from its beginning, and its best stream."""
    av = require("av", "images", "reading films")
    with contextlib.ExitStack() as opened:
        file: object = io.BytesIO(content) if isinstance(content, bytes) else None
        if isinstance(content, Path):
            file = os.path.abspath(content)  # FFmpeg would take "a:b.mp4" for a protocol
            if not file.isascii():           # and a name that is not UTF-8 for another one
                file = opened.enter_context(content.open("rb"))
        container = opened.enter_context(av.open(file, metadata_errors="replace"))
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise Undecodable("no video in it", "or none that can be decoded")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise Undecodable("too many pixels",
                              f"{stream.codec_context.width} x {stream.codec_context.height}")
        stream.thread_type = "AUTO"
        yield container, stream


def _regular(container: "InputContainer", stream: "VideoStream",
             every: float, later: float | None) -> Iterator[tuple[float, Picture]]:
    """Yield one frame every `every` seconds, the first after half of that time; or two."""
    due = every / 2
    first: tuple[float, Picture] | None = None  # of two, until the second is found
    start = (container.start_time or 0) / 1e6
    for index, frame in enumerate(container.decode(stream)):
        seconds = _seconds(frame, stream, index) - start
        wanted = due if first is None or later is None else first[0] + later
        if seconds < wanted or frame.is_corrupt:
            continue
        picture = _picture(frame, stream)
        shows = _contrast(picture) >= CONTRAST
        if first is None:
            due += every * (1 + (seconds - due) // every)
            if later is None and shows:
                yield seconds, picture
            elif shows:
                first = seconds, picture
        else:
            if shows:
                yield from (first, (seconds, picture))
            first = None


def _scenes(container: "InputContainer",
            stream: "VideoStream") -> Iterator[tuple[float, Picture]]:
    """Yield the frame of most contrast of every scene, of those looked at."""
    before: np.ndarray | None = None
    usual, looked = 0.0, -np.inf
    best: tuple[float, VideoFrame] | None = None
    most = -1.0

    def taken() -> Iterator[tuple[float, Picture]]:
        if best is not None:
            picture = _picture(best[1], stream)
            if _contrast(picture) >= CONTRAST:
                yield best[0], picture
    start = (container.start_time or 0) / 1e6
    for index, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt:
            continue
        seconds = _seconds(frame, stream, index) - start
        small = frame.to_ndarray(width=SMALL, height=SMALL, format="gray").astype(np.float32)
        change = 0.0 if before is None else float(np.abs(small - before).mean())
        if change > max(CUT, CUT_RATIO * usual):
            yield from taken()
            best, most, usual, looked = None, -1.0, 0.0, -np.inf
        else:
            usual += 0.2 * (change - usual)
        before = small
        if seconds - looked >= LOOKED_AT:
            looked = seconds
            if (contrast := float(small.std())) > most:
                best, most = (seconds, frame), contrast
    yield from taken()


def _telling(candidates: "Iterable[tuple[float, VideoFrame]]",
             stream: "VideoStream") -> tuple[float, Picture] | None:
    """Return the first of a few frames with enough contrast, else the one with most, if any."""
    best: tuple[float, Picture] | None = None
    for seconds, frame in candidates:
        picture = _picture(frame, stream)
        if best is None or _contrast(picture) > _contrast(best[1]):
            best = seconds, picture
        if _contrast(picture) >= CONTRAST:
            break
    return best


def _sought(container: "InputContainer", stream: "VideoStream",
            places: Iterable[float]) -> Iterator[tuple[float, "VideoFrame"]]:
    """Frames at some places, in shares of the duration, of a film that says how long it is.

    None if it does not, or cannot be sought in.
    """
    av = require("av", "images", "reading films")
    start = container.start_time or 0
    duration = container.duration or 0
    for place in places if duration > 0 else ():
        target = float(start + place * duration) / 1e6
        nearest = None
        try:
            container.seek(int(target * 1e6))  # to the key frame before it
            for index, frame in enumerate(container.decode(stream)):
                if not frame.is_corrupt:
                    nearest = _seconds(frame, stream, index), frame
                if nearest and nearest[0] >= target:
                    break
        except av.error.FFmpegError:  # other places may be whole
            pass
        if nearest:
            yield nearest


def _scanned(container: "InputContainer", stream: "VideoStream",
             draw: np.random.Generator | None) -> Iterator[tuple[float, "VideoFrame"]]:
    """Evenly spread frames of a film without a duration.

    Those near the middle first, or as `draw` draws.
    """
    kept: list[tuple[float, VideoFrame]] = []
    spacing = 1
    for index, frame in zip(range(SCANNED), _decodable(container, stream)):
        if index % spacing == 0 and not frame.is_corrupt:
            kept.append((_seconds(frame, stream, index), frame))
        if len(kept) > KEPT:
            kept, spacing = kept[::2], 2 * spacing
    middle = (len(kept) - 1) / 2
    order = (sorted(range(len(kept)), key=lambda i: abs(i - middle)) if draw is None
             else draw.permutation(len(kept)).tolist())
    yield from (kept[i] for i in order)


def _decodable(container: "InputContainer", stream: "VideoStream") -> "Iterator[VideoFrame]":
    """The frames up to the first damage."""
    av = require("av", "images", "reading films")
    try:
        yield from container.decode(stream)
    except av.error.FFmpegError:
        return


def _seconds(frame: "VideoFrame", stream: "VideoStream", index: int) -> float:
    """Time of a frame; from its number where the film has no clock."""
    return float(frame.time) if frame.time is not None else index / float(stream.average_rate or 25)


def _contrast(picture: Picture) -> float:
    """Standard deviation of the brightness, in levels of 256."""
    return float(picture.pixels.mean(axis=2).std())


def _picture(frame: "VideoFrame", stream: "VideoStream") -> Picture:
    """Convert a frame to an upright picture with square pixels."""
    notes: list[str] = []
    if frame.format.name.startswith(ALPHA):
        pixels, notes = over_grey(frame.to_ndarray(format="rgba"))
    else:
        pixels = frame.to_ndarray(format="rgb24")
    if frame.color_trc in HDR:
        notes.append(f"{HDR[frame.color_trc]} brightness as it is stored")
    width_to_height = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if width_to_height and width_to_height > 0 and width_to_height != 1:
        width = max(1, round(frame.width * width_to_height))
        if width * frame.height > MAX_PIXELS:
            raise Undecodable("too many pixels", f"{width} x {frame.height} when made square")
        image = require("PIL.Image", "images", "reading films").fromarray(pixels)
        pixels = np.asarray(image.resize((width, image.height)))
        notes.append("pixels made square")
    if matrix := frame.side_data.get("DISPLAYMATRIX"):
        turned = _displayed(pixels, np.frombuffer(cast(Any, matrix), np.int32)[[0, 1, 3, 4]])
        if turned is not pixels:
            notes.append("turned by its display matrix")
        pixels = turned
    rows, cols = pixels.shape[:2]
    return Picture(as_image(pixels), (rows, cols), tuple(notes))


def _displayed(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn and mirror pixels (row, col, ...) by a display matrix.

    Parameters
    ----------
    pixels : array (row, col, channel)
    matrix : int32 array (4,)
        a, b, c, d, in any unit: what is at (col, row) is shown at (a col + c row, b col + d row).

    Raises
    ------
    Undecodable
        It turns by another angle than a multiple of 90 degrees.
    """
    a, b, c, d = (int(number) for number in matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        main, others, rows_turn, cols_turn = (a, d), (b, c), d < 0, a < 0
    else:
        main, others, rows_turn, cols_turn = (b, c), (a, d), b < 0, c < 0
        pixels = pixels.swapaxes(0, 1)
    if max(map(abs, others)) > 0.02 * min(map(abs, main)):
        raise Undecodable("turned by an oblique angle", f"display matrix {a} {b} {c} {d}")
    if rows_turn:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if cols_turn else pixels
