"""Take frames out of a film: one that shows something, or one every so many seconds."""
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.data.decode import MAX_PIXELS, Picture, Undecodable
from hpclcae.utils.errors import require

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Where to look for the one frame, in shares of the duration.
PLACES = (0.5, 0.35, 0.65, 0.2, 0.8, 0.1, 0.9)
CONTRAST = 12.0  # standard deviation, of 256 levels, of a frame that shows something
SCANNED = 600    # frames looked at when a film does not say how long it is


def frames(content: bytes | Path, every: float | None = None,
           later: float | None = None) -> Iterator[tuple[float, Picture]]:
    """Yield (seconds, picture) of a film.

    Upright by its display matrix, with square pixels. Frames without contrast (fades, black, test
    cards of one colour) are passed over.

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

    Raises
    ------
    Undecodable
        Damaged, no video in it, or no frame that shows something.
    """
    av = require("av", "images", "reading films")
    found = False
    try:
        with av.open(io.BytesIO(content) if isinstance(content, bytes)
                     else str(content)) as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise Undecodable("no video in it", "or none that can be decoded")
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise Undecodable("too many pixels",
                                  f"{stream.codec_context.width} x {stream.codec_context.height}")
            stream.thread_type = "AUTO"
            if every is not None:
                for picture in _regular(container, stream, every, later):
                    found = True
                    yield picture
            if not found:
                yield _telling(container, stream)
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise Undecodable("damaged", error) from error


def _regular(container: "InputContainer", stream: "VideoStream",
             every: float, later: float | None) -> Iterator[tuple[float, Picture]]:
    """Yield one frame every `every` seconds, the first after half of that time; or two."""
    due = every / 2
    first: tuple[float, Picture] | None = None  # of two, until the second is found
    for index, frame in enumerate(container.decode(stream)):
        seconds = _seconds(frame, stream, index)
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


def _telling(container: "InputContainer", stream: "VideoStream") -> tuple[float, Picture]:
    """Return the first of a few frames with enough contrast, else the one with most."""
    best: tuple[float, Picture] | None = None
    for seconds, frame in _candidates(container, stream):
        picture = _picture(frame, stream)
        if best is None or _contrast(picture) > _contrast(best[1]):
            best = seconds, picture
        if _contrast(picture) >= CONTRAST:
            break
    if best is None:
        raise Undecodable("damaged", "no frame can be decoded")
    if _contrast(best[1]) < CONTRAST:
        raise Undecodable("no frame shows anything",
                          f"best contrast {_contrast(best[1]):.1f} of 256 levels")
    return best


def _candidates(container: "InputContainer",
                stream: "VideoStream") -> Iterator[tuple[float, "VideoFrame"]]:
    # a live recording or a bare stream: it cannot be entered in the middle
    if not container.duration:
        container.seek(0)
        for index, frame in zip(range(SCANNED), container.decode(stream)):
            if index % 25 == 24 and not frame.is_corrupt:
                yield _seconds(frame, stream, index), frame
        return
    start = container.start_time or 0
    for place in PLACES:
        target = (start + place * container.duration) / 1e6
        container.seek(int(target * 1e6))  # to the key frame before it
        nearest = None
        for index, frame in enumerate(container.decode(stream)):
            if not frame.is_corrupt:
                nearest = _seconds(frame, stream, index), frame
            if nearest and nearest[0] >= target:
                break
        if nearest:
            yield nearest


def _seconds(frame: "VideoFrame", stream: "VideoStream", index: int) -> float:
    """Time of a frame; from its number where the film has no clock."""
    return float(frame.time) if frame.time is not None else index / float(stream.average_rate or 25)


def _contrast(picture: Picture) -> float:
    """Standard deviation of the brightness, in levels of 256."""
    return float(picture.pixels.mean(axis=2).std())


def _picture(frame: "VideoFrame", stream: "VideoStream") -> Picture:
    """Convert a frame to an upright picture with square pixels."""
    notes = []
    pixels = frame.to_ndarray(format="rgb24")
    width_to_height = stream.sample_aspect_ratio  # of one pixel
    if width_to_height and width_to_height != 1:
        image = require("PIL.Image", "images", "reading films").fromarray(pixels)
        pixels = np.asarray(image.resize((max(1, round(image.width * width_to_height)),
                                          image.height)))
        notes.append("pixels made square")
    if turns := round(frame.rotation / 90) % 4:
        pixels = np.rot90(pixels, turns)
        notes.append("turned by its display matrix")
    rows, cols = pixels.shape[:2]
    return Picture(np.ascontiguousarray(pixels), (rows, cols), tuple(notes))
