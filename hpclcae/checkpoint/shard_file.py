"""One owner's file: weights by position in rectangles, and what is known of every chunk.

HDF5 makes the file with room for every rectangle; the numbers then go to their places with plain writes. Only one
thread of a process may be inside the HDF5 library, so it is busy for milliseconds and training can read its images.
"""
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from hpclcae.checkpoint.folder import Content, content_of
from hpclcae.checkpoint.regions import Blocks, Region
from hpclcae.checkpoint.state import Holding
from hpclcae.errors import InputError
from hpclcae.files import new_hdf5, replacing

AXES = ["row", "col", "krow", "kcol", "map in", "map"]
#: One row for every chunk: the rectangle of positions that it covers, and its counts.
CHUNKS = np.dtype([("parameter", "S64"), ("row", "i4"), ("col", "i4"), ("rows", "i4"), ("cols", "i4"),
                   ("count", "i8"), ("version", "i8")])
Item = TypeVar("Item")


def chunk_table(blocks: Blocks, holdings: Sequence[Holding]) -> np.ndarray:
    """The rows of CHUNKS of an owner."""
    rows = []
    for holding in holdings:
        (top, bottom), (left, right) = blocks.positions(holding.chunk)
        rows.append((holding.chunk.name.encode(), top, left, bottom - top, right - left, holding.count,
                     holding.version))
    return np.array(rows, CHUNKS)


def write_shard(path: Path, marks: Mapping[str, object], regions: Sequence[Region], buffers: Mapping[str, np.ndarray],
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
        places = []
        with new_hdf5(partial, path) as file:
            file.attrs.update(marks)
            file["chunks"] = chunks
            for prefix, buffer in buffers.items():
                for number, region in enumerate(regions):
                    offset = _room(file, f"{prefix}{region.name}/{number}", region, buffer.dtype)
                    places.append((offset, region, buffer))
        try:
            with FileIO(partial, "r+") as raw:
                written = _fill(raw, sorted(places, key=lambda place: place[0]), go_on)
                os.fsync(raw.fileno())
        except OSError as error:
            error.filename = str(path)
            raise
        if content_of(partial, from_disk=True) != written:
            raise InputError(f"{path} does not read back as it was written: the disk or the way to it is faulty; the "
                             "older checkpoints are untouched")
    return written


def _room(file: h5py.File, name: str, region: Region, dtype: np.dtype) -> int:
    """Make a dataset whose numbers are yet to come; the place in the file where they belong."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    data = file.create_dataset(name, region.shape, dtype, dcpl=layout)
    data.attrs["axes"] = AXES
    data.attrs["row"], data.attrs["col"] = (span[0] for span in region.positions)
    return data.id.get_offset()


def _fill(raw: FileIO, places: Sequence[tuple[int, Region, np.ndarray]], go_on: Callable[[], None]) -> Content:
    """Write the numbers, in the order of the file; size and checksum of the whole file as it should be."""
    crc = position = 0

    def between(end: int) -> None:
        """What HDF5 has written before `end`."""
        nonlocal crc, position
        raw.seek(position)
        while position < end:
            read = raw.read(end - position)
            crc, position = zlib.crc32(read, crc), position + len(read)

    size = raw.seek(0, os.SEEK_END)
    for offset, region, buffer in places:
        between(offset)
        raw.seek(offset)
        for piece in ahead(region.pieces(buffer)):
            go_on()
            content = piece.data.cast("B")
            crc, position = zlib.crc32(content, crc), position + len(content)
            while content:
                content = content[raw.write(content):]
    between(size)
    return Content(size, crc)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in another thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
