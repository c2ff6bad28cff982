"""The atlas of neurons: what is known of each of some neurons, found in few passes.

The network sees the test images once. What the chosen neurons answer goes to a temporary file,
(neuron, image); everything that needs a neuron's whole distribution (thresholds, quantiles, areas)
reads that file, a neuron or a block of images at a time. A second pass over the pixels, without the
network, takes the means and the thumbnails. So memory grows with the number of chosen neurons, and
not with the images but for their labels.

Where halves of the test set can be told apart, a neuron's threshold is chosen on the development
half, and all that is shown of it is of the final half.
"""
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.close_look import BINS, bin_of
from hpclcae.experiments.labelled_images import (DEVELOPMENT, FINAL, LabelledImages, group_weights,
                                                 interval, ratio)
from hpclcae.experiments.scan import Neuron, asked
from hpclcae.experiments.single_neurons import Tally, find_ranges
from hpclcae.experiments.training_images import read_ahead
from hpclcae.utils.progress import progress

#: Test images that are shown of a neuron: strongest, around two quantiles, weakest.
GROUPS = (("highest", 1.0, 12), ("90 % quantile", 0.9, 6), ("median", 0.5, 6), ("lowest", 0.0, 6))
HIGHEST = 0.01    # share of the images whose mean is shown
LEAST_MEAN = 8    # but at least so many images
ALIKE = 6         # neurons that respond most alike
HISTOGRAM = 2 * BINS
REPLICATES = 1000
KINDS = 10        # of images, whose shares are listed one by one
MEAN_SIDE = 96    # pixels, at most
BLOCK = 1000      # images at a time, where their pixels are not needed


@dataclass(frozen=True)
class Facts:
    """What the test images say about one neuron; rates and accuracies are shares from 0 to 1.

    What cannot be said is NaN.
    """
    neuron: Neuron
    lowest: float            # response to the judged images
    highest: float
    rest: float              # mean response to those without the concept
    threshold: float         # above it the neuron says that the concept is there
    accuracy: float          # of the judged images
    interval: tuple[float, float]
    auc: float
    fires: np.ndarray        # float64 (kind,)
    histogram: np.ndarray    # int64 (label, bin), equal bins from lowest to highest
    shown: tuple[np.ndarray, ...]      # positions in the dataset (image,), one for each of GROUPS
    responses: tuple[np.ndarray, ...]  # to these
    top: np.ndarray          # positions of the highest HIGHEST
    groups: int              # persons and photographs that these are of
    alike: tuple[tuple[int, float], ...]  # other neurons by number, and their correlation


@dataclass(frozen=True)
class Judged:
    """The images that neurons are judged by, and what they show."""
    images: LabelledImages
    mine: np.ndarray         # bool (image,): of the labelled images those that judge
    kinds: tuple[str, ...]   # what they show, the most frequent first
    kind: np.ndarray         # int64 (image,): of the labelled images
    honest: bool             # the threshold is chosen on others


def judged_by(test: Dataset, images: LabelledImages) -> Judged:
    """Say which images judge, and sort them by what they show."""
    honest = not images.why_not_honest
    mine = images.half == FINAL if honest else np.ones(images.half.size, bool)
    names = test.kind
    if names is None:
        names = np.array(test.label_names or ["other", "concept"])[np.asarray(test.labels)]
    names = names[images.index]
    found, counts = np.unique(names[mine], return_counts=True)
    kept = found[np.argsort(-counts, kind="stable")]
    if kept.size > KINDS:
        kept = np.append(kept[:KINDS - 1], "others")
    number = {name: place for place, name in enumerate(kept)}
    kind = np.array([number.get(name, kept.size - 1) for name in names])
    return Judged(images, mine, tuple(map(str, kept)), kind, honest)


