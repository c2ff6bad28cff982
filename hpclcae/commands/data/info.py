"""The command ``hpclcae data info``: what is in a dataset, with a contact sheet."""
import argparse
from pathlib import Path

from hpclcae.commands.arguments import output, whole
from hpclcae.data.dataset import Dataset
from hpclcae.data.ingest import manifest
from hpclcae.data.summary import describe, draw_sheet
from hpclcae.utils.files import check_output, check_picture, is_json


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="dataset (HDF5)")
    parser.add_argument("--sheet", type=output, metavar="PNG",
                        help="draw a random sample of the images with labels")
    parser.add_argument("--manifest", type=output, metavar="FILE",
                        help="write source, time in a film and checksum of every image, from which "
                        "'hpclcae data ingest --manifest' makes the dataset again")
    parser.add_argument("--count", type=whole(1, 10 ** 4), default=100,
                        help="images on the sheet (default 100)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the samples")


def run(args: argparse.Namespace) -> None:
    """Print what is in the dataset; draw the sheet and write the manifest on request."""
    if args.sheet:
        check_picture(args.sheet, "--sheet")
    if args.manifest:
        check_output(args.manifest, lambda path: is_json(path, "kind", manifest.NAME), "a manifest")
    with Dataset(args.file) as dataset:
        print(describe(dataset, args.seed))
        if args.sheet:
            draw_sheet(dataset, args.sheet, args.count, args.seed)
            print(f"sheet: {args.sheet}")
        if args.manifest:
            manifest.save(dataset, args.manifest)
            print(f"manifest: {args.manifest}")
