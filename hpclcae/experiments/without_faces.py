"""The paper's control: does the neuron go if a detector removes the faces it sees in training?

And how many faces are there? The detector misses some faces and sees some where there are none.
What it finds in images of known label says how many, which corrects its share (Rogan, Gladen 1978).
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.faces import have_faces
from hpclcae.data.writer import DatasetWriter
from hpclcae.experiments.comparison import Row, cells, judge
from hpclcae.experiments.neurons import Examination, concept_of
from hpclcae.experiments.record import Record
from hpclcae.experiments.training_images import read_ahead
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_hdf5
from hpclcae.utils.progress import progress

PATCH = 60        # pixels, of the paper's patches
BATCH = 100
WITH, WITHOUT = "trained, faces among the images", "trained, without those that a detector finds"


@dataclass(frozen=True)
class Shares:
    """How often a detector sees a face, and how often there is one; shares from 0 to 1."""
    looked_at: int
    found: float
    recall: float | None         # found among the images that are known to show one
    false_alarms: float | None   # and among those that show none

    @property
    def corrected(self) -> float | None:
        """What share of the images shows a face; None where labels do not say how good it is."""
        if self.recall is None or self.false_alarms is None or self.recall <= self.false_alarms:
            return None
        share = (self.found - self.false_alarms) / (self.recall - self.false_alarms)
        return float(np.clip(share, 0, 1))


def find(dataset: Dataset, label: str) -> np.ndarray:
    """In which images of a dataset a face is found: bool (image,)."""
    batches = [np.arange(first, min(first + BATCH, dataset.count))
               for first in range(0, dataset.count, BATCH)]
    return np.concatenate([have_faces(pixels) for pixels in progress(
        read_ahead(dataset, batches), label, len(batches), "batches")])


def shares(found: np.ndarray, labels: np.ndarray | None) -> Shares:
    """Sum up what was found (image,); `labels` are 1 a face, 0 none, others unknown."""
    def mean(label: int) -> float | None:
        if labels is None or not (labels == label).any():
            return None
        return float(found[labels == label].mean())
    return Shares(found.size, float(found.mean()), mean(1), mean(0))


def random_patches(dataset: Dataset, count: int, seed: int) -> np.ndarray:
    """Squares of PATCH pixels (or whole images, if smaller) at random places of random images.

    Returns
    -------
    uint8 array (patch, row, col, channel)
    """
    rng, side = np.random.default_rng(seed), min(PATCH, dataset.rows, dataset.cols)
    places = np.sort(rng.integers(dataset.count, size=count))
    corners = (rng.random((count, 2)) * (dataset.rows - side + 1, dataset.cols - side + 1)
               ).astype(int)
    batches = [places[first:first + BATCH] for first in range(0, count, BATCH)]
    patches = np.empty((count, side, side, dataset.channels), np.uint8)
    for first, pixels in zip(range(0, count, BATCH), read_ahead(dataset, batches)):
        for number, image in enumerate(pixels, start=first):
            top, left = corners[number]
            patches[number] = image[top:top + side, left:left + side]
    return patches


def write_others(dataset: Dataset, found: np.ndarray, path: Path) -> int:
    """Write the images in which nothing was found as a dataset of their own; returns how many.

    Of a pair both go.

    Raises
    ------
    InputError
        Nothing is left, or the file cannot be written.
    """
    keep = ~found
    if dataset.pair is not None:
        partners = np.flatnonzero(dataset.pair >= 0)
        keep[partners] &= ~found[dataset.pair[partners]]
    places = np.flatnonzero(keep)
    if not places.size:
        raise InputError(f"a face is found in every image of {dataset.path}: nothing is left")
    labels, halves, kinds, pairs = dataset.labels, dataset.half, dataset.kind, dataset.pair
    number = np.cumsum(keep) - 1
    settings = dict(dataset.recipe or {}) | {"without_faces_of": str(dataset.path)}
    with DatasetWriter(path, dataset.size, dataset.channels, dataset.label_names,
                       settings) as writer:
        batches = [places[first:first + BATCH] for first in range(0, places.size, BATCH)]
        for batch, pixels in zip(batches, read_ahead(dataset, batches)):
            for place, image in zip(batch.tolist(), pixels):
                partner = -1 if pairs is None else int(pairs[place])
                writer.append(
                    image, source=str(dataset.sources[place]), group=str(dataset.groups[place]),
                    original=tuple(dataset.originals[place]), crop=tuple(dataset.crops[place]),
                    label=-1 if labels is None else int(labels[place]),
                    half=-1 if halves is None or halves[place] not in (0, 1)
                    else int(halves[place]), kind="" if kinds is None else str(kinds[place]),
                    pair=int(number[partner]) if 0 <= partner < place else -1)
    return int(places.size)


def check_written(path: Path) -> None:
    """See, before the work, that a dataset can be written there."""
    check_output(path, lambda file: is_hdf5(file, "hpclcae dataset"), "a dataset")


def add_shares(record: Record, train: Dataset, found: np.ndarray, patches: np.ndarray,
               left: int | None) -> None:
    """Say how many faces there are, as a table."""
    whole, cut = shares(found, train.labels), shares(have_faces(patches), None)
    # the detector is as good on patches as on images of known label
    cut = Shares(cut.looked_at, cut.found, whole.recall, whole.false_alarms)
    rows = [[name, each.looked_at, *(percent(value) for value in (
        each.found, each.recall, each.false_alarms, each.corrected))]
        for name, each in ((f"images of {train.path.name}", whole),
                           (f"random patches of {patches.shape[1]}x{patches.shape[2]}", cut))]
    notes = ["Percent. 'recall' and 'false alarms': of the detector, on the training images whose "
             "label is known; 'corrected': the share that shows a face, given these. The paper: "
             "fewer than 3 % of 100,000 patches of 60x60 (recalled)."]
    if patches.shape[1] < PATCH:
        notes.append(f"The images are smaller than {PATCH}x{PATCH}: they are looked at whole.")
    if left is not None and train.labels is not None:
        missed = int((~found & (train.labels == 1)).sum())
        notes.append(f"{left:,} images are left without those in which a face was found; "
                     f"{missed:,} that are labelled as showing one were missed by the detector.")
    record.table("Faces among the training images", ["", "looked at", "found", "recall",
                                                     "false alarms", "corrected"], rows, notes)
    record.values |= {"images": vars(whole) | {"corrected": whole.corrected},
                      "patches": vars(cut) | {"corrected": cut.corrected}, "left": left}


def add_comparison(record: Record, examination: Examination, model: Model, other: Model) -> None:
    """The best neurons of a network that has seen faces and of one that has not."""
    images = examination.images
    stages = examination.trained("with faces", model)[-1], examination.trained(
        "without faces", other)[-1]
    candidates = stages[0].accuracy.size
    rows = [Row.chance(images, examination.settings.bootstrap, examination.settings.batch),
            Row.of(WITHOUT, [stages[1]], "no faces"),
            Row.of(WITH, [stages[0]], "top", trained=True)]
    concept = concept_of(examination.test)
    record.table(f"Without faces in training, {concept}: {examination.test.path.name}",
                 *cells(rows, candidates, concept),
                 ["Top stages. In brackets: recalled, not confirmed. What the detector misses "
                  "stays in the training set."])
    record.values |= {"rows": [row.as_json(images) for row in rows],
                      "verdicts": [verdict.as_json() for verdict in judge(rows)],
                      "without": str(other.path)}


def percent(share: float | None) -> float | None:
    """Rounded to a tenth."""
    return None if share is None else round(100 * share, 1)
