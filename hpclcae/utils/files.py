"""Writing files so that a reader finds the old one or the whole new one, never a part."""
import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py

from hpclcae.utils.errors import InputError
from hpclcae.utils.text import to_bytes

_LOCKING = "HDF5_USE_FILE_LOCKING"  # what the environment says of it counts more than what we say
#: What tells a picture of ours from all others: a text in the PNG.
PNG_MARK = {"Software": "hpclcae"}


def check_output(path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """See, before the work, that a file can be written, and replaces nothing of somebody else's.

    Parameters
    ----------
    path : Path
    is_ours : callable
        Whether an existing file is an earlier result of the same kind, which may go. An empty file
        may, too.
    what : str
        That kind, for the message: "a dataset".

    Raises
    ------
    InputError
        It is a folder or another file, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file in it")
    if os.path.lexists(path):
        if not path.is_file():
            raise InputError(f"cannot write {path}: it is not a regular file")
        try:
            ours = not path.stat().st_size or is_ours(path)
        except OSError as error:
            raise InputError(f"cannot write {path}: it exists and cannot be read "
                             f"({error.strerror}); choose another name") from error
        if not ours:
            raise InputError(f"{path} exists and is not {what} of ours: choose another name, or "
                             "remove it")
    folder = next(above for above in path.absolute().parents if os.path.lexists(above))
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: {folder} is not a folder; choose another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: {folder} may not be written to; choose another "
                         "folder")


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure of Matplotlib as PNG in a single step, with our mark in it."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi, metadata=PNG_MARK)


def check_picture(path: Path, option: str) -> None:
    """The same as `check_output` for a PNG that we draw; `option` asks for it.

    Raises
    ------
    InputError
        It would replace something that we did not draw, or cannot be written.
    """
    check_output(path, _is_our_png, f"a picture ({option})")


def _is_our_png(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2**12)
    return head.startswith(b"\x89PNG") and b"Software\0hpclcae" in head


def is_json(path: Path, key: str, value: str | None = None) -> bool:
    """Whether a file is a JSON object, or lines of them, that has `key` (and a value) at first."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for part in (text, text.partition("\n")[0]):
        try:
            first = json.loads(part)
        except ValueError:
            continue
        return isinstance(first, dict) and key in first and value in (None, first[key])
    return False


def is_hdf5(path: Path, kind: str) -> bool:
    """Whether a file is HDF5 of this kind, damaged or not."""
    try:
        with read_hdf5(path) as file:
            return file.attrs.get("kind") == kind
    except (OSError, RuntimeError, ValueError, KeyError):
        return False


def replace_text(path: Path, text: str) -> None:
    """Write a text file in a single step: UTF-8 whatever the locale, file names as they are."""
    with replacing(path) as partial:
        partial.write_bytes(to_bytes(text))


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
