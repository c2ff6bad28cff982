"""What labels can still tell from every stage: where in a network is the concept lost?

A probe is least squares with the labels of training images, damped, on all responses of a stage at
once (or on the prepared pixels). It is no neuron, and says nothing about what was learned without
labels; but where no neuron finds a concept, the stage above which probes fail is the one that has
thrown it away.

A stage of more than `MOST` units is sketched: every unit is added, with a random sign, to one of
`MOST` sums, and the probe learns on these. It is a linear function of the units all the same.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.neurons import Settings, training_labels
from hpclcae.experiments.rivals import Rival
from hpclcae.experiments.training_images import prepared_ahead, sample_alike
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress

MOST = 2048                                     # inputs of a probe
PENALTIES = 0.001, 0.01, 0.03, 0.1, 0.3, 1, 10  # of the weights, in units of a unit's variance
HELD_OUT = 1 / 3                                # of persons and photographs, to choose among them


@dataclass(frozen=True)
class Sketch:
    """Standardises the units of a level, and adds them up to `MOST` sums where there are more.

    Attributes
    ----------
    mean, scale : float64 (unit,)
        What is subtracted, and what the rest is multiplied by: one over the deviation, with a sign.
    order : int64 (unit,)
        Units in the order in which they are added up.
    first : int64 (input,)
        Where in that order each sum begins.
    """
    mean: np.ndarray
    scale: np.ndarray
    order: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, count: int, sums: np.ndarray, squares: np.ndarray, seed: int) -> "Sketch":
        """From sums and sums of squares (unit,) over so many images; constant units count 0."""
        rng = np.random.default_rng(seed)
        mean = sums / count
        deviation = np.sqrt(np.maximum(squares / count - mean ** 2, 0))
        known = deviation > 1e-6 * np.abs(mean)
        signs = rng.choice([-1.0, 1.0], mean.size) if mean.size > MOST else np.ones(mean.size)
        scale = np.divide(signs, deviation, out=np.zeros_like(mean), where=known)
        edges = np.linspace(0, mean.size, min(mean.size, MOST) + 1).astype(int)[:-1]
        order = rng.permutation(mean.size) if mean.size > MOST else np.arange(mean.size)
        return cls(mean, scale, order, edges)

    def __call__(self, units: np.ndarray) -> np.ndarray:
        """Inputs float32 (input, image) from units (unit, image)."""
        standard = ((units - self.mean[:, None]) * self.scale[:, None]).astype(np.float32)
        return np.add.reduceat(standard[self.order], self.first, axis=0)

    def on_units(self, weights: np.ndarray) -> np.ndarray:
        """What weights (input,) are as weights of the units less their means (unit,)."""
        lengths = np.diff(np.append(self.first, self.order.size))
        found = np.empty(self.order.size)
        found[self.order] = np.repeat(weights, lengths)
        return found * self.scale


@dataclass(frozen=True)
class Probe:
    """A linear function of all units of a level.

    Attributes
    ----------
    name : str
        Of the level.
    mean, weights : float32 (unit,)
    inputs : int
        Of least squares: units, or sums of them.
    images : int
        That it has learned from.
    penalty : float
        That told the persons and photographs apart best which it did not learn from.
    """
    name: str
    mean: np.ndarray
    weights: np.ndarray
    inputs: int
    images: int
    penalty: float

    def __call__(self, units: np.ndarray) -> np.ndarray:
        """Its response, as a stage of one neuron (1, 1, 1, image), to units (unit, image)."""
        return (self.weights @ (units - self.mean[:, None]))[None, None, None]


def levels(model: Model, x: np.ndarray) -> list[np.ndarray]:
    """Units (unit, image) of every level: prepared pixels, then each stage."""
    return [level.reshape(-1, x.shape[-1]) for level in (x, *model.responses(x))]


def train_probes(model: Model, train: Dataset, test: Dataset, settings: Settings) -> list[Probe]:
    """Learn a probe of every level, from training images that show the concept as often as the
    test does.

    Two passes: one for means and deviations, one for the products of least squares, so memory does
    not grow with the images.

    Parameters
    ----------
    settings : Settings
        ``training_images`` at most, ``batch``, ``seed``.

    Raises
    ------
    InputError
        The training images have no labels about the concept, or of one kind only, or all of a kind
        are of one person or photograph; or none are asked for.
    """
    if not settings.training_images:
        raise InputError("--training-images 0: a probe learns from labelled training images")
    labels, why_not = training_labels(train, test)
    if labels is None:
        raise InputError(f"a probe learns from labels, and {why_not}: name labelled training "
                         "images with --train")
    known = test.labels[test.labels >= 0] if test.labels is not None else np.zeros(1)
    places = sample_alike(labels, float(np.mean(known == 1)), settings.training_images,
                          settings.seed)
    shown = labels[places] == 1
    rng = np.random.default_rng(settings.seed)
    groups, member = np.unique(train.groups[places], return_inverse=True)
    held_out = (rng.random(groups.size) < HELD_OUT)[member]
    for half, name in ((held_out, "held out"), (~held_out, "learned from")):
        if len({*shown[half].tolist()}) < 2:
            raise InputError(f"{train.path}: of the images that are {name} to choose a penalty "
                             "none, or all, show the concept: a probe needs more persons and "
                             "photographs, or more images (--training-images)")
    sketches = _sketches(model, train, places, settings)
    sizes = [sketch.first.size for sketch in sketches]
    # a matrix (input, input) and a vector of each level, for images learned from and held out
    grams = [[np.zeros((size, size)) for size in sizes] for _ in range(2)]
    products = [[np.zeros(size) for size in sizes] for _ in range(2)]
    wanted = shown - shown.mean()
    for part, x in _passes(model, train, places, settings, "probes: products"):
        for number, (sketch, units) in enumerate(zip(sketches, levels(model, x))):
            inputs = sketch(units)
            for kind, which in enumerate((~held_out[part], held_out[part])):
                mine = np.ascontiguousarray(inputs[:, which])
                grams[kind][number] += mine @ mine.T
                products[kind][number] += mine @ wanted[part][which]
    names = ["prepared pixels", *(f"stage {number}" for number in range(1, len(sizes)))]
    return [_solved(name, sketch, both, products_of_both, held_out)
            for name, sketch, both, products_of_both in zip(names, sketches, zip(*grams),
                                                            zip(*products))]


def rivals(model: Model, probes: Sequence[Probe]) -> list[Rival]:
    """The probes as something to be judged beside the network's neurons."""
    def rival(number: int, probe: Probe) -> Rival:
        return Rival(f"probe: {probe.name}", "",
                     lambda pixels: [probe(levels(model, model.prepare(pixels))[number])],
                     f"{probe.name}: {probe.weights.size:,} units"
                     + (f" in {probe.inputs:,} sums" if probe.inputs < probe.weights.size else "")
                     + f", {probe.images:,} training images, penalty {probe.penalty:g}.")
    return [rival(number, probe) for number, probe in enumerate(probes)]


