"""The command ``hpclcae neurons``: the best neuron of every stage, beside what it has to beat."""
import argparse
import contextlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path

from hpclcae.checkpoint.trained import Model
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import neurons
from hpclcae.experiments.comparison import Row, Verdict, as_text
from hpclcae.experiments.filters import FilterShape, filter_shape
from hpclcae.experiments.neurons import Settings
from hpclcae.experiments.single_neurons import LabelledImages
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_json, replacing
from hpclcae.utils.provenance import versions

NOTE = """\
Percent. 'best of 20' chooses neuron and threshold on the images it is judged by (the paper's
measure); 'honest' chooses on one half and is judged on the other. Intervals resample the
{resampled} of the test set; they do not hold what another training seed would change, which is
some points for a best neuron. Linear filters are training images, on pixels prepared as the
network sees them, and with contrast normalised only. 'paper' is for faces on the paper's 37,000
test images: another test set, so context and no comparison; 'recalled' figures are quoted from
memory, not confirmed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="CHECKPOINT_OR_RUN",
                        help="a run folder, or one of its checkpoints")
    parser.add_argument("--test",
                        help="labelled dataset (default: the one in the configuration of the run)")
    parser.add_argument(
        "--train", help="dataset the linear filters are cut from (default: the one of the run)")
    parser.add_argument("--batch", type=int, default=100, help="images at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of halves, bootstrap, patches, weights (%(default)s)")
    parser.add_argument("--filters", type=int, default=5000,
                        help="linear filters to try; 0: none (%(default)s)")
    parser.add_argument("--random-seeds", type=int, default=1,
                        help="untrained networks; 0: none (%(default)s)")
    parser.add_argument("--bootstrap", type=int, default=1000, help="replicates (%(default)s)")
    parser.add_argument("--json", metavar="FILE",
                        help="write the results here, too (always: RUN/neurons.json)")


def run(args: argparse.Namespace) -> None:
    """Examine the network and its baselines; print the table; write neurons.json and neurons.h5."""
    settings = Settings(args.batch, args.seed, args.filters, args.random_seeds, args.bootstrap)
    model = Model.load(args.model)
    folder = neurons.run_folder(args.model)
    outputs = [folder / "neurons.json", *([Path(args.json)] if args.json else [])]
    if args.json:
        check_output(outputs[-1], lambda path: is_json(path, "kind", neurons.KIND),
                     "a result (--json)")
    for file in outputs:  # before the work, not after it
        if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise InputError(f"cannot write {file}: {file.parent} is not a folder that can be "
                             "written to")
    with (neurons.open_fitting(args.test or model.config.data.test, model.config) as test,
          _training_images(args, model.config) as train):
        images = neurons.labelled_images(test, args.seed)
        concept = (test.label_names or ["other", "concept"])[1]
        print(neurons.describe(test, images, concept))
        stages, rows = neurons.compare(model, test, train, images, settings)
    shape = filter_shape(model.filters(0), args.seed)
    verdicts = neurons.judge(rows)
    _print(rows, verdicts, shape, images, concept)
    header = {"kind": neurons.KIND, "schema": neurons.SCHEMA,
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
              "run": str(folder), "step": model.step, "concept": concept, "test": str(test.path),
              "test_images": test.count}
    results = header | {
        "unit": "share (verdicts: points of percent)", "rows": [row.as_json() for row in rows],
        "verdicts": [verdict.as_json() for verdict in verdicts], "first_stage_filters": vars(shape),
        "labelled_images": images.index.size, "images_with_concept": int(images.concept.sum()),
        "groups": images.groups, "resampled": images.resampled, "settings": vars(args),
        "versions": versions()}
    for file in outputs:
        with replacing(file) as partial:
            partial.write_text(json.dumps(results, indent=1), encoding="utf-8")
    neurons.save_neurons(folder / "neurons.h5", stages, header)
    print("wrote " + ", ".join(map(str, [*outputs, folder / "neurons.h5"])))


def _training_images(args: argparse.Namespace,
                     config: Config) -> contextlib.AbstractContextManager[Dataset | None]:
    """Open the images that linear filters are cut from.

    Without --train, a run whose training images are gone is no error: there are no filters then,
    with a line.
    """
    if not args.filters:
        return contextlib.nullcontext()
    try:
        return neurons.open_fitting(args.train or config.data.train, config)
    except InputError as error:
        if args.train:
            raise
        print(f"no linear filters: {error} (--train names the training images)")
        return contextlib.nullcontext()


def _print(rows: list[Row], verdicts: list[Verdict], shape: FilterShape, images: LabelledImages,
           concept: str) -> None:
    """Print table, notes, best neuron and verdicts."""
    print(f"\n{as_text(rows)}\n\n{NOTE.format(resampled=images.resampled)}\n")
    winner = neurons.winner(rows)
    best = winner.runs[0]
    print(f"best neuron: {winner.name}, row {best.where[0]}, col {best.where[1]}, map "
          f"{best.where[2]}: {100 * best.accuracy:.1f} % right if a response above "
          f"{best.threshold:.4g} means '{concept}'")
    for verdict in verdicts:
        print(verdict)
    print(f"filters of stage 1: {shape}")
