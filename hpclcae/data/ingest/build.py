"""``hpclcae data ingest``: turn folders, archives and films into one dataset of square images.

Nothing that a file may contain stops the run: what cannot be used is named, counted and left out,
and what had to be converted is counted too. The dataset appears whole, at the end, or not at all.
"""
import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpclcae.data.catalogue import split_of
from hpclcae.data.dataset import DatasetWriter
from hpclcae.data.decode import MID_GREY, Picture, Undecodable, decode
from hpclcae.data.ingest import film, walk
from hpclcae.data.ingest.duplicates import Seen
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.progress import progress
from hpclcae.utils.tables import table

MAX_LABELS = 128  # labels are int8
MAX_LINES = 20    # for each reason to skip; the rest is only counted


@dataclass
class Tally:
    """What happened to everything that was found."""
    stored: Counter[str] = field(default_factory=Counter)      # by source
    noted: Counter[str] = field(default_factory=Counter)       # conversions of what is stored
    skipped: Counter[str] = field(default_factory=Counter)     # by reason
    # shorter side of the largest picture, pixels
    largest: int = 0

    def skip(self, name: str, reason: str, detail: str = "") -> None:
        """Count something that is left out, and say so in a line if it claimed to be a picture."""
        self.skipped[reason] += 1
        if reason != walk.OTHER and self.skipped[reason] <= MAX_LINES:
            more = " (others like it are only counted)" if self.skipped[reason] == MAX_LINES else ""
            print(f"skipped {name}: {reason}{f', {detail}' if detail else ''}{more}",
                  file=sys.stderr)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``data ingest``."""
    add = parser.add_argument
    add("sources", nargs="+", type=Path, metavar="SOURCE",
        help="folder, zip or tar archive, picture or film")
    add("--out", type=Path, required=True, metavar="FILE", help="dataset to write (HDF5)")
    add("--size", type=int, default=200, help="rows and cols of the images (default 200)")
    add("--channels", choices=("rgb", "grey"), default="rgb", help="(rgb)")
    add("--crop", choices=("centre", "fit"), default="centre",
        help="cut the largest central square (default), or fit the whole picture on mid-grey")
    add("--min-side", type=int, metavar="PIXELS",
        help="skip pictures whose shorter side is smaller (default: the size, so that nothing is "
        "enlarged)")
    add("--every", type=float, metavar="SECONDS",
        help="frames of a film (default: one, from near its middle)")
    add("--label-from", choices=("none", "folder"), default="none",
        help="label images by the folder they lie in")
    add("--concept", metavar="FOLDER",
        help="with --label-from folder: label 1 is this folder, label 0 all others")
    add("--group", choices=("file", "folder"), default="file",
        help="what a split never divides: a picture or film (default), or a folder (one per "
        "person)")
    add("--split", choices=("train", "test"), help="store only the groups on this side")
    add("--test-share", type=float, default=0.2, metavar="SHARE",
        help="share of the groups in the test (default 0.2)")
    add("--dedupe", choices=("none", "exact", "near"), default="none",
        help="drop images seen before (before the split, so that no copy crosses it)")
    add("--licence", default="not stated", metavar="TEXT",
        help="licence of the sources, kept in the dataset")
    add("--seed", type=int, default=0, help="of the order in which the images are stored")


def run(args: argparse.Namespace) -> None:
    """Write the dataset and print what came in and what did not."""
    _check(args)
    names = None if args.label_from == "none" else [f"not {args.concept}",
                                                    args.concept] if args.concept else []
    settings = {name: [str(source) for source in value] if name == "sources" else str(value)
                if isinstance(value, Path) else value for name, value in vars(args).items()}
    tally = Tally()
    licences = {walk.source_name(source): args.licence for source in args.sources}
    with DatasetWriter(args.out, args.size, 3 if args.channels == "rgb" else 1, names, settings,
                       licences=licences, shuffle_seed=args.seed) as writer:
        seen, with_concept = Seen(near=args.dedupe == "near"), False
        for image in _images(args, tally):
            if args.dedupe != "none" and (copy := seen.add(image.pixels)):
                tally.skipped["exact duplicate" if copy[1] else "near duplicate"] += 1
            elif args.split and split_of(image.group, args.test_share) != args.split:
                tally.skipped[f"not in the {args.split} split"] += 1
            else:
                label = _label(image.folder, names, args.concept)
                with_concept |= label == 1
                writer.append(image.pixels, source=image.source, group=image.group,
                              original=image.original, crop=image.crop, label=label)
                tally.stored[image.group.partition("/")[0]] += 1
                tally.noted.update(image.notes)
        if not writer.count:
            raise InputError(_why_nothing(args, tally))
        if args.concept and not with_concept:
            raise InputError(f"--concept {args.concept}: no image that was found lies in a folder "
                             "of that name")
        writer.settings["counts"] = {"stored": dict(tally.stored), "skipped": dict(tally.skipped),
                                     "converted": dict(tally.noted)}
    _report(args.out, tally, names)


def _check(args: argparse.Namespace) -> None:
    for source in args.sources:
        if not source.exists():
            raise InputError(f"{source} does not exist: give a folder, an archive, a picture or a "
                             "film")
    names = [walk.source_name(source) for source in args.sources]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{count} sources are called {name}: rename one, or give the folder "
                             "that holds them")
    if args.size < 1 or args.min_side is not None and args.min_side < 1:
        raise InputError(f"--size {args.size} --min-side {args.min_side}: both are at least 1 "
                         "pixel")
    if args.every is not None and not args.every > 0:
        raise InputError(f"--every {args.every} is not a time between frames: give seconds above 0")
    if args.concept and args.label_from == "none":
        raise InputError(f"--concept {args.concept} needs --label-from folder")
    split_of("", args.test_share)


@dataclass(frozen=True)
class Square:
    """One image on its way into the dataset."""
    pixels: np.ndarray                   # uint8 (size, size, channel)
    source: str                          # file, member of an archive, or time in a film
    group: str
    folder: str
    original: tuple[int, int]
    crop: tuple[int, int, int, int]
    notes: tuple[str, ...]


def _images(args: argparse.Namespace, tally: Tally) -> Iterator[Square]:
    """Yield every usable image of the sources; tally the others."""
    smallest = args.min_side or args.size
    found = (entry for source in args.sources for entry in walk.entries(source))
    for entry in progress(found, "reading", unit="files"):
        if isinstance(entry, walk.Skipped):
            tally.skip(entry.name, entry.reason, entry.detail)
            continue
        try:
            for source, picture in _pictures(entry, args):
                tally.largest = max(tally.largest, min(picture.original))
                if min(picture.original) < smallest:
                    tally.skip(source, "too small",
                               f"{picture.original[1]} x {picture.original[0]} pixels")
                    continue
                pixels, crop = to_square(picture, args.size, args.crop)
                if args.channels == "grey":
                    image = require("PIL.Image", "images", "reading pictures").fromarray(pixels)
                    pixels = np.asarray(image.convert("L"))[:, :, np.newaxis]
                group = entry.name if args.group == "file" else entry.name.rpartition("/")[
                    0] or entry.name
                yield Square(pixels, source, group, entry.folder, picture.original, crop,
                             picture.notes)
        except Undecodable as error:
            tally.skip(entry.name, error.reason, error.detail)


def _pictures(entry: walk.Entry, args: argparse.Namespace) -> Iterator[tuple[str, Picture]]:
    if entry.is_film:
        for seconds, picture in film.frames(entry.content, args.every):
            yield f"{entry.name}@{seconds:.2f}s", picture
    else:
        yield entry.name, decode(entry.content, at_least=args.size)


def to_square(picture: Picture, size: int,
              how: str) -> tuple[np.ndarray, tuple[int, int, int, int]]:
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
    uint8 array (size, size, 3), and the part that it shows: (top, left, bottom, right) in pixels of
    the original.
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
    # a large JPEG was decoded smaller
    factor = rows / picture.original[0], cols / picture.original[1]
    box = (left * factor[1], top * factor[0], (left + side) * factor[1], (top + side) * factor[0])
    square = image.resize((size, size), module.Resampling.LANCZOS, box=box)
    return np.asarray(square), (top, left, top + side, left + side)


def _label(folder: str, names: list[str] | None, concept: str | None) -> int:
    """Return the label of an image in `folder`.

    Without a concept a new folder gets the next number.
    """
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


def _why_nothing(args: argparse.Namespace, tally: Tally) -> str:
    where = ", ".join(map(str, args.sources))
    if tally.skipped["too small"]:
        return (f"no picture in {where} is large enough: the largest has a shorter side of "
                f"{tally.largest} pixels; give --size {tally.largest} or less, or --min-side to "
                "enlarge smaller ones")
    counts = ", ".join(f"{count} x {reason}" for reason, count in tally.skipped.most_common())
    return f"no picture or film in {where} can be used ({counts or 'there are no files'}): nothing was written"


def _report(out: Path, tally: Tally, names: list[str] | None) -> None:
    rows = [("stored", f"from {source}", count) for source, count in tally.stored.items()]
    rows += [("converted", note, count) for note, count in tally.noted.most_common()]
    rows += [("skipped", reason, count) for reason, count in tally.skipped.most_common()]
    print(table(("", "what", "images"), rows))
    labels = f", labels: {', '.join(names)}" if names else ""
    print(f"\n{sum(tally.stored.values())} images in {out}{labels}")
