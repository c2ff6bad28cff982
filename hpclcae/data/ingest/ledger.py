"""Which images are stored, and where: a table in a file, so that memory does not grow with them."""
import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

#: One row for every image that is stored. `place`: its number in order of arrival, or in the
#: manifest; `entry`: the file that it comes from, and `source`, where a manifest asks for it.
_TABLE = """
create table images (place integer primary key, unit integer, line integer, label integer not null,
                     partner integer not null, shard integer, source text, entry text,
                     checksum blob);
"""
_INDICES = """
create index by_source on images (source); create index by_entry on images (entry);
"""


class Kept(NamedTuple):
    """An image that is stored."""
    place: int
    unit: int     # where its pixels are: the unit,
    line: int     # and the row in it
    label: int
    partner: int  # place of its partner, if that came before; else -1


class Ledger:
    """The table; use as a context manager.

    Parameters
    ----------
    path : Path
    new : bool
        Begin an empty one.
    """

    def __init__(self, path: Path, new: bool = False) -> None:
        if new:
            path.unlink(missing_ok=True)
        self._base = sqlite3.connect(path, isolation_level=None)
        self._base.execute("pragma synchronous = off")  # it is made again after a crash
        self._base.execute("pragma journal_mode = off")
        if new:
            self._base.executescript(_TABLE)
        self._base.execute("begin")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._base.execute("commit")
        self._base.close()

    def count(self) -> int:
        """How many images there are."""
        return int(self._base.execute("select count(*) from images").fetchone()[0])

    # ---- images as they come ---------------------------------------------------------------------

    def append(self, kept: Kept) -> None:
        """Store an image."""
        self._base.execute("insert into images (place, unit, line, label, partner) "
                           "values (?, ?, ?, ?, ?)", kept)

    # ---- images that a manifest asks for ---------------------------------------------------------

    def ask(self, wanted: Iterable[tuple[int, str, str, int, int, int]]) -> None:
        """Ask for images: place, source, entry, label, place of the partner, checksum."""
        self._base.executemany(
            "insert into images (place, source, entry, label, partner, checksum) "
            "values (?, ?, ?, ?, ?, ?)",
            ((*row, check.to_bytes(8, "little")) for *row, check in wanted))
        self._base.executescript(_INDICES)
        self._base.execute("begin")

    def asks_for(self, entry: str) -> bool:
        """Whether any image of a file is wanted."""
        return self._base.execute("select 1 from images where entry = ? limit 1",
                                  (entry,)).fetchone() is not None

    def found(self, source: str, checksum: int, unit: int, line: int) -> bool | None:
        """Note where an image is; says whether it has the pixels it had; None: nobody asks for it.
        """
        same = checksum.to_bytes(8, "little")
        row = self._base.execute(
            "select place, checksum = ? from images where source = ? and unit is null "
            "order by checksum = ? desc, place limit 1", (same, source, same)).fetchone()
        if row is None:
            return None
        self._base.execute("update images set unit = ?, line = ? where place = ?",
                           (unit, line, row[0]))
        return bool(row[1])

    def missing(self, most: int) -> tuple[int, list[str]]:
        """How many images were asked for and not found, and the names of a few."""
        count = self._base.execute("select count(*) from images where unit is null").fetchone()[0]
        names = self._base.execute("select source from images where unit is null order by place "
                                   "limit ?", (most,))
        return int(count), [name for name, in names]

    # ---- shards ----------------------------------------------------------------------------------

    def counts(self) -> Iterator[tuple[int, int]]:
        """Every unit that something is stored of, and how many images."""
        yield from self._base.execute("select unit, count(*) from images group by unit "
                                      "order by unit")

    def deal_units(self, shards: Sequence[Sequence[int]]) -> None:
        """Put whole units into shards."""
        self._base.executescript("create index by_unit on images (unit); begin")
        for shard, units in enumerate(shards):
            self._base.executemany("update images set shard = ? where unit = ?",
                                   ((shard, unit) for unit in units))
        self._base.executescript("create index by_shard on images (shard, place)")

    def deal_places(self, firsts: Sequence[int], numbers: Sequence[int]) -> None:
        """Put runs of places into shards: those from each of `firsts` on into each of `numbers`."""
        for first, shard in zip(firsts, numbers):
            self._base.execute("update images set shard = ? where place >= ?", (shard, first))
        self._base.executescript("create index by_shard on images (shard, place)")

    def shard(self, number: int) -> Iterator[Kept]:
        """The images of a shard, by place."""
        for row in self._base.execute("select place, unit, line, label, partner from images "
                                      "where shard = ? order by place", (number,)):
            yield Kept(*row)
