"""Turning folders, archives and films into one dataset of square images.

Nothing that a file may contain stops the run: what cannot be used is named, counted and left out,
and what had to be converted is counted too. The dataset appears whole, at the end, or not at all.
"""
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from hpclcae.data.catalogue import split_of
from hpclcae.data.dataset import DatasetWriter
from hpclcae.data.decode import MID_GREY, Picture, Undecodable, decode
from hpclcae.data.ingest import film, walk
from hpclcae.data.ingest.duplicates import Seen
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.progress import progress

MAX_LABELS = 128  # labels are int8
MAX_LINES = 20    # for each reason to skip; the rest is only counted

Box = tuple[int, int, int, int]  # top, left, bottom, right, pixels


@dataclass
class Tally:
    """What happened to everything that was found."""
    stored: Counter[str] = field(default_factory=Counter)   # by source
    noted: Counter[str] = field(default_factory=Counter)    # conversions of what is stored
    skipped: Counter[str] = field(default_factory=Counter)  # by reason
    largest: int = 0                                        # shorter side of a picture, pixels

    def skip(self, name: str, reason: str, detail: str = "") -> None:
        """Count something that is left out, and say so in a line if it claimed to be a picture."""
        self.skipped[reason] += 1
        if reason != walk.OTHER and self.skipped[reason] <= MAX_LINES:
            more = " (others like it are only counted)" if self.skipped[reason] == MAX_LINES else ""
            print(f"skipped {name}: {reason}{f', {detail}' if detail else ''}{more}",
                  file=sys.stderr)


@dataclass(frozen=True)
class Settings:
    """How images are made; stored in the dataset.

    Raises
    ------
    InputError
        A setting is out of its range: names the option of hpclcae data ingest.
    """
    size: int = 200               # rows and cols of the images, pixels
    channels: str = "rgb"         # or "grey"
    crop: str = "centre"          # the largest central square, or "fit": all on mid-grey
    min_side: int | None = None   # pixels of the shorter side of a picture; None: the size
    every: float | None = None    # seconds between frames of a film; None: one, near its middle
    pairs: float | None = None    # seconds from a frame of a film to its partner; None: it has none
    label_from: str = "none"      # or "folder": that an image lies in
    concept: str | None = None    # with folders: label 1 is this one, label 0 all others
    group: str = "file"           # what a split never divides, or "folder"
    split: str | None = None      # "train" or "test": only the groups on this side are stored
    test_share: float = 0.2       # of the groups
    dedupe: str = "none"          # images seen before are dropped: "exact" or "near"
    licence: str = "not stated"   # of the sources
    seed: int = 0                 # of the order in which the images are stored

    def __post_init__(self) -> None:
        if self.size < 1 or self.min_side is not None and self.min_side < 1:
            raise InputError(f"--size {self.size} --min-side {self.min_side}: both are at least 1 "
                             "pixel")
        if self.every is not None and not self.every > 0:
            raise InputError(f"--every {self.every} is not a time between frames: give seconds "
                             "above 0")
        if self.pairs is not None and not 0 < self.pairs < (self.every or 0):
            raise InputError(f"--pairs {self.pairs} needs --every SECONDS with a longer time: the "
                             "partner of a frame comes before the next one")
        if self.concept and self.label_from == "none":
            raise InputError(f"--concept {self.concept} needs --label-from folder")
        split_of("", self.test_share)

    @property
    def label_names(self) -> list[str] | None:
        """Names of the labels as far as they are known before; None if there are no labels."""
        if self.label_from == "none":
            return None
        return [f"not {self.concept}", self.concept] if self.concept else []


def ingest(sources: Sequence[Path], out: Path, settings: Settings) -> tuple[Tally, list[str]]:
    """Write a dataset of square images; what is left out is named on stderr.

    Parameters
    ----------
    sources : sequence of Path
        Folders, archives, pictures and films.
    out : Path
        The dataset (HDF5). It is replaced in a single step, at the end, or not at all.
    settings : Settings

    Returns
    -------
    Tally
        What happened to everything that was found.
    list of str
        Names of the labels; empty if there are none.

    Raises
    ------
    InputError
        A source does not exist, two have one name, or nothing in them can be used.
    """
    _check(sources)
    names, tally = settings.label_names, Tally()
    licences = {walk.source_name(source): settings.licence for source in sources}
    record = {"sources": [str(source) for source in sources], "out": str(out), **asdict(settings)}
    with DatasetWriter(out, settings.size, 3 if settings.channels == "rgb" else 1, names, record,
                       licences=licences, shuffle_seed=settings.seed) as writer:
        seen, with_concept = Seen(near=settings.dedupe == "near"), False
        before = -1  # place of the image before, if it was stored
        for image in _images(sources, settings, tally):
            partner, before = before if image.has_partner_before else -1, -1
            if settings.dedupe != "none" and partner < 0 and (copy := seen.add(image.pixels)):
                tally.skipped["exact duplicate" if copy[1] else "near duplicate"] += 1
            elif settings.split and split_of(image.group, settings.test_share) != settings.split:
                tally.skipped[f"not in the {settings.split} split"] += 1
            else:
                label = _label(image.folder, names, settings.concept)
                with_concept |= label == 1
                before = writer.count
                writer.append(image.pixels, source=image.source, group=image.group,
                              original=image.original, crop=image.crop, label=label,
                              pair=partner)
                tally.stored[image.group.partition("/")[0]] += 1
                tally.noted.update(image.notes)
        if not writer.count:
            raise InputError(_why_nothing(sources, tally))
        if settings.concept and not with_concept:
            raise InputError(f"--concept {settings.concept}: no image that was found lies in a "
                             "folder of that name")
        writer.settings["counts"] = {"stored": dict(tally.stored), "skipped": dict(tally.skipped),
                                     "converted": dict(tally.noted)}
    return tally, names or []


