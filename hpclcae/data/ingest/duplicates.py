"""Find images that were seen before: exactly, or recompressed, resized, brighter or darker.

The near test is a difference hash: of two small grey versions, 128 bits say which of two neighbours
is brighter, along rows and along columns. Near duplicates differ in a few bits. The bits are dealt
to BANDS bands; images that agree in a whole band are compared, so pairs that differ in fewer bits
than there are bands are always found, and others with BITS or fewer mostly. Smooth images agree in
many bits by chance: small colour versions must correlate too. Cropped (by more than a few percent)
and mirrored copies are not found.

Memory is bounded for any number of images: only the newest are held, the others are in files.
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.utils.errors import require

BITS = 14       # of 128; hashes that differ in no more are candidates
BANDS = 8       # of 16 bits
ALIKE = 0.95    # correlation of the small versions of duplicates, at least
SIDE = 16       # rows and cols of the small version
FLAT = 1.0      # standard deviation, in levels of 256, below which there is nothing to correlate
RECENT = 2**15  # images that are held in memory
COMPARED = 2**12  # of those that agree in a band, the newest
BLOCK = 2**18   # entries that are merged in one go
#: Where each bit goes: neighbours to different bands, as they agree with each other.
DEALT = np.arange(128).reshape(16, 8).T.ravel()
ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


@dataclass(frozen=True)
class Print:
    """What of an image is compared."""
    bits: np.ndarray   # uint8 (16,), the difference hash
    small: np.ndarray  # uint8 (SIDE, SIDE, channel)

    @staticmethod
    def size(depth: int) -> int:
        """Bytes of one, for images with so many channels."""
        return 16 + SIDE * SIDE * depth

    def to_bytes(self) -> bytes:
        """All of it."""
        return self.bits.tobytes() + self.small.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes, depth: int) -> "Print":
        """The opposite of `to_bytes`."""
        values = np.frombuffer(content, np.uint8)
        return cls(values[:16], values[16:].reshape(SIDE, SIDE, depth))


def fingerprint(image: np.ndarray) -> Print:
    """Return what of an image, uint8 (row, col, channel), is compared."""
    module = require("PIL.Image", "images", "finding duplicates")
    box = module.Resampling.BOX
    picture = module.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    grey = picture.convert("L").convert("F")
    along, down = (np.asarray(grey.resize(size, box)) for size in ((9, 8), (8, 9)))
    bits = np.concatenate([(along[:, 1:] > along[:, :-1]).ravel(), (down[1:] > down[:-1]).ravel()])
    small = np.asarray(picture.resize((SIDE, SIDE), box)).reshape(SIDE, SIDE, -1)
    return Print(np.packbits(bits[DEALT]), small)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Say whether two small versions correlate; two that show nothing at all count as alike."""
    if one.std() < FLAT or other.std() < FLAT:
        return bool(one.std() < FLAT and other.std() < FLAT)
    return bool(((one - one.mean()) * (other - other.mean())).mean()
                >= ALIKE * one.std() * other.std())


