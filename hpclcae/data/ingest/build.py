"""From folders, archives and films to one dataset of square images.

Files are read in units by several processes, and what came of each unit is a file in a folder
beside the dataset (units.py); then one pass over the units chooses what is stored (choose.py), and
the dataset is written (store.py). Whatever ends the work, the same command goes on with what is in
that folder, to the same dataset. Nothing that a file may contain stops the run: what cannot be used
is named, counted and left out, and what had to be converted is counted too. The dataset appears
whole, at the end, or not at all.
"""
import contextlib
import hashlib
import shlex
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.data import faces
from hpclcae.data.dataset import KIND
from hpclcae.data.ingest import labels, units, walk
from hpclcae.data.ingest.choose import Units, choose, count_stored, group_of
from hpclcae.data.ingest.ledger import Ledger
from hpclcae.data.ingest.manifest import Manifest
from hpclcae.data.ingest.settings import Settings, Tally
from hpclcae.data.ingest.store import (LEDGER, UNITS, Plan, ShardTask, mark_of,
                                       remove_older_shards, write_index, write_shard)
from hpclcae.data.ingest.units import Task, Unit, make
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import check_output, is_hdf5
from hpclcae.utils.lock import locked
from hpclcae.utils.progress import Progress, progress
from hpclcae.utils.tables import summed
from hpclcae.utils.workers import in_order, survives

FATAL = "ends the process that reads it"  # reason to skip


def ingest(sources: Sequence[Path], out: Path, settings: Settings,
           workers: int = 1) -> tuple[Tally, list[str]]:
    """Write a dataset of square images; what is left out is named on stderr.

    Parameters
    ----------
    sources : sequence of Path
        Folders, archives, pictures and films.
    out : Path
        The dataset (HDF5), and beside it the folder of its shards, if there are several. It is
        replaced in a single step, at the end, or not at all.
    settings : Settings
    workers : int
        Processes; the dataset does not depend on it.

    Returns
    -------
    Tally
        What happened to everything that was found.
    list of str
        Names of the labels; empty if there are none.

    Raises
    ------
    InputError
        A source does not exist, two have one name, or nothing in them can be used; the disk is
        full: the same command goes on.
    """
    _check(sources, out, settings)
    record = {"sources": [str(source) for source in sources], "out": str(out), **asdict(settings)}
    with _work(out) as (work, lock):
        plan = Plan.load(work, record) or _chosen(sources, work, settings, record, workers, lock)
        _write(plan, work, out, workers, lock)
    if empty := [name for name in plan.names or () if not plan.tally["labels"].get(name)]:
        print(f"warning: no image has the label {summed(empty)}: see what was skipped",
              file=sys.stderr)
    return Tally.of(plan.tally), plan.names or []


def _chosen(sources: Sequence[Path], work: Path, settings: Settings, record: dict[str, Any],
            workers: int, lock: int) -> Plan:
    """Read everything and choose what is stored."""
    chosen = None
    if settings.label_from == "folder":
        chosen = _labels(sources, settings)
        print(chosen.text + "\n", flush=True)
    with Ledger(work / LEDGER, new=True) as ledger:
        found = (entry for source in sources for entry in walk.entries(source))
        with contextlib.closing(_read(found, sources, work, settings, workers, lock)) as read:
            tally, digest = choose(read, settings, chosen, ledger, work)
        if not ledger.count():
            raise NothingFound(_why_nothing(sources, tally))
        counts: dict[str, Any] = {"stored": dict(tally.stored), "skipped": dict(tally.skipped),
                                  "converted": dict(tally.noted)}
        if settings.faces == "count":
            counts["with faces"] = tally.with_faces
        shards = _dealt(ledger, settings)
    plan = Plan(record, chosen.names if chosen else None,
                {walk.source_name(source): settings.licence for source in sources},
                counts, tally.as_dict(), shards, mark_of(record, digest), is_shuffled=True)
    plan.save(work)
    return plan


