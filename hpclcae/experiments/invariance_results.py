"""What an experiment on invariance leaves: tables, numbers, figures; invariance.py computes."""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import DEVELOPMENT, FINAL
from hpclcae.experiments import invariance, turning_heads
from hpclcae.experiments.invariance import PATCH_PLACES, Measured, Shown, Unit
from hpclcae.experiments.labelled_images import HALF_NAMES, LabelledImages, interval
from hpclcae.experiments.neurons import concept_of
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.record import Record
from hpclcae.experiments.scan import Neuron, asked
from hpclcae.experiments.turning_heads import SCANNED
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.text import drawable, entitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS = {"shift x": "pixels to the right", "shift y": "pixels down", "scale": "times as large",
         "rotation": "degrees to the left", "turn": "degrees, nose to the right",
         "nod": "degrees, nose up", "scanned turn": "degrees, nose to the right",
         "scanned nod": "degrees, nose up"}
TITLES = {"turn": "rendered heads turn", "nod": "rendered heads nod",
          "scanned turn": "a scanned head turns", "scanned nod": "a scanned head nods",
          "rotation": "rotation in the plane", "patch": "a grey patch"}
HEADS = "turn", "nod"
CURVE, LINE, SCAN = "#0072b2", "#d55e00", "#000000"  # told apart by all colour-blind people


@dataclass(frozen=True)
class Settings:
    """How invariance is measured."""
    faces: int = invariance.FACES  # persons, one image each; 0: all images
    development: bool = False      # the development half instead of the final half
    step: int | None = None        # pixels from shift to shift; None: SHIFTS to each side
    scales: tuple[float, ...] = invariance.SCALES
    rotations: tuple[float, ...] = invariance.ROTATIONS
    patch: int | None = None       # side, pixels; None: PATCH of the window
    batch: int = 100               # images at a time
    seed: int = 0                  # of the choice of faces, the heads, the bootstrap
    bootstrap: int = 1000          # replicates


@dataclass(frozen=True)
class Answers:
    """What some neurons answer to everything that is shown to them."""
    images: LabelledImages
    faces: np.ndarray   # int64: positions in `images` of those with the concept
    others: np.ndarray  # int64: and of all others of the half
    rest: np.ndarray    # float64 (neuron, other)
    shown: list[Shown]  # the first sweep has the unchanged concept in it


