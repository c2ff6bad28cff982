"""Writing what was chosen: one file, or shards and an index that shows them as one."""
import contextlib
import hashlib
import json
import os
import re
import zlib
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import halves_of_images
from hpclcae.data.ingest.choose import group_of
from hpclcae.data.ingest.ledger import Ledger
from hpclcae.data.ingest.settings import Settings
from hpclcae.data.ingest.units import Unit, Wanted, path_of, read_pixels
from hpclcae.data.shards import GROUP
from hpclcae.data.writer import DatasetWriter
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replacing, replacing_hdf5

PLAN, LEDGER, UNITS = "plan.json", "ledger", "units"  # in the folder of the work
CACHED = 64  # units whose files are open at once


@dataclass(frozen=True)
class Plan:
    """What is to be written; with it an interrupted ingest goes on where everything was chosen."""
    record: dict[str, Any]           # sources and settings
    names: list[str] | None          # of the labels
    licences: dict[str, str]
    counts: dict[str, Any]           # what happened to everything, stored in the dataset
    tally: dict[str, Any]            # the same, to be told
    shards: list[int]                # images of each
    mark: str                        # 8 hex digits, made from all that is stored
    is_shuffled: bool                # not of a manifest, which says the order

    def save(self, work: Path) -> None:
        """Write it, with checksums of itself and of the ledger, into the folder of the work."""
        with (work / LEDGER).open("rb") as ledger:
            os.fsync(ledger.fileno())
        text = json.dumps(asdict(self))
        with replacing(work / PLAN) as partial:
            partial.write_text(f"{text}\n{_crc32(work, text)}\n")

    @classmethod
    def load(cls, work: Path, record: dict[str, Any]) -> "Plan | None":
        """The plan in a folder, if there is one for the same sources and settings."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            text, crc = (work / PLAN).read_text().splitlines()
            if crc == _crc32(work, text):
                plan = cls(**json.loads(text))
                return plan if plan.record == json.loads(json.dumps(record)) else None
        return None

    @property
    def settings(self) -> Settings:
        """How the images were made."""
        return settings_of(self.record)

    def path(self, out: Path, shard: int) -> Path:
        """Where a shard of the dataset `out` lies; if there is only one it is the dataset."""
        if len(self.shards) == 1:
            return out
        return shard_folder(out) / f"{self.mark}-{shard:04d}.h5"


def _crc32(work: Path, plan: str) -> str:
    """A checksum of the text of a plan and of the ledger."""
    crc = zlib.crc32(plan.encode())
    with (work / LEDGER).open("rb") as file:
        while block := file.read(2**22):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def settings_of(record: dict[str, Any]) -> Settings:
    """The settings in a record."""
    return Settings(**{name: value for name, value in record.items()
                       if name in Settings.__dataclass_fields__})


def shard_folder(out: Path) -> Path:
    """The folder of the shards of a dataset."""
    return out.with_name(f"{out.name.removesuffix('.h5')}.shards")


@dataclass(frozen=True)
class ShardTask:
    """A shard to write."""
    work: Path
    path: Path
    plan: Plan
    number: int

    @property
    def done(self) -> Path:
        """A file that says that it is written."""
        return self.work / f"shard-{self.number:04d}"


def write_shard(task: ShardTask) -> str:
    """Write a shard, unless this work has written it; returns its fingerprint.

    Raises
    ------
    InputError
        Something that was read is not as it was.
    OSError
        The disk is full.
    """
    plan, settings = task.plan, task.plan.settings
    units = set()
    if not (task.done.exists() and task.path.exists()):
        seed = None
        if plan.is_shuffled:
            seed = settings.seed if len(plan.shards) == 1 else _seed(settings.seed, task.number)
        events_of = lru_cache(CACHED)(lambda number: _events(task.work, number))
        pixels = _Pixels(task.work, settings)
        writer = DatasetWriter(task.path, settings.size, settings.depth, plan.names,
                               {**plan.record, "counts": plan.counts}, licences=plan.licences,
                               shuffle_seed=seed, compress=settings.compress, pixels=pixels)
        if len(plan.shards) == 1:
            writer.half_seed = settings.half_seed
        here: dict[int, int] = {}  # place -> number in this file
        with Ledger(task.work / LEDGER) as ledger, writer:
            for kept in ledger.shard(task.number):
                units.add(kept.unit)
                event = events_of(kept.unit)[kept.line]
                here[kept.place] = writer.count
                seconds = nan if event["seconds"] is None else event["seconds"]
                pixels.append(kept.unit, kept.line, event["crc"])
                writer.append(
                    event["checksum"], source=event["source"],
                    group=group_of(event["entry"], settings), original=tuple(event["original"]),
                    crop=tuple(event["crop"]), label=kept.label, pair=here.get(kept.partner, -1),
                    seconds=seconds)
        with replacing(task.done) as partial:
            partial.touch()
        if plan.is_shuffled and len(plan.shards) > 1:
            for number in units:  # nobody else wants them, and the disk may be small
                path_of(task.work / UNITS, number).unlink(missing_ok=True)
    with Dataset(task.path) as dataset:
        return dataset.fingerprint


def mark_of(record: dict[str, Any], digest: str) -> str:
    """8 hex digits that the names of shards begin with: other images, others settings, others."""
    text = json.dumps(record) + digest
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()


def _seed(seed: int, shard: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{shard}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _events(work: Path, number: int) -> dict[int, dict[str, Any]]:
    """What is known of the images of a unit, by their rows."""
    path = path_of(work / UNITS, number)
    try:
        return {event["row"]: event for event in Unit(path).events if "row" in event}
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(work, path, error) from error


def _damaged(work: Path, unit: Path, error: Exception) -> InputError:
    return InputError(f"{unit} is damaged ({error}): remove it and {work / PLAN}, and give the "
                      "same command again, which reads its files again")


class _Pixels:
    """The pixels of images by their numbers, out of units."""

    def __init__(self, work: Path, settings: Settings) -> None:
        self._work, self._settings = work, settings
        self._where: list[tuple[int, int, int]] = []

    def append(self, unit: int, row: int, crc: int) -> None:
        """Where the next image is, and the CRC-32 of its pixels."""
        self._where.append((unit, row, crc))

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Uint8 (image, row, col, channel)."""
        settings, units = self._settings, defaultdict[int, list[Wanted]](list)
        images = np.empty((len(numbers), settings.size, settings.size, settings.depth), np.uint8)
        for image, number in zip(images, numbers.tolist()):
            unit, row, crc = self._where[number]
            units[unit].append((row, crc, image))
        for unit in sorted(units):  # each is opened once
            path = path_of(self._work / UNITS, unit)
            try:
                read_pixels(path, settings, units[unit])
            except (OSError, ValueError) as error:
                raise _damaged(self._work, path, error) from error
        return images