def _dealt(ledger: Ledger, settings: Settings) -> list[int]:
    """Deal the units out to shards, in a random order; returns how many images each one has."""
    counts = list(ledger.counts())
    total = sum(count for _, count in counts)
    wanted = -(-total // per_shard(settings))
    if wanted > 1:
        order = np.random.default_rng([settings.seed, 0]).permutation(len(counts))
        counts = [counts[i] for i in order]
    shards: list[list[int]] = [[]]
    images, done = [0], 0
    for unit, count in counts:
        if images[-1] and done >= total * len(shards) / wanted:
            shards.append([])
            images.append(0)
        shards[-1].append(unit)
        images[-1] += count
        done += count
    ledger.deal_units(shards)
    return images


def per_shard(settings: Settings) -> int:
    """Images of a shard, about."""
    return max(1, int(settings.shard_size * 1e9) // (settings.size**2 * settings.depth))


def rebuild(manifest: Manifest, sources: Sequence[Path], out: Path, workers: int = 1,
            shards: Sequence[int] = ()) -> tuple[Tally, int]:
    """Make the dataset of a manifest again, or damaged shards of it.

    Parameters
    ----------
    manifest : Manifest
    sources : sequence of Path
        Where its sources are now; none: where they were.
    out : Path
        The dataset to write; with `shards` the one that the manifest is.
    workers : int
    shards : sequence of int
        Only these are made again, in place.

    Returns
    -------
    Tally
    int
        How many images have other pixels than they had: 0 means that all is as it was.

    Raises
    ------
    InputError
        A source or an image of the manifest is not there any more; a shard would not be as it was.
    """
    sources, settings = sources or manifest.sources, manifest.settings
    if unknown := [number for number in shards if not 0 <= number < len(manifest.shards)]:
        raise InputError(f"--shard {unknown[0]}: {manifest.path} has "
                         f"{len(manifest.shards) or 'no'} shards, counted from 0")
    if shards and out.resolve() != manifest.path.resolve():
        raise InputError(f"--shard {shards[0]} is made again in place: give --out {manifest.path}")
    _check(sources, out, settings)
    record = {**{name: value for name, value in manifest.record.items() if name != "counts"},
              "sources": [str(source) for source in sources], "out": str(out)}
    parts = [manifest.shards[number] for number in shards]
    with _work(out) as (work, lock):
        with Ledger(work / LEDGER, new=True) as ledger:
            ledger.ask(row for row in manifest.rows() if not parts or any(
                part.first <= row[0] < part.first + part.count for part in parts))
            found = (entry for source in sources for entry in walk.entries(source)
                     if isinstance(entry, walk.Entry) and ledger.asks_for(entry.name))
            with contextlib.closing(_read(found, sources, work, settings, workers, lock)) as read:
                tally, changed, digest = _located(read, settings, ledger)
            count, names = ledger.missing(3)
            if count:
                raise InputError(f"{count} images of {manifest.path} are not in "
                                 f"{summed(list(map(str, sources)))} any more: {summed(names)}")
            if parts and changed:
                raise InputError(f"{changed} images of the shards come out with other pixels than "
                                 "before: the sources or the libraries have changed; make the "
                                 f"whole again: hpclcae data ingest --manifest {manifest.path} "
                                 f"--out {out}")
            if parts:
                ledger.deal_places([manifest.shards[number].first for number in sorted(shards)],
                                   sorted(shards))
                images = [part.count for part in manifest.shards]
            else:
                wanted = -(-manifest.count // per_shard(settings))
                firsts = [manifest.count * number // wanted for number in range(wanted)]
                ledger.deal_places(firsts, range(wanted))
                images = np.diff([*firsts, manifest.count]).tolist()
        counts = manifest.record.get("counts", {})
        plan = Plan(manifest.record if parts else record, manifest.names, manifest.licences, counts,
                    tally.as_dict(), images, mark_of(record, digest), is_shuffled=False)
        if parts:
            _mend(plan, manifest, work, shards)
        else:
            _write(plan, work, out, workers, lock)
    return tally, changed


def _located(found: Units, settings: Settings, ledger: Ledger) -> tuple[Tally, int, str]:
    """Find the images that the ledger asks for; returns how many are not as they were, and a hash.
    """
    tally, changed, digest = Tally(), 0, hashlib.blake2b(digest_size=8)
    for number, unit in found:
        for event in unit.events:
            if "skip" in event:
                tally.skip(*event["skip"])
                continue
            same = ledger.found(event["source"], event["checksum"], number, event["row"])
            if same is not None:
                changed += not same
                digest.update(event["checksum"].to_bytes(8, "little"))
                count_stored(tally, group_of(event["entry"], settings), event["notes"],
                             event["faces"])
    return tally, changed, digest.hexdigest()


def _mend(plan: Plan, manifest: Manifest, work: Path, numbers: Sequence[int]) -> None:
    """Write some shards again."""
    for number in sorted(numbers):
        shard = manifest.shards[number]
        found = write_shard(ShardTask(work, shard.path, plan, number))
        if found != shard.fingerprint:
            raise InputError(f"{shard.path} does not come out as it was: make the whole again: "
                             f"hpclcae data ingest --manifest {manifest.path} --out "
                             f"{manifest.path}")
    paths = [shard.path for shard in manifest.shards]
    if any(path.exists() and path.stat().st_size != shard.size
           for path, shard in zip(paths, manifest.shards)) and all(map(Path.exists, paths)):
        # other versions of the libraries write files of another size
        write_index(manifest.path, paths, [shard.fingerprint for shard in manifest.shards])


# ---- the work ------------------------------------------------------------------------------------


class NothingFound(InputError):
    """There is nothing to go on with."""


@contextlib.contextmanager
def _work(out: Path) -> Iterator[tuple[Path, int]]:
    """The folder of the work, and what locks it; it is gone when the work is done.

    Raises
    ------
    InputError
        Another process works in it; the disk is full, or a process died: the folder stays.
    """
    check_output(out, lambda path: is_hdf5(path, KIND), "a dataset")
    work = out.with_name(f"{out.name}.work")
    kept = (f"what was read is kept in {work}, and the same command goes on with it (to begin "
            f"again: rm -r {shlex.quote(str(work))})")
    with locked(work, "folder") as lock:
        try:
            yield work, lock
        except InputError as error:
            if isinstance(error, NothingFound) or not _has_units(work):
                shutil.rmtree(work, ignore_errors=True)
            raise
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{error}: {kept}") from error
        except KeyboardInterrupt:
            if _has_units(work):
                print(kept, file=sys.stderr)
            else:
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _has_units(work: Path) -> bool:
    """Whether there is anything to go on with."""
    return any(path.is_file() and not path.suffix for path in (work / UNITS).rglob("*"))


def _read(found: Iterable[walk.Entry | walk.Skipped], sources: Sequence[Path], work: Path,
          settings: Settings, workers: int, lock: int) -> Generator[tuple[int, Unit], None, None]:
    """Yield the units of everything that was found, in order, as processes have made them."""
    total = float(sum(map(walk.size_of, sources)))
    images = again = number = 0
    tasks = units.tasks(found, work / UNITS, settings)
    made = in_order(make, tasks, workers, _make_alone, (lock,))
    with contextlib.closing(made), Progress("reading", max(total, 1.0)) as report:
        for task, was_there in made:
            unit = Unit(task.path)
            yield task.number, unit
            images += int(unit.header["rows"])
            again += was_there
            number += 1
            report.advance(task.weight, f"{images} images")
    if again:
        print(f"reading: {again} of {number} parts were there from before", file=sys.stderr)


def _make_alone(task: Task) -> bool:
    """Make a unit whose process may have died of it; files that end theirs are left out."""
    if survives(make, task):
        return make(task)
    trial = task.path.with_suffix(".trial")
    found = tuple(
        entry if isinstance(entry, walk.Skipped)
        or survives(make, replace(task, path=trial, found=(entry,)))
        else walk.Skipped(entry.name, FATAL, "a fault in a library, or out of memory")
        for entry in task.found)
    trial.unlink(missing_ok=True)
    return make(replace(task, found=found))


def _write(plan: Plan, work: Path, out: Path, workers: int, lock: int) -> None:
    """Write the dataset."""
    single = len(plan.shards) == 1
    paths = [plan.path(out, number) for number in range(len(plan.shards))]
    tasks = [ShardTask(work, path, plan, number) for number, path in enumerate(paths)]
    written = in_order(write_shard, tasks, 1 if single else workers, _write_alone, (lock,))
    if single:
        for _ in written:
            pass
    else:
        fingerprints = [fingerprint for _, fingerprint
                        in progress(written, "writing", len(tasks), "shards")]
        write_index(out, paths, fingerprints)
    remove_older_shards(out, "" if single else plan.mark)


def _write_alone(task: ShardTask) -> str:
    """Write a shard whose process may have died of it."""
    if not survives(write_shard, task):
        raise OSError(f"the process that writes {task.path} was ended, for lack of memory perhaps")
    return write_shard(task)


def _labels(sources: Sequence[Path], settings: Settings) -> labels.Labels:
    """Choose labels by the names of all files, before any is decoded."""
    found = (entry for source in sources for entry in walk.entries(source, read=False)
             if isinstance(entry, walk.Entry))
    return labels.from_folders(found, settings.concept, settings.label_level)


def _check(sources: Sequence[Path], out: Path, settings: Settings) -> None:
    require("PIL.Image", "images", "reading pictures")  # before an hour of reading, not within it
    if settings.faces != "ignore":
        faces.require_detector()
    target = out.resolve()
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist: give a folder, an archive, a picture or a "
                             "film")
        if target == source.resolve():
            raise InputError(f"--out {out} is the source {source}: choose another name")
        if source.is_dir() and source.resolve() in target.parents:
            raise InputError(f"--out {out} lies in the source {source}, which is only read: choose "
                             "another folder")
    names = [walk.source_name(source) for source in sources]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{count} sources are called {name}: rename one, or give the folder "
                             "that holds them")


def _why_nothing(sources: Sequence[Path], tally: Tally) -> str:
    where = summed(list(map(str, sources)))
    if tally.skipped["too small"]:
        return (f"no picture in {where} is large enough: the largest has a shorter side of "
                f"{tally.largest} pixels; give --size {tally.largest} or less, or --min-side to "
                "enlarge smaller ones")
    counts = ", ".join(f"{count} x {reason}" for reason, count in tally.skipped.most_common())
    return (f"no picture or film in {where} can be used ({counts or 'there are no files'}): "
            "nothing was written")