class Seen:
    """Remembers images; tells whether a new one is a duplicate.

    Parameters
    ----------
    folder : Path
        For files of those that are not held in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._checksums = _Index(folder / "checksums")
        self._bands = _Index(folder / "bands")
        self._prints = _Prints(folder / "prints")
        self._count = 0

    def __len__(self) -> int:
        """How many different images are remembered."""
        return self._count

    def add(self, checksum: int, printed: Print | None = None) -> tuple[int, bool] | None:
        """Remember an image unless it is a duplicate.

        Parameters
        ----------
        checksum : int
            Of its pixels, below 2**64.
        printed : Print, optional
            Its fingerprint, to find near duplicates too; always, or never.

        Returns
        -------
        (index, exact) or None
            Number, in order of arrival, of the image that it repeats, and whether exactly so; None
            when it is new.
        """
        if len(same := self._checksums.get(checksum)):
            return int(same[0]), True
        if printed is not None:
            keys = [band << 16 | int(bits)
                    for band, bits in enumerate(printed.bits.view(np.uint16))]
            near = np.unique(np.concatenate([self._bands.get(key) for key in keys]))
            for number in near[self._prints.differ(near, printed) <= BITS].tolist():
                if _alike(self._prints.small(number, printed.small.shape), printed.small):
                    return number, False
            for key in keys:
                self._bands.add(key, self._count)
            self._prints.append(printed)
        self._checksums.add(checksum, self._count)
        self._count += 1
        if self._count % RECENT == 0:
            for part in (self._checksums, self._bands, self._prints):
                part.settle()
        return None


class _Index:
    """Numbers by key: the newest in a dictionary, the others sorted by key in two files."""

    def __init__(self, path: Path) -> None:
        self._path, self._generation = path, 0
        self._recent: dict[int, list[int]] = {}
        self._keys: np.ndarray = np.empty(0, np.uint64)
        self._numbers: np.ndarray = np.empty(0, np.int64)

    def add(self, key: int, number: int) -> None:
        """Numbers only grow."""
        self._recent.setdefault(key, []).append(number)

    def get(self, key: int) -> np.ndarray:
        """The newest COMPARED numbers of a key, ascending."""
        recent = self._recent.get(key, ())
        first, last = (np.searchsorted(self._keys, np.uint64(key), side)
                       for side in ("left", "right")) if len(self._keys) else (0, 0)
        older = self._numbers[max(first, last - COMPARED):last]
        return np.concatenate([older, np.array(recent, np.int64)])[-COMPARED:]

    def settle(self) -> None:
        """Merge what is recent into the files."""
        if not self._recent:
            return
        keys = np.repeat(np.fromiter(self._recent, np.uint64, len(self._recent)),
                         [len(numbers) for numbers in self._recent.values()])
        numbers = np.concatenate([np.array(found, np.int64) for found in self._recent.values()])
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order], numbers[order]
        place = np.searchsorted(self._keys, keys, "right") + np.arange(keys.size)
        total, old = keys.size + self._keys.size, self._files()
        self._generation += 1
        with self._files()[0].open("wb") as new_keys, self._files()[1].open("wb") as new_numbers:
            for start in range(0, total, BLOCK):
                stop = min(total, start + BLOCK)
                first, last = np.searchsorted(place, [start, stop])
                new = np.zeros(stop - start, bool)
                new[place[first:last] - start] = True
                for file, mine, others in ((new_keys, keys, self._keys),
                                           (new_numbers, numbers, self._numbers)):
                    merged = np.empty(stop - start, mine.dtype)
                    merged[new] = mine[first:last]
                    merged[~new] = others[start - first:stop - last]
                    file.write(merged.tobytes())
        self._keys, self._numbers = (np.memmap(self._files()[0], np.uint64, "r"),
                                     np.memmap(self._files()[1], np.int64, "r"))
        self._recent = {}
        for path in old:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [self._path.with_name(f"{self._path.name}-{part}-{self._generation}")
                for part in ("keys", "numbers")]


class _Prints:
    """Fingerprints by number: the newest in memory, the others in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent: list[np.ndarray] = []
        self._older: np.ndarray = np.empty((0, 0), np.uint8)
        path.unlink(missing_ok=True)

    def append(self, printed: Print) -> None:
        """The one of the next number."""
        self._recent.append(np.frombuffer(printed.to_bytes(), np.uint8))

    def differ(self, numbers: np.ndarray, printed: Print) -> np.ndarray:
        """How many bits differ from those of each of some numbers."""
        old = len(self._older)
        bits = np.array([self._recent[number - old][:16] for number in numbers[numbers >= old]],
                        np.uint8).reshape(-1, 16)
        if old:
            bits = np.concatenate([self._older[numbers[numbers < old], :16], bits])
        return ONES[bits ^ printed.bits].sum(axis=1)

    def small(self, number: int, shape: tuple[int, ...]) -> np.ndarray:
        """The small version of a number."""
        old = len(self._older)
        row = self._older[number] if number < old else self._recent[number - old]
        return row[16:].reshape(shape)

    def settle(self) -> None:
        """Append what is recent to the file."""
        if self._recent:
            with self._path.open("ab") as file:
                for row in self._recent:
                    file.write(row.tobytes())
            width = self._recent[0].size
            self._recent = []
            self._older = np.memmap(self._path, np.uint8, "r").reshape(-1, width)
