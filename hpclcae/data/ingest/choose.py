"""Which of the images that were read are stored: one pass over the units, in order."""
import hashlib
from collections.abc import Iterable
from pathlib import Path

from hpclcae.data.catalogue import split_of
from hpclcae.data.ingest.duplicates import Seen
from hpclcae.data.ingest.labels import Labels
from hpclcae.data.ingest.ledger import Kept, Ledger
from hpclcae.data.ingest.settings import Settings, Tally
from hpclcae.data.ingest.units import Unit

Units = Iterable[tuple[int, Unit]]  # with their numbers


def group_of(entry: str, settings: Settings) -> str:
    """What a split never divides, of the images of a file."""
    above = entry.rpartition("/")[0] if settings.group == "folder" else ""
    return above or entry


def choose(units: Units, settings: Settings, labels: Labels | None, ledger: Ledger,
           folder: Path) -> tuple[Tally, str]:
    """Enter into the ledger what is stored, and count what happened to everything.

    Parameters
    ----------
    units : iterable of (int, Unit)
    settings : Settings
    labels : Labels or None
    ledger : Ledger
    folder : Path
        For what the search for duplicates does not hold in memory.

    Returns
    -------
    Tally
    str
        A hash of the pixels of all that is stored.
    """
    tally, seen, digest = Tally(), Seen(folder), hashlib.blake2b(digest_size=8)
    place = 0
    for number, unit in units:
        tally.largest = max(tally.largest, int(unit.header["largest"]))
        prints = unit.prints(settings.depth) if settings.dedupe == "near" else None
        before = -1  # place of the image before, if it was stored
        for event in unit.events:
            if "skip" in event:
                tally.skip(*event["skip"])
                continue
            printed = next(prints) if prints is not None else None
            partner, before = before if event["second"] else -1, -1
            group = group_of(event["entry"], settings)
            label = -1 if labels is None else labels.of.get(tuple(event["folders"]))
            if label is None:
                tally.skip(event["source"], "new since the labels were chosen")
            elif (settings.dedupe != "none" and partner < 0
                    and (copy := seen.add(event["checksum"], printed))):
                tally.skipped["exact duplicate" if copy[1] else "near duplicate"] += 1
            elif settings.split and split_of(group, settings.test_share) != settings.split:
                tally.skipped[f"not in the {settings.split} split"] += 1
            else:
                ledger.append(Kept(place, number, event["row"], label, partner))
                digest.update(event["checksum"].to_bytes(8, "little"))
                if labels is not None:
                    tally.labels[labels.names[label]] += 1
                count_stored(tally, group, event["notes"], event["faces"])
                before, place = place, place + 1
    return tally, digest.hexdigest()


def count_stored(tally: Tally, group: str, notes: Iterable[str], faces: int) -> None:
    """Count an image that is stored."""
    tally.stored[group.partition("/")[0]] += 1
    tally.noted.update(notes)
    tally.with_faces += faces > 0
