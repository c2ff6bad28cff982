"""Find images that were seen before: exactly, or recompressed, resized, brighter or darker.

The near test is a difference hash: of a small grey version, 64 bits say which of two neighbours is
brighter. Hashes of near duplicates differ in a few bits. Of two hashes that differ in at most BITS
bits and are cut into BITS + 1 bands, one band is equal, so looking up the bands finds every
candidate without comparing all pairs. Smooth images agree in many bits by chance: small colour
versions must correlate too. Cropped (by more than a few percent) and mirrored copies are not found.
"""
import hashlib
from collections import defaultdict

import numpy as np

BITS = 7        # hashes that differ in no more bits are candidates
ALIKE = 0.95    # and the correlation of their small versions is at least this
SIDE = 16       # rows and cols of the small version
FLAT = 1.0      # standard deviation, in levels of 256, below which there is nothing to correlate
BANDS = np.array_split(np.arange(64), BITS + 1)
MASKS = [sum(1 << int(bit) for bit in band) for band in BANDS]


class Seen:
    """Remembers images; tells whether a new one is a duplicate.

    Parameters
    ----------
    near : bool
        Also near duplicates, not only images with exactly the same pixels.
    """

    def __init__(self, near: bool) -> None:
        self.near = near
        self._exact: dict[bytes, int] = {}
        self._bands: list[dict[int, list[int]]] = [defaultdict(list) for _ in MASKS]
        self._hashes: list[int] = []
        self._small: list[np.ndarray] = []

    def __len__(self) -> int:
        """How many different images are remembered."""
        return len(self._exact)

    def add(self, image: np.ndarray) -> tuple[int, bool] | None:
        """Remember `image` unless it is a duplicate.

        Parameters
        ----------
        image : uint8 array (row, col, channel)

        Returns
        -------
        (index, exact) or None
            Number, in order of arrival, of the image that it repeats, and whether exactly so; None
            when it is new.
        """
        digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(),
                                 digest_size=16).digest()
        if digest in self._exact:
            return self._exact[digest], True
        if self.near:
            bits, small = fingerprint(image)
            keys = [(band, bits & mask) for band, mask in zip(self._bands, MASKS)]
            for index in sorted({index for band, key in keys for index in band[key]}):
                close = (self._hashes[index] ^ bits).bit_count() <= BITS
                if close and _alike(self._small[index], small):
                    return index, False
            for band, key in keys:
                band[key].append(len(self))
            self._hashes.append(bits)
            self._small.append(small)
        self._exact[digest] = len(self)
        return None


def fingerprint(image: np.ndarray) -> tuple[int, np.ndarray]:
    """Return an image's 64-bit difference hash and its small version (SIDE, SIDE, channel), uint8.
    """
    grey = _shrink(image.mean(axis=2, keepdims=True), 8, 9)[:, :, 0]
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return int.from_bytes(bits.tobytes(),
                          "big"), np.round(_shrink(image, SIDE, SIDE)).astype(np.uint8)


def _shrink(image: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Average an image over rows x cols rectangles (nearly equal ones.

    Pixels are repeated if there are too few).
    """
    for axis, size in ((0, rows), (1, cols)):
        edges = np.linspace(0, image.shape[axis], size + 1)
        first = np.floor(edges[:-1]).astype(int)
        count = np.maximum(np.floor(edges[1:]).astype(int) - first, 1)
        last = first + count
        total = np.insert(np.cumsum(image, axis=axis, dtype=np.float64), 0, 0.0, axis=axis)
        shape = [-1 if i == axis else 1 for i in range(3)]
        image = (total.take(last, axis) - total.take(first, axis)) / count.reshape(shape)
    return image


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Say whether two small versions correlate; two that show nothing at all count as alike."""
    if one.std() < FLAT or other.std() < FLAT:
        return bool(one.std() < FLAT and other.std() < FLAT)
    return bool(((one - one.mean()) * (other - other.mean())).mean()
                >= ALIKE * one.std() * other.std())
