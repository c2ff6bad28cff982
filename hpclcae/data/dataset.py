"""One HDF5 file of uint8 images with labels, groups, provenance and checksums: reading it.

Layout: ``images`` (image, row, col, channel); ``labels`` (image,), optional: -1 unknown, else the
class, names in its attribute ``label_names`` (of a concept: 0 not the concept, 1 the concept);
``group`` (image,): the person or the photograph, which a split never divides;
``provenance/source``, ``provenance/original`` (rows, cols) and ``provenance/crop`` (top, left,
bottom, right, in pixels of the original); ``checksum`` (image,). Where it is known: ``half``
(image,), 0 to develop on (classifiers: to train on), 1 for final figures; ``kind`` (image,), what
an image shows, names in its attribute ``kind_names``; ``pair`` (image,), the index of the image
that shows the same at another place or time, -1 none: it is the next or the one
before, so that a run of images that is read in one go holds both. Settings, versions and licences
are attributes of the file, as JSON. ``provenance/seconds`` (image,): the time in a film, not a
number of a picture; only in datasets with films. writer.py writes it. Large datasets have their
pixels in several files (shards.py).
"""
import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpclcae.data.compression import check_filters
from hpclcae.data.framing import framing
from hpclcae.data.shards import GROUP, ShardedImages, read_direct, shards_of
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5, seal_of
from hpclcae.utils.reading import reading

KIND = "hpclcae dataset"
SCHEMA = 1
#: A chunk is a run of so many images times a square tile of about so many pixels: a rank reads its
#: own rows and cols of a minibatch, and the minibatch stream draws runs of consecutive images.
CHUNK_IMAGES, CHUNK_PIXELS = 8, 64
ROWS = 2**16              # images of which a column is read at a time
BLOCK_BYTES = 32 * 2**20  # images are copied and verified in blocks of this many bytes


