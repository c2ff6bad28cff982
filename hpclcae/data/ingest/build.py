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
from hpclcae.data.dataset import DatasetWriter, check_seed
from hpclcae.data.decode import MID_GREY, UNREADABLE, Picture, Undecodable, decode
from hpclcae.data.formats import first_bytes, kind_of
from hpclcae.data.ingest import film, label_file, labels, walk
from hpclcae.data.ingest.duplicates import Seen
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.progress import progress
from hpclcae.utils.tables import summed

MAX_SIZE = 2**14  # rows and cols of an image, pixels
MAX_LINES = 20    # for each reason to skip; the rest is only counted

Box = tuple[int, int, int, int]  # top, left, bottom, right, pixels


@dataclass
class Tally:
    """What happened to everything that was found."""
    stored: Counter[str] = field(default_factory=Counter)   # by source
    noted: Counter[str] = field(default_factory=Counter)    # conversions of what is stored
    skipped: Counter[str] = field(default_factory=Counter)  # by reason
    largest: int = 0                                        # shorter side of a picture, pixels
    most_lines: int = MAX_LINES                             # for each reason to skip

    def skip(self, name: str, reason: str, detail: str = "") -> None:
        """Count something that is left out, and say so in a line if it claimed to be a picture."""
        self.skipped[reason] += 1
        if reason != walk.OTHER and self.skipped[reason] <= self.most_lines:
            last = self.skipped[reason] == self.most_lines
            more = " (others like it are only counted)" if last else ""
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
    label_file: str | None = None  # or by the lines of a file, name,label
    concept: str | None = None    # with folders: label 1 is this one, label 0 all others
    label_level: int | None = None  # 0: the source is the class, 1: the folder below it, ...
    group: str = "file"           # what a split never divides, or "folder"
    split: str | None = None      # "train" or "test": only the groups on this side are stored
    test_share: float = 0.2       # of the groups
    dedupe: str = "none"          # images seen before are dropped: "exact" or "near"
    licence: str = "not stated"   # of the sources
    seed: int = 0                 # of the order in which the images are stored, and of the halves

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
        if self.label_from == "none":
            for option, value in (("concept", self.concept), ("label-level", self.label_level)):
                if value is not None:
                    raise InputError(f"--{option} {value} needs --label-from folder")
        if self.label_file is not None and self.label_from != "none":
            raise InputError(f"--label-file {self.label_file} and --label-from {self.label_from} "
                             "both say what the labels are: give one of them")
        if self.concept is not None and not labels.normal(self.concept):
            raise InputError(f"--concept '{self.concept}' is not the name of a folder")
        if self.label_level is not None and not 0 <= self.label_level < 100:
            raise InputError(f"--label-level {self.label_level} is not between 0 (the source) and "
                             "99")
        if not self.size <= MAX_SIZE:
            raise InputError(f"--size {self.size} is more than {MAX_SIZE} pixels")
        check_seed(self.seed)
        split_of("", self.test_share)


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
    _check(sources, out)
    tally, chosen = Tally(), None
    licences = {walk.source_name(source): settings.licence for source in sources}
    record = {"sources": [str(source) for source in sources], "out": str(out), **asdict(settings)}
    writer = DatasetWriter(out, settings.size, 3 if settings.channels == "rgb" else 1, None, record,
                           licences=licences, shuffle_seed=settings.seed)
    with writer:
        if settings.label_from == "folder" or settings.label_file is not None:
            chosen = _labels(sources, settings)
            writer.label_names = chosen.names
            if settings.concept is None:
                writer.half_seed = settings.seed
            print(chosen.text + "\n", flush=True)
        seen, counts = Seen(near=settings.dedupe == "near"), Counter[int]()
        before = -1  # place of the image before, if it was stored
        found = (entry for source in sources for entry in walk.entries(source))
        for image in squares(found, settings, tally):
            partner, before = before if image.has_partner_before else -1, -1
            label = _label(image, chosen, settings)
            if label is None:
                tally.skip(image.source, "new since the labels were chosen")
            elif settings.dedupe != "none" and partner < 0 and (copy := seen.add(image.pixels)):
                tally.skipped["exact duplicate" if copy[1] else "near duplicate"] += 1
            elif settings.split and split_of(image.group, settings.test_share) != settings.split:
                tally.skipped[f"not in the {settings.split} split"] += 1
            else:
                counts[label] += 1
                if label < 0 and chosen is not None:
                    tally.noted["without a label"] += 1
                before = writer.count
                writer.append(image.pixels, source=image.source, group=image.group,
                              original=image.original, crop=image.crop, label=label,
                              pair=partner)
                tally.stored[image.group.partition("/")[0]] += 1
                tally.noted.update(image.notes)
        if not writer.count:
            raise InputError(why_nothing(sources, tally) + ": nothing was written")
        empty = [name for number, name in enumerate(writer.label_names or ()) if not counts[number]]
        if empty:
            print(f"warning: no image has the label {summed(empty)}: see what was skipped",
                  file=sys.stderr)
        writer.settings["counts"] = {"stored": dict(tally.stored), "skipped": dict(tally.skipped),
                                     "converted": dict(tally.noted)}
    return tally, writer.label_names or []