def write_index(out: Path, paths: list[Path], fingerprints: list[str],
                half_seed: int | None = None) -> None:
    """Write the file that shows several shards as one dataset.

    half_seed : int, optional
        It deals the images of each class to the halves, all shards together.
    """
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(h5py.File(paths[0], "r", locking=False))
        counts = []
        for path in paths:
            with h5py.File(path, "r", locking=False) as shard:
                counts.append(shard["images"].shape[0])
        starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        file = stack.enter_context(replacing_hdf5(out))
        shape = (starts[-1], *first["images"].shape[1:])
        layout = h5py.VirtualLayout(shape, np.uint8)
        for path, start, count in zip(paths, starts, counts):
            source = h5py.VirtualSource(f"{path.parent.name}/{path.name}", "images",
                                        (count, *shape[1:]))
            layout[start:start + count] = source
            with h5py.File(path, "r", locking=False) as shard:
                _add_columns(file, shard, start, starts[-1])
        if half_seed is not None:
            file["half"] = halves_of_images(file["group"].asstr()[:], file["labels"][:],
                                            half_seed).astype(np.uint8)
        images = file.create_virtual_dataset("images", layout)
        images.attrs.update(first["images"].attrs)
        names = [f"{path.parent.name}/{path.name}" for path in paths]
        for name, texts in (("name", names), ("fingerprint", fingerprints)):
            file.create_dataset(f"{GROUP}/{name}", data=texts, dtype=h5py.string_dtype())
        file[f"{GROUP}/first"], file[f"{GROUP}/count"] = starts[:-1], counts
        file[f"{GROUP}/bytes"] = [path.stat().st_size for path in paths]
        file.attrs.update(first.attrs)
        file.attrs["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")


def _add_columns(file: h5py.File, shard: h5py.File, start: int, total: int) -> None:
    """Copy all but the pixels of a shard into the index, from image `start` on."""
    def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if not isinstance(item, h5py.Dataset) or name == "images":
            return
        if name not in file:
            fill = {"provenance/seconds": nan, "pair": -1}.get(name)
            file.create_dataset(name, (total, *item.shape[1:]), item.dtype, fillvalue=fill)
            file[name].attrs.update(item.attrs)
        values = item[:]
        if name == "pair":
            values[values >= 0] += start
        file[name][start:start + len(values)] = values
    shard.visititems(copy)


def remove_older_shards(out: Path, mark: str) -> None:
    """Remove the shards of what `out` was before; `mark` is that of what it is."""
    folder = shard_folder(out)
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"[0-9a-f]{8}-\d{4,}\.h5(\.\w+)*", path.name) \
                and not path.name.startswith(f"{mark}-"):
            path.unlink()
    with contextlib.suppress(OSError):  # something is in it
        folder.rmdir()
