"""Table 1 of the paper: the best neurons of several concepts, beside what they have to beat.

For every test set the same rows: chance, random weights, linear filters, the best neuron of each
stage, the best of all stages, and of a network without contrast normalisation. Every row says among
how many candidates it chose, and what it would reach with as many as the top stage has neurons.
"""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import neurons, paper, rates
from hpclcae.experiments.comparison import HONEST, Row, cells, judge, source_cells, top_row
from hpclcae.experiments.fewer_candidates import DRAWS
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.neurons import Examination, Settings, concept_of
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.record import Record
from hpclcae.experiments.single_neurons import Population

#: Groups of images that were rendered begin with these (data/frames/recipe.py).
RENDERED = ("heads/", "cats/", "bodies/")
BEST, NO_LCN = "best neuron, any stage", "without LCN, top stage"
NOTES = (
    "Percent right. 'final', its interval and 'top minus it' (the top stage's neuron minus this "
    "one): neuron and threshold chosen on the development half, judged on the final half. 'among': "
    "number of candidates; 'of {candidates:,}': 'final' if every row chose among as many as the "
    f"top stage has neurons, mean over {DRAWS} draws.",
    "'best of 20': chosen and judged on all images, the paper's measure. 'paper': of its own "
    "images, so context and no comparison; in brackets: recalled, not confirmed.")


@dataclass(frozen=True)
class Found:
    """What one test set says."""
    test: str
    concept: str
    rows: list[Row]
    candidates: int          # of the top stage
    rendered: float          # share of the images with the concept that were rendered


def best_of_stages(stages: Sequence[Population]) -> Population:
    """The stage whose best neuron is best by the development half, as if all were one population.

    Where nothing can be chosen on one half, the best of all images speaks.
    """
    def merit(stage: Population) -> float:
        known = stage.accuracy if stage.development is None else stage.development
        return float(known.max())

    best = max(stages, key=merit)
    by_all = max(stages, key=lambda stage: stage.best.accuracy)
    total = sum(stage.accuracy.size for stage in stages)

    def joined(name: str) -> np.ndarray | None:
        arrays = [getattr(stage, name) for stage in stages]
        known = [array.ravel() for array in arrays if array is not None]
        return np.concatenate(known) if known else None

    return replace(best, development=joined("development"), final=joined("final"),
                   best=replace(by_all.best, neurons=total),
                   chosen=best.chosen and replace(best.chosen, neurons=total),
                   equal=best.equal_of_all)


def why_without_lcn(model: Model, other: Model | None) -> str:
    """Why there is no row for a network without contrast normalisation; "" if there is one."""
    if other is not None:
        return ""
    with_it = [index for index, stage in enumerate(model.config.stages, 1) if stage.lcn]
    if not with_it:
        return (f"No row '{NO_LCN}': this network has no contrast normalisation in any stage, so "
                "its own rows are without it.")
    return (f"No row '{NO_LCN}': it wants a run of the same configuration with --set "
            "'stages.*.lcn=0', named by --without-lcn.")


def examine_set(model: Model, test: Dataset, train: Dataset | None, without_lcn: Model | None,
                settings: Settings, ranks: Ranks, record: Record) -> Found:
    """Examine all rows on one test set, and add their table to the record.

    Raises
    ------
    InputError
        It has no labels, or of one kind only; a response is not finite.
    """
    images = neurons.labelled_images(test, settings)
    examination = Examination(test, images, train, settings, ranks)
    if ranks.is_first:
        print(neurons.describe(test, images), flush=True)
    stages, rows = examination.compare(model)
    candidates = stages[-1].accuracy.size
    rows.append(Row.of(BEST, [best_of_stages(stages)]))
    if without_lcn is not None:
        other = examination.trained("without LCN", without_lcn)
        rows.append(Row.of(NO_LCN, [other[-1]], "no lcn"))
    concept = concept_of(test)
    found = Found(str(test.path), concept, rows, candidates, _rendered_share(test, images))
    columns, lines = cells(rows, candidates, concept)
    record.table(f"Table 1, {concept}: {test.path.name}", columns, lines,
                 notes_of(found, images, examination, why_without_lcn(model, without_lcn)))
    chosen = [row for row in rows if row.chosen and row is top_row(rows)]
    if chosen:
        record.table(f"{concept[0].upper()}{concept[1:]}: how often the top stage's neuron says "
                     "so, by source of the images", *source_cells(chosen, images))
    return found


