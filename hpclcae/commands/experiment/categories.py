"""The command ``hpclcae experiment categories``: fine-tuned runs beside their controls."""
import argparse
import shlex
import time
from pathlib import Path

from hpclcae.commands.arguments import output
from hpclcae.experiments import categories, category_results


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN",
                        help="folders of hpclcae finetune on one dataset: pretrained or "
                        "--random-weights, frozen (classifier.steps = train.steps) or not, with "
                        "different classifier.per_class and train.seed; a run's own configuration "
                        "says which it is")
    parser.add_argument("--no-pixels", action="store_true",
                        help="leave out logistic regression on pixels")
    parser.add_argument("--out", type=output, metavar="FOLDER",
                        help="where categories.json and the curve go (default: beside the runs)")


def run(args: argparse.Namespace) -> None:
    """Compare results on the final half, print the tables, write them and the curve."""
    began = time.monotonic()
    out: Path = args.out or categories.default_out(args.runs)
    category_results.check(out)
    found = categories.compare(args.runs, not args.no_pixels)
    made = category_results.parts(found)
    print(category_results.describe(made) + "\n")
    words = ["hpclcae", "experiment", "categories", *args.runs, "--out", str(out)]
    words += ["--no-pixels"] * args.no_pixels
    for path in category_results.save(found, made, out, shlex.join(words),
                                      time.monotonic() - began):
        print(f"wrote {path}")
