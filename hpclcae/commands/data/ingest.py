"""The command ``hpclcae data ingest``: folders, archives and films into one dataset."""
import argparse
from dataclasses import fields
from pathlib import Path

from hpclcae.data.ingest.build import Settings, ingest
from hpclcae.utils.tables import summed, table

MAX_SOURCES = 20  # that are listed; the rest is summed up


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
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
    add("--pairs", type=float, metavar="SECONDS",
        help="with --every: store each frame of a film with its partner, the frame so many seconds "
        "later")
    add("--label-from", choices=("none", "folder"), default="none",
        help="label images by the folder below the source that they lie in, at any depth; a table "
        "says which, before anything is read; classes are halved, each by itself")
    add("--label-file", metavar="FILE",
        help="label images by the lines NAME,LABEL of this file, where NAME is as much of the end "
        "of a picture's path as tells it from the others, with or without its ending; others are "
        "stored without a label")
    add("--concept", metavar="FOLDER",
        help="with --label-from folder: label 1 is all below this folder, label 0 everything else")
    add("--label-level", type=int, metavar="N",
        help="folders that are labels: 0 the source, 1 those below it, 2 those below them "
        "(default: 1, what lies deeper belongs to it; 2 in an archive that is one folder; the "
        "level where the concept stands)")
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
    add("--seed", type=int, default=0,
        help="of the order in which the images are stored, and of the halves of classes")


def run(args: argparse.Namespace) -> None:
    """Write the dataset and print what came in and what did not."""
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    tally, names = ingest(args.sources, args.out, settings)
    rows = [("stored", f"from {source}", count)
            for source, count in tally.stored.most_common(MAX_SOURCES)]
    if more := len(tally.stored) - len(rows):
        rows.append(("stored", f"from {more} more sources",
                     tally.stored.total() - sum(row[2] for row in rows)))
    rows += [("converted", note, count) for note, count in tally.noted.most_common()]
    rows += [("skipped", reason, count) for reason, count in tally.skipped.most_common()]
    print(table(("", "what", "images"), rows))
    labels = f", labels: {summed(names, MAX_SOURCES)}" if names else ""
    print(f"\n{sum(tally.stored.values())} images in {args.out}{labels}")
