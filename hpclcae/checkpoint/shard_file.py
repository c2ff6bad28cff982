"""One owner's file: weights by position in rectangles, and what is known of every chunk.

HDF5 makes the file with room for every rectangle; the numbers then go to their places with plain
writes, and come back with plain reads. Only one thread of a process may be inside the HDF5 library,
so it is busy for milliseconds and training can read its images.
"""
import contextlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from hpclcae.checkpoint.folder import Content, content_of, shard_name
from hpclcae.checkpoint.regions import Region, positions
from hpclcae.checkpoint.state import ChunkState
from hpclcae.model.layout import Layout
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import new_hdf5, replacing

#: One row for every chunk: the rectangle of positions that it covers, and its counts.
CHUNKS = np.dtype([("parameter", "S64"), ("row", "i4"), ("col", "i4"), ("rows", "i4"),
                   ("cols", "i4"), ("count", "i8"), ("version", "i8")])
#: One row for every dataset of every shard: the part of an array that it holds, and where in the
#: file it begins.
EXTENTS = np.dtype([("array", "S64"), ("shard", "i4"), ("row", "i4"), ("col", "i4"), ("rows", "i4"),
                   ("cols", "i4"), ("offset", "i8")])
#: Bytes that one thread hands to the other and that are written at a time: many small writes take
#: twice as long.
BATCH = 1 << 20
MOST_PIECES = 1024  # that Linux writes in one call
Item = TypeVar("Item")
Span = tuple[int, int]


def chunk_table(layout: Layout, chunk_states: Sequence[ChunkState]) -> np.ndarray:
    """The rows of CHUNKS of an owner."""
    rows = []
    for chunk_state in chunk_states:
        (top, bottom), (left, right) = positions(layout, chunk_state.chunk)
        rows.append((chunk_state.chunk.name.encode(), top, left, bottom - top, right - left,
                     chunk_state.count, chunk_state.version))
    return np.array(rows, CHUNKS)


def write_shard(path: Path, marks: Mapping[str, object], regions: Sequence[Region],
                buffers: Mapping[str, np.ndarray],
                chunks: np.ndarray, go_on: Callable[[], None]) -> Content:
    """Write a shard; its name appears when it is on the disk and reads back as it was meant.

    Parameters
    ----------
    marks : mapping
        Attributes of the file.
    regions : sequence of Region
    buffers : mapping of str to flat ndarray
        Prefix of the datasets' names ("", "update/velocity/") to the owner's numbers.
    go_on : callable
        Asked between pieces; it raises to give up.

    Raises
    ------
    InputError
        What was read back is not what was written.
    OSError
        The disk is full, or the folder cannot be written.
    """
    with replacing(path) as partial:
        extents = []
        with new_hdf5(partial, path) as file:
            file.attrs.update(marks)
            file["chunks"] = chunks
            for prefix, buffer in buffers.items():
                for number, region in enumerate(regions):
                    offset = _room(file, f"{prefix}{region.name}/{number}", region, buffer.dtype)
                    extents.append((offset, region, buffer))
        try:
            with FileIO(partial, "r+") as raw:
                written = write_elements(raw, sorted(extents, key=lambda extent: extent[0]), go_on)
                os.fsync(raw.fileno())
        except OSError as error:
            error.filename = str(path)
            raise
        if content_of(partial, from_disk=True) != written:
            raise InputError(f"{path} does not read back as it was written: the disk or the way to "
                             "it is faulty; the older checkpoints are untouched")
    return written