def _labels(sources: Sequence[Path], settings: Settings) -> labels.Labels:
    """Choose labels by the names of all files, before any is decoded."""
    found = (entry for source in sources for entry in walk.entries(source, read=False)
             if isinstance(entry, walk.Entry))
    if settings.label_file is not None:
        return label_file.from_file(Path(settings.label_file), found)
    return labels.from_folders(found, settings.concept, settings.label_level)


def _label(image: "Square", chosen: labels.Labels | None, settings: Settings) -> int | None:
    """The label of an image, -1 unknown; None: its folder was not there when labels were chosen."""
    if chosen is None:
        return -1
    if settings.label_file is not None:
        return chosen.of.get(image.name, -1)
    return chosen.of.get(image.folders)


def check_sources(sources: Sequence[Path]) -> None:
    """See that pictures can be read and that there is something to read, before the work.

    Raises
    ------
    InputError
        Pillow is missing, or a source.
    """
    require("PIL.Image", "images", "reading pictures")
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist: give a folder, an archive, a picture or a "
                             "film")


def _check(sources: Sequence[Path], out: Path) -> None:
    check_sources(sources)
    target = out.resolve()
    for source in sources:
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


@dataclass(frozen=True)
class Square:
    """One image on its way into the dataset."""
    pixels: np.ndarray         # uint8 (size, size, channel)
    name: str                  # of the file, or of the member of an archive
    source: str                # the same, with the time in a film
    group: str                 # what a split never divides
    folders: tuple[str, ...]   # that it lies in, for its label
    original: tuple[int, int]  # rows and cols, pixels
    crop: Box                  # what it shows of the original
    notes: tuple[str, ...]     # conversions
    has_partner_before: bool   # it is the second of two frames of a film


def squares(found: walk.Found, settings: Settings, tally: Tally) -> Iterator[Square]:
    """Yield every usable image of what was found; tally the others."""
    smallest = settings.min_side or settings.size
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
                yield Square(pixels, entry.name, source, group, entry.folders, picture.original,
                             crop, picture.notes, second)
        except Undecodable as error:
            tally.skip(entry.name, error.reason, error.detail)


def _pictures(entry: walk.Entry, settings: Settings) -> Iterator[tuple[str, Picture, bool]]:
    """Yield the pictures of a file, whatever its ending says that it is.

    Name, picture, and whether it is the second of a pair.
    """
    try:
        kind = kind_of(first_bytes(entry.content))
    except OSError as error:
        raise Undecodable(UNREADABLE, error.strerror) from error
    kind = kind or ("film" if entry.is_film else "picture")
    if kind == "film":
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


def why_nothing(sources: Sequence[Path], tally: Tally) -> str:
    """Why no picture could be used, and where that helps, what to do."""
    where = summed(list(map(str, sources)))
    if tally.skipped["too small"]:
        return (f"no picture in {where} is large enough: the largest has a shorter side of "
                f"{tally.largest} pixels; give --size {tally.largest} or less, or --min-side to "
                "enlarge smaller ones")
    counts = ", ".join(f"{count} x {reason}" for reason, count in tally.skipped.most_common())
    return f"no picture or film in {where} can be used ({counts or 'there are no files'})"