def choose(scores: Sequence[np.ndarray], limit: int, named: Sequence[Neuron] = ()) -> list[Neuron]:
    """Choose neurons of every stage: all, or the most selective and a regular sample.

    Parameters
    ----------
    scores : sequence of arrays (row, col, map)
        Of every stage; the higher, the more selective.
    limit : int
        At most so many of a stage, half of them the most selective.
    named : sequence of Neuron
        These, too.
    """
    chosen: list[Neuron] = []
    for number, score in enumerate(scores, start=1):
        wanted = [int(np.ravel_multi_index(neuron.where, score.shape)) for neuron in named
                  if neuron.stage == number]
        best = np.argsort(-score.ravel(), kind="stable")[:(limit + 1) // 2].tolist()
        places = {*best, *regular_sample(score.shape, limit - len(best)), *wanted}
        if score.size <= limit:
            places = set(range(score.size))
        for place in sorted(places):
            row, col, map_ = map(int, np.unravel_index(place, score.shape))
            chosen.append(Neuron(number, (row, col, map_)))
    return chosen


def regular_sample(shape: tuple[int, ...], count: int) -> list[int]:
    """Flat indices of about `count` neurons of (row, col, map): an even grid, and maps in turn."""
    rows, cols, maps = shape
    down = min(rows, max(1, isqrt(count)))
    across = min(cols, max(1, count // down))
    turns = min(maps, -(-count // (down * across)))
    grid = [(row, col) for row in _spread(rows, down) for col in _spread(cols, across)]
    return [int((row * cols + col) * maps + (number + turn * maps // turns) % maps)
            for turn in range(turns) for number, (row, col) in enumerate(grid)][:count]


def _spread(size: int, count: int) -> np.ndarray:
    """`count` places that divide `size` evenly; each in the middle of its part."""
    return ((np.arange(count) + 0.5) * size / count).astype(int)


def parts_of(count: int, size: int) -> list[slice]:
    """Slices of at most `size` that make up `count`."""
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _batches(test: Dataset, places: np.ndarray, batch: int, label: str
             ) -> Iterator[tuple[slice, np.ndarray]]:
    """Read images batch by batch, with progress: which of the places, and their pixels."""
    parts = parts_of(places.size, batch)
    pixels = read_ahead(test, [places[part] for part in parts])
    return zip(progress(parts, label, unit="batches"), pixels)


def look_at(model: Model, test: Dataset, judged: Judged, neurons: Sequence[Neuron],
            batch: int, seed: int = 0) -> list[Facts]:
    """Find what the test images say about some neurons; one pass of the network.

    Raises
    ------
    InputError
        A response is not finite.
    """
    images, respond = judged.images, asked(model, neurons)
    with tempfile.TemporaryFile() as file:
        store = np.memmap(file, np.float32, "w+", shape=(len(neurons), images.index.size))
        for part, pixels in _batches(test, images.index, batch, "neurons"):
            store[:, part] = respond(pixels)
        facts = _facts(store, judged, neurons, seed)
        del store
    return facts


def _facts(store: np.ndarray, judged: Judged, neurons: Sequence[Neuron],
           seed: int) -> list[Facts]:
    """Sum up the responses (neuron, image)."""
    images, mine = judged.images, judged.mine
    parts = parts_of(images.index.size, BLOCK)

    def blocks() -> Iterator[tuple[list[np.ndarray], slice]]:
        for part in parts:
            yield [store[:, None, None, part]], part
    (lowest, highest, _), = find_ranges(blocks(), images)
    choosing = 1 if judged.honest else 0  # thresholds lie in the range of the development half
    tally = Tally(lowest[choosing], highest[choosing], images.concept, images.half)
    for (block,), part in blocks():
        tally.add(block, part)
    halves = (DEVELOPMENT,) if judged.honest else (DEVELOPMENT, FINAL)
    number = tally.correct(halves).argmax(axis=1)
    threshold = tally.threshold(np.arange(len(neurons)), number)
    accuracy, intervals = _accuracies(store, judged, tally, number)
    alike = _most_alike(store, mine)
    concept, places = images.concept[mine], images.index[mine]
    facts = []
    for n, neuron in enumerate(neurons):
        answers = np.asarray(store[n])[mine].astype(np.float64)
        order = np.argsort(-answers, kind="stable")
        shown = [_around(order, quantile, count) for _, quantile, count in GROUPS]
        says = bin_of(answers, lowest[choosing, n], highest[choosing, n], BINS) > number[n]
        top = order[:max(min(LEAST_MEAN, order.size), round(HIGHEST * order.size))]
        where = bin_of(answers, answers.min(), answers.max(), HISTOGRAM)
        kinds = len(judged.kinds)
        of_kind = judged.kind[mine]
        facts.append(Facts(
            neuron, float(answers.min()), float(answers.max()), float(answers[~concept].mean()),
            float(threshold[n]),
            float(accuracy[n]), intervals[n], area(answers, concept),
            ratio(np.bincount(of_kind, says, kinds), np.bincount(of_kind, minlength=kinds)),
            np.stack([np.bincount(where[concept == label], minlength=HISTOGRAM)
                      for label in (False, True)]),
            tuple(places[at] for at in shown), tuple(answers[at] for at in shown),
            places[top], np.unique(images.key[mine][top]).size, alike[n]))
    return facts


def _accuracies(store: np.ndarray, judged: Judged, tally: Tally, number: np.ndarray
                ) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Accuracy of every neuron on the judged images, and its interval."""
    images = judged.images
    replicates = 0 if images.why_no_interval else REPLICATES
    right = np.zeros((len(store), 1 + replicates))
    total = np.zeros(1 + replicates)
    for part in parts_of(images.index.size, BLOCK):
        mine = judged.mine[part]
        weights = np.hstack([np.ones((mine.sum(), 1)),
                             group_weights(images.key[part], replicates)[mine]])
        places = bin_of(store[:, part][:, mine], tally.lowest[:, None], tally.highest[:, None],
                        BINS)
        right += ((places > number[:, None]) == images.concept[part][mine]) @ weights
        total += weights.sum(axis=0)
    shares = ratio(right, np.broadcast_to(total, right.shape))
    return shares[:, 0], [interval(row) for row in shares[:, 1:]]


def _most_alike(store: np.ndarray, mine: np.ndarray) -> list[tuple[tuple[int, float], ...]]:
    """Of every neuron the others with the highest correlation, strongest first."""
    count, neurons = 0, len(store)
    sums, products = np.zeros(neurons), np.zeros((neurons, neurons))
    first = np.asarray(store[:, 0], np.float64)[:, None]  # keeps the sums of squares small
    for part in parts_of(mine.size, BLOCK):
        block = store[:, part][:, mine[part]] - first
        count += block.shape[1]
        sums += block.sum(axis=1)
        products += block @ block.T
    covariance = products - np.outer(sums, sums) / max(1, count)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    scale = np.outer(deviation, deviation)
    correlation = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    np.fill_diagonal(correlation, -np.inf)
    nearest = np.argsort(-correlation, axis=1, kind="stable")[:, :min(ALIKE, neurons - 1)]
    return [tuple((int(other), float(row[other])) for other in near)
            for row, near in zip(correlation, nearest)]


def _around(order: np.ndarray, quantile: float, count: int) -> np.ndarray:
    """`count` images of those in `order`, from the strongest, around a quantile of responses."""
    count = min(count, order.size)
    middle = round((1 - quantile) * (order.size - 1))
    first = int(np.clip(middle - count // 2, 0, order.size - count))
    return order[first:first + count]


def area(answers: np.ndarray, concept: np.ndarray) -> float:
    """Area under the ROC curve; a tie counts half. NaN where a label is missing."""
    found, place = np.unique(answers, return_inverse=True)
    having, without = (np.bincount(place, weights=concept == label, minlength=found.size)
                       for label in (True, False))
    below = without.cumsum() - without / 2
    return float(ratio(np.array((having * below).sum()), np.array(having.sum() * without.sum())))


def shrunk(images: np.ndarray, most: int) -> np.ndarray:
    """Images (image, row, col, channel) of side `most` at the largest: means of square blocks."""
    step = -(-images.shape[1] // most)
    if step == 1:
        return images.astype(np.float32)
    side = images.shape[1] // step
    cut = images[:, :side * step, :side * step].astype(np.float32)
    return cut.reshape(len(images), side, step, side, step, -1).mean(axis=(2, 4))


def look_at_pixels(test: Dataset, judged: Judged, facts: Sequence[Facts], batch: int,
                   take: Callable[[int, np.ndarray], None]) -> np.ndarray:
    """Means of the images with the highest responses; one pass over the pixels.

    Each image counts with mean 0 and deviation 1.

    Parameters
    ----------
    take : callable
        Gets every image that is shown: its position in the dataset, and its pixels.

    Returns
    -------
    float array (2 + neuron, row, col, channel)
        Means of the judged images with the concept, of those without it, and of every neuron's.
    """
    places, concept = judged.images.index[judged.mine], judged.images.concept[judged.mine]
    shown = np.unique(np.concatenate([at for fact in facts for at in fact.shown]))
    totals: np.ndarray | None = None
    counts = np.zeros(2 + len(facts))
    for part, pixels in _batches(test, places, batch, "pictures"):
        mine = places[part]
        for at in np.flatnonzero(np.isin(mine, shown)):
            take(int(mine[at]), pixels[at])
        small = shrunk(pixels, MEAN_SIDE)
        flat = small.reshape(len(small), -1)
        flat = flat - flat.mean(axis=1, keepdims=True)
        flat /= np.maximum(flat.std(axis=1, keepdims=True), 1e-9)
        member = np.stack([concept[part], ~concept[part],
                           *(np.isin(mine, fact.top) for fact in facts)]).astype(np.float32)
        if totals is None:
            totals = np.zeros((len(member), flat.shape[1]))
        totals += member @ flat
        counts += member.sum(axis=1)
    assert totals is not None
    means = totals / np.maximum(1, counts)[:, None]
    return means.reshape(len(means), *small.shape[1:])