def _check(sources: Sequence[Path]) -> None:
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist: give a folder, an archive, a picture or a "
                             "film")
    names = [walk.source_name(source) for source in sources]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{count} sources are called {name}: rename one, or give the folder "
                             "that holds them")


@dataclass(frozen=True)
class Square:
    """One image on its way into the dataset."""
    pixels: np.ndarray         # uint8 (size, size, channel)
    source: str                # file, member of an archive, or time in a film
    group: str                 # what a split never divides
    folder: str                # that it lies in, for its label
    original: tuple[int, int]  # rows and cols, pixels
    crop: Box                  # what it shows of the original
    notes: tuple[str, ...]     # conversions
    has_partner_before: bool   # it is the second of two frames of a film


def _images(sources: Sequence[Path], settings: Settings, tally: Tally) -> Iterator[Square]:
    """Yield every usable image of the sources; tally the others."""
    smallest = settings.min_side or settings.size
    found = (entry for source in sources for entry in walk.entries(source))
    for entry in progress(found, "reading", unit="files"):
        if isinstance(entry, walk.Skipped):
            tally.skip(entry.name, entry.reason, entry.detail)
            continue
        try:
            for source, picture, second in _pictures(entry, settings):
                tally.largest = max(tally.largest, min(picture.original))
                if min(picture.original) < smallest:
                    tally.skip(source, "too small",
                               f"{picture.original[1]} x {picture.original[0]} pixels")
                    continue
                pixels, crop = to_square(picture, settings.size, settings.crop)
                if settings.channels == "grey":
                    image = require("PIL.Image", "images", "reading pictures").fromarray(pixels)
                    pixels = np.asarray(image.convert("L"))[:, :, np.newaxis]
                above = entry.name.rpartition("/")[0] if settings.group == "folder" else ""
                group = above or entry.name
                yield Square(pixels, source, group, entry.folder, picture.original, crop,
                             picture.notes, second)
        except Undecodable as error:
            tally.skip(entry.name, error.reason, error.detail)


def _pictures(entry: walk.Entry, settings: Settings) -> Iterator[tuple[str, Picture, bool]]:
    """Yield name, picture, and whether it is the second of a pair."""
    if entry.is_film:
        taken = film.frames(entry.content, settings.every, settings.pairs)
        for number, (seconds, picture) in enumerate(taken):
            second = settings.pairs is not None and number % 2 == 1
            yield f"{entry.name}@{seconds:.2f}s", picture, second
    else:
        yield entry.name, decode(entry.content, at_least=settings.size), False


def to_square(picture: Picture, size: int, how: str) -> tuple[np.ndarray, Box]:
    """Resample a picture to a square.

    Parameters
    ----------
    picture : Picture
    size : int
        Rows and cols of the result, pixels.
    how : {"centre", "fit"}
        The largest central square, or the whole picture with mid-grey beside it.

    Returns
    -------
    uint8 array (size, size, 3)
    Box
        The part of the original that it shows.
    """
    module = require("PIL.Image", "images", "reading pictures")
    rows, cols = picture.pixels.shape[:2]
    image = module.fromarray(picture.pixels)
    if how == "fit":
        scale = size / max(rows, cols)
        fitted = image.resize((max(1, round(cols * scale)), max(1, round(rows * scale))),
                              module.Resampling.LANCZOS)
        square = module.new("RGB", (size, size), (MID_GREY,) * 3)
        square.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
        return np.asarray(square), (0, 0, *picture.original)
    side = min(picture.original)
    top, left = ((extent - side) // 2 for extent in picture.original)
    # below 1 if a large JPEG was decoded smaller
    factor = rows / picture.original[0], cols / picture.original[1]
    box = (left * factor[1], top * factor[0], (left + side) * factor[1], (top + side) * factor[0])
    square = image.resize((size, size), module.Resampling.LANCZOS, box=box)
    return np.asarray(square), (top, left, top + side, left + side)


def _label(folder: str, names: list[str] | None, concept: str | None) -> int:
    """Return the label of images in `folder`; without a concept a new one gets the next number."""
    if names is None:
        return -1
    if concept:
        return int(folder == concept)
    if folder not in names:
        if len(names) == MAX_LABELS:
            raise InputError(f"more than {MAX_LABELS} folders ({folder} is one more) cannot be "
                             "labels: give --concept FOLDER, or fewer folders")
        names.append(folder)
    return names.index(folder)


def _why_nothing(sources: Sequence[Path], tally: Tally) -> str:
    where = ", ".join(map(str, sources))
    if tally.skipped["too small"]:
        return (f"no picture in {where} is large enough: the largest has a shorter side of "
                f"{tally.largest} pixels; give --size {tally.largest} or less, or --min-side to "
                "enlarge smaller ones")
    counts = ", ".join(f"{count} x {reason}" for reason, count in tally.skipped.most_common())
    return (f"no picture or film in {where} can be used ({counts or 'there are no files'}): "
            "nothing was written")
