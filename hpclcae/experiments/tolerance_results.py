"""What an experiment on tolerance leaves: tables, numbers, a figure; tolerance.py computes."""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import DEVELOPMENT, FINAL
from hpclcae.experiments import tolerance
from hpclcae.experiments.labelled_images import HALF_NAMES, LabelledImages, interval
from hpclcae.experiments.neurons import concept_of
from hpclcae.experiments.record import Record
from hpclcae.experiments.scan import Neuron
from hpclcae.experiments.tolerance import PATCH_PLACES, Measured
from hpclcae.utils.errors import InputError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = ("hpclcae data frames SOURCES --split test --size {} --place 0 --face-size 0.33 0.42 "
          "makes such")
UNITS = {"shift x": "pixels to the right", "shift y": "pixels down", "scale": "times as large"}


@dataclass(frozen=True)
class Settings:
    """How tolerance is measured."""
    final: bool = False    # the final half instead of the development half
    step: int = 4          # pixels from shift to shift
    scales: tuple[float, ...] = tolerance.SCALES
    patch: int | None = None  # side, pixels; None: PATCH of the window
    batch: int = 100       # images at a time
    seed: int = 0          # of the bootstrap
    bootstrap: int = 1000  # replicates


def run(model: Model, neuron: Neuron, threshold: float | None, path: str, settings: Settings,
        record: Record) -> None:
    """Measure, print, and write what the record holds.

    The HDF5 file has a group ``rest`` with ``index`` (image,), the positions in the dataset, and
    ``response`` (image,); and one for every sweep, ``shift x``, ``shift y``, ``scale`` and
    ``patch``: ``at`` (view,), ``index`` (image,), ``response`` (view, image) and, in units,
    ``mean`` (view,) and ``mean_interval`` (view, 2).

    Parameters
    ----------
    record : Record
        With the figure "curves".

    Raises
    ------
    InputError
        Pillow is missing; the set does not fit, has no labels or no halves; a result cannot be
        written.
    """
    require("PIL.Image", "images", "scaling frames")
    with Dataset(path) as frames:
        size = model.config.data.size
        require_larger(frames, size, model.config.data.channels)
        images = half_of(frames, settings)
        scales = [scale for scale in settings.scales if tolerance.fits(scale, size, frames.size)]
        patch = round(tolerance.PATCH * size) if settings.patch is None else settings.patch
        if not 1 <= patch < size:
            raise InputError(f"--patch {patch}: from 1 to {size - 1}, the network sees {size} "
                             "pixels")
        swept = tolerance.sweeps(size, frames.size, settings.step, scales, patch)
        record.about(frames)
        record.text(describe(frames, images, neuron, threshold, settings))
        for scale in sorted(set(settings.scales) - set(scales)):
            record.text(f"scale {scale:g} is left out: of {frames.size} pixels it wants "
                        f"{math.ceil(size / scale)}")
        rest, shown = tolerance.respond(frames, images, swept, size, neuron.detector(model),
                                        settings.batch)
        concept = concept_of(frames)
    found = tolerance.measure(swept, rest, shown, images, threshold, settings.bootstrap)
    for each in found:
        add_table(record, each)
    record.figure(lambda: draw(found, f"neuron {neuron} at step {model.step:,}: {concept}, "
                                      f"{HALF_NAMES[settings.final]}"), "curves",
                  f"Mean response of neuron {neuron} to {concept} that are shifted, scaled or "
                  "covered: 0 is that to other images, 1 that to unchanged ones; 95 % intervals by "
                  f"{images.resampled}.",
                  "Three curves with their intervals and a heat map of five by five patches; "
                  + "; ".join(f"{each.sweep.name} stays above half {widths_as_text(each)}"
                              for each in found if each.sweep.centre is not None))
    record.values |= {
        "neuron": str(neuron), "window": size, "patch": patch, "threshold": threshold,
        "concept": concept, "half": HALF_NAMES[settings.final],
        "unit": "response: 0 the mean of the rest, 1 that of the concept in the middle; share: "
                "above the threshold; half_widths: pixels, or ratio; null: beyond what was tried",
        "sweeps": [as_json(each) for each in found], "resampled": images.resampled,
        "images_with_concept": int(images.concept.sum()), "images_without": int(rest.size),
        "why_no_interval": images.why_no_interval, "settings": vars(settings)}
    record.arrays |= responses(images, rest, shown, found)
    record.save()


