"""Where selective neurons are and how many there are, beside how many chance would give.

A neuron's selectivity is the difference of its mean responses to images with and without the
concept, in units of its standard deviation over all images. Chance is what is left of it when the
labels are dealt out anew among persons and photographs: as often as there are permutations, all
neurons at once. Neurons that lie beside each other answer alike, so chance gives none at all or
many together; that is why the spread of its counts is shown, and not only their mean.

The threshold is the lowest above which chance gives at most FALSE of what is found (false discovery
rate, estimated as in significance analysis of microarrays, Tusher 2001). Nothing grows with the
number of images but their labels.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import probing
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.neurons import Settings, concept_of, labelled_images
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.record import Record
from hpclcae.experiments.training_images import prepared_ahead
from hpclcae.utils.errors import InputError
from hpclcae.utils.text import drawable, entitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERMUTATIONS = 200
MOST = 2 ** 25   # numbers that the sums of all permutations may take, 8 bytes each
FALSE = 0.05     # of the neurons that are called selective, expected by chance
LEVELS = 200     # thresholds that are tried, from 0 to the largest selectivity
FOUND, CHANCE = "#0072b2", "#d55e00"  # told apart by all colour-blind people


@dataclass(frozen=True)
class StageMap:
    """The neurons of one stage."""
    selectivity: np.ndarray  # float64 (row, col, map)
    levels: np.ndarray       # float64 (level,): thresholds
    found: np.ndarray        # int64 (level,): neurons above them
    chance: np.ndarray       # int64 (level, permutation): the same with labels dealt out anew
    level: int | None        # of the threshold; None: chance gives as many at every one

    @property
    def selective(self) -> np.ndarray:
        """Which neurons are above the threshold, bool (row, col, map)."""
        if self.level is None:
            return np.zeros(self.selectivity.shape, bool)
        return self.selectivity > self.levels[self.level]


def dealt_labels(images: LabelledImages, permutations: int, seed: int) -> np.ndarray:
    """Labels of images, float32 (image, 1 + permutation): as they are, then dealt out anew.

    A person or photograph keeps its images together; one that has both kinds counts as what most
    of them show.
    """
    _, member = np.unique(images.key, return_inverse=True)
    shows = np.bincount(member, images.concept) > np.bincount(member) / 2
    rng = np.random.default_rng(seed)
    dealt = np.array([rng.permutation(shows) for _ in range(permutations)]).reshape(-1, shows.size)
    return np.hstack([images.concept[:, None], dealt.T[member]]).astype(np.float32)


def examine(model: Model, test: Dataset, images: LabelledImages, permutations: int, batch: int,
            seed: int, ranks: Ranks = Ranks()) -> list[StageMap]:
    """The selectivity of every neuron, and what chance would give; one pass over the images.

    Processes share the images, and blocks the neurons; the sums are those of all on each.

    Raises
    ------
    InputError
        A response is not finite; there are fewer images than processes.
    """
    held = ranks.parts(model)
    neurons = sum(int(np.prod(each.shape)) for each in held)
    permutations = max(20, min(permutations, MOST // neurons - 1))
    labels = dealt_labels(images, permutations, seed)
    parts = ranks.batches(images.index.size, batch)
    prepared = prepared_ahead(model, test, [images.index[part] for part in parts])
    sums: list[np.ndarray] = []  # of each stage (neuron, 1 + permutation): with the concept
    both: list[np.ndarray] = []  # (neuron, 2): responses and their squares, of all images
    shift: list[np.ndarray] = []  # first responses, so that large means do not spoil small spreads
    for part, x in zip(ranks.progress(parts, "map", "batches"), prepared):
        flat = [y.reshape(-1, y.shape[-1]) for y in model.responses(x)]
        if not sums:
            shift = [ranks.summed(each, y.mean(axis=1, keepdims=True) * (ranks.group == 0)
                                  )[each.own] for each, y in zip(held, flat)]
            sums = [np.zeros((len(y), labels.shape[1])) for y in flat]
            both = [np.zeros((len(y), 2)) for y in flat]
        for y, middle, with_concept, all_of_them in zip(flat, shift, sums, both):
            moved = y - middle
            with_concept += moved @ labels[part].astype(y.dtype)
            all_of_them[:, 0] += moved.sum(axis=1, dtype=np.float64)
            all_of_them[:, 1] += np.einsum("ni,ni->n", moved, moved, dtype=np.float64,
                                           casting="same_kind")
    count, having = images.index.size, labels.sum(axis=0, dtype=np.float64)
    maps = []
    for with_concept, all_of_them, each in zip(sums, both, held):
        with_concept, all_of_them = (ranks.summed(each, values)
                                     for values in (with_concept, all_of_them))
        if not np.isfinite(all_of_them).all():
            raise InputError("a response of the network is not finite: training diverged, take an "
                             "earlier checkpoint")
        total = all_of_them[:, :1]
        variance = all_of_them[:, 1:] / count - (total / count) ** 2
        deviation = np.sqrt(np.maximum(variance, 0))
        difference = with_concept / having - (total - with_concept) / (count - having)
        maps.append(stage_map(np.divide(difference, deviation, out=np.zeros_like(difference),
                                        where=deviation > 1e-9), each.shape))
    return maps


def stage_map(selectivity: np.ndarray, shape: Sequence[int]) -> StageMap:
    """Find the threshold from selectivities (neuron, 1 + permutation)."""
    levels = np.linspace(0, max(float(selectivity[:, 0].max()), 1e-12), LEVELS, endpoint=False)
    counts = np.array([len(column) - np.searchsorted(np.sort(column), levels, "right")
                       for column in selectivity.T]).T
    found, chance = counts[:, 0], counts[:, 1:]
    good = np.flatnonzero((found > 0) & (chance.mean(axis=1) <= FALSE * found))
    return StageMap(selectivity[:, 0].reshape(tuple(shape)), levels, found, chance,
                    int(good[0]) if good.size else None)


def run(model: Model, path: str | None, permutations: int, batch: int, seed: int,
        record: Record, ranks: Ranks = Ranks()) -> None:
    """Examine every neuron, print, and write what the record holds.

    The HDF5 file has, for every stage, ``stage1/selectivity`` (row, col, map),
    ``stage1/selective`` (row, col, map), and the counts ``stage1/levels`` (level,),
    ``stage1/found`` (level,) and ``stage1/chance`` (level, permutation).

    Parameters
    ----------
    record : Record
        With the figure "stages".

    Raises
    ------
    InputError
        The set does not fit, has no labels, or of one kind only; a response is not finite.
    """
    with probing.open_test(model, path) as test:
        record.about(test)
        images = labelled_images(test, Settings(seed=seed))
        if images.why_no_interval:
            raise InputError(f"{test.path}: {images.why_no_interval}: chance cannot be told from "
                             "selectivity")
        maps = examine(model, test, images, permutations, batch, seed, ranks)
        concept = concept_of(test)
    dealt = maps[0].chance.shape[1]
    rows = [_row(number, each) for number, each in enumerate(maps, start=1)]
    record.table(
        f"Neurons that are selective for '{concept}'",
        ["stage", "neurons", "largest selectivity", "threshold", "selective", "by chance",
         "chance, 95 %", "permutations with as many", "positions with one"], rows,
        ["Selectivity: difference of the mean responses to images with and without the concept, in "
         "units of the standard deviation over all. The threshold is the lowest above which chance "
         f"gives at most {FALSE:.0%} of what is found. Chance: {dealt} times the labels were dealt "
         f"out anew among {images.groups:,} {images.resampled}; neighbours answer alike, so it "
         "gives none or many together, and 95 % of its counts are at most that of the column."])
    record.figure(lambda: draw(maps, concept), "stages",
                  f"Above: how many neurons at each position are selective for '{concept}'. Below: "
                  "how many neurons are above a threshold of selectivity, and how many chance "
                  "gives (mean and 95 % of the permutations).",
                  "; ".join(f"stage {row[0]}: {row[4]} of {row[1]} neurons are selective, chance "
                            f"gives {row[5]}" for row in rows))
    record.values |= {"concept": concept, "permutations": dealt, "false_discovery_rate": FALSE,
                      "stages": [dict(zip(("stage", "neurons", "largest", "threshold", "selective",
                                           "chance", "chance_95", "permutations_with_as_many",
                                           "positions"), row)) for row in rows]}
    for number, each in enumerate(maps, start=1):
        record.arrays |= {f"stage{number}/{name}": getattr(each, name) for name in (
            "selectivity", "selective", "levels", "found", "chance")}
    record.save()


def _row(number: int, each: StageMap) -> list[str | int | float | None]:
    at, size = each.level, each.selectivity.size
    largest = float(f"{each.selectivity.max():.3g}")
    if at is None:
        return [number, size, largest, None, 0, None, None, None, None]
    chance, found = each.chance[at], int(each.found[at])
    rows, cols, _ = each.selectivity.shape
    return [number, size, largest, float(f"{each.levels[at]:.3g}"), found,
            round(float(chance.mean()), 1), int(np.quantile(chance, 0.95, method="higher")),
            f"{(chance >= found).mean():.1%}",
            f"{each.selective.any(axis=2).sum()} of {rows * cols}"]


def draw(maps: Sequence[StageMap], concept: str) -> "Figure":
    """A column for each stage."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(4.3 * len(maps) + 0.4, 7), layout="constrained")
    entitle(figure, f"neurons that are selective for '{drawable(concept)}'")
    panels = figure.subplots(2, len(maps), squeeze=False)
    for number, (each, above, below) in enumerate(zip(maps, *panels), start=1):
        counts = each.selective.sum(axis=2)
        picture = above.imshow(counts, cmap="cividis", vmin=0, vmax=max(1, counts.max()),
                               interpolation="nearest")
        above.set_title(f"stage {number}: {counts.sum():,} of {each.selectivity.size:,}",
                        fontsize=10)
        above.set(xlabel="col", ylabel="row" if number == 1 else "")
        rows, cols = counts.shape
        above.set_yticks(range(0, rows, -(-rows // 7)))
        above.set_xticks(range(0, cols, -(-cols // 7)))
        figure.colorbar(picture, ax=above, fraction=0.046, ticks=MaxNLocator(5, integer=True),
                        label=f"selective, of {each.selectivity.shape[2]} maps")
        _draw_counts(below, each, number == 1)
    return figure


def _draw_counts(axes: "Axes", each: StageMap, first: bool) -> None:
    low, high = np.quantile(each.chance, [0.025, 0.975], axis=1)
    axes.fill_between(each.levels, low, high, color=CHANCE, alpha=0.25, linewidth=0)
    axes.plot(each.levels, each.chance.mean(axis=1), color=CHANCE, linestyle=":",
              label="chance, mean and 95 %")
    axes.plot(each.levels, each.found, color=FOUND, label="found")
    if each.level is not None:
        axes.axvline(each.levels[each.level], color="black", linestyle="--", linewidth=1,
                     label=f"threshold {each.levels[each.level]:.2g}")
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="selectivity", ylabel="neurons above it" if first else "",
             ylim=(0, 30 * axes.get_ylim()[1]))  # room for the legend
    axes.legend(fontsize=8, loc="upper right")
