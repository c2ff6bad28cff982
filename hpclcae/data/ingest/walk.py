"""Find the pictures and films in folders and archives, one by one, without unpacking to disk."""
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hpclcae.data import decode

PICTURES = decode.SUFFIXES
FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv",
         ".ts", ".3gp", ".y4m")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVES = (".zip", *TARS)
MAX_BYTES = 512 * 2**20  # a member of an archive is held in memory
OTHER = "other file"     # reason for what does not claim to be a picture or film


@dataclass(frozen=True)
class Entry:
    """A picture or film, not yet decoded."""
    name: str                # "photos/cats/a.jpg"; an archive counts as a folder
    content: Path | bytes    # the file, or its bytes out of an archive

    @property
    def is_film(self) -> bool:
        """Whether it has frames to choose from."""
        return self.name.lower().endswith(FILMS)

    @property
    def folder(self) -> str:
        """Name of the folder that it lies in."""
        return PurePosixPath(self.name).parent.name


@dataclass(frozen=True)
class Skipped:
    """Something that is left out, and why."""
    name: str
    reason: str
    detail: str = ""


def entries(source: Path) -> Iterator[Entry | Skipped]:
    """Yield everything in `source`: a folder and all below it, an archive, a picture or a film."""
    name = source_name(source)
    if source.is_dir():
        yield from _folder(source, name)
    else:
        yield from _file(source, name)


def source_name(source: Path) -> str:
    """Return the name of a source: the first part of the names of all that is found in it."""
    return printable(os.path.basename(os.path.abspath(source)) or "root")


def printable(name: str) -> str:
    """Return a file name as text that every reader can store; other bytes than UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\0", "?")


def _folder(top: Path, name: str) -> Iterator[Entry | Skipped]:
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(top, onerror=unreadable.append):
        below = os.path.relpath(folder, top)
        prefix = PurePosixPath(name, *([] if below == "." else [printable(below)]))
        for inner in sorted(folders):
            if os.path.islink(os.path.join(folder, inner)):
                yield Skipped(f"{prefix}/{printable(inner)}", "link to a folder")
            elif _is_hidden(inner):
                yield Skipped(f"{prefix}/{printable(inner)}", OTHER)
        # this is where it goes next
        folders[:] = sorted(inner for inner in folders if not _is_hidden(inner))
        for file in sorted(files):
            yield from _file(Path(folder, file), f"{prefix}/{printable(file)}")
    for error in unreadable:
        yield Skipped(printable(str(error.filename)), "unreadable folder", str(error.strerror))


def _file(path: Path, name: str) -> Iterator[Entry | Skipped]:
    if not path.is_file():  # a broken link, a socket, a device
        yield Skipped(name, "not a regular file")
    elif _is_hidden(path.name):
        yield Skipped(name, OTHER)
    elif name.lower().endswith(ARCHIVES):
        try:
            yield from _zip(path, name) if name.lower().endswith(".zip") else _tar(path, name)
        except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, zlib.error,
                lzma.LZMAError) as error:
            yield Skipped(name, "damaged archive", f"{error}; what came before it is kept")
    elif name.lower().endswith(PICTURES + FILMS):
        yield Entry(name, path)
    else:
        yield Skipped(name, OTHER)


def _zip(path: Path, name: str) -> Iterator[Entry | Skipped]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            member = f"{name}/{printable(info.filename)}"
            refused = _refused(member, info.file_size)
            if refused is None:
                try:
                    yield Entry(member, archive.read(info))
                except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
                    refused = Skipped(member, "damaged", str(error))
                # a password, an unknown compression
                except (RuntimeError, NotImplementedError) as error:
                    refused = Skipped(member, "locked in its archive", str(error))
            if refused is not None:
                yield refused


def _tar(path: Path, name: str) -> Iterator[Entry | Skipped]:
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            if info.isdir():
                continue
            member = f"{name}/{printable(info.name).removeprefix('./')}"
            stream = archive.extractfile(info) if info.isreg() else None  # else a link or a device
            if stream is None:
                yield Skipped(member, OTHER)
            else:
                yield _refused(member, info.size) or Entry(member, stream.read())


def _refused(member: str, size: int) -> Skipped | None:
    """Say why a member of an archive is not read, or None."""
    if any(_is_hidden(part) for part in PurePosixPath(member).parts):
        return Skipped(member, OTHER)
    if member.lower().endswith(ARCHIVES):
        return Skipped(member, "archive inside an archive")
    if not member.lower().endswith(PICTURES + FILMS):
        return Skipped(member, OTHER)
    return Skipped(member, "too large",
                   f"{size >> 20} MiB in an archive") if size > MAX_BYTES else None


def _is_hidden(name: str) -> bool:
    """Files that systems put beside pictures ("._a.jpg", "__MACOSX"): only their suffix is one's.
    """
    return name == "__MACOSX" or name.startswith(".") and name not in (".", "..")
