"""Pictures as bytes of a file, and made-up scenes."""
import io

import numpy as np
from PIL import Image


def encode(image, file_format, **options):
    stream = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(stream, file_format, **options)
    return stream.getvalue()


SIZE = 96


def scene(seed):
    """Blobs of colour at several sizes: every seed another picture."""
    generator = np.random.default_rng(seed)
    image = np.zeros((SIZE, SIZE, 3))
    for cells in (3, 6, 12):
        small = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), float) / 3
    return image.astype(np.uint8)


def texture(rng, rows, cols, channels=3):
    """A picture with detail at every scale, uint8 (row, col, channel)."""
    layers = []
    for side in (3, 9, 30):
        pixels = rng.integers(0, 256, (side, side, channels), dtype=np.uint8).squeeze()
        layer = Image.fromarray(pixels).resize((cols, rows), Image.Resampling.BICUBIC)
        layers.append(np.asarray(layer, float))
    return (sum(layers) / 3).astype(np.uint8)
