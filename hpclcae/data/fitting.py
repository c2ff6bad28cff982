"""The training images that conditioners are fitted on (model/conditioner_fit.py).

The seed chooses them: the same in every run, on every rank and for every replica.
"""
from collections.abc import Iterator

import numpy as np

from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.data.minibatches import read_mirrored, sample
from hpclcae.model.conditioner_fit import Pass
from hpclcae.model.preprocess import Preprocessor
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
            images = min(config.train.condition_images // 2 * 2, 2 * len(_firsts(dataset, index)))
        if images <= stage.whiten:
            raise InputError(f"stages.{index}.whiten = {stage.whiten}: {images} images are too few "
                             f"to find {stage.whiten} directions: use more images "
                             "(train.condition_images, or a larger dataset) or a smaller rank")


def _firsts(dataset: Dataset, index: int) -> np.ndarray:
    """The first image of every pair."""
    partner = np.full(dataset.count, -1) if dataset.pair is None else dataset.pair
    firsts = np.flatnonzero(partner > np.arange(dataset.count))
    if not firsts.size:
        raise InputError(f"stages.{index}.whiten_by = 'pairs': {dataset.path} has no pairs of "
                         "frames; make it with hpclcae data frames --pairs (or data ingest "
                         "--pairs, for films), or set it to 'variance'")
    return firsts


def fitting_pass(config: Config, dataset: Dataset, index: int, prepare: Preprocessor,
                 told: str = "") -> Pass:
    """Passes over the images that the conditioner of stage `index` (from 0) is fitted on.

    Parameters
    ----------
    told : str
        What a pass is called where progress is shown; "": nowhere.

    Raises
    ------
    InputError
        Pairs are asked for, and the dataset has none.
    """
    generator = np.random.default_rng([config.train.seed, 2, index])
    most = config.train.condition_images
    if config.stages[index].whiten_by == "pairs":
        firsts, partner = _firsts(dataset, index), dataset.pair
        assert partner is not None
        firsts = generator.permutation(firsts)[:max(1, most // 2)]
        chosen = np.stack([firsts, partner[firsts]], axis=1).ravel()
        mirrored = np.repeat(generator.random(len(firsts)) < 0.5, 2)
    else:
        chosen = np.sort(sample(generator, dataset.count, most))
        mirrored = generator.random(len(chosen)) < 0.5
    mirrored &= config.data.mirror

    def start() -> Iterator[np.ndarray]:
        firsts = range(0, len(chosen), PORTION)
        for first in progress(firsts, told, unit="portions") if told else firsts:
            part = slice(first, first + PORTION)
            yield prepare(read_mirrored(dataset, chosen[part], mirrored[part], prepare.pixels))
    return start
