"""The command ``hpclcae neurons``: the best neuron of every stage, beside what it has to beat.

Several runs of one network give one table with the spread of their seeds; ``--scan`` shows where in
larger pictures a neuron responds. Ranks share both.
"""
import argparse
import contextlib
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.examination import (add_examination, examination_settings,
                                          training_images)
from hpclcae.commands.experiment import arguments
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import made_from, neurons, results, seeds
from hpclcae.experiments.comparison import (Row, as_text, equal_as_text, judge, sources_as_text,
                                            top_row)
from hpclcae.experiments.fewer_candidates import DRAWS
from hpclcae.experiments.filters import FilterShape, filter_shape
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.neurons import Examination, Settings
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.scan_results import (SCALES, STEP, Scanner, choose_neuron,
                                              scan_pictures, scan_set)
from hpclcae.experiments.single_neurons import Population
from hpclcae.utils.errors import InputError
from hpclcae.utils.provenance import versions

HONEST_NOTE = """'final', its interval and 'top minus it' (the top stage's neuron minus
this one): neuron and threshold chosen on the development half, judged on the final half."""
CANDIDATES_NOTE = """AUC: of that neuron, on the final half. 'among': number of candidates; 'of
{candidates:,}': 'final' with as many candidates as the top stage has neurons, mean over {draws}
draws."""
SEVERAL_NOTE = """Mean and standard deviation (sd) over the runs; the interval is the test set's, of
the mean. 'least': the smallest difference of a run."""
PAPER_NOTE = """'best of 20': neuron and threshold chosen on the images they are judged by, all of
them: the paper's measure. 'paper': faces among its own 37,000 test images, so context and no
comparison; in brackets: recalled, not confirmed."""
INTERVAL_NOTE = """Intervals resample the {resampled} of the test; another training seed changes a
best neuron by some points more."""
LINEAR_NOTE = """Linear filters see pixels of normalised contrast; templates are training
frames, those with the concept among them; ridge with labels is about the best that is linear."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("models", metavar="CHECKPOINT_OR_RUN", nargs="+",
                        help="a run folder, or one of its checkpoints; several runs of one network "
                        "give one table")
    parser.add_argument("--test", metavar="DATASET",
                        help="labelled dataset (default: the one in the configuration of the run)")
    arguments.add(parser, "grid")
    add_examination(parser)
    parser.add_argument("--json", metavar="FILE",
                        help="write the results here, too (of several runs: their table)")
    parser.add_argument("--out", metavar="FOLDER",
                        help="where neurons.json and neurons.h5 go (default: into each run), or "
                        "what a scan leaves (default: RUN/scan)")
    scan = parser.add_argument_group("scan", "instead of the table: one neuron at every place of "
                                     "larger pictures, as a heat map and as HDF5")
    scan.add_argument("--scan", metavar="PICTURE", nargs="+", help="pictures of any size")
    scan.add_argument("--scan-test", metavar="DATASET",
                      help="a labelled set of larger frames: the maximum over places and scales "
                      "tells the concept, its threshold chosen on the development half")
    scan.add_argument("--neuron", metavar="STAGE/ROW,COL,MAP",
                      help="which (default: the best of the top stage, as neurons.h5 in the run "
                      "folder has it)")
    scan.add_argument("--scales", type=float, nargs="+", default=list(SCALES),
                      help="sizes to which a picture is brought, 1 its own "
                      f"({' '.join(map(str, SCALES))})")
    scan.add_argument("--step", type=int, default=STEP,
                      help="pixels of the scaled picture from window to window (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Examine or scan, in this process or on all ranks."""
    return share("hpclcae neurons", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> None:
    """What one of them does; the first one prints, and writes neurons.json and .h5."""
    settings = examination_settings(args)
    models = [ranks.load(model) for model in args.models]
    if args.scan or args.scan_test:
        return _scan(args, models[0], settings, ranks)
    folders = _folders(args)
    ranks.by_first(lambda: seeds.require_one_network(models))
    for folder in folders:
        results.check_result(folder / "neurons.json")
    if args.json:
        results.check_result(Path(args.json))
    with contextlib.ExitStack() as stack:
        test = stack.enter_context(_test_images(args, models))
        images = neurons.labelled_images(test, settings)
        train = training_images(args.train, models[0], settings, stack, ranks.is_first)
        examination = Examination(test, images, train, settings, ranks)
        ranks.say(neurons.describe(test, images))
        if examination.why_no_labels:
            ranks.say(f"{examination.why_no_labels}: no filters without the concept, no ridge, no "
                      "neuron chosen by training labels")
        common = {"kind": results.KIND, "schema": results.SCHEMA,
                  "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                  "concept": neurons.concept_of(test), "test": str(test.path),
                  "test_images": test.count, "framing": test.framing,
                  "halves": ("development" if settings.development
                             else "dataset" if test.half is not None else "seed"),
                  "test_fingerprint": test.fingerprint}
        tables: list[list[Row]] = []
        for name, model, folder in zip(args.models, models, folders):
            linear = [row for row in tables[0] if row.name.startswith("linear")] if tables else None
            stages, rows = examination.compare(model, linear)
            tables.append([tables[0][0], *rows[1:]] if tables else rows)
            shape = filter_shape(model.filters(0), args.seed, model.network.communicator)
            if ranks.is_first:
                header = common | {"run": str(neurons.run_folder(name)), "step": model.step,
                                   "weights_fingerprint": made_from.weights_fingerprint(model)}
                _report(args, shape, images, stages, tables[-1], header, folder)
    if len(models) > 1 and ranks.is_first:
        _report_several(args, tables, images, common)


def _scan(args: argparse.Namespace, model: Model, settings: Settings, ranks: Ranks) -> None:
    """Scan pictures, or a labelled set."""
    if len(args.models) > 1:
        raise InputError(f"a scan is of one network: {len(args.models)} are named")
    out = Path(args.out) if args.out else neurons.run_folder(args.models[0]) / "scan"
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: name a folder")
    chosen = ranks.by_first(lambda: choose_neuron(args.models[0], model, args.neuron))
    scanner = Scanner(model, *chosen, tuple(args.scales), args.step, args.batch)
    written = scan_pictures(scanner, args.scan, out, ranks) if args.scan else []
    written += scan_set(scanner, args.scan_test, settings, out, ranks) if args.scan_test else []
    ranks.say("wrote " + ", ".join(map(str, written)))


def _folders(args: argparse.Namespace) -> list[Path]:
    """Where the results of each run go."""
    runs = [neurons.run_folder(model) for model in args.models]
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError(f"{', '.join(args.models)}: two of these are of one run; a table of "
                         "several wants runs of different seeds")
    if not args.out:
        return runs
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: name a folder")
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise InputError(f"--out {out}: two of the runs have one name ({', '.join(names)}); leave "
                         "--out away, or rename a run")
    return [out / name for name in names] if len(runs) > 1 else [out]


def _test_images(args: argparse.Namespace, models: Sequence[Model]) -> Dataset:
    """Open the test set, the same for all runs."""
    path = args.test or models[0].config.data.test
    test = neurons.open_fitting(path, models[0].config)
    for model in models[1:] if not args.test else []:
        other = model.config.data.test
        if other == path:
            continue
        with neurons.open_fitting(other, model.config) as dataset:
            if dataset.fingerprint != test.fingerprint:
                raise InputError(f"{models[0].path} has the test set {path}, {model.path} has "
                                 f"{other}, which is another: --test names one for all")
    return test


def _report(args: argparse.Namespace, shape: FilterShape, images: LabelledImages,
            stages: Sequence[Population], rows: Sequence[Row], header: dict[str, object],
            folder: Path) -> None:
    """Print the table of one run and write its results."""
    candidates, top = stages[-1].accuracy.size, top_row(rows)
    print(f"\n{header['run']}, step {header['step']:,}\n\n{as_text(rows, candidates)}\n")
    best = (top.chosen or top.best)[0]
    place = ", ".join(map(str, best.where))
    judged = "the final half" if top.chosen else "all images, which chose it"
    print(f"neuron of the top stage: row, col, map {place} of stage {len(stages)}: "
          f"{100 * best.accuracy:.1f} % right on {judged}\nif a response above "
          f"{best.threshold:.4g} means '{header['concept']}'")
    if equal := equal_as_text(rows):
        print(equal)
    if top.chosen:
        shown = [row for row in rows if row.chosen and (
            row is top or row.name in ("trained, stage 1", "linear: templates by label"))]
        print(f"\n{sources_as_text(shown, images)}\n")
    print(f"filters of stage 1: {shape}")
    figures = header | {
        "unit": "share (verdicts: points of percent)",
        "rows": [row.as_json(images) for row in rows],
        "verdicts": [verdict.as_json() for verdict in judge(rows)],
        "candidates": candidates, "first_stage_filters": vars(shape),
        "labelled_images": images.index.size, "images_with_concept": int(images.concept.sum()),
        "final_images": int((images.half == 1).sum()), "groups": images.groups,
        "resampled": images.resampled, "why_not_honest": images.why_not_honest,
        "why_no_interval": images.why_no_interval, "settings": vars(args), "versions": versions()}
    files = [folder / "neurons.json"]
    if args.json and len(args.models) == 1:
        files.append(Path(args.json))
    for file in files:
        results.save_json(file, figures)
    results.save_neurons(folder / "neurons.h5", stages, header)
    if len(args.models) == 1:
        honest = [] if images.why_not_honest else [
            CANDIDATES_NOTE.format(candidates=candidates, draws=DRAWS)]
        _print_notes(images, *honest, PAPER_NOTE)
    print("wrote " + ", ".join(map(str, [*files, folder / "neurons.h5"])))


def _report_several(args: argparse.Namespace, tables: Sequence[Sequence[Row]],
                    images: LabelledImages, common: dict[str, object]) -> None:
    """Print the table of all runs and write it."""
    names = [neurons.run_folder(model).resolve().name for model in args.models]
    rows = seeds.beside(tables)
    print(f"\n{len(names)} runs, {common['test']}\n\n{seeds.as_text(rows, names)}\n")
    if equal := seeds.equal_as_text(rows):
        print(f"{equal}\n")
    _print_notes(images, SEVERAL_NOTE)
    if args.json:
        results.save_json(Path(args.json), common | {
            "unit": "share", "runs": [str(neurons.run_folder(model)) for model in args.models],
            "rows": [row.as_json() for row in rows], "settings": vars(args),
            "versions": versions()})
        print(f"wrote {args.json}")


def _print_notes(images: LabelledImages, *notes: str) -> None:
    """Say what the columns are."""
    said = ["Percent.", *([] if images.why_not_honest else [HONEST_NOTE]), *notes,
            *([] if images.why_no_interval else [INTERVAL_NOTE.format(resampled=images.resampled)]),
            LINEAR_NOTE]
    print("\n" + textwrap.fill(" ".join(" ".join(said).split()), 100) + "\n")
