"""One HDF5 file of uint8 images with labels, groups, provenance and checksums.

Layout: ``images`` (image, row, col, channel); ``labels`` (image,), optional: -1 unknown, else the
class, names in its attribute ``label_names`` (of a concept: 0 not the concept, 1 the concept);
``group`` (image,): the person or the photograph, which a split never divides;
``provenance/source``, ``provenance/original`` (rows, cols) and ``provenance/crop`` (top, left,
bottom, right, in pixels of the original); ``checksum`` (image,). Where it is known: ``half``
(image,), 0 to develop on (classifiers: to train on), 1 for final figures; ``kind`` (image,), what
an image shows, names in its attribute ``kind_names``; ``pair`` (image,), the index of the image
that shows the same at another place or time, -1 none: it is the next or the one
before, so that a run of images that is read in one go holds both. Settings, versions and licences
are attributes of the file, as JSON.
"""
import contextlib
import functools
import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import h5py
import numpy as np

from hpclcae import __version__
from hpclcae.data.framing import framing
from hpclcae.data.halves import HALVES, halves_of_images
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_hdf5, read_hdf5, replacing_hdf5, seal_of
from hpclcae.utils.reading import reading

KIND = "hpclcae dataset"
SCHEMA = 1
#: A chunk is a run of so many images times a square tile of about so many pixels: a rank reads its
#: own rows and cols of a minibatch, and the minibatch stream draws runs of consecutive images.
CHUNK_IMAGES, CHUNK_PIXELS = 8, 64
BLOCK_BYTES = 32 * 2**20  # images are copied and verified in blocks of this many bytes


