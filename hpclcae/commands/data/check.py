"""The command ``hpclcae data check``: is a dataset as it was written, and how to mend it."""
import argparse
import sys
from pathlib import Path

from hpclcae.commands.arguments import whole
from hpclcae.data.check import check, remedy
from hpclcae.utils.cores import cores
from hpclcae.utils.errors import InputError

MAX_LINES = 20  # damaged files that are named


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", type=Path, metavar="SET",
                        help="dataset (HDF5); of one in several files, their index")
    parser.add_argument("--workers", type=whole(1, 4096), default=cores(), metavar="N",
                        help="processes that read its files (one for each core)")


def run(args: argparse.Namespace) -> None:
    """Compare everything with its checksums; name what is damaged, and say how to mend it."""
    count, damages = check(args.file, args.workers)
    for damage in damages[:MAX_LINES]:
        print(f"damaged {damage.path}: {damage.what}", file=sys.stderr)
    if damages:
        raise InputError(f"{len(damages)} of {count} files of {args.file} are damaged: "
                         f"{remedy(args.file, damages)}")
    print(f"{args.file}: all images are as they were written"
          + (f", in {count} files" if count > 1 else ""))
