"""Writing files so that a reader finds the old one or the whole new one, never a part."""
import contextlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py

from hpclcae.utils.errors import InputError
from hpclcae.utils.reading import DAMAGE
from hpclcae.utils.text import to_bytes

#: Every HDF5 file is in the format of HDF5 1.8, whose headers carry checksums, with what only 1.10
#: has where it is needed. Wholly in that of 1.10 nobody could read a file that another has open.
FORMAT = ("v108", "v110")
SUPERBLOCK = (0, 48)  # bytes; it has a checksum, and HDF5 marks in it that a file is open to write
#: The last bytes of a sealed HDF5 file; before them stand 8 digits: how long the seal is.
SEALED = b"hpclcae seal\n"
LARGE = 64 << 20  # bytes that opening a file may read for its checksum: hundredths of a second
_BLOCK = 1 << 20
_LOCKING = "HDF5_USE_FILE_LOCKING"  # what the environment says of it counts more than what we say
#: The two files that make a folder a checkpoint (checkpoint/folder.py).
CHECKPOINT = ("manifest.json", "model.h5")
#: What tells a picture of ours from all others: a text in it. Without a date in an SVG the same
#: figure is the same file.
PNG_MARK = {"Software": "hpclcae"}
SVG_MARK = {"Creator": "hpclcae", "Date": None}

Span = tuple[int, int]


def keep_out_of_checkpoints(path: Path) -> None:
    """Refuse to write what is no part of it into a finished checkpoint.

    Raises
    ------
    InputError
        The path lies in one.
    """
    for folder in path.resolve().parents:
        if all((folder / name).exists() for name in CHECKPOINT):
            raise InputError(f"{path} lies in the checkpoint {folder}, whose files belong "
                             "together: choose another place")


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
        It is a folder or another file, in a checkpoint, or its folder cannot be made or written to.
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
    keep_out_of_checkpoints(path)


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure of Matplotlib as SVG or PNG (all other names) in one step, marked as ours.

    The names inside an SVG depend on that of its file, so that a page may hold several.
    """
    from matplotlib import rc_context
    is_svg = path.suffix.lower() == ".svg"
    with replacing(path) as partial, rc_context({"svg.hashsalt": path.name}):
        figure.savefig(partial, format="svg" if is_svg else "png", dpi=dpi,
                       metadata=SVG_MARK if is_svg else PNG_MARK)


def check_picture(path: Path, option: str) -> None:
    """The same as `check_output` for a PNG or SVG that we draw; `option` asks for it.

    Raises
    ------
    InputError
        It would replace something that we did not draw, or cannot be written.
    """
    check_output(path, _is_our_picture, f"a picture ({option})")


def _is_our_picture(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2**12)
    return (head.startswith(b"\x89PNG") and b"Software\0hpclcae" in head
            or b"<svg" in head and b"<dc:title>hpclcae</dc:title>" in head)


def is_json(path: Path, key: str, value: str | None = None) -> bool:
    """Whether a file is a JSON object, or lines of them, that has `key` (and a value) at first."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for part in (text, text.partition("\n")[0]):
        try:
            first = json.loads(part)
        except (ValueError, RecursionError):
            continue
        return isinstance(first, dict) and key in first and value in (None, first[key])
    return False


def is_hdf5(path: Path, kind: str) -> bool:
    """Whether a file is HDF5 of this kind."""
    with contextlib.suppress(*DAMAGE), read_hdf5(path) as file:
        return bool(file.attrs.get("kind") == kind)
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

    Raises
    ------
    InputError
        `path` lies in a finished checkpoint, and is none of the files that make it one.
    """
    if path.name not in CHECKPOINT:
        keep_out_of_checkpoints(path)
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


@contextlib.contextmanager
def replacing_hdf5(path: Path) -> Iterator[h5py.File]:
    """The same for an HDF5 file to write to, which is sealed in the end.

    A seal follows what HDF5 knows of, and HDF5 passes over it: a line of JSON with the CRC-32 of
    the file, but for the superblock, chunks (images have checksums of their own) and large arrays.
    So a reader can find damage before HDF5 looks at it, which makes libhdf5 hang where a heap of
    texts is filled with zeros. Who opens the file with HDF5 to write removes the seal.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    with replacing(path) as partial:
        with new_hdf5(partial, path) as file:
            yield file
            file.flush()
            without = [SUPERBLOCK, *_bulk(file)]
        with _Disk(partial, "r+") as disk:
            crc = _crc32(disk, disk.seek(0, os.SEEK_END), without)
            seal = json.dumps({"crc32": crc, "without": without}).encode()
            disk.seek(0, os.SEEK_END)
            disk.write(seal + b"%08d" % len(seal) + SEALED)
            disk.raise_error(path)


