"""A film of known pictures."""
import struct
from fractions import Fraction

import av
import numpy as np

ROWS, COLS, RATE = 48, 64, 10
ROW, COL = np.mgrid[:ROWS, :COLS]
SCENE = np.stack([COL * 4, ROW * 5, 0 * ROW + 20], axis=-1).astype(np.uint8)


def write(path, pictures, aspect=None, file_format=None, options=None):
    with av.open(str(path), "w", format=file_format, options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height = COLS, ROWS
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def displayed_by(path, new, matrix):
    """Copy a film; the copy has the display matrix (a, b, c, d) in its header."""
    data = path.read_bytes()
    unit = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(unit, data.index(b"tkhd"))
    a, b, c, d = (round(number * (1 << 16)) for number in matrix)
    new.write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
                    + data[at + len(unit):])
    return new


def write_colour(path, colour, matrix, full_range):
    """A film of one colour (red, green, blue), brighter in a corner, in the given YCbCr.

    Parameters
    ----------
    matrix : int
        As in ITU-T H.273: 1 is BT.709, 5 BT.601, 9 BT.2020.
    """
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    r, g, b = (level / 255 for level in colour)
    luma = red * r + (1 - red - blue) * g + blue * b
    low, high, chroma = (0, 255, 255) if full_range else (16, 219, 224)
    planes = np.zeros((96, 64), np.uint8)
    planes[:64] = round(low + high * luma)
    planes[:8, :32] = low + high
    planes[64:80] = round(128 + chroma * (b - luma) / (2 - 2 * blue))
    planes[80:] = round(128 + chroma * (r - luma) / (2 - 2 * red))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1 + full_range
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            frame.colorspace, frame.color_range = matrix, 1 + full_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_film(path, lengths):
    """A film of scenes that differ, of so many frames each, in which something moves."""
    pictures = []
    for scene, length in enumerate(lengths):
        base = np.roll(SCENE, (17 * scene, 23 * scene), (0, 1)) if scene % 2 else 255 - SCENE
        pictures += [np.roll(base, frame, axis=1) for frame in range(length)]
    return write(path, pictures)
