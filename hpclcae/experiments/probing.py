"""What chosen neurons answer to the images of a set: all responses, the highest, their mean image.

Any number of neurons at once; images are read, looked at and forgotten batch by batch, while the
next batch is read. A number for each neuron and image is kept.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import FINAL
from hpclcae.experiments.figures import mean_image
from hpclcae.experiments.invariance import require_finite
from hpclcae.experiments.labelled_images import HALF_NAMES, LabelledImages
from hpclcae.experiments.neurons import Settings, labelled_images, open_fitting
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.scan import Neuron, asked
from hpclcae.experiments.training_images import read_ahead

HIGHEST = 48     # images, as in the paper
PERCENT = 0.01   # of the images, of which a mean image is made


@dataclass(frozen=True)
class Probed:
    """The images that were looked at, and what the neurons answer.

    Of neurons that the development half chose, these are the images of the final half.
    """
    images: LabelledImages
    chosen: np.ndarray    # int64 (image,): positions in `images`
    response: np.ndarray  # float64 (neuron, image)
    half: str             # in words

    @property
    def index(self) -> np.ndarray:
        """Positions in the dataset, sorted."""
        return self.images.index[self.chosen]

    @property
    def concept(self) -> np.ndarray:
        """Which of them show the concept."""
        return self.images.concept[self.chosen]


def responses(model: Model, neurons: Sequence[Neuron], dataset: Dataset, index: np.ndarray,
              batch: int = 100, label: str = "responses", ranks: Ranks = Ranks()) -> np.ndarray:
    """Responses of some neurons to images, float64 (neuron, image); processes share the images.

    Parameters
    ----------
    index : int array (image,)
        Positions in the dataset, sorted.

    Raises
    ------
    InputError
        A response is not finite; there are fewer images than processes.
    """
    ask, parts = asked(model, neurons), ranks.batches(index.size, batch)
    images = read_ahead(dataset, [index[part] for part in parts])
    found = [ask(pixels) for _, pixels in zip(ranks.progress(parts, label, "batches"), images)]
    return require_finite(np.hstack(ranks.everyones(found)).astype(np.float64))


def probe(model: Model, neurons: Sequence[Neuron], test: Dataset, batch: int, seed: int,
          label: str, ranks: Ranks = Ranks()) -> Probed:
    """Ask neurons about the final half of a labelled set; all of it, where halves say nothing.

    Raises
    ------
    InputError
        It has no labels, or of one kind only; see `responses`.
    """
    images = labelled_images(test, Settings(seed=seed))
    everything = bool(images.why_not_honest)
    chosen = np.flatnonzero((images.half == FINAL) | everything)
    found = responses(model, neurons, test, images.index[chosen], batch, label, ranks)
    return Probed(images, chosen, found, "all images" if everything else HALF_NAMES[FINAL])


def highest(response: np.ndarray, count: int = HIGHEST) -> np.ndarray:
    """The strongest responses of each neuron first, int64 (neuron, count): positions of images."""
    return np.argsort(-response, axis=1, kind="stable")[:, :count]


def mean_of_highest(dataset: Dataset, index: np.ndarray, response: np.ndarray,
                    share: float = PERCENT) -> np.ndarray:
    """The mean image of the strongest responses of one neuron, (row, col, channel).

    Each image counts with mean 0 and deviation 1. What they have in common stays; where all are
    framed alike, that is the framing.

    Parameters
    ----------
    index : int array (image,)
        Positions in the dataset.
    response : float array (image,)
    share : float
        Of the images; at least one.
    """
    count = max(1, round(share * index.size))
    return mean_image(dataset, index[highest(response[None], count)[0]])


def open_test(model: Model, path: str | None) -> Dataset:
    """Open the test set that is named, or the one of the run.

    Raises
    ------
    InputError
        It cannot be opened, or its images do not fit the network.
    """
    return open_fitting(path or model.config.data.test, model.config)
