"""Writing files so that a reader finds the old one or the whole new one, never a part."""
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from hpclcae.utils.errors import InputError

_LOCKING = "HDF5_USE_FILE_LOCKING"  # what the environment says of it counts more than what we say


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, which it becomes on success; else it is removed.

    The content is on the disk before the name changes, so `path` is always the old file or the
    whole new one.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        # the content, then (after the rename) the folder's entry
        for name in (partial, path.parent):
            descriptor = os.open(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if name is partial:
                os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file to read, without a lock.

    Nobody writes into our files: they appear whole. A lock would only fail, on a file system
    without locks or where another program has the file open.

    Raises
    ------
    OSError
        It is not there, or no HDF5 file.
    InputError
        HDF5 locks it all the same, because the environment says so, and cannot.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        raise InputError(f"{path} cannot be opened: HDF5 is to lock it ({_LOCKING}="
                         f"{os.environ.get(_LOCKING)}) and cannot: export {_LOCKING}=FALSE"
                         ) from error


@contextlib.contextmanager
def replacing_hdf5(path: Path) -> Iterator[h5py.File]:
    """The same for an HDF5 file to write to.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    with replacing(path) as partial, new_hdf5(partial, path) as file:
        yield file


@contextlib.contextmanager
def new_hdf5(path: Path, known_as: Path) -> Iterator[h5py.File]:
    """A new HDF5 file at `path`; errors of the disk speak of `known_as`.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    with _Disk(path) as disk:
        try:
            with h5py.File(disk, "w") as file:
                yield file
        except (OSError, RuntimeError):  # HDF5 may miss what the disk did not take
            if disk.error is None:
                raise
        if disk.error is not None:
            if isinstance(disk.error, OSError):
                disk.error.filename = str(known_as)
            raise disk.error


class _Disk(io.FileIO):
    """The file that HDF5 writes to; it keeps the first error, and drops what comes after it.

    HDF5 must not hear of it: it cannot close a file that it failed to write, and crashes the
    process at its end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | KeyboardInterrupt | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and rest:
                rest = rest[super().write(rest):]
        except (OSError, KeyboardInterrupt) as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0
