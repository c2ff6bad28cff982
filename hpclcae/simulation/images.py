"""Images to learn from, drawn from a seed: bars of random place, direction and width, and noise.

There is much to learn from them, and nobody has to fetch anything.
"""
import numpy as np

NOISE, TINT = 6.0, (60.0, 120.0)  # grey levels


def drawn_images(count: int, size: int, channels: int, seed: int = 0) -> np.ndarray:
    """Images (image, row, col, channel), uint8."""
    generator = np.random.default_rng([seed, 17])
    rows, cols = np.mgrid[:size, :size] - (size - 1) / 2
    images = np.full((count, size, size, channels), 128.0)
    for image in images:
        for _ in range(2):
            angle, phase, frequency = generator.uniform([0, 0, 0.12], [np.pi, 2 * np.pi, 0.35])
            down, right = generator.uniform(-size / 3, size / 3, 2)
            width = generator.uniform(size / 8, size / 3)
            wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * rows + np.sin(angle) * cols)
                          + phase)
            spot = np.exp(-((rows - down) ** 2 + (cols - right) ** 2) / (2 * width ** 2))
            image += (wave * spot)[..., None] * generator.uniform(*TINT, channels)
        image += generator.normal(0, NOISE, image.shape)
    return np.clip(images, 0, 255).astype(np.uint8)
