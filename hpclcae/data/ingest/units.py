"""A unit: some files that are read by one process in one go, and the images that came of them.

Its file appears whole or not at all, so what an interrupted ingest has read is there when it goes
on; the key tells whether the files, and the settings that pixels depend on, are still the same.
"""
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.data.dataset import checksum
from hpclcae.data.ingest.duplicates import Print, fingerprint
from hpclcae.data.ingest.settings import Settings
from hpclcae.data.ingest.squares import Square, TooSmall, squares
from hpclcae.data.ingest.walk import Entry, Skipped

FILES, BYTES = 64, 32 * 2**20  # a unit has no more of these, but for a single larger file
IN_FOLDER = 1000               # units in one folder
MARK = b"hpclcae unit 2\n"

Wanted = tuple[int, int, np.ndarray]  # a row, the CRC-32 of its pixels, and where they go


@dataclass(frozen=True)
class Task:
    """A unit to make."""
    path: Path                          # of its file
    number: int
    found: tuple[Entry | Skipped, ...]
    settings: Settings

    @property
    def weight(self) -> int:
        """Bytes to read."""
        return sum(entry.size for entry in self.found if isinstance(entry, Entry))


def tasks(found: Iterable[Entry | Skipped], folder: Path, settings: Settings) -> Iterator[Task]:
    """Cut everything that is found into units, in order."""
    number, size = 0, 0
    some: list[Entry | Skipped] = []

    def task() -> Task:
        return Task(path_of(folder, number), number, tuple(some), settings)
    for entry in found:
        more = entry.size if isinstance(entry, Entry) else 0
        if some and (len(some) == FILES or size + more > BYTES):
            yield task()
            number, some, size = number + 1, [], 0
        some.append(entry)
        size += more
    if some:
        yield task()


def path_of(folder: Path, number: int) -> Path:
    """Where the file of a unit is."""
    return folder / f"{number // IN_FOLDER:05d}" / f"{number % IN_FOLDER:03d}"


def make(task: Task) -> bool:
    """Write the file of a unit, unless it is there; returns whether it was."""
    key = _key(task)
    try:
        if Unit(task.path).header["key"] == key:
            return True
    except (OSError, ValueError, KeyError):
        pass  # not there, or what a crash of the machine left of it
    task.path.parent.mkdir(parents=True, exist_ok=True)
    partial = task.path.with_name(f"{task.path.name}.partial")
    events: list[dict[str, Any]] = []
    largest, row = 0, 0
    with partial.open("wb") as file:
        for entry in task.found:
            for item in [entry] if isinstance(entry, Skipped) else squares(entry, task.settings):
                if isinstance(item, TooSmall):
                    largest = max(largest, item.side)
                if isinstance(item, Skipped):
                    events.append({"skip": [item.name, item.reason, item.detail]})
                    continue
                assert isinstance(entry, Entry)
                content = np.ascontiguousarray(item.pixels).data
                file.write(content)
                if task.settings.dedupe == "near":
                    file.write(fingerprint(item.pixels).to_bytes())
                events.append(_event(entry, item, row, content))
                row += 1
        header = {"key": key, "events": events, "largest": largest, "rows": row}
        text = json.dumps(header).encode()
        file.write(text + _end(text))
    os.replace(partial, task.path)
    return False


def _end(header: bytes) -> bytes:
    """What follows a header: its length and checksum."""
    return b"%012d%08x" % (len(header), zlib.crc32(header)) + MARK


def _event(entry: Entry, square: Square, row: int, content: memoryview) -> dict[str, Any]:
    seconds = None if np.isnan(square.seconds) else square.seconds
    return {"row": row, "entry": entry.name, "folders": entry.folders, "source": square.source,
            "seconds": seconds, "original": square.original, "crop": square.crop,
            "notes": square.notes, "faces": square.faces, "second": square.is_second,
            "checksum": checksum(content), "crc": zlib.crc32(content)}


def _key(task: Task) -> str:
    """What the file of a unit depends on."""
    digest = hashlib.blake2b(task.settings.of_pixels.encode(), digest_size=16)
    for entry in task.found:
        digest.update(repr((entry.name, *([entry.reason, entry.detail]
                                          if isinstance(entry, Skipped) else entry.version)))
                      .encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


class Unit:
    """The file of a unit, to read.

    Raises
    ------
    OSError, ValueError, KeyError
        It is not there, or not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_end(b""))))
            end = file.read()
            self._stop = size - len(end) - int(end[:12])
            file.seek(self._stop)
            text = file.read(int(end[:12]))
            if end != _end(text):
                raise ValueError("it is not as it was written")
            self.header: dict[str, Any] = json.loads(text)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came of its files: images and what was skipped, in order."""
        events: list[dict[str, Any]] = self.header["events"]
        return events

    def prints(self, depth: int) -> Iterator[Print]:
        """Fingerprints of its images."""
        count, size = int(self.header["rows"]), Print.size(depth)
        if not count:
            return
        for record in np.memmap(self.path, np.uint8, "r", shape=(count, self._stop // count)):
            yield Print.from_bytes(record[-size:].tobytes(), depth)


def read_pixels(path: Path, settings: Settings, wanted: Iterable[Wanted]) -> None:
    """Read some images of the unit in a file.

    Raises
    ------
    OSError, ValueError
        It is not there, or its pixels are not as they were written.
    """
    image = settings.size**2 * settings.depth
    record = image + (Print.size(settings.depth) if settings.dedupe == "near" else 0)
    with path.open("rb", buffering=0) as file:
        for row, crc, out in wanted:
            file.seek(row * record)
            if file.readinto(out.data.cast("B")) != image or zlib.crc32(out.data) != crc:
                raise ValueError(f"its image {row} is not as it was written")
