"""Find the pictures and films in folders and archives, one by one, without unpacking to disk."""
import contextlib
import functools
import hashlib
import lzma
import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpclcae.data import formats
from hpclcae.data.decode import UNREADABLE, is_of_disk
from hpclcae.utils.text import printable

PICTURES = formats.SUFFIXES
FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mpe", ".ogv", ".ogm",
         ".wmv", ".asf", ".flv", ".f4v", ".ts", ".mts", ".m2ts", ".m2v", ".vob", ".3gp", ".3g2",
         ".y4m")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.lzma")
ARCHIVES = (".zip", *TARS)
#: They claim to hold pictures, and there is nothing here that reads them: not passed over silently.
UNREAD = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".svg",
          ".psd", ".xcf", ".exr", ".hdr", ".jxl", ".rar", ".7z", ".tar.zst", ".tar.lz4")
MAX_BYTES = 512 * 2**20  # a member of an archive is held in memory
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # more that expands further than this times is an attack
OTHER = "other file"     # reason for what does not claim to be a picture or film
HIDDEN = "hidden"
HEAD = 16                # first bytes, which tell a picture
DANGLING = "link to what is not in the archive"
#: What damaged archives raise.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError,
          ValueError, TypeError, LookupError, RuntimeError, AttributeError, OverflowError,
          struct.error)


