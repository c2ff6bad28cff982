"""Writing a dataset: appended image by image, stored in its final order (see dataset.py)."""
import json
import platform
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from math import nan
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import h5py
import numpy as np

from hpclcae import __version__
from hpclcae.data.compression import filters
from hpclcae.data.dataset import CHUNK_IMAGES, CHUNK_PIXELS, KIND, SCHEMA, blocks, checksum
from hpclcae.data.halves import HALVES, halves_of_images
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_hdf5, replacing_hdf5

Pixels = Callable[[np.ndarray], np.ndarray]  # images by their numbers


class DatasetWriter:
    """Write a dataset; use as a context manager.

    Images are appended to an unnamed file in the folder of `path` (it vanishes with the process,
    however that ends), unless `pixels` has them; on a normal exit they are copied, in their final
    order, to an HDF5 file that then takes the name `path`. Memory stays bounded; the disk holds
    every image twice until the end.

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
    compress : str
        How the pixels are compressed: one of compression.COMPRESSIONS.
    pixels : callable, optional
        The images are somewhere else, and only their checksums are appended: ``pixels(numbers)``
        gives some as uint8 (image, row, col, channel), by their numbers in order of appending.

    Attributes
    ----------
    half_seed : int, optional
        Set before the end, it deals the images of each class to the halves.

    Raises
    ------
    InputError
        The size is not usable, the folder cannot be written, no image was appended, or what
        compresses is not installed.
    """

    def __init__(self, path: str | Path, size: int, channels: int,
                 label_names: list[str] | None = None,
                 settings: dict[str, Any] | None = None, *, licences: dict[str, str] | None = None,
                 shuffle_seed: int | None = None, compress: str = "none",
                 pixels: Pixels | None = None) -> None:
        if size < 1 or channels not in (1, 3):
            raise InputError(f"images of size {size} with {channels} channels cannot be stored: "
                             "the size is at least 1, channels are 1 or 3")
        if shuffle_seed is not None:
            check_seed(shuffle_seed)
        self._filters, self._pixels = filters(compress), pixels
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
        self._seconds: list[float] = []
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

    def append(self, image: np.ndarray | int, *, source: str, group: str, original: tuple[int, int],
               crop: tuple[int, int, int, int], label: int = -1, half: int = -1, kind: str = "",
               pair: int = -1, seconds: float = nan) -> int:
        """Add one image.

        Parameters
        ----------
        image : uint8 array (row, col, channel), or int
            Its pixels; or their checksum, where `pixels` has them.
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
        seconds : float
            Its time in a film; not a number: it is a picture.

        Returns
        -------
        int
            The checksum of its pixels.

        Raises
        ------
        ValueError
            Wrong shape, dtype, label or half; the partner is not there or has another one.
        """
        if not -1 <= label < len(self.label_names or ()):
            raise ValueError(f"label {label} is neither -1 nor an index of {self.label_names}")
        if half not in (-1, *HALVES):
            raise ValueError(f"half {half} is neither -1 nor one of {HALVES}")
        if not -1 <= pair < self.count or pair >= 0 and self._pairs[pair] >= 0:
            raise ValueError(f"image {pair} cannot be the partner of image {self.count}")
        if not isinstance(image, int):
            if image.shape != self.shape or image.dtype != np.uint8:
                raise ValueError(f"image is {image.dtype} {image.shape}, the dataset holds uint8 "
                                 f"{self.shape}")
            content = np.ascontiguousarray(image).data
            self._spool.write(content)
            image = checksum(content)
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
        self._seconds.append(seconds)
        self._checksums.append(image)
        return self._checksums[-1]

    def _save(self, file: h5py.File) -> None:
        """Write everything to the HDF5 file in the final order."""
        order = np.arange(self.count)
        if self.shuffle_seed is not None:
            order = np.random.default_rng(self.shuffle_seed).permutation(self.count)
        if max(self._pairs) >= 0:
            order, file["pair"] = _side_by_side(order, np.array(self._pairs))
        shape = self.count, *self.shape
        pixels = self._pixels or np.memmap(self._spool, np.uint8, "r", shape=shape).__getitem__
        # with checksums that every reader compares: damaged pixels are an error, also in training
        images = file.create_dataset("images", shape, np.uint8, chunks=_chunks(shape),
                                     fletcher32=True, **self._filters)
        images.attrs["axes"] = ["image", "row", "col", "channel"]
        for first, last in blocks(shape):
            images[first:last] = pixels(order[first:last])
        if self.label_names is not None:
            small = np.min_scalar_type(-max(1, len(self.label_names)))  # signed, for -1
            file["labels"] = np.array(self._labels, small)[order]
            file["labels"].attrs["label_names"] = self.label_names
        for name, texts in (("group", self._groups), ("provenance/source", self._sources)):
            file.create_dataset(name, data=[texts[i] for i in order], dtype=h5py.string_dtype())
        file["provenance/original"] = np.array(self._originals, np.int32)[order]
        file["provenance/crop"] = np.array(self._crops, np.int32)[order]
        if not np.isnan(self._seconds).all():
            file["provenance/seconds"] = np.array(self._seconds)[order]
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
