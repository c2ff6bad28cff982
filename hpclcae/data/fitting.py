"""The training images that conditioners are fitted on (model/conditioner_fit.py).

The seed chooses them: the same in every run, on every rank and for every replica.
"""
import contextlib
from collections.abc import Iterator

import numpy as np

from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.data.minibatches import read_shown, sample
from hpclcae.model.conditioner_fit import Pass
from hpclcae.model.preprocess import Preprocessor
from hpclcae.utils.ahead import Ahead, Work
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress

PORTION = 200  # images that are prepared and run at a time; even, so that no pair is divided


def check_fitting(config: Config, dataset: Dataset) -> None:
    """Refuse what a conditioner could not be fitted on, before anything is trained.

    Raises
    ------
    InputError
        There are fewer images than directions, or no pairs where they are asked for.
    """
    for index, stage in enumerate(config.stages):
        if not stage.whiten:
            continue
        images = min(config.train.condition_images, dataset.count)
        if stage.whiten_by == "pairs":
            images = min(config.train.condition_images // 2 * 2, 2 * _pair_count(dataset, index))
        if images <= stage.whiten:
            raise InputError(f"stages.{index}.whiten = {stage.whiten}: {images} images are too few "
                             f"to find {stage.whiten} directions: use more images "
                             "(train.condition_images, or a larger dataset) or a smaller rank")


def _pair_count(dataset: Dataset, index: int) -> int:
    if not dataset.pair_count:
        raise InputError(f"stages.{index}.whiten_by = 'pairs': {dataset.path} has no pairs of "
                         "frames; make it with hpclcae data frames --pairs (or data ingest "
                         "--pairs, for films), or set it to 'variance'")
    return dataset.pair_count


def _pairs_at(dataset: Dataset, places: np.ndarray) -> np.ndarray:
    """Both images of some pairs, one after the other, by the places of the pairs among all."""
    order, firsts, begin = np.argsort(places), np.empty(len(places), np.int64), 0
    ascending = places[order]
    for block in dataset.pairs():
        low, high = np.searchsorted(ascending, [begin, begin + len(block)])
        firsts[order[low:high]] = block[ascending[low:high] - begin]
        begin += len(block)
    return np.stack([firsts, firsts + 1], axis=1).ravel()


def fitting_pass(config: Config, dataset: Dataset, index: int, prepare: Preprocessor,
                 told: str = "", among: np.ndarray | None = None) -> Pass:
    """Passes over the images that the conditioner of stage `index` (from 0) is fitted on.

    A portion is read and prepared by a thread while the one before is used (utils/ahead.py).

    Parameters
    ----------
    among : int array (image,), optional
        Indices of the images that are chosen from; without it all.
    told : str
        What a pass is called where progress is shown; "": nowhere.

    Raises
    ------
    InputError
        Pairs are asked for, and the dataset has none.
    """
    generator = np.random.default_rng([config.train.seed, 2, index])
    most = config.train.condition_images
    if index < len(config.stages) and config.stages[index].whiten_by == "pairs":
        places = sample(generator, _pair_count(dataset, index), max(1, most // 2))
        chosen = _pairs_at(dataset, places)
        mirrored = np.repeat(generator.random(len(places)) < 0.5, 2)
    else:
        chosen = np.sort(sample(generator, dataset.count if among is None else len(among), most))
        if among is not None:
            chosen = among[chosen]
        mirrored = generator.random(len(chosen)) < 0.5
    mirrored &= config.data.mirror

    def make(portion: int) -> Work[np.ndarray]:
        part = slice(portion * PORTION, (portion + 1) * PORTION)
        images = read_shown(dataset, chosen[part], mirrored[part], prepare.pixels)
        return (yield from prepare.in_pieces(images))

    def start() -> Iterator[np.ndarray]:
        portions = range(-(-len(chosen) // PORTION))
        ahead = Ahead(make, prepare.sums, prepare.communicator.allreduce_sum)
        with contextlib.closing(ahead):
            for portion in progress(portions, told, unit="portions"):
                yield ahead.take(portion, len(portions))
    return start