@dataclass(frozen=True)
class Entry:
    """A picture or film, not yet decoded."""
    name: str                # "photos/cats/a.jpg"; an archive counts as a folder
    content: Path | bytes    # the file, or its bytes out of an archive

    @property
    def is_film(self) -> bool:
        """Whether its name claims that it has frames to choose from."""
        return self.name.lower().endswith(FILMS)

    @functools.cached_property
    def version(self) -> tuple[int, object]:
        """Bytes, and what else changes when they do: time of the change, or a hash; 0 if gone."""
        if isinstance(self.content, bytes):
            return len(self.content), hashlib.blake2b(self.content, digest_size=16).hexdigest()
        try:
            found = self.content.stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    @property
    def size(self) -> int:
        """Bytes; 0 of a file that is gone."""
        return len(self.content) if isinstance(self.content, bytes) else self.version[0]

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of its source and of the folders below it, down to the one that it lies in.

        A source that is a picture lies in the folder that the file system says.
        """
        *folders, _ = self.name.split("/")
        if folders or not isinstance(self.content, Path):
            return tuple(folders)
        return (source_name(Path(os.path.abspath(self.content)).parent),)


@dataclass(frozen=True)
class Skipped:
    """Something that is left out, and why."""
    name: str
    reason: str
    detail: str = ""


Found = Iterator[Entry | Skipped]


def entries(source: Path, read: bool = True) -> Found:
    """Yield everything in `source`: a folder and all below it, an archive, a picture or a film.

    Parameters
    ----------
    source : Path
    read : bool
        Without it, entries out of archives have no content: only the names are wanted.
    """
    name = source_name(source)
    if source.is_dir():
        yield from _folder(source, name, read)
    else:
        yield from _file(source, name, read)


def size_of(source: Path) -> int:
    """Bytes of all regular files in `source`: an estimate of the work, before it is done."""
    if not source.is_dir():
        return source.stat().st_size
    size = 0
    for folder, folders, files in os.walk(source):
        folders[:] = [inner for inner in folders if not _is_hidden(inner)]
        with contextlib.suppress(OSError), os.scandir(folder) as inside:
            size += sum(item.stat().st_size for item in inside
                        if item.name.lower().endswith(PICTURES + FILMS + ARCHIVES)
                        and item.is_file())
    return size


def source_name(source: Path) -> str:
    """Return the name of a source: the first part of the names of all that is found in it."""
    return printable(os.path.basename(os.path.abspath(source)) or "root")


def _folder(top: Path, name: str, read: bool) -> Found:
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(top, onerror=unreadable.append):
        below = os.path.relpath(folder, top)
        prefix = name if below == "." else f"{name}/{printable(below)}"
        for inner in sorted(folders):
            if os.path.islink(os.path.join(folder, inner)):
                yield Skipped(f"{prefix}/{printable(inner)}", "link to a folder")
            elif _is_hidden(inner):
                yield Skipped(f"{prefix}/{printable(inner)}",
                              OTHER if inner == "__MACOSX" else HIDDEN, "a folder")
        # this is where it goes next
        folders[:] = sorted(inner for inner in folders if not _is_hidden(inner))
        for file in sorted(files):
            if _is_hidden(file):
                yield _hidden(f"{prefix}/{printable(file)}")
            else:
                yield from _file(Path(folder, file), f"{prefix}/{printable(file)}", read)
    for error in unreadable:
        yield Skipped(printable(str(error.filename)), "unreadable folder", str(error.strerror))


def _file(path: Path, name: str, read: bool) -> Found:
    if not path.is_file():  # a broken link, a socket, a device
        yield Skipped(name, "not a regular file")
    elif name.lower().endswith(ARCHIVES):
        try:
            yield from (_zip if _is_zip(path) else _tar)(path, name, read)
        except DAMAGE as error:
            if isinstance(error, OSError) and is_of_disk(error):
                yield Skipped(name, UNREADABLE, str(error.strerror))
            else:
                yield Skipped(name, "damaged archive", f"{error}; what came before it is kept")
    else:
        try:
            yield _refused(name, (), lambda: _head(path)) or Entry(name, path)
        except OSError as error:
            yield Skipped(name, UNREADABLE, str(error.strerror))


def _head(path: Path, size: int = HEAD) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _is_zip(path: Path) -> bool:
    """Say what an archive is: by its first bytes, whatever its name says; else by its name."""
    head = _head(path, 512)
    if head.startswith(b"PK") or len(head) == 512 and head[257:262] == b"ustar":
        return head.startswith(b"PK")
    packed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))
    return path.name.lower().endswith(".zip") and not packed


def _zip(path: Path, name: str, read: bool) -> Found:
    with zipfile.ZipFile(path) as archive:
        members = {_zip_name(info): info for info in archive.infolist()}
        for inner in members:
            if inner and not inner.endswith("/"):
                yield _zip_member(archive, members, inner, f"{name}/{inner}", read)


def _zip_member(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], inner: str,
                name: str, read: bool) -> Entry | Skipped:
    """What is found under the name `inner`, which may be a link to another one."""
    try:
        info = members.get(_followed(inner, lambda at: _zip_link(archive, members, at)))
        if info is None:
            return _refused(name, inner.split("/"), bytes) or Skipped(name, DANGLING)

        def head() -> bytes:
            with archive.open(info) as stream:
                return stream.read(HEAD)
        return (_refused(name, inner.split("/"), head)
                or _too_large(name, info.file_size, info.compress_size)
                or Entry(name, archive.read(info) if read else b""))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        return Skipped(name, "damaged", str(error))
    except (RuntimeError, NotImplementedError) as error:  # a password, an unknown compression
        return Skipped(name, "locked in its archive", str(error))


def _zip_name(info: zipfile.ZipInfo) -> str:
    r"""The name of a member, a folder with "/" at its end.

    Windows PowerShell 5 and old .NET write "\" between folders, macOS writes UTF-8 and does not
    say so.
    """
    name = info.filename
    if not info.flag_bits & 0x800:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass  # an old code page; nothing tells which
    name = name.replace("\\", "/")
    return _clean(name) + "/" * name.endswith("/")


def _zip_link(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], at: str) -> str | None:
    """What a member points to if it is a symbolic link, as Info-ZIP keeps them."""
    info = members.get(at)
    if info is None or not stat.S_ISLNK(info.external_attr >> 16) or info.file_size > 4096:
        return None
    return _pointed(at, printable(os.fsdecode(archive.read(info))))


def _pointed(at: str, target: str) -> str:
    """The name in the archive that a symbolic link at `at` means; "" if it leads out of it."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(at), target))
    return "" if path.startswith(("/", "..")) else path


def _followed(name: str, link: Callable[[str], str | None]) -> str:
    """Follow links to the member that they end at; a circle ends anywhere."""
    for _ in range(16):
        target = link(name)
        if target is None:
            break
        name = target
    return name