def require_larger(frames: Dataset, size: int, channels: int) -> None:
    """Check that the network's window has room in the frames.

    Raises
    ------
    InputError
        It has none, or channels differ.
    """
    if frames.channels != channels:
        raise InputError(f"{frames.path} holds images of {frames.channels} channels, the network "
                         f"takes {channels}")
    if frames.size <= size:
        raise InputError(f"{frames.path} holds images of {frames.size}x{frames.size}, and only "
                         f"larger ones than the network's {size}x{size} leave room for shifts: "
                         + FRAMES.format(size * 3 // 2))


def half_of(frames: Dataset, settings: Settings) -> LabelledImages:
    """The labelled images of one half of a dataset.

    Raises
    ------
    InputError
        It has no labels, or no halves, or labels of one kind only.
    """
    if frames.labels is None:
        raise InputError(f"{frames.path} has no labels, so there is no concept to shift: "
                         + FRAMES.format(frames.size))
    if frames.half is None:
        raise InputError(f"{frames.path} does not say which half is for development: make it "
                         "again (hpclcae data frames)")
    wanted = FINAL if settings.final else DEVELOPMENT
    labels = np.where(frames.half == wanted, frames.labels, -1)
    try:
        return LabelledImages.of(labels, frames.groups, settings.seed, frames.half)
    except InputError as error:
        raise InputError(f"{frames.path}, {HALF_NAMES[wanted]}: {error}") from error


def describe(frames: Dataset, images: LabelledImages, neuron: Neuron, threshold: float | None,
             settings: Settings) -> str:
    """Say what is looked at."""
    concept, shows = concept_of(frames), images.concept
    known = f"threshold {threshold:.4g}" if threshold is not None else (
        "no threshold is known of it, so no shares above it")
    lines = [f"neuron {neuron}; {known}",
             f"{frames.path}, {HALF_NAMES[settings.final]}: {shows.sum():,} images of "
             f"{images.count_groups(shows):,} {images.resampled} show '{concept}', "
             f"{(~shows).sum():,} of {images.count_groups(~shows):,} do not",
             f"framing: {frames.framing}"]
    if images.why_no_interval:
        lines.append(f"no intervals: {images.why_no_interval}")
    return "\n".join(lines)


def add_table(record: Record, each: Measured) -> None:
    """Add the table of a sweep, with its half-widths; patches are a grid."""
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
    rows = [[f"{place:+g}" if name != "scale" else f"{place:g}", f"{response[0]:.2f}",
             _span(interval(response[1:])), _known(share[0] * 100, ".0f"), f"{auc[0]:.2f}",
             _span(interval(auc[1:]))]
            for place, response, share, auc in zip(at, each.response, each.share, each.auc)]
    peak = each.response[:, 0].argmax()
    record.table(f"{name[0].upper()}{name[1:]}, {UNITS[name]}",
                 [name, "response", "95 % interval", "above threshold, %", "AUC", "95 % interval"],
                 rows, [f"above half {widths_as_text(each)}; highest, "
                        f"{each.response[peak, 0]:.2f}, at {at[peak]:g}"])


def widths_as_text(each: Measured) -> str:
    """From where to where the response stays above half, with intervals."""
    ends, said = (each.sweep.at[0], each.sweep.at[-1]), []
    sign = "" if each.sweep.name == "scale" else "+"

    def number(value: float, end: float) -> str:
        return f"beyond {end:{sign}g}" if math.isinf(value) else f"{value:{sign}.3g}"

    for end, (value, *replicates) in zip(ends, each.half_widths()):
        low, high = tolerance.width_interval(np.array(replicates)) if replicates else (np.nan,) * 2
        span = "" if math.isnan(low) else f" [{number(low, end)}, {number(high, end)}]"
        said.append(number(value, end) + span)
    return f"from {said[0]} to {said[1]}"


def _span(between: tuple[float, float], before: str = "") -> str:
    low, high = (round(end, 2) + 0.0 for end in between)  # no -0.00
    return "" if math.isnan(low) else f"{before}[{low:.2f}, {high:.2f}]"


def _known(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def as_json(each: Measured) -> dict[str, object]:
    """A sweep; None stands for what cannot be said, and for half-widths beyond what was tried."""
    def finite(values: Iterable[float]) -> list[float | None]:
        return [float(value) if math.isfinite(value) else None for value in values]

    found: dict[str, object] = {"name": each.sweep.name, "at": each.sweep.at.tolist()}
    for name in ("response", "share", "auc"):
        values = getattr(each, name)
        found[name] = finite(values[:, 0])
        found[f"{name}_interval"] = [finite(interval(row[1:])) for row in values]
    if each.sweep.centre is not None:
        widths = each.half_widths()
        found["half_widths"] = finite(widths[:, 0])
        found["half_widths_interval"] = [
            finite(tolerance.width_interval(row[1:])) if row.size > 1 else None for row in widths]
    return found


def responses(images: LabelledImages, rest: np.ndarray, shown: Sequence[np.ndarray],
              found: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Every response, as `run` documents the HDF5 file."""
    arrays = {"rest/index": images.index[~images.concept], "rest/response": rest}
    for answers, each in zip(shown, found):
        name = each.sweep.name
        arrays |= {f"{name}/at": each.sweep.at, f"{name}/index": images.index[images.concept],
                   f"{name}/response": answers, f"{name}/mean": each.response[:, 0],
                   f"{name}/mean_interval": np.array([interval(row[1:]) for row in each.response])}
    return arrays


def draw(found: Sequence[Measured], title: str) -> "Figure":
    """Curves of the shifts and of the scale with intervals; the patches as a heat map."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(15, 4), layout="constrained")
    figure.suptitle(f"{title}; response in units: 0 other images, 1 unchanged", fontsize=11)
    for axes, each in zip(figure.subplots(1, len(found)), found):
        at, mean = each.sweep.at, each.response[:, 0]
        if each.sweep.centre is None:
            heat = axes.imshow(mean.reshape(PATCH_PLACES, PATCH_PLACES), cmap="inferno")
            for place, value in zip(np.ndindex(PATCH_PLACES, PATCH_PLACES), mean):
                axes.text(*place[::-1], f"{value:.2f}", ha="center", va="center", fontsize=9,
                          color="black" if value > (mean.min() + mean.max()) / 2 else "white")
            axes.set_xticks(range(PATCH_PLACES), [f"{left:g}" for left in at[:PATCH_PLACES, 1]])
            axes.set_yticks(range(PATCH_PLACES), [f"{top:g}" for top in at[::PATCH_PLACES, 0]])
            axes.set(xlabel="left edge of the patch, pixels", ylabel="top edge, pixels")
            figure.colorbar(heat, ax=axes, fraction=0.046)
            continue
        low, high = np.array([interval(row[1:]) for row in each.response]).T
        axes.fill_between(at, low, high, alpha=0.25, color="#1b9e3e", linewidth=0)
        axes.plot(at, mean, "o-", color="#1b9e3e", markersize=4)
        for level in (0, 0.5, 1):
            axes.axhline(level, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"{each.sweep.name}, {UNITS[each.sweep.name]}", ylabel="response")
    return figure
