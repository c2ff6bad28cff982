"""Table 2 of the paper: deep autoencoders and k-means, judged as the network's neurons are.

They learn without labels from the same training images, of which contrast is normalised and nothing
else, and are tested by `single_neurons.examine`: every hidden unit, or centroid, is a neuron.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.baselines import normalised_pixels
from hpclcae.experiments.comparison import Row, cells, judge
from hpclcae.experiments.concepts import best_of_stages
from hpclcae.experiments.neurons import Examination, Respond, concept_of
from hpclcae.experiments.record import Record
from hpclcae.experiments.training_images import read, read_ahead, sample
from hpclcae.model.autoencoder import AutoencoderLayer, Trainer, codes, layer_shapes
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.progress import progress

KMEANS_SIDE = 40        # the paper's images for k-means
MOST_UNITS = 64         # of the top of an autoencoder, where the network's top has more neurons


@dataclass(frozen=True)
class Rival:
    """Something that learned without labels: its row, its responses, what to say of it."""
    name: str
    paper: str            # row of experiments/paper.py
    respond: Respond
    note: str


def train_autoencoder(train: Dataset, layers: int, top: int, steps: int, batch: int, rate: float,
                      seed: int) -> Rival:
    """Train a locally connected sigmoid autoencoder, one layer after the other.

    Parameters
    ----------
    layers : int
        Layers of the encoder.
    top : int
        Units of the top one.
    steps : int
        Minibatches that every layer is trained on; the rate falls to zero along a cosine.

    Raises
    ------
    InputError
        Training diverged.
    """
    prepare, shapes = normalised_pixels(train.size), layer_shapes(train.size, train.channels,
                                                                  layers, top)
    stack: list[AutoencoderLayer] = []
    losses = []
    for number, shape in enumerate(shapes):
        layer, rng = AutoencoderLayer(shape, seed + number), np.random.default_rng([seed, number])
        trainer = Trainer(layer, rate)
        batches = [np.sort(rng.integers(train.count, size=batch)) for _ in range(steps)]
        label = f"autoencoder of {layers} layers, layer {number + 1}"
        loss = math.nan
        for step, pixels in enumerate(progress(read_ahead(train, batches), label, steps, "steps")):
            x = codes(stack, prepare(pixels))[-1] if stack else prepare(pixels)
            loss = trainer.step(x, (1 + math.cos(math.pi * step / steps)) / 2)
            if not math.isfinite(loss):
                raise InputError(f"{label}: the loss is not finite at step {step}: lower --rate "
                                 f"{rate:g}")
        stack.append(layer)
        losses.append(loss)
    sides = " -> ".join(f"{shape.out}x{shape.out}x{shape.maps}" for shape in shapes)
    return Rival(f"autoencoder, {layers} layers", f"{layers} layers",
                 lambda pixels: codes(stack, prepare(pixels)),
                 f"{layers} layers: {train.size}x{train.size}x{train.channels} -> {sides}; "
                 f"{steps:,} minibatches of {batch} for each, last losses "
                 + ", ".join(f"{loss:.3g}" for loss in losses) + ".")


def train_kmeans(train: Dataset, centroids: int, images: int, batch: int, seed: int) -> Rival:
    """k-means on small images: a centroid's response is minus the distance to it.

    Parameters
    ----------
    centroids : int
        Fewer where there are fewer training images.
    images : int
        Training images that are held, at most: 6.4 kB each of 40x40.

    Raises
    ------
    InputError
        scikit-learn (extra kmeans) is missing, or Pillow, where images are larger than 40x40.
    """
    cluster = require("sklearn.cluster", "kmeans", "k-means")
    side = min(KMEANS_SIDE, train.size)
    prepare = small_images(train.size, side)
    places = sample(train.count, images, seed)
    x = np.empty((places.size, side * side * train.channels), np.float32)
    parts = [slice(first, first + batch) for first in range(0, places.size, batch)]
    for part, pixels in zip(parts, read_ahead(train, [places[part] for part in parts])):
        x[part] = prepare(pixels)
    count = min(centroids, places.size)
    learner = cluster.MiniBatchKMeans(count, batch_size=max(1024, 3 * count), random_state=seed,
                                      n_init=1, max_iter=30)
    learner.fit(x)
    centres = np.asarray(learner.cluster_centers_, np.float32)
    squares = np.einsum("kp,kp->k", centres, centres)

    def respond(pixels: np.ndarray) -> Sequence[np.ndarray]:
        seen = prepare(pixels)
        distance = (squares[:, None] - 2 * centres @ seen.T
                    + np.einsum("ip,ip->i", seen, seen))
        return [-np.sqrt(np.maximum(distance, 0))[None, None]]

    shrunk = (f"images of {side}x{side}" if side == KMEANS_SIDE else
              f"images of {side}x{side}, as they are (the paper's: {KMEANS_SIDE}x{KMEANS_SIDE})")
    return Rival(f"k-means, {count:,} centroids", "k-means", respond,
                 f"k-means: {shrunk}, {places.size:,} of them, {count:,} centroids (the paper: "
                 "30,000, recalled); a centroid's response is minus the distance to it.")


def small_images(size: int, side: int) -> Callable[[np.ndarray], np.ndarray]:
    """From images uint8 (image, row, col, channel) to small ones of normalised contrast.

    Returns
    -------
    callable
        Gives float32 (image, pixel).

    Raises
    ------
    InputError
        Pillow is needed and missing.
    """
    normalise = normalised_pixels(side)
    if side < size:
        require("PIL.Image", "images", "shrinking images")

    def prepare(pixels: np.ndarray) -> np.ndarray:
        if side < size:
            images = require("PIL.Image", "images", "shrinking images")
            grey = pixels.shape[-1] == 1
            pixels = np.stack([np.asarray(images.fromarray(image[..., 0] if grey else image).resize(
                (side, side), images.Resampling.BILINEAR)) for image in pixels]
                ).reshape(len(pixels), side, side, -1)
        x = normalise(pixels)
        return x.reshape(-1, x.shape[-1]).T
    return prepare


def run(model: Model, rivals: Sequence[Rival], examination: Examination, record: Record) -> None:
    """Judge them beside the network's top stage; write the record."""
    test, settings = examination.test, examination.settings
    stages = examination.trained("trained stages", model)
    candidates = stages[-1].accuracy.size
    rows = [Row.chance(examination.images, settings.bootstrap, settings.batch)]
    for rival in rivals:
        found = examination.study(rival.name, rival.respond, candidates=candidates)
        rows.append(Row.of(rival.name, [best_of_stages(found)], rival.paper))
    rows.append(Row.of(f"trained, stage {len(stages)}", [stages[-1]], "top", trained=True))
    concept = concept_of(test)
    columns, lines = cells(rows, candidates, concept)
    images = examination.images
    notes = [rival.note for rival in rivals] + [
        "Percent right; the best of all units (or centroids), chosen on the development half with "
        "its threshold, judged on the final half. 'among': number of candidates; "
        f"'of {candidates:,}': as many as the top stage has neurons.",
        "In brackets: recalled, not confirmed; figures of the paper are of its own images."]
    notes += [f"Nothing is chosen on one half: {images.why_not_honest}."
              ] * bool(images.why_not_honest)
    record.about(test)
    record.table(f"{record.title.partition(':')[0]}, {concept}: {test.path.name}", columns, lines,
                 notes)
    record.values |= {"unit": "share", "concept": concept, "candidates": candidates,
                      "settings": vars(settings), "rows": [row.as_json(images) for row in rows],
                      "verdicts": [verdict.as_json() for verdict in judge(rows)],
                      "notes": [rival.note for rival in rivals]}
    record.save()


def units_of(model: Model) -> int:
    """How many units the top of an autoencoder has: as many as the network's top has neurons."""
    return min(MOST_UNITS, math.prod(model.network.layout.geometry[-1].output))


def check_training(train: Dataset | None) -> Dataset:
    """Refuse to go on without training images."""
    if train is None:
        raise InputError("the training images are gone, and there is nothing to learn from: name "
                         "them with --train")
    read(train, np.zeros(1, int))
    return train
