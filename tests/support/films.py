"""A film of known pictures."""
import av
import numpy as np

ROWS, COLS, RATE = 48, 64, 10
ROW, COL = np.mgrid[:ROWS, :COLS]
SCENE = np.stack([COL * 4, ROW * 5, 0 * ROW + 20], axis=-1).astype(np.uint8)


def write(path, pictures, aspect=None, rotation=0, file_format=None):
    with av.open(str(path), "w", format=file_format) as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height = COLS, ROWS
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
