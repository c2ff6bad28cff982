"""Images with something to learn in them, and dataset files of them."""
import numpy as np

from hpclcae.data.writer import DatasetWriter

SIZE, COUNT = 24, 60


def structured_images(count, size=SIZE, channels=1, seed=0):
    """Gabor patches at random places, uint8 (image, row, col, channel): there is much to learn."""
    generator = np.random.default_rng(seed)
    row, col = np.mgrid[:size, :size] - size / 2
    images = []
    for _ in range(count):
        angle, frequency, phase = generator.uniform([0, 0.15, 0], [np.pi, 0.35, 2 * np.pi])
        top, left, width = generator.uniform([-size / 4, -size / 4, size / 8],
                                             [size / 4, size / 4, size / 3])
        wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * row + np.sin(angle) * col) + phase)
        spot = np.exp(-((row - top) ** 2 + (col - left) ** 2) / (2 * width ** 2))
        tint = generator.uniform(60, 120, channels)
        noise = generator.normal(0, 6, (size, size, channels))
        images.append(128 + (wave * spot)[..., None] * tint + noise)
    return np.clip(images, 0, 255).astype(np.uint8)


def write_dataset(path, images, labels=None):
    """A dataset file of the given images (image, row, col, channel).

    Every image is a group of its own.
    """
    names = None if labels is None else ["other", "face"]
    with DatasetWriter(path, images.shape[1], images.shape[3], names) as writer:
        for i, image in enumerate(images):
            writer.append(image, source=f"made/{i}", group=f"made/{i}", original=image.shape[:2],
                          crop=(0, 0, *image.shape[:2]), label=-1 if labels is None
                          else int(labels[i]))
    return path
