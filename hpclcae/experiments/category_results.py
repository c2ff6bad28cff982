"""Tables, JSON and the curve of ``hpclcae experiment categories``."""
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpclcae.experiments.categories import (FROZEN, KINDS, PIXELS, TRAINED, TUNED, Comparison,
                                            points, values)
from hpclcae.experiments.results import save_json
from hpclcae.utils.errors import MissingExtraError, require
from hpclcae.utils.files import check_output, check_picture, is_json, save_figure
from hpclcae.utils.provenance import versions
from hpclcae.utils.tables import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND, NAME = "hpclcae experiment", "categories"
TITLE = "Telling categories apart, with and without pretraining"
FIGURE = "categories-labels.png"
WIDTH = 100       # columns of the terminal, for notes
RESOLUTION = 150  # dots per inch
COLOURS = {TUNED: "#d95f02", TRAINED: "#1b9e77", PIXELS: "#7570b3", FROZEN: "#e6ab02"}
#: What the paper gives for 10,000 and 22,000 categories: before, without, with pretraining.
PAPER = [("best before", "16.7 (recalled)", "9.3 (recalled)"),
         ("without pretraining", "16.1 (recalled)", "13.6 (recalled)"),
         ("with pretraining", "19.2 (recalled)", "15.8")]
Part = dict[str, Any]


def check(out: Path) -> None:
    """See, before the work, that results can be written.

    Raises
    ------
    InputError
        They cannot, or would replace something that no experiment wrote.
    """
    check_output(out / f"{NAME}.json", lambda path: is_json(path, "kind", KIND),
                 "a result (hpclcae experiment categories)")
    check_picture(out / FIGURE, "hpclcae experiment categories")


def parts(found: Comparison) -> list[Part]:
    """What one reads: the table, what pretraining is worth, the curve, the paper's figures."""
    made: list[Part] = []
    budget = " or ".join(f"{updates} updates of {batch} images" for updates, batch in found.budgets)
    rows = [row for row in found.rows if not row.per_class]
    if rows:
        made.append({
            "type": "table", "title": f"Percent of {found.images} test images right",
            "columns": ["", *(f"seed {seed}" for seed in rows[0].seeds), "mean", "95 %", "top 5",
                        "mean of classes"],
            "rows": [[KINDS[row.kind], *_padded([_percent(x) for x in row.each],
                                                len(rows[0].seeds)),
                      _percent(row.mean), _span(row.interval), _percent(row.top5),
                      _percent(row.by_class)] for row in rows],
            "notes": [f"{found.dataset}: {found.classes} classes, {found.labels:g} labels a class; "
                      f"chance {100 * found.chance:.1f}; {budget}; intervals of the mean, by "
                      f"{found.groups} objects, photographs or pictures"]})
    worth = [(each, found.difference(TUNED, TRAINED, each), found.difference(TUNED, PIXELS, each))
             for each in points(found)]
    if any(by_random or by_pixels for _, by_random, by_pixels in worth):
        made.append({
            "type": "table", "title": "What pretraining is worth, percent more right",
            "columns": ["labels a class", *(KINDS[kind] for kind in (TUNED, TRAINED, PIXELS)),
                        "pretrained minus random", "pretrained minus pixels"],
            "rows": [[_labels(found, each), *(_mean(found, kind, each)
                                              for kind in (TUNED, TRAINED, PIXELS)),
                      _change(by_random), _change(by_pixels)]
                     for each, by_random, by_pixels in worth],
            "notes": [verdict(found)]})
    made.append({"type": "table", "title": "The paper, percent of its validation images",
                 "columns": ["", "10,000 categories", "22,000 categories"],
                 "rows": [list(row) for row in PAPER],
                 "notes": ["Other images, another size: context, no comparison."]})
    return made


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


def _padded(cells: list[float], count: int) -> list[float | None]:
    """Cells of all seeds, where a row may have fewer than the first."""
    return [*cells[:count], *[None] * (count - len(cells))]


def describe(made: Sequence[Part]) -> str:
    """The tables and their notes, for the terminal."""
    return "\n\n".join("\n".join([
        part["title"], "",
        table(part["columns"], [["" if cell is None else cell for cell in row]
                                for row in part["rows"]]),
        *(textwrap.fill(note, WIDTH) for note in part["notes"])]) for part in made)


def draw(found: Comparison) -> "Figure":
    """Share right against labels a class, with 95 % intervals."""
    figure = require("matplotlib.figure", "figures", "drawing").Figure((7, 4.5))
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


def save(found: Comparison, made: list[Part], out: Path, command: str,
         seconds: float) -> list[Path]:
    """Write ``categories.json`` and the curve; without Matplotlib the curve is left out.

    Returns
    -------
    list of Path
        What was written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    try:
        save_figure(draw(found), out / FIGURE, RESOLUTION)
        caption = "Share of the test images that is right, against labels a class."
        made = [*made, {"type": "figure", "file": FIGURE, "caption": caption, "alt": caption}]
        written.append(out / FIGURE)
    except MissingExtraError as error:
        print(f"no figure: {error}")
    save_json(out / f"{NAME}.json", {
        "kind": KIND, "schema": 1, "experiment": NAME, "title": TITLE, "command": command,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1), "frames": found.dataset,
        "frames_fingerprint": found.fingerprint, "versions": versions(), "parts": made,
        "values": values(found)})
    return [*written, out / f"{NAME}.json"]
