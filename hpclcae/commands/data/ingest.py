"""The command ``hpclcae data ingest``: folders, archives and films into one dataset."""
import argparse
import sys
from dataclasses import fields
from pathlib import Path

from hpclcae.commands.arguments import output, whole
from hpclcae.data.ingest import manifest
from hpclcae.data.ingest.build import ingest, rebuild
from hpclcae.data.ingest.settings import FACES, FILM, Settings, Tally
from hpclcae.utils.cores import cores
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import summed, table

MAX_SOURCES = 20  # that are listed; the rest is summed up


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("sources", nargs="*", type=Path, metavar="SOURCE",
        help="folder, zip or tar archive, picture or film")
    add("--out", type=output, required=True, metavar="FILE",
        help="dataset to write (HDF5); what is read is kept in FILE.work until it is written, and "
        "the same command goes on with it after an interruption")
    add("--workers", type=whole(1, 4096), default=cores(), metavar="N",
        help="processes; the dataset does not depend on it (one for each core)")
    add("--size", type=int, default=200, help="rows and cols of the images (default 200)")
    add("--channels", choices=("rgb", "grey"), default="rgb", help="(rgb)")
    add("--crop", choices=("centre", "fit"), default="centre",
        help="cut the largest central square (default), or fit the whole picture on mid-grey")
    add("--min-side", type=int, metavar="PIXELS",
        help="skip pictures whose shorter side is smaller (default: the size, so that nothing is "
        "enlarged)")
    add("--contrast", type=float, default=2.0, metavar="LEVELS",
        help="skip images that are black, or whose brightness has a smaller standard deviation, in "
        "levels of 256 (default 2); 0 keeps them")
    films = parser.add_argument_group("films")
    films.add_argument("--film", choices=FILM, default="middle",
                       help="one frame from near the middle (default), one at a random time that "
                       "--seed and the film's name draw, or one of every scene")
    films.add_argument("--every", type=float, metavar="SECONDS",
                       help="in place of those, a frame every so many seconds")
    films.add_argument("--pairs", type=float, metavar="SECONDS",
                       help="with --every: store each frame of a film with its partner, the frame "
                       "so many seconds later")
    what = parser.add_argument_group("what is stored")
    what.add_argument("--dedupe", choices=("none", "exact", "near"), default="none",
                      help="drop images seen before (before the split: no copy crosses it)")
    what.add_argument("--faces", choices=FACES, default="ignore",
                      help="count images that show a frontal face, or drop them (extra: detect)")
    what.add_argument("--group", choices=("file", "folder"), default="file",
                      help="what a split never divides: a picture or film (default), or a folder "
                      "(one per person)")
    what.add_argument("--split", choices=("train", "test"),
                      help="store only the groups on this side")
    what.add_argument("--test-share", type=float, default=0.2, metavar="SHARE",
                      help="share of the groups in the test (default 0.2)")
    what.add_argument("--licence", default="not stated", metavar="TEXT",
                      help="licence of the sources, kept in the dataset")
    what.add_argument("--shard-size", type=float, default=4.0, metavar="GB",
                      help="pixels in one file; more make several, in the folder FILE.shards "
                      "(without .h5) beside an index that any reader opens as one (default 4)")
    what.add_argument("--seed", type=int, default=0,
                      help="of the order in which the images are stored, and of random times (0)")
    label = parser.add_argument_group("labels")
    label.add_argument("--label-from", choices=("none", "folder"), default="none",
                       help="label images by the folder below the source that they lie in, at any "
                       "depth; a table says which, before anything is read")
    label.add_argument("--concept", metavar="FOLDER",
                       help="with --label-from folder: label 1 is all below this folder, label 0 "
                       "everything else")
    label.add_argument("--label-level", type=int, metavar="N",
                       help="folders that are labels: 0 the source, 1 those below it, 2 those "
                       "below them (default: 1, what lies deeper belongs to it; 2 in an archive "
                       "that is one folder; the level where the concept stands)")
    again = parser.add_argument_group(
        "again", "The same images from the same sources, with their order and settings.")
    again.add_argument("--manifest", type=Path, metavar="FILE",
                       help="a dataset of this command, or what 'hpclcae data info --manifest' "
                       "wrote; sources are looked for where they were, or where SOURCE says")
    again.add_argument("--shard", type=whole(0), nargs="+", default=[], metavar="N",
                       help="only these files of the dataset, in place: see 'hpclcae data check'")


def run(args: argparse.Namespace) -> None:
    """Write the dataset and print what came in and what did not."""
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    if args.manifest is not None:
        _again(args, given)
        return
    if args.shard:
        raise InputError("--shard says what of a dataset is made again: give --manifest DATASET")
    if not args.sources:
        raise InputError("nothing to read: give a folder, an archive, a picture or a film (or "
                         "--manifest FILE)")
    tally, names = ingest(args.sources, args.out, Settings(**given), args.workers)
    _print(tally)
    labels = f", labels: {summed(names, MAX_SOURCES)}" if names else ""
    count = tally.stored.total()
    if args.faces == "count":
        print(f"\nfaces: {tally.with_faces} of {count} images show one "
              f"({tally.with_faces / count:.2%})")
    print(f"\n{count} images in {args.out}{labels}")


def _again(args: argparse.Namespace, given: dict[str, object]) -> None:
    for field in fields(Settings):
        if given[field.name] != field.default:
            raise InputError(f"--{field.name.replace('_', '-')} {given[field.name]}: with "
                             "--manifest the settings are those of the manifest; leave it out")
    tally, changed = rebuild(manifest.load(args.manifest), args.sources, args.out, args.workers,
                             args.shard)
    _print(tally)
    what = (f"shards {', '.join(map(str, args.shard))} of {args.out}" if args.shard
            else f"{tally.stored.total()} images in {args.out}")
    print(f"\n{what}, {'with some changes' if changed else 'as they were'}")
    if changed:
        print(f"warning: {changed} images have other pixels than they had: their sources, or the "
              "libraries that decode them, have changed", file=sys.stderr)


def _print(tally: Tally) -> None:
    """The table of what happened to everything."""
    rows = [("stored", f"from {source}", count)
            for source, count in tally.stored.most_common(MAX_SOURCES)]
    if more := len(tally.stored) - len(rows):
        rows.append(("stored", f"from {more} more sources",
                     tally.stored.total() - sum(row[2] for row in rows)))
    rows += [("converted", note, count) for note, count in tally.noted.most_common()]
    rows += [("skipped", reason, count) for reason, count in tally.skipped.most_common()]
    print(table(("", "what", "images"), rows))
