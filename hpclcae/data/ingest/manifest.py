"""What a dataset was made from, image by image: with it, and the sources, it is made again.

Every dataset of ``hpclcae data ingest`` is its own manifest. As a text (JSON, a line each: first
the settings, then of every image its source, time in a film, checksum, label and partner) it is
small enough to be handed on without the images.
"""
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from hpclcae.data.dataset import KIND, Dataset
from hpclcae.data.ingest.settings import Settings
from hpclcae.data.ingest.store import settings_of
from hpclcae.data.shards import Shard
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import is_hdf5, replacing
from hpclcae.utils.reading import reading
from hpclcae.utils.text import to_bytes

NAME, SCHEMA = f"{KIND}, manifest", 1
BLOCK = 2**16  # images whose lines are held at once

#: place, source, file that it comes from, label, place of the partner, checksum
Row = tuple[int, str, str, int, int, int]


@dataclass(frozen=True)
class Manifest:
    """A dataset without its pixels."""
    path: Path
    record: dict[str, Any]       # sources and settings
    names: list[str] | None      # of the labels
    licences: dict[str, str]
    count: int
    shards: list[Shard]          # of the dataset; none of a text

    @property
    def settings(self) -> Settings:
        """How its images were made."""
        return settings_of(self.record)

    @property
    def sources(self) -> list[Path]:
        """Where they were found."""
        return [Path(source) for source in self.record["sources"]]

    def rows(self) -> Iterator[Row]:
        """Every image, in order.

        Raises
        ------
        InputError
            The file is damaged.
        """
        if is_hdf5(self.path, KIND):
            with Dataset(self.path, whole=False) as dataset:
                lines = _lines(dataset)
                yield from (_row(place, *line) for place, line in enumerate(lines))
            return
        with reading(self.path, "a manifest", "write it again"), self.path.open("rb") as file:
            file.readline()
            for place, line in enumerate(file):
                source, seconds, check, label, pair = json.loads(line)
                yield _row(place, str(source), seconds, int(check, 16), int(label), int(pair))


def _row(place: int, source: str, seconds: float | None, check: int, label: int,
         pair: int) -> Row:
    entry = source if seconds is None else source.rpartition("@")[0]
    return place, source, entry, label, pair if 0 <= pair < place else -1, check


def load(path: Path) -> Manifest:
    """Read the beginning of a manifest: a text, or a dataset.

    Raises
    ------
    InputError
        It is neither, or the dataset was not made by 'hpclcae data ingest'.
    """
    if not path.is_file():
        raise InputError(f"--manifest {path} is not a file: give a dataset of 'hpclcae data "
                         "ingest', or what 'hpclcae data info --manifest' wrote")
    if is_hdf5(path, KIND):
        with Dataset(path, whole=False) as dataset:
            found = Manifest(path, dataset.settings, dataset.label_names, dataset.licences,
                             dataset.count, dataset.shards)
    else:
        with reading(path, "a manifest", "give a dataset, or write the manifest again"):
            with path.open("rb") as file:
                head = json.loads(file.readline())
            if head["kind"] != NAME or int(head["schema"]) > SCHEMA:
                raise ValueError(f"it is {head['kind']}, schema {head['schema']}")
            found = Manifest(path, dict(head["settings"]), head["label_names"],
                             dict(head["licences"]), int(head["count"]), [])
    if "sources" not in found.record or "size" not in found.record:
        raise InputError(f"{path} was not made by 'hpclcae data ingest': it is made again by what "
                         "made it")
    return found


def save(dataset: Dataset, path: Path) -> None:
    """Write the manifest of a dataset as a text."""
    head = {"kind": NAME, "schema": SCHEMA, "count": dataset.count,
            "fingerprint": dataset.fingerprint, "settings": dataset.settings,
            "label_names": dataset.label_names, "licences": dataset.licences,
            "columns": ["source", "seconds", "checksum", "label", "pair"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(to_bytes(json.dumps(head)) + b"\n")
        for source, seconds, check, label, pair in _lines(dataset):
            line = json.dumps([source, seconds, f"{check:016x}", label, pair], ensure_ascii=False)
            file.write(to_bytes(line) + b"\n")


def _lines(dataset: Dataset) -> Iterator[tuple[str, float | None, int, int, int]]:
    """Source, seconds, checksum, label and partner of every image; a block in memory."""
    for first in range(0, dataset.count, BLOCK):
        run = slice(first, min(dataset.count, first + BLOCK))
        labels = dataset.column("labels", run)
        pairs = dataset.column("pair", run)
        seconds = dataset.column("provenance/seconds", run)
        sources, checks = dataset.column("provenance/source", run), dataset.column("checksum", run)
        if sources is None or checks is None:
            raise InputError(f"{dataset.path} does not say where its images come from")
        for i, (source, check) in enumerate(zip(sources, checks)):
            at = None if seconds is None or isnan(seconds[i]) else float(seconds[i])
            yield (source.decode() if isinstance(source, bytes) else source, at, int(check),
                   -1 if labels is None else int(labels[i]), -1 if pairs is None else int(pairs[i]))
