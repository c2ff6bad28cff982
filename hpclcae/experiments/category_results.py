"""Tables and the curve of ``hpclcae experiment categories``."""
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.experiments.categories import (FROZEN, KINDS, PIXELS, TRAINED, TUNED, Comparison, Row,
                                            points, values)
from hpclcae.experiments.record import Record
from hpclcae.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Telling categories apart, with and without pretraining"
FIGURE = "labels"
COLOURS = {TUNED: "#d95f02", TRAINED: "#1b9e77", PIXELS: "#7570b3", FROZEN: "#e6ab02"}
#: What the paper gives for 10,000 and 22,000 categories: before, without, with pretraining.
PAPER = [("best before", "16.7 (recalled)", "9.3 (recalled)"),
         ("without pretraining", "16.1 (recalled)", "13.6 (recalled)"),
         ("with pretraining", "19.2 (recalled)", "15.8")]


def tell(found: Comparison, record: Record) -> None:
    """The table, what pretraining is worth, the paper's figures, the curve: into a record.

    The HDF5 file has ``right`` (classifier, image), in the order of ``classifiers`` in the values
    and of the test half, and ``replicates`` (row, replicate) of the share that is right.

    Parameters
    ----------
    record : Record
        With the figure "labels".
    """
    budget = " or ".join(f"{updates} updates of {batch} images" for updates, batch in found.budgets)
    rows = [row for row in found.rows if not row.per_class]
    if rows:
        seeds = max((row.seeds for row in rows), key=len)
        record.table(
            f"Percent of {found.images:,} test images right",
            ["", *(f"seed {seed}" for seed in seeds), "mean", "95 %", "top 5", "mean of classes"],
            [[KINDS[row.kind], *_by_seed(row, seeds), _percent(row.mean), _span(row.interval),
              _percent(row.top5), _percent(row.by_class)] for row in rows],
            [f"{printable(found.dataset)}: {found.classes} classes, {found.labels:g} labels a "
             f"class; chance {100 * found.chance:.1f}; {budget}; intervals of the mean, by "
             f"{found.groups:,} objects, photographs or pictures"])
    worth = [(each, found.difference(TUNED, TRAINED, each), found.difference(TUNED, PIXELS, each))
             for each in points(found)]
    if any(by_random or by_pixels for _, by_random, by_pixels in worth):
        record.table(
            "What pretraining is worth, percent more right",
            ["labels a class", *(KINDS[kind] for kind in (TUNED, TRAINED, PIXELS)),
             "pretrained minus random", "pretrained minus pixels"],
            [[_labels(found, each),
              *(_mean(found, kind, each) for kind in (TUNED, TRAINED, PIXELS)),
              _change(by_random), _change(by_pixels)] for each, by_random, by_pixels in worth],
            [verdict(found)])
    record.table("The paper, percent of its validation images",
                 ["", "10,000 categories", "22,000 categories"], PAPER,
                 ["Other images, another size: context, no comparison."])
    said = "; ".join(
        f"{KINDS[row.kind]}, {_labels(found, row.per_class)} labels a class: {_percent(row.mean)}"
        for row in found.rows if row.kind in COLOURS)
    record.figure(lambda: draw(found), FIGURE,
                  "Share of the test images that is right, against labels a class, with 95 % "
                  "intervals.", f"percent right: {said}")
    record.values |= values(found)
    record.arrays |= {"right": np.stack([each.right for each in found.outcomes]),
                      "replicates": np.stack([row.replicates for row in found.rows])}


def verdict(found: Comparison) -> str:
    """Where pretraining helps and where nothing says that it does, from the intervals."""
    helps: list[str] = []
    not_shown: list[str] = []
    harms: list[str] = []
    for each in points(found):
        if (change := found.difference(TUNED, TRAINED, each)) is not None:
            low, high = change[1:]
            (helps if low > 0 else harms if high < 0 else not_shown).append(_labels(found, each))
    said = [f"{words} with {', '.join(labels)} labels a class" for words, labels in (
        ("pretraining helps", helps), ("it is not shown to help", not_shown), ("it harms", harms))
        if labels]
    return "; ".join(said) if said else "no runs with and without pretraining at equal labels"


def _labels(found: Comparison, per_class: int) -> str:
    return str(per_class) if per_class else f"all ({found.labels:g})"


def _percent(share: float) -> float:
    return round(100 * share, 1)


def _span(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _mean(found: Comparison, kind: tuple[str, str], per_class: int) -> float | None:
    row = found.find(kind, per_class)
    return None if row is None else _percent(row.mean)


def _change(change: tuple[float, float, float] | None) -> str | None:
    if change is None:
        return None
    mean, low, high = (100 * x for x in change)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _by_seed(row: Row, seeds: Sequence[int]) -> list[float | None]:
    """Cells of all seeds, where a row may lack some."""
    each = dict(zip(row.seeds, row.each))
    return [_percent(each[seed]) if seed in each else None for seed in seeds]


def draw(found: Comparison) -> "Figure":
    """Share right against labels a class, with 95 % intervals."""
    from matplotlib.figure import Figure
    figure = Figure((7, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, colour in COLOURS.items():
        own = [(per_class or found.labels, row) for per_class in points(found)
               if (row := found.find(kind, per_class)) is not None]
        if own:
            x = [labels for labels, _ in own]
            y = [100 * row.mean for _, row in own]
            spans = [row.interval for _, row in own]
            axes.errorbar(x, y, [[mean - 100 * low for mean, (low, _) in zip(y, spans)],
                                 [100 * high - mean for mean, (_, high) in zip(y, spans)]],
                          fmt="o-", color=colour, capsize=3, label=KINDS[kind])
    axes.axhline(100 * found.chance, color="grey", linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set_xlabel("labels a class")
    axes.set_ylabel("percent of the test images right")
    axes.legend(fontsize=8)
    return figure