def ask(model: Model, neurons: Sequence[Neuron], frames: Dataset, settings: Settings,
        sources: Path | None = None, ranks: Ranks = Ranks()) -> Answers:
    """Show faces, and heads that turn, to any number of neurons at once.

    Parameters
    ----------
    frames : Dataset
        Labelled images of the network's size or larger ones, the concept in their middle.
    sources : Path, optional
        What hpclcae data fetch filled: where the heads are. Without it there are none.

    Raises
    ------
    InputError
        Pillow is missing; the set does not fit, or has no labels, or of one kind only.
    """
    require("PIL.Image", "images", "scaling and rotating images")
    size = model.config.data.size
    require_fitting(frames, size, model.config.data.channels)
    images, half = half_of(frames, settings)
    faces = invariance.choose_faces(images, half, settings.faces, settings.seed)
    others = np.flatnonzero(half & ~images.concept)
    if not faces.size or not others.size:
        raise InputError(f"{frames.path}, {half_name(images, settings)}: {faces.size} images show "
                         f"the concept and {others.size} do not, and both are needed")
    if settings.patch is not None and not 1 <= settings.patch < size:
        raise InputError(f"--patch {settings.patch}: from 1 to {size - 1}, the network sees {size} "
                         "pixels")
    step = settings.step or max(1, size // 2 // invariance.SHIFTS)
    swept = invariance.sweeps(size, step, settings.scales, settings.rotations, settings.patch)
    ask_them = asked(model, neurons)
    rest, shown = invariance.ask_about(ask_them, frames, images, faces, others, swept, size,
                                       settings.batch, ranks)
    rng = np.random.default_rng(settings.seed)
    count = settings.faces or invariance.FACES
    behind = np.sort(images.index[rng.permutation(others)[:count]])
    for label, heads in (("", turning_heads.rendered_heads(sources, count, settings.seed)),
                         (SCANNED, turning_heads.scanned_heads(sources))):
        if heads:
            shown += turning_heads.ask_about_heads(ask_them, heads, frames, behind, size,
                                                   settings.batch, label, ranks)
    return Answers(images, faces, others, rest, shown)


def require_fitting(frames: Dataset, size: int, channels: int) -> None:
    """Check that the network can look at the frames through its window.

    Raises
    ------
    InputError
        They are smaller, or channels differ.
    """
    if frames.channels != channels:
        raise InputError(f"{frames.path} holds images of {frames.channels} channels, the network "
                         f"takes {channels}")
    if frames.size < size:
        raise InputError(f"{frames.path} holds images of {frames.size}x{frames.size}, smaller than "
                         f"the network's {size}x{size}: make a set of that size or a larger one")


def half_of(frames: Dataset, settings: Settings) -> tuple[LabelledImages, np.ndarray]:
    """The labelled images of a dataset, and which of them are looked at.

    These are one half; all, where the halves are too small to say anything.

    Raises
    ------
    InputError
        It has no labels, or labels of one kind only.
    """
    if frames.labels is None:
        raise InputError(f"{frames.path} has no labels, so there is no concept to shift: give a "
                         "labelled dataset (hpclcae data frames --split test makes one)")
    try:
        images = LabelledImages.of(frames.labels, frames.groups, settings.seed, frames.half)
    except InputError as error:
        raise InputError(f"{frames.path}: {error}") from error
    wanted = DEVELOPMENT if settings.development else FINAL
    return images, (images.half == wanted if not images.why_not_honest
                    else np.ones(images.half.size, bool))


def half_name(images: LabelledImages, settings: Settings) -> str:
    """Which images are looked at."""
    if images.why_not_honest:
        return "all images"
    return HALF_NAMES[DEVELOPMENT if settings.development else FINAL]


def measured(answers: Answers, number: int, threshold: float | None,
             settings: Settings) -> list[Measured]:
    """What all sweeps do to one neuron, in its units.

    Parameters
    ----------
    number : int
        Of the neuron, among those that were asked.
    threshold : float or None
        Above it the neuron means the concept.

    Raises
    ------
    InputError
        The neuron responds no more to the unchanged concept than to the rest.
    """
    images = answers.images
    replicates = settings.bootstrap if not images.why_no_interval else 0
    unit = Unit.of(answers.rest[number], images.key[answers.others],
                   invariance.unchanged(answers.shown[0])[number], answers.shown[0].key, replicates)
    return [invariance.measure(each.sweep, each.response[number], each.key, unit, threshold)
            for each in answers.shown]


def run(model: Model, neuron: Neuron, threshold: float | None, path: str, sources: Path | None,
        settings: Settings, record: Record, ranks: Ranks = Ranks()) -> None:
    """Measure one neuron, print, and write what the record holds.

    The HDF5 file has a group ``rest`` with ``index`` (image,), the positions in the dataset, and
    ``response`` (image,); and one for every sweep, ``shift x``, ``shift y``, ``scale``,
    ``rotation``, ``patch`` and, of heads, ``turn`` and ``nod``: ``at`` (view,), ``response`` (view,
    image) and, in units, ``mean`` (view,) and ``mean_interval`` (view, 2). Positions of the images
    with the concept are in ``faces``.

    Parameters
    ----------
    record : Record
        With the figure "curves".

    Raises
    ------
    InputError
        See `ask` and `measured`; a result cannot be written.
    """
    with Dataset(path) as frames:
        record.about(frames)
        answers = ask(model, [neuron], frames, settings, sources, ranks)
        concept, size = concept_of(frames), model.config.data.size
        record.text(describe(frames, answers, neuron, threshold, settings, size))
    found = measured(answers, 0, threshold, settings)
    record.table("Where it stops to mean the concept", LIMIT_COLUMNS,
                 [limit_row(each) for each in found if each.sweep.centre is not None],
                 limit_notes(found[0], concept))
    for each in found:
        add_table(record, each)
    if not any("turn" in each.sweep.name for each in found):
        record.text("No heads turn: the mesh that they are rendered from is not there (hpclcae "
                    "data fetch --out FOLDER, then --sources FOLDER)")
    images = answers.images
    record.figure(lambda: draw(found, f"neuron {neuron} at step {model.step:,}, "
                                      f"'{drawable(concept)}', "
                                      f"{half_name(images, settings)}"), "curves",
                  f"Mean response of neuron {neuron} to {answers.faces.size} images of '{concept}' "
                  "that are shifted, scaled, rotated or covered, and to heads that turn: 0 is that "
                  "to other images, 1 that to the unchanged ones; shaded: 95 % intervals by "
                  f"{images.resampled}"
                  + ("" if threshold is None else "; dashed: the threshold above which it means "
                                                  f"'{concept}'") + ".",
                  "Curves with their intervals and a heat map of five by five patches. "
                  + "; ".join(f"{title(each)}: above half {limits_as_text(each, False)}"
                              for each in found if each.sweep.centre is not None))
    record.values |= {
        "neuron": str(neuron), "window": size, "threshold": threshold, "concept": concept,
        "half": half_name(images, settings),
        "unit": "response: 0 the mean of the rest, 1 that of the unchanged concept; level: the "
                "threshold in these units; share: above the threshold; limits: pixels, ratio or "
                "degrees; null: beyond what was tried",
        "sweeps": [as_json(each) for each in found], "resampled": images.resampled,
        "faces": int(answers.faces.size), "images_without": int(answers.others.size),
        "why_no_interval": images.why_no_interval, "settings": vars(settings)}
    record.arrays |= responses(answers, found)
    record.save()


def describe(frames: Dataset, answers: Answers, neuron: Neuron, threshold: float | None,
             settings: Settings, size: int) -> str:
    """Say what is looked at."""
    images, concept = answers.images, concept_of(frames)
    known = f"threshold {threshold:.4g}" if threshold is not None else (
        "no threshold is known of it, so no shares above it")
    groups = np.unique(images.key[answers.faces]).size
    lines = [f"neuron {neuron}; {known}",
             f"{frames.path}, {half_name(images, settings)}: {answers.faces.size:,} images of "
             f"{groups:,} {images.resampled} show '{concept}', {answers.others.size:,} of "
             f"{np.unique(images.key[answers.others]).size:,} do not",
             f"framing: {frames.framing}"]
    beyond = (frames.size - size) // 2
    if beyond < size // 2:
        lines.append("frames are continued by reflection where a view reaches beyond them: shifts "
                     f"of more than {beyond} pixels, scales below {size / frames.size:.2g}")
    if images.why_no_interval:
        lines.append(f"no intervals: {images.why_no_interval}")
    return "\n".join(lines)


LIMIT_COLUMNS = ["what changes", "threshold: from", "threshold: to", "half: from", "half: to",
                 "unchanged", "in"]


def limit_row(each: Measured) -> list[str]:
    """From where to where a neuron means the concept, and responds by more than half."""
    middle = each.response[list(each.sweep.at).index(each.sweep.centre)]
    return [title(each), *_limits(each, True), *_limits(each, False),
            f"{middle[0]:.2f}", UNITS[each.sweep.name]]


def limit_notes(first: Measured, concept: str) -> list[str]:
    """What the table of limits says."""
    known = ("" if math.isnan(first.level[0]) else
             f" The threshold is {first.level[0]:.2f}{_span(interval(first.level[1:]), ' ')}.")
    return ["From where to where the mean response is above the threshold, and above half: 0 is "
            f"that to images without '{concept}', 1 that to the unchanged ones with it.{known} In "
            "brackets 95 % intervals."]


def title(each: Measured) -> str:
    """The sweep in words."""
    return TITLES.get(each.sweep.name, each.sweep.name)


def add_table(record: Record, each: Measured) -> None:
    """Add the table of a sweep, with its limits; patches are a grid."""
    name, at = each.sweep.name, each.sweep.at
    if each.sweep.centre is None:
        grid = each.response[:, 0].reshape(PATCH_PLACES, PATCH_PLACES)
        middle = each.response[len(each.response) // 2]
        rim = np.ones(grid.shape, bool)
        rim[1:-1, 1:-1] = False
        record.table(
            "A grey patch: response by its top and left edge, pixels",
            ["top, left", *(f"{left:g}" for left in at[:PATCH_PLACES, 1])],
            [[f"{top:g}", *(f"{value:.2f}" for value in row)]
             for top, row in zip(at[::PATCH_PLACES, 0], grid)],
            [f"patch over the middle: {middle[0]:.2f}{_span(interval(middle[1:]), ' ')}; along the "
             f"rim {grid[rim].min():.2f} to {grid[rim].max():.2f}"])
        return
    rows = [[_place(each, place), f"{response[0]:.2f}", _span(interval(response[1:])),
             _known(share[0] * 100, ".0f"), f"{auc[0]:.2f}", _span(interval(auc[1:]))]
            for place, response, share, auc in zip(at, each.response, each.share, each.auc)]
    peak = each.response[:, 0].argmax()
    record.table(f"{title(each)[0].upper()}{title(each)[1:]}, {UNITS[name]}",
                 [name, "response", "95 % interval", "above threshold, %", "AUC", "95 % interval"],
                 rows, [f"above half {limits_as_text(each, False)}; highest, "
                        f"{each.response[peak, 0]:.2f}, at {_place(each, at[peak])}"])


def limits_as_text(each: Measured, at_threshold: bool) -> str:
    """From where to where the response stays above the threshold, or above half, in a line."""
    first, second = _limits(each, at_threshold)
    return first if first == second else f"from {first} to {second}"


def _limits(each: Measured, at_threshold: bool) -> tuple[str, str]:
    """The same as two cells, with intervals."""
    if at_threshold and math.isnan(each.level[0]):
        return "", ""
    ends, said = (each.sweep.at[0], each.sweep.at[-1]), []

    def number(value: float, end: float) -> str:
        if math.isnan(value):
            return "nowhere"
        return f"beyond {_place(each, end)}" if math.isinf(value) else _place(each, value)

    for end, (value, *replicates) in zip(ends, each.limits(at_threshold)):
        low, high = (invariance.limit_interval(np.array(replicates))
                     if np.isfinite(value) and not np.isnan(replicates).all() else (np.nan,) * 2)
        span = "" if math.isnan(low) else f" [{number(low, end)}, {number(high, end)}]"
        said.append(number(value, end) + span)
    return said[0], said[1]


def _place(each: Measured, value: float) -> str:
    return f"{value:.3g}" if each.sweep.name == "scale" else f"{value:+.3g}"


def _span(between: tuple[float, float], before: str = "") -> str:
    low, high = (round(end, 2) + 0.0 for end in between)  # no -0.00
    return "" if math.isnan(low) else f"{before}[{low:.2f}, {high:.2f}]"


def _known(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def as_json(each: Measured) -> dict[str, object]:
    """A sweep; None stands for what cannot be said, and for limits beyond what was tried."""
    def finite(values: Iterable[float]) -> list[float | None]:
        return [float(value) if math.isfinite(value) else None for value in values]

    found: dict[str, object] = {"name": each.sweep.name, "at": each.sweep.at.tolist()}
    for name in ("response", "share", "auc"):
        values = getattr(each, name)
        found[name] = finite(values[:, 0])
        found[f"{name}_interval"] = [finite(interval(row[1:])) for row in values]
    if each.sweep.centre is None:
        return found
    found["unit"], found["level"] = UNITS[each.sweep.name], finite(each.level[:1])[0]
    for name, at_threshold in (("half_limits", False), ("threshold_limits", True)):
        limits = each.limits(at_threshold)
        found[name] = finite(limits[:, 0])
        found[f"{name}_interval"] = [
            finite(invariance.limit_interval(row[1:])) if not np.isnan(row[1:]).all() else None
            for row in limits]
    return found


def responses(answers: Answers, found: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Every response, as `run` documents the HDF5 file."""
    images = answers.images
    arrays = {"rest/index": images.index[answers.others], "rest/response": answers.rest[0],
              "faces": images.index[answers.faces]}
    for shown, each in zip(answers.shown, found):
        name = each.sweep.name
        arrays |= {f"{name}/at": each.sweep.at, f"{name}/response": shown.response[0],
                   f"{name}/mean": each.response[:, 0],
                   f"{name}/mean_interval": np.array([interval(row[1:]) for row in each.response])}
    return arrays


def draw(found: Sequence[Measured], subject: str) -> "Figure":
    """Curves of the sweeps with intervals; the patches as a heat map.

    Those of photographs have one scale of responses, those of heads another. A scanned head is
    drawn beside the rendered ones.
    """
    from matplotlib.figure import Figure
    panels: dict[str, list[Measured]] = {}
    for each in sorted(found, key=lambda each: each.sweep.centre is None):  # patches last
        panels.setdefault(each.sweep.name.removeprefix(SCANNED), []).append(each)
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.7 * across, 3.3 * down + 0.5), layout="constrained")
    entitle(figure, f"{subject}\nresponse: 0 to other images, 1 to the unchanged ones")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for number, (axes, shown) in enumerate(zip(places, panels.values())):
        axes.set_title(title(shown[0]), fontsize=10)
        if shown[0].sweep.centre is None:
            _draw_patches(axes, shown[0])
            continue
        for each in shown:
            _draw_curve(axes, each)
        alike = [each for name, some in panels.items() for each in some
                 if (name in HEADS) == (shown[0].sweep.name in HEADS)
                 and each.sweep.centre is not None]
        axes.set(xlabel=UNITS[shown[0].sweep.name], ylim=_scale(alike))
        if len(shown) > 1:
            axes.legend(fontsize=8)
        if number % across == 0:
            axes.set_ylabel("response")
    for axes in places[len(panels):]:
        axes.set_axis_off()
    return figure


def _scale(curves: Sequence[Measured]) -> tuple[float, float]:
    """Ends of the responses of some curves: whole intervals, unless these would make them flat."""
    means = np.concatenate([each.response[:, 0] for each in curves] + [np.array([0, 1])])
    spans = np.array([interval(row[1:]) for each in curves for row in each.response])
    room = np.ptp(means)
    ends = np.clip(np.append(spans[np.isfinite(spans)], means), means.min() - room,
                   means.max() + room)
    margin = 0.05 * np.ptp(ends)
    return float(ends.min() - margin), float(ends.max() + margin)


def _draw_curve(axes: "Axes", each: Measured) -> None:
    at, mean = each.sweep.at, each.response[:, 0]
    scanned = each.sweep.name.startswith(SCANNED)
    low, high = np.array([interval(row[1:]) for row in each.response]).T
    axes.fill_between(at, low, high, alpha=0.25, color=CURVE, linewidth=0)
    axes.plot(at, mean, "s:" if scanned else "o-", color=SCAN if scanned else CURVE, markersize=3.5,
              label="one scanned head" if scanned else "rendered heads")
    for level in (0, 1):
        axes.axhline(level, color="grey", linewidth=0.8, linestyle=":")
    if not math.isnan(each.level[0]):
        axes.axhline(each.level[0], color=LINE, linewidth=1.2, linestyle="--")
    if each.sweep.name == "scale":
        axes.set_xscale("log")
        ticks = [tick for tick in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4) if at[0] <= tick <= at[-1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)


def _draw_patches(axes: "Axes", each: Measured) -> None:
    at, mean = each.sweep.at, each.response[:, 0]
    axes.imshow(mean.reshape(PATCH_PLACES, PATCH_PLACES), cmap="cividis")
    for place, value in zip(np.ndindex(PATCH_PLACES, PATCH_PLACES), mean):
        axes.text(place[1], place[0], f"{value:.2f}", ha="center", va="center", fontsize=8,
                  color="black" if value > (mean.min() + mean.max()) / 2 else "white")
    axes.set_xticks(range(PATCH_PLACES), [f"{left:g}" for left in at[:PATCH_PLACES, 1]])
    axes.set_yticks(range(PATCH_PLACES), [f"{top:g}" for top in at[::PATCH_PLACES, 0]])
    axes.set_xlabel("left and top edge of the patch, pixels")
