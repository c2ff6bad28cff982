"""What a replica computes a step with: prepared images, or kept responses of finished stages.

Here the conditioners between the stages come into being: in greedy training that of a finished
stage when the stage above begins, else at the first step and every train.condition_every.
"""
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hpclcae.config import Config
from hpclcae.data.fitting import fitting_pass
from hpclcae.data.minibatches import MinibatchStream, read_shown
from hpclcae.model.conditioner import Conditioner, are_fitted
from hpclcae.model.conditioner_fit import fit_conditioner
from hpclcae.model.layout import parameters_below
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import phase_of
from hpclcae.model.preprocess import Preprocessor
from hpclcae.training.cache import ResponseCache, fingerprint
from hpclcae.utils.timers import Timers


class Inputs:
    """The inputs of one block of one replica.

    Parameters
    ----------
    batches : MinibatchStream
    labels : int array (image,) or None
        Classes of all images of the dataset, for a classifier.
    prepare : Preprocessor
    conditioners : sequence of Conditioner or None
        Of a checkpoint.
    folder : Path or None
        Where a cache on disk lies; None: there is no cache.
    speaks : bool
        It tells of progress and of what was fitted: one rank of a job does.

    Attributes
    ----------
    conditioners : list of Conditioner or None
        Of every stage, as far as fitted.
    """

    def __init__(self, network: Network, batches: MinibatchStream, prepare: Preprocessor,
                 conditioners: Sequence[Conditioner | None], folder: Path | None = None,
                 speaks: bool = False, timers: Timers | None = None,
                 labels: np.ndarray | None = None) -> None:
        self.config: Config = network.config
        self.network, self.batches, self.prepare = network, batches, prepare
        self._labels = labels
        self._wanted = are_fitted(self.config)
        self.conditioners = [*conditioners]
        self.conditioners += [None] * (len(self._wanted) - len(self.conditioners))
        self._folder, self._speaks, self._timers = folder, speaks, timers or Timers()
        self._cache: ResponseCache | None = None
        self._cached_stage = -1
        network.condition(self.conditioners)

    def begin(self, step: int, parameters: ParameterVector) -> None:
        """Fit what this step needs and what has not been fitted, or is due again.

        Raises
        ------
        InputError
            It cannot be fitted (model/conditioner_fit.py).
        """
        every, stage = self.config.train.condition_every, phase_of(self.config, step).stage
        wanted = range(len(self.network.stages) - 1 if stage is None else stage)
        if self.config.is_supervised:
            wanted, stage = range(len(self._wanted)), -1
        due = [index for index in wanted if self._wanted[index]
               and (self.conditioners[index] is None
                    or stage is None and every and step and step % every == 0
                    or stage == index + 1 and step == phase_of(self.config, step).first)]
        for index in due:
            with self._timers("condition"):
                self._fit(index, parameters)

    def read(self, step: int, parameters: ParameterVector) -> np.ndarray:
        """What `train_step` takes: prepared images, or what the trained stage gets of them."""
        stage = phase_of(self.config, step).stage
        if not self.is_given(step):
            return self._prepared(self.batches.indices(step), self.batches.mirrored(step),
                                  self.batches.moved(step))
        assert stage is not None
        if self._cached_stage != stage:
            self.close(for_good=True)
            self._cache, self._cached_stage = self._open(stage, parameters), stage
        assert self._cache is not None
        batches = self.batches
        shown = batches.indices(step), batches.mirrored(step), batches.moved(step)

        def compute(missing: np.ndarray) -> np.ndarray:
            x = self._prepared(*(each[missing] for each in shown))
            return self.network.input_of(parameters, x, stage)
        return self._cache.get(batches.entries(step), self.network.dtype, compute)

    def labels(self, step: int) -> np.ndarray | None:
        """Classes of the images of a step, for a classifier."""
        return None if self._labels is None else self._labels[self.batches.indices(step)]

    def is_given(self, step: int) -> bool:
        """Whether `read` gives what the trained stage gets, and not images."""
        return bool(self.config.train.cache != "none" and phase_of(self.config, step).stage)

    def close(self, for_good: bool = False) -> None:
        """Let go of the cache; `for_good`: no step will ask for it again."""
        if self._cache:
            self._cache.close(for_good)
        self._cache, self._cached_stage = None, -1

    def _prepared(self, indices: np.ndarray, mirrored: np.ndarray,
                  moved: np.ndarray) -> np.ndarray:
        with self._timers("read"):
            images = read_shown(self.batches.dataset, indices, mirrored, self.prepare.pixels, moved)
        with self._timers("prepare"):
            return self.prepare(images)

    def _fit(self, index: int, parameters: ParameterVector) -> None:
        began = time.monotonic()
        name = (f"stage {index + 1}" if index < len(self.network.stages) else "the classifier's "
                "features")
        images = fitting_pass(self.config, self.batches.dataset, index, self.prepare,
                              f"conditioning {name}" if self._speaks else "", self.batches.among)
        fitted = self.conditioners[index] = fit_conditioner(self.network, index, parameters, images)
        if self._speaks:
            count = min(self.config.train.condition_images, len(self.batches.among))
            tqdm.write(f"{name} conditioned on {count:,} images in "
                       f"{time.monotonic() - began:.1f} s: {fitted.summary()}")

    def _open(self, stage: int, parameters: ParameterVector) -> ResponseCache:
        network, batches = self.network, self.batches
        if stage < len(network.stages):
            plan, maps = network.stages[stage].plan.x, network.layout.geometry[stage].input[2]
        else:
            assert network.classifier is not None
            plan, maps = network.classifier.plan, network.classifier.shape[2]
        shape, entries = (*plan.held.shape, maps), batches.count * batches.variants
        file = None
        if self.config.train.cache == "disk" and self._folder:
            name = f"stage{stage + 1}-replica{batches.replica}-block{network.block.rank}.h5"
            file = self._folder / name
        below = parameters_below(self.config, stage)
        numbers = [array for conditioner in self.conditioners[:stage] if conditioner
                   for array in conditioner.arrays().values()]
        kernel = [] if self.prepare.fitted.kernel is None else [self.prepare.fitted.kernel]
        mark = fingerprint(
            str((self.config.preprocess, self.config.stages[:stage], batches.variants)),
            batches.dataset.fingerprint, batches.own, *kernel,
            *(parameters[name] for name in below), *numbers)
        return ResponseCache(entries, shape, file, mark, network.communicator,
                             or_none=self.config.train.cache == "auto")
