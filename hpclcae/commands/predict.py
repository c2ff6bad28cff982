"""The command ``hpclcae predict``: what a trained classifier says about your pictures."""
import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import output, positive
from hpclcae.data.ingest.settings import Tally
from hpclcae.data.ingest.walk import OTHER
from hpclcae.experiments.predictions import (EVERY_LINE, Prediction, check_results, predictions,
                                             save)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT_OR_RUN", help="of hpclcae finetune")
    add("pictures", nargs="+", type=Path, metavar="PICTURE",
        help="a picture, a folder of them, a zip or tar archive, a film")
    add("--top", type=positive, default=5, metavar="N", help="classes for each picture (5)")
    add("--crop", choices=("centre", "fit"),
        help="cut the largest central square, or fit the whole picture on mid-grey (as the "
        "training images, else centre)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true",
                      help="print an object of JSON for each picture")
    form.add_argument("--csv", action="store_true",
                      help="print comma-separated names, classes and probabilities")
    form.add_argument("--out", type=output, metavar="FILE.h5",
                      help="write the scores of all classes to an HDF5 file instead")


def run(args: argparse.Namespace) -> None:
    """Print a line for each picture, or write the file; then say what was left out."""
    if args.out:
        check_results(args.out)
    model, tally = Model.load(args.checkpoint), Tally(most_lines=EVERY_LINE)
    names = [str(name) for name in model.categories]
    top = min(args.top, len(names))
    said = predictions(model, args.pictures, tally, args.crop)
    if args.out:
        count = save(args.out, model, said, top)
        print(f"{count} pictures in {args.out}")
    else:
        count = (_csv if args.csv else _json if args.json else _lines)(said, names, top)
    left = {reason: number for reason, number in tally.skipped.items() if reason != OTHER}
    if left:
        print(f"{count} pictures, {sum(left.values())} left out: "
              + ", ".join(f"{number} x {reason}" for reason, number in left.items()),
              file=sys.stderr)


def _lines(said: Iterable[Prediction], names: Sequence[str], top: int) -> int:
    """For people; returns how many there were."""
    count = 0
    for count, each in enumerate(said, 1):
        likely = ", ".join(f"{names[label]} {each.probabilities[label]:.1%}"
                           for label in each.top(top))
        print(f"{each.picture}: {likely}", flush=True)
    return count


def _json(said: Iterable[Prediction], names: Sequence[str], top: int) -> int:
    """One object a line."""
    count = 0
    for count, each in enumerate(said, 1):
        labels = each.top(top)
        print(json.dumps({"picture": each.picture, "labels": [names[label] for label in labels],
                          "probabilities": [float(each.probabilities[label]) for label in labels],
                          "scores": [float(each.scores[label]) for label in labels]}), flush=True)
    return count


def _csv(said: Iterable[Prediction], names: Sequence[str], top: int) -> int:
    """One row a picture, of the most likely class first."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["picture", *(f"{what}{rank}" for rank in range(1, top + 1)
                                  for what in ("label", "probability"))])
    count = 0
    for count, each in enumerate(said, 1):
        writer.writerow([each.picture, *(cell for label in each.top(top) for cell in
                                         (names[label], f"{each.probabilities[label]:.6g}"))])
        sys.stdout.flush()
    return count