def notes_of(found: Found, images: LabelledImages, examination: Examination,
             no_lcn: str) -> list[str]:
    """What the columns and rows of a table are, and what is missing."""
    notes = [note.format(candidates=found.candidates) for note in NOTES]
    if found.rendered:
        share = "All" if found.rendered == 1 else f"{found.rendered:.0%}"
        notes.append(f"{share} of the images that show it are rendered, not photographed.")
    if images.why_not_honest:
        notes.append(f"Nothing is chosen on one half: {images.why_not_honest}.")
    if images.why_no_interval:
        notes.append(f"No intervals: {images.why_no_interval}.")
    else:
        notes.append(f"Intervals (95 %) resample the {images.resampled}.")
    if examination.why_no_labels:
        notes.append(f"No filters of frames without the concept, no ridge, no neuron chosen by "
                     f"training labels: {examination.why_no_labels}.")
    return notes + [no_lcn] * bool(no_lcn)


def run(model: Model, tests: Sequence[Dataset], train: Dataset | None, without_lcn: Model | None,
        settings: Settings, ranks: Ranks, record: Record) -> None:
    """Examine all test sets; write the record.

    Raises
    ------
    InputError
        As `examine_set`; a result cannot be written.
    """
    record.about(*tests)
    found = [examine_set(model, test, train, without_lcn, settings, ranks, record)
             for test in tests]
    if len(found) > 1:
        record.table("Table 1, all concepts: percent right on the final half", *summary(found))
    speed = rates.measure(model, tests[0], settings.batch)
    record.text(f"One process of {ranks.world.size}: {speed}")
    record.values |= {
        "unit": "share (verdicts: points of percent)", "settings": vars(settings),
        "processes": ranks.world.size, "grid": str(ranks.grid),
        "forward_images_per_second": speed.forward, "encode_images_per_second": speed.encode,
        "share_of_encode": speed.share, "share_of_encode_computing": speed.computing,
        "sets": [as_json(each, test, settings) for each, test in zip(found, tests)]}
    record.save()


def summary(found: Sequence[Found]) -> tuple[list[str], list[list[str]], list[str]]:
    """One column for every test set, and one for what the paper has: columns, rows, notes."""
    names = list(dict.fromkeys(row.name for each in found for row in each.rows))
    columns, lines = [""], [[name] for name in names]
    for each in found:
        columns += [f"{each.concept} ({each.test.rsplit('/', 1)[-1]})", "paper"]
        rows = {row.name: row for row in each.rows}
        for line, name in zip(lines, names):
            row = rows.get(name)
            value = np.nan if row is None else row.values[HONEST]
            line += ["" if np.isnan(value) else f"{100 * value:.1f}",
                     "" if row is None else paper.as_text(each.concept, row.paper)]
    return columns, lines, ["In brackets: recalled, not confirmed."]


def as_json(found: Found, test: Dataset, settings: Settings) -> dict[str, object]:
    """The table of one test set for a program."""
    images = neurons.labelled_images(test, settings)
    return {"test": found.test, "concept": found.concept, "candidates": found.candidates,
            "test_fingerprint": test.fingerprint, "rendered": found.rendered,
            "labelled_images": images.index.size, "images_with_concept": int(images.concept.sum()),
            "rows": [row.as_json(images) | _of_the_paper(found.concept, row.paper)
                     for row in found.rows],
            "verdicts": [verdict.as_json() for verdict in judge(found.rows)]}


def _of_the_paper(concept: str, row: str) -> dict[str, object]:
    known = paper.figure(concept, row)
    return {"paper": None if known is None else
            {"percent": known[0], "status": "confirmed" if known[1] else "recalled"}}


def _rendered_share(test: Dataset, images: LabelledImages) -> float:
    groups = test.groups[images.index[images.concept]]
    return float(np.mean([str(group).startswith(RENDERED) for group in groups]))
