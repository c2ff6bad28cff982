"""The folder of a checkpoint: names, the manifest that commits it, what is there, whole or half.

A step's folder is a checkpoint as soon as ``manifest.json`` is in it; that file is written last.
Names in it are relative, so the folder may be renamed or copied elsewhere.
"""
import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpclcae.utils.errors import InputError
from hpclcae.utils.files import CHECKPOINT, replacing
from hpclcae.utils.reading import reading

KIND = "hpclcae checkpoint"
SCHEMA = 2
MANIFEST, MODEL = CHECKPOINT
RUN_ID = "run-id"
BEST = "best"  # its only line is the name of the best checkpoint, where one was chosen

_FOLDER = re.compile(r"step-(\d{8})")
_OLD_FILE = re.compile(r"step-(\d{8})\.h5")  # schema 1: a checkpoint was one file
_MARK = re.compile(r"[0-9a-z]+")  # of a run
_BLOCK = 1 << 20  # bytes that are read at a time; more do not fit the processor's cache


@dataclass(frozen=True)
class Content:
    """Size in bytes and CRC-32 of a file."""
    size: int
    crc32: int


@dataclass(frozen=True)
class Manifest:
    """Run, step, and every file of a checkpoint."""
    run: str
    step: int
    files: dict[str, Content]


# ---- names ---------------------------------------------------------------------------------------

def step_folder(run: Path, step: int) -> Path:
    """Folder of the checkpoint of `step` of a run."""
    return run / "checkpoints" / f"step-{step:08d}"