class DatasetWriter:
    """Write a dataset; use as a context manager.

    Images are appended to an unnamed file in the folder of `path` (it vanishes with the process,
    however that ends); on a normal exit they are copied, in their final order, to an HDF5 file that
    then takes the name `path`. Memory stays bounded; the disk holds every image twice until the
    end.

    Parameters
    ----------
    path : str or Path
        File to write; an older file of that name stays until the new one is complete.
    size : int
        Rows and cols of every image, pixels.
    channels : int
        1 (grey) or 3 (red, green, blue).
    label_names : list of str, optional
        Name of label 0, 1, ...; without it no labels are stored. Names may be added until the end.
    settings : dict, optional
        How the images were made; anything that JSON can hold.
    licences : dict, optional
        Source (first part of a group) to licence.
    shuffle_seed : int, optional
        Store the images in the random order of this seed instead of the order in which they came.

    Attributes
    ----------
    half_seed : int, optional
        Set before the end, it deals the images of each class to the halves.

    Raises
    ------
    InputError
        The size is not usable, the folder cannot be written, or no image was appended.
    """

    def __init__(self, path: str | Path, size: int, channels: int,
                 label_names: list[str] | None = None,
                 settings: dict[str, Any] | None = None, *, licences: dict[str, str] | None = None,
                 shuffle_seed: int | None = None) -> None:
        if size < 1 or channels not in (1, 3):
            raise InputError(f"images of size {size} with {channels} channels cannot be stored: "
                             "the size is at least 1, channels are 1 or 3")
        if shuffle_seed is not None:
            check_seed(shuffle_seed)
        self.path, self.shape = Path(path), (size, size, channels)
        self.label_names, self.settings = label_names, settings or {}
        self.licences, self.shuffle_seed = licences or {}, shuffle_seed
        self.half_seed: int | None = None
        self._labels: list[int] = []
        self._groups: list[str] = []
        self._sources: list[str] = []
        self._originals: list[tuple[int, int]] = []
        self._crops: list[tuple[int, int, int, int]] = []
        self._halves: list[int] = []
        self._kinds: list[str] = []
        self._pairs: list[int] = []
        self._checksums: list[int] = []

    def __enter__(self) -> "DatasetWriter":
        check_output(self.path, lambda path: is_hdf5(path, KIND), "a dataset")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._spool: BinaryIO = tempfile.TemporaryFile(dir=self.path.parent)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}; choose another "
                             "folder") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        with self._spool:
            if kind is not None:
                return
            if not self.count:
                raise InputError(f"no image for {self.path}: nothing was written")
            self._spool.flush()
            with replacing_hdf5(self.path) as file:
                self._save(file)

    @property
    def count(self) -> int:
        """How many images have been appended."""
        return len(self._checksums)

    def append(self, image: np.ndarray, *, source: str, group: str, original: tuple[int, int],
               crop: tuple[int, int, int, int], label: int = -1, half: int = -1, kind: str = "",
               pair: int = -1) -> None:
        """Add one image.

        Parameters
        ----------
        image : uint8 array (row, col, channel)
        source : str
            Where it comes from: file, member of an archive, time in a video.
        group : str
            Person or photograph, ``"<source>/<name>"``.
        original : (rows, cols)
            Size of the picture it was cut from, pixels.
        crop : (top, left, bottom, right)
            The part of the original that is shown, pixels.
        label : int
            -1 unknown, else an index of `label_names`.
        half : int
            DEVELOPMENT or FINAL (halves.py); -1: the dataset has no halves.
        kind : str
            What it shows; without it the dataset has no kinds.
        pair : int
            Its partner, one that was appended before (counted from 0); -1: it has none so far.

        Raises
        ------
        ValueError
            Wrong shape, dtype, label or half; the partner is not there or has another one.
        """
        if image.shape != self.shape or image.dtype != np.uint8:
            raise ValueError(f"image is {image.dtype} {image.shape}, the dataset holds uint8 "
                             f"{self.shape}")
        if not -1 <= label < len(self.label_names or ()):
            raise ValueError(f"label {label} is neither -1 nor an index of {self.label_names}")
        if half not in (-1, *HALVES):
            raise ValueError(f"half {half} is neither -1 nor one of {HALVES}")
        if not -1 <= pair < self.count or pair >= 0 and self._pairs[pair] >= 0:
            raise ValueError(f"image {pair} cannot be the partner of image {self.count}")
        content = np.ascontiguousarray(image).tobytes()
        self._spool.write(content)
        self._labels.append(label)
        self._groups.append(group)
        self._sources.append(source)
        self._originals.append(original)
        self._crops.append(crop)
        if pair >= 0:
            self._pairs[pair] = self.count
        self._halves.append(half)
        self._kinds.append(kind)
        self._pairs.append(pair)
        self._checksums.append(_checksum(content))

    def _save(self, file: h5py.File) -> None:
        """Write everything to the HDF5 file in the final order."""
        order = np.arange(self.count)
        if self.shuffle_seed is not None:
            order = np.random.default_rng(self.shuffle_seed).permutation(self.count)
        if max(self._pairs) >= 0:
            order, file["pair"] = _side_by_side(order, np.array(self._pairs))
        spool = np.memmap(self._spool, np.uint8, "r", shape=(self.count, *self.shape))
        images = file.create_dataset("images", spool.shape, np.uint8, chunks=_chunks(spool.shape))
        images.attrs["axes"] = ["image", "row", "col", "channel"]
        for first, last in _blocks(spool.shape):
            images[first:last] = spool[order[first:last]]
        if self.label_names is not None:
            small = np.min_scalar_type(-max(1, len(self.label_names)))  # signed, for -1
            file["labels"] = np.array(self._labels, small)[order]
            file["labels"].attrs["label_names"] = self.label_names
        for name, texts in (("group", self._groups), ("provenance/source", self._sources)):
            file.create_dataset(name, data=[texts[i] for i in order], dtype=h5py.string_dtype())
        file["provenance/original"] = np.array(self._originals, np.int32)[order]
        file["provenance/crop"] = np.array(self._crops, np.int32)[order]
        file["checksum"] = np.array(self._checksums, np.uint64)[order]
        if self.half_seed is not None:
            self._halves = halves_of_images(np.array(self._groups), np.array(self._labels),
                                            self.half_seed).tolist()
        if min(self._halves) >= 0:
            file["half"] = np.array(self._halves, np.uint8)[order]
        if all(self._kinds):
            names, kinds = np.unique(self._kinds, return_inverse=True)
            file["kind"] = kinds[order].astype(np.uint8)
            file["kind"].attrs["kind_names"] = names.tolist()
        versions = {"hpclcae": __version__, "python": platform.python_version(),
                    "numpy": np.__version__,
                    "h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version}
        file.attrs.update(kind=KIND, schema=SCHEMA, settings=json.dumps(self.settings),
                          versions=json.dumps(versions), licences=json.dumps(self.licences),
                          created=datetime.now(timezone.utc).isoformat(timespec="seconds"))


def check_seed(seed: int) -> None:
    """Refuse what no random number generator begins with.

    Raises
    ------
    InputError
        It is negative or too large: names the option.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed} is not between 0 and {2**63 - 1}")


class Dataset:
    """A dataset opened for reading; use as a context manager or call `close`.

    Attributes
    ----------
    count, rows, cols, channels : int
        Shape of the images; `size` is `rows`, which equals `cols`.

    Raises
    ------
    InputError
        The file is missing, truncated, not HDF5, of another kind, or written by a newer hpclcae.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._file)
            with self._reading():
                self._images = self._file["images"]
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
        """Close the file."""
        self._file.close()

    @property
    def size(self) -> int:
        """Rows and cols of an image, pixels."""
        return self.rows

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

        Partners show the same at two places or times, and stand next to each other.
        """
        with self._reading():
            if "pair" not in self._file:
                return None
            pair = self._of_every_image("pair")[:]
            paired = np.flatnonzero(pair >= 0)
            if pair.max() >= self.count or (pair[pair[paired]] != paired).any():
                raise ValueError("an image is not the partner of its partner")
            return pair

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
                if not isinstance(array, h5py.Dataset) or array == self._images:
                    continue
                names = [np.ravel(value).tolist() for value in array.attrs.values()]
                digest.update(f"{array.name} {array.shape} {names}".encode())
                values = array[:]
                digest.update(b"\0".join(values) if values.dtype == object else values.tobytes())
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
                self._images.read_direct(images, np.s_[first:last, rows, cols], np.s_[start:stop])
        return images

    def verify(self) -> list[int]:
        """Return the indices of images that do not have the checksum they were written with.

        Raises
        ------
        InputError
            What is not images, names above all, is damaged: of a large dataset this is not looked
            at when it is opened.
        """
        with self._reading():
            expected, found = seal_of(self.path)
            if found != expected:
                raise OSError(f"its checksum is {found:08x}, {expected:08x} was written")
            stored = self._of_every_image("checksum")[:]
            return [first + i for first, last in _blocks(self._images.shape)
                    for i, image in enumerate(self._images[first:last])
                    if _checksum(image.tobytes()) != stored[first + i]]


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


def _side_by_side(order: np.ndarray, pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring partners together.

    Parameters
    ----------
    order : int array (image,)
        Which of the appended images comes when.
    pair : int array (image,)
        Partner of each, in the order of appending.

    Returns
    -------
    order : int array (image,)
        The partner that was appended later follows the other.
    pair : int64 array (image,)
        Partner of each image in this order.
    """
    first = order[(pair[order] < 0) | (order < pair[order])]
    both = np.stack([first, pair[first]], axis=1).ravel()
    order = both[both >= 0]
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    return order, np.where(pair[order] >= 0, place[pair[order]], -1)


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    count, rows, cols, channels = shape
    tiles = max(1, round(rows / CHUNK_PIXELS))
    return min(count, CHUNK_IMAGES), -(-rows // tiles), -(-cols // tiles), channels


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of runs of whole chunks of about BLOCK_BYTES."""
    count, *image = shape
    step = CHUNK_IMAGES * max(1, BLOCK_BYTES // (CHUNK_IMAGES * int(np.prod(image))))
    for first in range(0, count, step):
        yield first, min(count, first + step)


def _checksum(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