class Dataset:
    """A dataset opened for reading; use as a context manager or call `close`.

    Parameters
    ----------
    path : str or Path
    whole : bool
        Without it files of its pixels may be missing, as long as nobody reads these pixels.

    Attributes
    ----------
    count, rows, cols, channels : int
        Shape of the images; `size` is `rows`, which equals `cols`.

    Raises
    ------
    InputError
        The file is missing, truncated, not HDF5, of another kind, or written by a newer hpclcae.
    """

    def __init__(self, path: str | Path, whole: bool = True) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._file)
            with self._reading():
                self._images = self._file["images"]
                check_filters(self.path, self._images)
                self.shards = shards_of(self._file, self.path)
                if self.shards:
                    self._images = ShardedImages(self.path, self.shards, self._images.shape)
                    if whole:
                        self._images.check()
                self.count, self.rows, self.cols, self.channels = map(int, self._images.shape)
                if self._images.dtype != np.uint8 or not (self.count and self.rows == self.cols > 0
                                                          and self.channels in (1, 3)):
                    raise ValueError(f"images are {self._images.dtype} {self._images.shape}")
                self.settings: dict[str, Any] = dict(json.loads(self._file.attrs["settings"]))
                self.versions: dict[str, str] = dict(json.loads(self._file.attrs["versions"]))
                self.licences: dict[str, str] = dict(json.loads(self._file.attrs["licences"]))
                self.created = str(self._file.attrs["created"])
            stack.pop_all()

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return _reading(self.path)

    def _of_every_image(self, name: str, *shape: int) -> h5py.Dataset:
        """An array that has a row of that shape for every image.

        Raises
        ------
        ValueError
            It has another shape.
        """
        data = self._file[name]
        if data.shape != (self.count, *shape):
            raise ValueError(f"{name} has shape {data.shape} for {self.count} images")
        return data

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, or files."""
        if self.shards:
            self._images.close()
        self._file.close()

    @property
    def size(self) -> int:
        """Rows and cols of an image, pixels."""
        return self.rows

    @property
    def bytes(self) -> int:
        """Bytes of its files."""
        return self.path.stat().st_size + sum(shard.size for shard in self.shards)

    @property
    def chunks(self) -> tuple[int, int, int, int]:
        """Shape of a chunk of `images` (image, row, col, channel)."""
        return self._images.chunks

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """Labels, signed integers (image,): -1 unknown, else an index of `label_names`; or None.

        Raises
        ------
        InputError
            One is neither: names the image.
        """
        with self._reading():
            if "labels" not in self._file:
                return None
            labels = self._of_every_image("labels")[:]
            if labels.dtype.kind != "i":
                raise ValueError(f"labels are {labels.dtype}, not signed integers")
            classes = len(self.label_names or ())
            wrong = (labels < -1) | (labels >= classes)
            if wrong.any():
                at = int(np.argmax(wrong))
                raise InputError(f"{self.path}: image {at} has label {labels[at]}, there are "
                                 f"{classes} names of labels, for 0 to {classes - 1}, and -1 is "
                                 "for unknown: write the dataset again")
            return labels

    @functools.cached_property
    def label_names(self) -> list[str] | None:
        """Name of label 0, 1, ..., or None when there are no labels."""
        with self._reading():
            return [str(name) for name in self._file["labels"].attrs[
                "label_names"]] if "labels" in self._file else None

    @functools.cached_property
    def half(self) -> np.ndarray | None:
        """Half of each image, uint8 (image,): DEVELOPMENT or FINAL; None in a set without halves.

        Raises
        ------
        InputError
            There are no groups, or one has images in both.
        """
        with self._reading():
            if "half" not in self._file:
                return None
            if "group" not in self._file:
                raise InputError(f"{self.path} has halves but no groups, so nobody can tell "
                                 "whether they share a person: write the dataset again")
            half = self._of_every_image("half")[:]
            _, member = np.unique(self.groups, return_inverse=True)
            final = np.bincount(member, half)[member] > 0
            if not np.array_equal(half, final):
                at = int(np.argmax(half != final))
                raise InputError(f"{self.path}: image {at} has half {half[at]}, others of its "
                                 f"group {self.groups[at]!r} do not: write the dataset again")
            return half

    @functools.cached_property
    def kind(self) -> np.ndarray | None:
        """What each image shows, str (image,), for instance "face"; None where it is not stored."""
        with self._reading():
            if "kind" not in self._file:
                return None
            names = np.array(self._file["kind"].attrs["kind_names"], str)
            return names[self._of_every_image("kind")[:]]

    @functools.cached_property
    def pair(self) -> np.ndarray | None:
        """Partner of each image, int64 (image,), -1 none; None in a dataset without pairs.

        Of very many images `pairs` tells the same in less memory.
        """
        with self._reading():
            if "pair" not in self._file:
                return None
            pair = np.full(self.count, -1)
            for first in self.pairs():
                pair[first], pair[first + 1] = first + 1, first
            return pair

    @functools.cached_property
    def pair_count(self) -> int:
        """How many pairs there are."""
        return sum(map(len, self.pairs()))

    def pairs(self) -> Iterator[np.ndarray]:
        """Yield the first image of every pair, ascending: int64 (pair,), of ROWS images at a time.

        The other one is the next image. Partners show the same at two places or times.
        """
        with self._reading():
            data = self._of_every_image("pair") if "pair" in self._file else np.empty(0)
            for start in range(0, len(data), ROWS):
                before = min(start, 1)
                part = data[start - before:start + ROWS + 1]
                own = np.arange(before, min(before + ROWS, before + self.count - start))
                own = own[part[own] >= 0]
                images = own + start - before
                step = part[own] - images
                if (abs(step) != 1).any() or (images + step >= self.count).any() \
                        or (part[own + step] != images).any():
                    raise ValueError("an image is not the partner of its partner beside it")
                yield images[step == 1]

    @property
    def recipe(self) -> dict[str, Any] | None:
        """Settings of composed frames (frames.recipe.Recipe); None in other datasets."""
        return self.settings if "face_size" in self.settings else None

    @property
    def framing(self) -> str:
        """How large faces are and where they lie, in a few words for tables."""
        return framing(self.recipe) if self.recipe else "as in the pictures"

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that no two different datasets share.

        They are made from all that is stored of the images, with their checksums in place of the
        pixels: neither the name of the file nor its date, chunks or settings matter.
        """
        with self._reading():
            digest = hashlib.blake2b(str(self._images.shape).encode(), digest_size=8)
            items: list[h5py.Dataset | h5py.Group] = []
            self._file.visititems(lambda _, item: items.append(item))
            for array in sorted(items, key=lambda item: item.name):
                if (not isinstance(array, h5py.Dataset) or array.name == self._images.name
                        or array.name.startswith(f"/{GROUP}/")):
                    continue
                names = [np.ravel(value).tolist() for value in array.attrs.values()]
                digest.update(f"{array.name} {array.shape} {names}".encode())
                for first in range(0, len(array), ROWS):
                    values = array[first:first + ROWS]
                    digest.update(b"\0" * bool(first) + b"\0".join(values)
                                  if values.dtype == object else values.tobytes())
            return digest.hexdigest()

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """Person or photograph of each image, str (image,)."""
        with self._reading():
            return self._of_every_image("group").asstr()[:]

    @functools.cached_property
    def sources(self) -> np.ndarray:
        """File or clip that each image was made from, str (image,)."""
        with self._reading():
            return self._of_every_image("provenance/source").asstr()[:]

    def column(self, name: str, run: slice) -> np.ndarray | None:
        """What is known of a run of images: one of the arrays of the file; None if it lacks it."""
        with self._reading():
            return self._of_every_image(name)[run] if name in self._file else None

    @functools.cached_property
    def seconds(self) -> np.ndarray | None:
        """Time of each image in its film, float64 (image,), not a number of a picture; or None."""
        with self._reading():
            return (self._of_every_image("provenance/seconds")[:]
                    if "provenance/seconds" in self._file else None)

    @functools.cached_property
    def checksums(self) -> np.ndarray:
        """Checksum of the pixels of each image, uint64 (image,): BLAKE2b of 8 bytes."""
        with self._reading():
            return self._of_every_image("checksum")[:]

    @functools.cached_property
    def originals(self) -> np.ndarray:
        """Size of the picture each image was cut from, int32 (image, 2): rows, cols."""
        with self._reading():
            return self._of_every_image("provenance/original", 2)[:]

    @functools.cached_property
    def crops(self) -> np.ndarray:
        """Part of that picture, int32 (image, 4): top, left, bottom, right."""
        with self._reading():
            return self._of_every_image("provenance/crop", 4)[:]

    def read(self, indices: np.ndarray, rows: slice = slice(None),
             cols: slice = slice(None)) -> np.ndarray:
        """Read some images, or a spatial slab of them.

        Parameters
        ----------
        indices : integer array (image,)
            Any order, repeats allowed; each run of consecutive indices is read in one go.
        rows, cols : slice
            Part of the images.

        Returns
        -------
        uint8 array (image, row, col, channel)

        Raises
        ------
        IndexError
            An index is negative or too large.
        """
        indices = np.asarray(indices, np.int64).reshape(-1)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.count:
            raise IndexError(f"indices from {indices.min()} to {indices.max()} in a dataset of "
                             f"{self.count} images")
        slab = [len(range(*rows.indices(self.rows))), len(range(*cols.indices(self.cols)))]
        images = np.empty((indices.size, *slab, self.channels), np.uint8)
        starts = np.flatnonzero(np.diff(indices, prepend=-2) != 1)
        with self._reading():
            for start, stop in zip(starts, [*starts[1:], indices.size]):
                first, last = indices[start], indices[stop - 1] + 1
                read_direct(self._images, images, np.s_[first:last, rows, cols], np.s_[start:stop])
        return images

    def check_seal(self) -> None:
        """Compare all but the pixels with their checksum.

        Raises
        ------
        InputError
            They are damaged.
        """
        with self._reading():
            expected, found = seal_of(self.path)
            if found != expected:
                raise OSError(f"its checksum is {found:08x}, {expected:08x} was written")

    def verify(self) -> list[int]:
        """Return the indices of images that do not have the checksum they were written with.

        Raises
        ------
        InputError
            What is not images, names above all, is damaged: of a large dataset this is not looked
            at when it is opened.
        """
        self.check_seal()
        with self._reading():
            stored = self.checksums
            return [first + i for first, last in blocks(self._images.shape)
                    for i, image in enumerate(self._readable(first, last))
                    if image is None or checksum(image.tobytes()) != stored[first + i]]

    def _readable(self, first: int, last: int) -> Iterator[np.ndarray | None]:
        """Yield a run of images, None for those whose chunks are damaged."""
        try:
            yield from self._images[first:last]
        except (OSError, InputError):  # chunk by chunk
            if last - first <= CHUNK_IMAGES:
                yield from [None] * (last - first)
            else:
                for start in range(first, last, CHUNK_IMAGES):
                    yield from self._readable(start, min(last, start + CHUNK_IMAGES))


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise InputError(f"{path} is not a file: give a dataset, as written by 'hpclcae data "
                         "ingest' or 'data frames'")
    with _reading(path), contextlib.ExitStack() as stack:
        file = stack.enter_context(read_hdf5(path))
        kind, schema = file.attrs.get("kind"), int(file.attrs.get("schema", 0))
        if kind != KIND:
            raise InputError(f"{path} is {kind or 'an HDF5 file of another kind'}, not a dataset: "
                             "give a file written by 'hpclcae data ingest' or 'data frames'")
        if schema > SCHEMA:
            raise InputError(f"{path} has schema {schema}, this hpclcae reads up to {SCHEMA}: use "
                             "a newer hpclcae")
        stack.pop_all()
        return file


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    return reading(path, "HDF5 dataset", "write it again")


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of runs of whole chunks of about BLOCK_BYTES."""
    count, *image = shape
    step = CHUNK_IMAGES * max(1, BLOCK_BYTES // (CHUNK_IMAGES * int(np.prod(image))))
    for first in range(0, count, step):
        yield first, min(count, first + step)


def checksum(content: bytes | memoryview) -> int:
    """What `checksum` holds of an image: 8 bytes of BLAKE2b of its pixels."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
