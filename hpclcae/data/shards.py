"""A dataset whose pixels are in several files: shards, each a dataset by itself.

The file that one opens, the index, holds all that is known of every image; ``images`` in it is a
virtual dataset of HDF5, so any reader sees them as one array. In its group ``shards`` stand the
names (relative to its folder), first images, numbers of images, bytes and fingerprints of the
files. HDF5 reads zeros where a file of a virtual dataset is missing; so here pixels are read from
the shards themselves, and one that is missing or not the one that was written is an error.
"""
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from hpclcae.data.compression import check_filters
from hpclcae.utils.files import read_hdf5
from hpclcae.utils.reading import reading

GROUP = "shards"
OPEN = 16  # files that are open at once


@dataclass(frozen=True)
class Shard:
    """One file of pixels."""
    number: int
    path: Path
    first: int        # index of its first image in the whole
    count: int
    size: int         # bytes
    fingerprint: str  # of the dataset that it is


def shards_of(file: h5py.File, path: Path) -> list[Shard]:
    """The shards that an index at `path` names; none of a dataset in one file.

    Raises
    ------
    ValueError
        The index contradicts itself, or names files elsewhere.
    """
    if GROUP not in file:
        return []
    group = file[GROUP]
    names, prints = group["name"].asstr()[:], group["fingerprint"].asstr()[:]
    firsts, counts, sizes = (group[name][:].tolist() for name in ("first", "count", "bytes"))
    shards = [Shard(number, path.parent / name, *rest) for number, (name, *rest)
              in enumerate(zip(names, firsts, counts, sizes, prints, strict=True))]
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
        raise ValueError("a shard lies outside the folder of its index")
    ends = [shard.first + shard.count for shard in shards]
    if [shard.first for shard in shards] != [0, *ends][:-1] or min(counts, default=0) < 1 \
            or ends[-1] != file["images"].shape[0]:
        raise ValueError("shards do not follow each other")
    return shards


def remedy(index: Path, numbers: list[int]) -> str:
    """What to do about damaged shards, as a command."""
    which = " ".join(map(str, numbers))
    return (f"bring the file back, or make it again from the sources: hpclcae data ingest "
            f"--manifest {index} --shard {which} --out {index}")


def read_direct(data: "h5py.Dataset | ShardedImages", out: np.ndarray, source: tuple[slice, ...],
                target: slice) -> None:
    """``data.read_direct(out, source, target)``, for a C-contiguous `out` of the same type.

    With h5py's own a run of small images takes five times as long as HDF5 needs for its pixels.
    """
    if isinstance(data, ShardedImages):
        data.read_direct(out, source, target)
        return
    part = [range(*s.indices(length)) for s, length in zip(source, data.shape)]
    part += [range(length) for length in data.shape[len(part):]]
    count, view = tuple(map(len, part)), out[target]
    assert view.shape == count and view.dtype == data.dtype, (view.shape, count)
    if view.size:
        file = data.id.get_space()
        file.select_hyperslab(tuple(r.start for r in part), count, tuple(r.step for r in part))
        data.id.read(h5py.h5s.create_simple(count), file, view)


class ShardedImages:
    """The pixels of all shards; reads as an h5py.Dataset (image, row, col, channel) does.

    Parameters
    ----------
    index : Path
        For messages.
    shards : list of Shard
    shape : tuple of int
    """
    dtype = np.dtype(np.uint8)
    name = "/images"

    def __init__(self, index: Path, shards: list[Shard], shape: tuple[int, ...]) -> None:
        self.index, self.shards, self.shape = index, shards, shape
        self._firsts = np.array([shard.first for shard in shards])
        self._opened: dict[int, h5py.Dataset] = {}  # the latest last

    def check(self) -> None:
        """See that the files are there.

        Raises
        ------
        InputError
            One is missing or has another size.
        """
        for shard in self.shards:
            with self._reading(shard):
                size = shard.path.stat().st_size
                if size != shard.size:
                    raise ValueError(f"it has {size} bytes, {shard.size} were written")

    @property
    def chunks(self) -> tuple[int, int, int, int]:
        """Shape of a chunk."""
        with self._reading(self.shards[0]):
            return self._open(0).chunks

    def read_direct(self, out: np.ndarray, source: tuple[slice, ...], target: slice) -> None:
        """Read ``source`` (a run of images, rows, cols) into ``out[target]``."""
        run, *slab = source
        for shard, first, last in self._parts(run.start, run.stop):
            start = target.start + shard.first + first - run.start
            with self._reading(shard):
                read_direct(self._open(shard.number), out, (slice(first, last), *slab),
                            slice(start, start + last - first))

    def __getitem__(self, run: slice) -> np.ndarray:
        first, last, _ = run.indices(self.shape[0])
        out = np.empty((last - first, *self.shape[1:]), np.uint8)
        if out.size:
            self.read_direct(out, np.s_[first:last, :, :], np.s_[0:last - first])
        return out

    def close(self) -> None:
        """Close the files."""
        for images in self._opened.values():
            images.file.close()
        self._opened.clear()

    def _parts(self, first: int, last: int) -> Iterator[tuple[Shard, int, int]]:
        """The shards that a run of images lies in, with first and last image in each."""
        number = int(np.searchsorted(self._firsts, first, "right")) - 1
        while first < last:
            shard = self.shards[number]
            end = min(last, shard.first + shard.count)
            yield shard, first - shard.first, end - shard.first
            first, number = end, number + 1

    def _open(self, number: int) -> h5py.Dataset:
        """Pixels of a shard; a file that was not used for long is closed when nobody reads it."""
        images = self._opened.pop(number, None)
        if images is None:
            shard = self.shards[number]
            images = read_hdf5(shard.path)["images"]
            if images.shape != (shard.count, *self.shape[1:]) or images.dtype != self.dtype:
                raise ValueError(f"it holds {images.dtype} {images.shape}")
            check_filters(shard.path, images)
        self._opened[number] = images
        if len(self._opened) > OPEN:
            del self._opened[next(iter(self._opened))]
        return images

    def _reading(self, shard: Shard) -> contextlib.AbstractContextManager[None]:
        return reading(shard.path, f"shard {shard.number} of {self.index}",
                       remedy(self.index, [shard.number]))