def _room(file: h5py.File, name: str, region: Region, dtype: np.dtype) -> int:
    """Make a dataset whose numbers are yet to come; the place in the file where they belong."""
    layout, links = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.h5p.create(h5py.h5p.LINK_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links.set_create_intermediate_group(True)
    data = h5py.Dataset(h5py.h5d.create(file.id, name.encode(),
                                        h5py.h5t.py_create(dtype, logical=True),
                                        h5py.h5s.create_simple(region.shape), layout, links))
    data.attrs["row"], data.attrs["col"] = (span[0] for span in region.positions)
    return data.id.get_offset()


def write_elements(raw: FileIO, extents: Sequence[tuple[int, Region, np.ndarray]],
                   go_on: Callable[[], None]) -> Content:
    """Write the numbers, in the order of the file.

    Size and checksum of the whole file as it should be.
    """
    crc, size = 0, raw.seek(0, os.SEEK_END)
    ends = [0, *(offset + region.elements * buffer.itemsize for offset, region, buffer in extents)]
    begins = [*(offset for offset, _, _ in extents), size]
    # what it has written in between
    of_hdf5 = [_read(raw, end, begin - end) for end, begin in zip(ends, begins)]

    def batches() -> Iterator[tuple[int, list[memoryview]]]:
        """Filters by position, and where in the file they belong; counted into the checksum."""
        nonlocal crc
        for before, (offset, region, buffer) in zip(of_hdf5, extents):
            crc = zlib.crc32(before, crc)
            for batch in _batches(region.pieces(buffer)):
                for piece in batch:
                    crc = zlib.crc32(piece, crc)
                yield offset, batch
                offset += sum(map(len, batch))

    for offset, batch in ahead(batches()):
        go_on()
        raw.seek(offset)
        _write(raw, batch)
        # the system begins to bring it to the disk, so fsync has less to wait for
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(raw.fileno(), offset, sum(map(len, batch)), os.POSIX_FADV_DONTNEED)
    return Content(size, zlib.crc32(of_hdf5[-1], crc))


def _read(raw: FileIO, start: int, size: int) -> bytes:
    raw.seek(start)
    return raw.read(size)


def _batches(pieces: Iterator[np.ndarray]) -> Iterator[list[memoryview]]:
    """The same bytes, in lists that one call may write.

    Each has at least BATCH bytes (but for the last), and no more pieces than a call takes.
    """
    batch: list[memoryview] = []
    for piece in pieces:
        batch.append(piece.data.cast("B"))
        if len(batch) == MOST_PIECES or sum(map(len, batch)) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(raw: FileIO, batch: list[memoryview]) -> None:
    """Write all pieces, in one call if the system takes them so."""
    done = os.writev(raw.fileno(), batch)
    for piece in batch:
        rest = piece[min(done, len(piece)):]
        done -= len(piece) - len(rest)
        while rest:
            rest = rest[raw.write(rest):]


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in another thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


class StoredArrays(contextlib.ExitStack):
    """The arrays of an opened checkpoint, by position; to be closed.

    They are read past HDF5, out of the extents in the shards that model.h5 lists (`EXTENTS`): that
    takes less time, and other threads can read meanwhile. A checkpoint without the list is read
    through HDF5.

    Parameters
    ----------
    file : h5py.File
        model.h5, or a single file of schema 1.
    """

    def __init__(self, file: h5py.File) -> None:
        super().__init__()
        self._file, self._folder = file, Path(file.filename).parent
        self._extents = file["places"][...] if "places" in file else None
        self._arrays: dict[str, tuple[h5py.Dataset, np.ndarray]] = {}
        self._opened: dict[int, FileIO] = {}

    def __getitem__(self, name: str) -> h5py.Dataset:
        return self._known(name)[0]

    def read(self, name: str, rows: Span, cols: Span) -> np.ndarray:
        """The filters of the rows and columns first .. last - 1 of positions.

        They are (row, col, krow, kcol, map in, map).

        Raises
        ------
        InputError
            A shard does not have all that it should.
        OSError
            A shard cannot be read.
        """
        data, extents = self._known(name)
        if self._extents is None:
            return data[slice(*rows), slice(*cols)]
        filters = np.empty((rows[1] - rows[0], cols[1] - cols[0], *data.shape[2:]), data.dtype)
        missing = filters.shape[0] * filters.shape[1]
        for extent in extents:
            top, bottom = max(rows[0], extent["row"]), min(rows[1], extent["row"] + extent["rows"])
            left, right = max(cols[0], extent["col"]), min(cols[1], extent["col"] + extent["cols"])
            if top < bottom and left < right:
                self._read(extent, top, left,
                           filters[top - rows[0]:bottom - rows[0], left - cols[0]:right - cols[0]])
                missing -= (bottom - top) * (right - left)
        if missing:
            raise InputError(f"{self._file.filename} does not say where all of {name} lies: use an "
                             "older checkpoint")
        return filters

    def _known(self, name: str) -> tuple[h5py.Dataset, np.ndarray]:
        """An array, and where its parts lie."""
        if name not in self._arrays:
            extents = self._extents if self._extents is not None else np.empty(0, EXTENTS)
            self._arrays[name] = self._file[name], extents[extents["array"] == name.encode()]
        return self._arrays[name]

    def _read(self, extent: np.void, top: int, left: int, filters: np.ndarray) -> None:
        """Read the positions from (top, left) on out of one extent.

        At once if it has no other columns.
        """
        number = int(extent["shard"])
        if number not in self._opened:
            self._opened[number] = self.enter_context(FileIO(self._folder / shard_name(number)))
        raw, columns, size = self._opened[number], int(extent["cols"]), filters[0, 0].nbytes
        runs = ([filters] if filters.flags.c_contiguous and filters.shape[1] == columns
                else list(filters))
        for row, run in enumerate(runs, int(top - extent["row"])):
            raw.seek(int(extent["offset"]) + (row * columns + int(left - extent["col"])) * size)
            rest = run.data.cast("B")
            while rest:
                count = raw.readinto(rest)
                if not count:
                    raise InputError(f"{self._folder / shard_name(number)} ends too early: bring "
                                     "back a whole copy, or use an older checkpoint")
                rest = rest[count:]