def _passes(model: Model, train: Dataset, places: np.ndarray, settings: Settings,
            label: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Parts of the chosen images, prepared, with progress."""
    parts = [slice(first, min(first + settings.batch, places.size))
             for first in range(0, places.size, settings.batch)]
    images = prepared_ahead(model, train, [places[part] for part in parts])
    return zip(parts, progress(images, label, len(parts), "batches"))


def _sketches(model: Model, train: Dataset, places: np.ndarray,
              settings: Settings) -> list[Sketch]:
    sums: list[np.ndarray] = []
    squares: list[np.ndarray] = []
    for _, x in _passes(model, train, places, settings, "probes: means"):
        found = levels(model, x)
        sums = sums or [np.zeros(len(units)) for units in found]
        squares = squares or [np.zeros(len(units)) for units in found]
        for number, units in enumerate(found):
            sums[number] += units.sum(axis=1, dtype=np.float64)
            squares[number] += np.einsum("ui,ui->u", units, units, dtype=np.float64)
    return [Sketch.of(places.size, *both, settings.seed) for both in zip(sums, squares)]


def _solved(name: str, sketch: Sketch, grams: Sequence[np.ndarray],
            products: Sequence[np.ndarray], held_out: np.ndarray) -> Probe:
    """The damped least squares whose squared error on what is held out is the lowest."""
    (gram, held_gram), (product, held_product) = grams, products

    def solve(gram: np.ndarray, product: np.ndarray, penalty: float) -> np.ndarray:
        damped = gram + penalty * np.eye(len(gram))
        return cho_solve(cho_factor(damped, overwrite_a=True), product)
    learned = int((~held_out).sum())
    errors = []
    for penalty in PENALTIES:
        weights = solve(gram, product, penalty * learned)
        errors.append(weights @ held_gram @ weights - 2 * weights @ held_product)
    best = PENALTIES[int(np.argmin(errors))]
    weights = sketch.on_units(solve(gram + held_gram, product + held_product,
                                    best * held_out.size))
    return Probe(name, sketch.mean.astype(np.float32), weights.astype(np.float32), product.size,
                 held_out.size, best)