def shard_name(number: int) -> str:
    """Name of a shard's file."""
    return f"shard-{number:04d}.h5"


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint; -1 if the name is another."""
    found = _FOLDER.fullmatch(path.name) or _OLD_FILE.fullmatch(path.name)
    return int(found[1]) if found else -1


def saved(folder: Path) -> list[Path]:
    """The finished checkpoints in a run's folder of checkpoints, oldest first.

    Single files of schema 1 are among them: they can be loaded, and the next checkpoint is a
    folder.
    """
    found = [path for path in folder.glob("step-*") if step_of(path) >= 0
             and (_OLD_FILE.fullmatch(path.name) or (path / MANIFEST).exists())]
    return sorted(found, key=step_of)


def find(run: str | Path) -> Path:
    """The checkpoint itself, or the newest one of a run folder.

    Raises
    ------
    InputError
        There is none.
    """
    path = Path(run)
    if path.is_file():
        return path.parent if path.name in (MODEL, MANIFEST) else path
    if (path / MANIFEST).exists():
        return path
    found = saved(path / "checkpoints")
    if found:
        return found[-1]
    if step_of(path) >= 0 and path.is_dir():
        raise InputError(f"{path} has no {MANIFEST}: its writing was interrupted or is under way; "
                         "take another checkpoint (hpclcae checkpoint list RUN)")
    raise InputError(f"{path} is neither a checkpoint nor the folder of a run with checkpoints; "
                     "train one with: hpclcae train CONFIGURATION --out "
                     f"{shlex.quote(str(path))}")


def find_best(run: str | Path) -> Path:
    """The same, but of a run folder the checkpoint that did best on validation images, if any.

    Raises
    ------
    InputError
        There is none.
    """
    return best_of(Path(run)) or find(run)


def best_of(run: Path) -> Path | None:
    """The checkpoint of a run folder that did best on validation images; None: it names none."""
    file = run / "checkpoints" / BEST
    with reading(file, "the name of the best checkpoint", "remove it"):
        try:
            best = file.parent / file.read_text().strip()
        except (FileNotFoundError, NotADirectoryError):  # or it was moved away just now
            return None
        return best if step_of(best) >= 0 and (best / MANIFEST).exists() else None


# ---- the manifest --------------------------------------------------------------------------------

def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commit a checkpoint whose files are all in their places and on the disk."""
    files = {name: {"size": c.size, "crc32": f"{c.crc32:08x}"} for name,
             c in manifest.files.items()}
    content = {"kind": KIND, "schema": SCHEMA, "run": manifest.run, "step": manifest.step,
               "files": files}
    with replacing(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(content | {"crc32": _checksum(content)}, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises
    ------
    InputError
        It is missing, damaged, or of a newer schema.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise InputError(f"{folder} has no {MANIFEST}, so it is not a finished checkpoint: use "
                         "another one")
    with reading(path, "the manifest of a checkpoint", "use an older checkpoint"):
        content = json.loads(path.read_bytes())
        if content["schema"] > SCHEMA:
            raise InputError(f"{path} has schema {content['schema']}, this hpclcae reads up to "
                             f"{SCHEMA}: use a newer hpclcae")
        if content.pop("crc32") != _checksum(content):
            raise InputError(f"{path} does not have the checksum that it was written with: use an "
                             "older checkpoint")
        files = {name: Content(c["size"], int(c["crc32"], 16)) for name,
                 c in content["files"].items()}
        return Manifest(content["run"], content["step"], files)


def check(folder: Path) -> Manifest:
    """See that every file of a checkpoint is there and has its size, and that model.h5 is whole.

    The content of shards, which may be many gigabytes, is left to `verify`.

    Raises
    ------
    InputError
        Names the file that is missing, has another size, or the model that has another content.
    """
    manifest = read_manifest(folder)
    for name, content in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError as error:
            raise InputError(f"{folder / name} is missing: bring it back, or use an older "
                             "checkpoint") from error
        if size != content.size:
            raise InputError(f"{folder / name} has {size} bytes instead of {content.size}: bring "
                             "back a whole copy, or use an older checkpoint")
    if MODEL in manifest.files:  # before HDF5 parses it
        _compare(folder / MODEL, manifest.files[MODEL])
    return manifest


def verify(folder: Path, told: Callable[[str], None] = lambda name: None) -> Manifest:
    """Read every file of a checkpoint and compare its checksum.

    `told` hears the name of each that is well.

    Raises
    ------
    InputError
        Names the file that is missing, has another size or another content.
    """
    manifest = check(folder)
    for name, content in manifest.files.items():
        _compare(folder / name, content)
        told(name)
    return manifest


def _compare(path: Path, content: Content) -> None:
    found = content_of(path)
    if found != content:
        raise InputError(f"{path} has CRC-32 {found.crc32:08x} instead of {content.crc32:08x}: it "
                         "is damaged; bring back a good copy, or use an older checkpoint")


def content_of(path: Path, from_disk: bool = False) -> Content:
    """Size and checksum of a file.

    `from_disk`: not from the system's memory, where the system can be told so.
    """
    block, crc = bytearray(_BLOCK), 0
    with path.open("rb", buffering=0) as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size = 0
        while count := file.readinto(block):
            crc = zlib.crc32(memoryview(block)[:count], crc)
            size += count
    return Content(size, crc)


def _checksum(content: dict[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


# ---- what is only half there ---------------------------------------------------------------------

def clean(run: Path) -> None:
    """Prepare a run's folder of checkpoints; one rank calls it before any writes.

    What an interrupted write left is removed. The run gets its mark, which every shard carries and
    by which files of another run are told.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    folder = run / "checkpoints"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in [*folder.glob("step-*"), *folder.glob("*.partial")]:
            if path.is_dir() and step_of(path) >= 0 and not (path / MANIFEST).exists():
                shutil.rmtree(path)
            elif path.suffix == ".partial":
                path.unlink()
            elif path.is_dir():
                remove_done_markers(path)
        if not read_run_id(run):
            _write_run_id(run)
    except OSError as error:
        raise InputError(f"folder of checkpoints {folder} cannot be written ({error.strerror}); "
                         "choose another --out") from error


def read_run_id(run: Path) -> str:
    """The mark of a run; "" if it has none, or one that is damaged."""
    try:
        text = (run / "checkpoints" / RUN_ID).read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    return text if _MARK.fullmatch(text) else ""


def _write_run_id(run: Path) -> None:
    """Give a run its mark, or the one of its newest checkpoint back, if the file is damaged."""
    file, mark = run / "checkpoints" / RUN_ID, uuid.uuid4().hex
    if file.exists():
        for path in reversed(saved(file.parent)):
            with contextlib.suppress(InputError):
                mark = read_manifest(path).run
                break
        print(f"{file} was damaged, and is written again", file=sys.stderr)
    with replacing(file) as partial:
        partial.write_text(mark + "\n")


def remove(path: Path) -> None:
    """Remove a checkpoint: first what makes it one."""
    if path.is_file():
        path.unlink()
        return
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def done_marker(shard: Path) -> Path:
    """The small file beside a finished shard that says what it holds, until the manifest does."""
    return shard.with_suffix(".json")


def remove_done_markers(folder: Path) -> None:
    """Remove the markers of a checkpoint that has its manifest, and what was never finished."""
    for path in [*folder.glob("shard-*.json"), *folder.glob("*.partial")]:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