def read_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file to read, without a lock; call it inside `reading` (utils/reading.py).

    Nobody writes into our files: they appear whole. A lock would only fail, on a file system
    without locks or where another program has the file open.

    Raises
    ------
    OSError
        It is not there, no HDF5 file, or not as it was written: a sealed file is compared with its
        seal before HDF5 looks at it.
    InputError
        HDF5 locks it all the same, because the environment says so, and cannot.
    """
    expected, found = seal_of(path, LARGE)
    if found != expected:
        raise OSError(f"its checksum is {found:08x}, {expected:08x} was written")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        raise InputError(f"{path} cannot be opened: HDF5 is to lock it ({_LOCKING}="
                         f"{os.environ.get(_LOCKING)}) and cannot: export {_LOCKING}=FALSE"
                         ) from error


def seal_of(path: Path, most: int | None = None) -> tuple[int, int]:
    """The CRC-32 that an HDF5 file was sealed with, and the one that it has.

    They are 0, 0 if there is no seal, or more than `most` bytes would have to be read.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        The file cannot be read, or the seal is damaged.
    """
    with path.open("rb", buffering=0) as file:
        end = file.seek(0, os.SEEK_END) - len(SEALED) - 8
        if end < 0:
            return 0, 0
        file.seek(end)
        length, mark = file.read(8), file.read(len(SEALED))
        if mark != SEALED:
            return 0, 0
        size = end - int(length)
        file.seek(size)
        seal = json.loads(file.read(end - size))
        without = [(int(start), int(stop)) for start, stop in seal["without"]]
        if most is not None and size - sum(stop - start for start, stop in without) > most:
            return 0, 0
        return int(seal["crc32"]), _crc32(file, size, without)


def _bulk(file: h5py.File) -> list[Span]:
    """Where in the file chunks, and large arrays, lie: few spans, in order."""
    found: list[Span] = []

    def look(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and item.chunks:
            item.id.chunk_iter(lambda chunk: found.append(
                (chunk.byte_offset, chunk.byte_offset + chunk.size)))
        elif isinstance(item, h5py.Dataset) and item.nbytes > LARGE and item.id.get_offset():
            found.append((item.id.get_offset(), item.id.get_offset() + item.nbytes))
    file.visititems(look)
    spans: list[Span] = []
    for start, stop in sorted(found):
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, stop))
    return spans


def _crc32(file: io.FileIO, size: int, without: Sequence[Span]) -> int:
    """CRC-32 of the first `size` bytes of a file without some spans."""
    crc, position = 0, 0
    for start, stop in [*without, (size, size)]:
        file.seek(position)
        rest = start - position
        while rest > 0 and (block := file.read(min(rest, _BLOCK))):
            crc = zlib.crc32(block, crc)
            rest -= len(block)
        position = stop
    return crc


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
            with h5py.File(disk, "w", libver=FORMAT) as file:
                yield file
        except (OSError, RuntimeError):  # HDF5 may miss what the disk did not take
            if disk.error is None:
                raise
        disk.raise_error(known_as)


class _Disk(io.FileIO):
    """The file that HDF5 writes to; it keeps the first error, and drops what comes after it.

    HDF5 must not hear of it: it cannot close a file that it failed to write, and crashes the
    process at its end.
    """

    def __init__(self, path: Path, mode: str = "w+") -> None:
        super().__init__(path, mode)
        self.error: OSError | KeyboardInterrupt | None = None

    def raise_error(self, known_as: Path) -> None:
        """Raise what went wrong, if something did, in the name of the file as it is known."""
        if isinstance(self.error, OSError):
            self.error.filename = str(known_as)
        if self.error is not None:
            raise self.error

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