class _Header(tarfile.TarInfo):
    """A header of a tar archive; a damaged one in the middle is no silent end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
                tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def _tar(path: Path, name: str, read: bool) -> Found:
    """Read an archive from its beginning to its end, and once more for what links point to."""
    most = max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size)
    files: set[str] = set()
    links: dict[str, str] = {}  # name -> target
    damage: Exception | None = None
    try:
        with tarfile.open(path, "r|*", tarinfo=_Header) as archive:
            for info in archive:
                if archive.offset > most:
                    raise tarfile.ReadError(f"it expands more than {BOMB_RATIO} times")
                inner = _clean(printable(info.name))
                member = f"{name}/{inner}"
                if info.isdir():
                    continue
                if info.isreg():
                    files.add(inner)
                    yield from _tar_member(archive, info, [member], read)
                elif info.islnk():
                    links[inner] = _clean(printable(info.linkname))
                elif info.issym():
                    links[inner] = _pointed(inner, printable(info.linkname))
                else:
                    yield (_refused(member, inner.split("/"), bytes)
                           or Skipped(member, "not a regular file"))
    except DAMAGE as error:
        damage = error
    wanted: dict[str, list[str]] = {}
    for inner in links:
        target = _followed(inner, links.get)
        if refused := _refused(f"{name}/{inner}", inner.split("/"), bytes):
            yield refused
        elif target not in files:
            yield Skipped(f"{name}/{inner}", DANGLING, "" if damage is None else "it is damaged")
        else:
            wanted.setdefault(target, []).append(f"{name}/{inner}")
    if wanted:
        try:
            with tarfile.open(path, "r|*", tarinfo=_Header) as archive:
                for info in archive:
                    if info.isreg() and (found := wanted.pop(_clean(printable(info.name)), None)):
                        yield from _tar_member(archive, info, found, read)
                    if not wanted:
                        break
        except DAMAGE as error:
            damage = damage or error
    if damage is not None:
        raise damage


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, names: list[str],
                read: bool) -> Found:
    """A regular file, under its own name or those of the links to it."""
    stream = archive.extractfile(info)
    assert stream is not None, "it is a regular file"
    content = b""
    for name in names:
        def head() -> bytes:
            nonlocal content
            content = content or stream.read(HEAD)
            return content
        found: Entry | Skipped | None = (_refused(name, name.split("/")[1:], head)
                                         or _too_large(name, info.size))
        if found is None and read and len(content) < info.size:
            content += stream.read()
        yield found or Entry(name, content if read else b"")


def _clean(name: str) -> str:
    """A name inside an archive without what leads out of it: "./", "../", "C:/", "/"."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if parts and len(parts[0]) == 2 and parts[0][1] == ":":
        del parts[0]
    return "/".join(parts)


def _refused(name: str, below: Sequence[str], head: Callable[[], bytes]) -> Skipped | None:
    """Say why a file is not read, or None.

    Parameters
    ----------
    name : str
    below : sequence of str
        The parts of the name inside an archive.
    head : callable
        Reads the first bytes, for a name that does not say what it is.
    """
    ending = name.lower()
    if "__MACOSX" in below:
        return Skipped(name, OTHER)
    if any(_is_hidden(part) for part in below):
        return _hidden(name)
    if ending.endswith(PICTURES + FILMS):
        return None
    if below and ending.endswith(ARCHIVES):
        return Skipped(name, "archive inside an archive")
    if ending.endswith(UNREAD):
        return Skipped(name, "format that is not read", ending.rpartition(".")[2])
    last = ending.rpartition("/")[2]
    unsaid = "." not in last or any(suffix in last for suffix in PICTURES)  # "a", "a.jpg.1"
    return None if unsaid and formats.is_common(head()) else Skipped(name, OTHER)


def _hidden(name: str) -> Skipped:
    """Files whose name begins with a dot; what macOS puts beside each picture is none itself."""
    beside = name.rpartition("/")[2].startswith("._")
    claims = not beside and name.lower().endswith(PICTURES + FILMS + ARCHIVES)
    return Skipped(name, HIDDEN if claims else OTHER)


def _too_large(name: str, size: int, packed: int | None = None) -> Skipped | None:
    if size > MAX_BYTES:
        return Skipped(name, "too large", f"{size >> 20} MiB in an archive")
    if packed is not None and size > max(BOMB_BYTES, BOMB_RATIO * packed):
        return Skipped(name, "too large", f"{packed >> 10} KiB expand to {size >> 20} MiB")
    return None


def _is_hidden(name: str) -> bool:
    return name == "__MACOSX" or name.startswith(".") and name not in (".", "..")
