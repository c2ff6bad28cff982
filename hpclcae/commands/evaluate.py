"""The command ``hpclcae evaluate``: how well classifiers do on images that they have not seen."""
import argparse
from pathlib import Path

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import output
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import classification
from hpclcae.experiments.classification import HDF5, JSON, KIND, PARTS, Classification
from hpclcae.experiments.neurons import run_folder
from hpclcae.experiments.results import save_json
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_hdf5, is_json


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL",
                        help="fine-tuned run folders (their best checkpoint), or checkpoints")
    parser.add_argument("--data", metavar="DATASET",
                        help="images of the same classes, or of some of them, told by their names "
                        "(default: those it was trained on)")
    parser.add_argument("--part", choices=PARTS, default="test",
                        help="of the images: the final half, those that are looked at while it "
                        "trains, those it learns from, or all that have a class, for a set of "
                        "--data that nothing was learned from (default %(default)s)")
    parser.add_argument("--out", type=output, metavar="FOLDER",
                        help=f"where {JSON} and {HDF5} go (default: into the run)")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.out is not None and len(args.models) > 1:
        raise InputError(f"--out {args.out}: the results of {len(args.models)} models would "
                         "replace each other; leave it out, and each goes into its run")
    found = [evaluate(name, args.data, args.part, args.out) for name in args.models]
    print(classification.describe(found))


def evaluate(name: str, data: str | None = None, part: str = "test",
             out: Path | None = None) -> Classification:
    """Classify a part of the images and write the results."""
    folder = out or run_folder(name)
    check_output(folder / JSON, lambda path: is_json(path, "kind", KIND),
                 "a result (hpclcae evaluate)")
    check_output(folder / HDF5, lambda path: is_hdf5(path, KIND), "a result (hpclcae evaluate)")
    model = Model.load(name)
    with Dataset(data or model.config.data.train) as dataset:
        found = classification.classify(model, dataset, part)
        if part in ("test", "all"):
            seen = classification.learned_from(model, dataset, found.indices)
            if seen:
                print(f"note: {seen:,} of the {found.indices.size:,} images show what the "
                      "classifier has learned from: this is no test")
    save_json(folder / JSON, classification.results(found))
    classification.save_arrays(folder / HDF5, found)
    return found
