"""What a replica computes a step with: prepared images, or kept responses of finished stages.

Here the conditioners between the stages come into being: in greedy training that of a finished
stage when the stage above begins, else at the first step and every train.condition_every.
"""
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hpclcae.cluster.memory import worker_bytes
from hpclcae.config import Config
from hpclcae.data.fitting import fitting_pass
from hpclcae.data.minibatches import MinibatchStream
from hpclcae.model.conditioner import Conditioner, are_fitted
from hpclcae.model.conditioner_fit import fit_conditioner
from hpclcae.model.layout import parameters_below
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import phase_of
from hpclcae.model.preprocess import Preprocessor
from hpclcae.training.cache import (Kept, fingerprint, needed, rounded, share_of_memory,
                                    spare_memory)
from hpclcae.training.pixels import Pixels
from hpclcae.utils.ahead import Ahead, Work, finish
from hpclcae.utils.timers import Timers


class Inputs:
    """The inputs of one block of one replica.

    A context manager: leaving it ends the thread that makes what coming steps need.

    Parameters
    ----------
    batches : MinibatchStream
    prepare : Preprocessor
    conditioners : sequence of Conditioner or None
        Of a checkpoint.
    folder : Path or None
        Where a cache on disk lies; None: there is no cache.
    speaks : bool
        It tells of progress and of what was fitted: one rank of a job does.
    timers : Timers, optional
        Of the loop: what it waits for.
    labels : int array (image,), optional
        Classes of all images of the dataset, for a classifier.
    ahead : bool
        Training: steps are asked for in order, so what the next ones need is made while one
        computes, and pixels may stay in memory.

    Attributes
    ----------
    conditioners : list of Conditioner or None
        Of every stage, as far as fitted.
    timers, meanwhile : Timers
        What the loop waits for, and what is done for coming steps while one computes.
    """

    def __init__(self, network: Network, batches: MinibatchStream, prepare: Preprocessor,
                 conditioners: Sequence[Conditioner | None], folder: Path | None = None,
                 speaks: bool = False, timers: Timers | None = None,
                 labels: np.ndarray | None = None, ahead: bool = False) -> None:
        self.config: Config = network.config
        self.network, self.batches, self.prepare = network, batches, prepare
        self._labels = labels
        self._wanted = are_fitted(self.config)
        self.conditioners = [*conditioners]
        self.conditioners += [None] * (len(self._wanted) - len(self.conditioners))
        self._folder, self._speaks = folder, speaks
        self.timers, self.meanwhile = timers or Timers(), Timers()
        spare = share_of_memory() - worker_bytes(network.layout, self.config.parallel.servers > 0)
        self._pixels = Pixels(batches, prepare.pixels, self.config.data.keep * spare * ahead)
        self._cache: Kept | None = None
        self._cached_stage = -1
        self._ahead = (Ahead(self._make, prepare.sums, prepare.communicator.allreduce_sum)
                       if ahead else None)
        self._promised: dict[int, np.ndarray] = {}  # what coming steps will put into the cache
        self._in_a_row = 0  # images of which none was absent; more than an epoch: none is any more
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
        if due:
            self.settle()  # the thread of the pass over images is the one that reads
        for index in due:
            with self.timers("condition"):
                self._fit(index, parameters)

    def read(self, step: int, parameters: ParameterVector) -> np.ndarray:
        """What `train_step` takes: prepared images, or what the trained stage gets of them.

        Raises
        ------
        InputError
            The dataset cannot be read, or a response does not fit into the cache.
        """
        phase = phase_of(self.config, step)
        if self.is_given(step) and self._cached_stage != phase.stage:
            assert phase.stage is not None
            self.settle()
            self._close_cache(for_good=True)
            self._cache, self._cached_stage = self._open(phase.stage, parameters), phase.stage
            self._in_a_row = 0
        self._promised = {coming: entries for coming, entries in self._promised.items()
                          if coming >= step} if step in self._promised else {}
        with self.timers("wait for images"):
            made = (self._ahead.take(step, phase.end) if self._ahead
                    else finish(self._make(step), self.prepare.communicator.allreduce_sum))
        self._promised.pop(step, None)
        if made.whole is not None:
            return made.whole
        with self.timers("respond"):
            assert phase.stage is not None
            if made.images is not None:
                responses = self.network.input_of(parameters, made.images, phase.stage)
                if self._cache is None or self.batches.is_shared_out(step):
                    return rounded(responses).astype(self.network.dtype)
                self._cache.put(made.entries[made.missing], np.moveaxis(responses, -1, 0))
            return self._kept(made.entries)

    def labels(self, step: int) -> np.ndarray | None:
        """Classes of the images of a step, for a classifier."""
        return None if self._labels is None else self._labels[self.batches.indices(step)]

    def is_given(self, step: int) -> bool:
        """Whether `read` gives what the trained stage gets, and not images."""
        return bool(self.config.train.cache != "none" and phase_of(self.config, step).stage)

    def __enter__(self) -> "Inputs":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ahead:
            self._ahead.close()

    def settle(self) -> None:
        """Wait until nothing is made any more; the next step begins anew."""
        if self._ahead:
            self._ahead.forget()
        self._promised.clear()

    def close(self, for_good: bool = False) -> None:
        """Let go of the cache; `for_good`: no step will ask for it again."""
        self._close_cache(for_good)

    def _close_cache(self, for_good: bool) -> None:
        if self._cache:
            self._cache.close(for_good)
        self._cache, self._cached_stage = None, -1

    # ---- in the thread ---------------------------------------------------------------------------

    def _make(self, step: int) -> Work["_Made"]:
        """The work for a step; what it will put into the cache is known from now on."""
        if not self.is_given(step):
            return self._whole(step)
        if self._cache is None or self.batches.is_shared_out(step):
            entries = self.batches.entries(step)
            return self._response(step, entries, np.ones(len(entries), bool), True)
        if self._in_a_row >= 2 * self.batches.count and self.batches.variants == 1:
            return self._seen(step)
        entries = self.batches.entries(step)
        absent = self._cache.absent(entries)
        if not absent.any():
            self._promised[step] = entries[:0]
            self._in_a_row += len(entries)
            return self._response(step, entries, absent, waits=False)
        self._in_a_row, promised = 0, [*self._promised.values()]
        missing = absent & ~np.isin(entries, np.concatenate(promised)) if promised else absent
        self._promised[step] = entries[missing]
        return self._response(step, entries, missing, waits=True)

    def _whole(self, step: int) -> Work["_Made"]:
        """Prepared images."""
        images = yield from self._prepared(step)
        return _Made(whole=images)

    def _seen(self, step: int) -> Work["_Made"]:
        """Kept responses, when those to all images are there."""
        with self.meanwhile("lay out"):
            return _Made(whole=self._kept(self.batches.entries(step)))
        yield  # a generator, as the others

    def _response(self, step: int, entries: np.ndarray, missing: np.ndarray,
                  waits: bool) -> Work["_Made"]:
        """Kept responses; or, while some are still to come, the images that they are made of."""
        if not waits:
            with self.meanwhile("lay out"):
                return _Made(whole=self._kept(entries))
        images = None
        if missing.any():
            images = yield from self._prepared(step, missing)
        return _Made(entries=entries, missing=missing, images=images)

    def _prepared(self, step: int, which: np.ndarray | slice = np.s_[:]) -> Work[np.ndarray]:
        batches = self.batches
        with self.meanwhile("read"):
            images = self._pixels.read(batches.numbers(step)[which], batches.mirrored(step)[which],
                                       batches.moved(step)[which])
        work, sums = self.prepare.in_pieces(images), None
        while True:
            with self.meanwhile("prepare"):
                try:
                    own = next(work) if sums is None else work.send(sums)
                except StopIteration as end:
                    return end.value
            sums = yield own

    def _kept(self, entries: np.ndarray) -> np.ndarray:
        """Responses of the cache: (row, col, map, image)."""
        assert self._cache is not None
        found = self._cache.get(entries).astype(self.network.dtype)  # first: it is half as slow
        return np.ascontiguousarray(np.moveaxis(found, 0, -1))

    # ---- what is fitted, and what is kept --------------------------------------------------------

    def _fit(self, index: int, parameters: ParameterVector) -> None:
        began, among = time.monotonic(), self.batches.among
        name = (f"stage {index + 1}" if index < len(self.network.stages) else "the classifier's "
                "features")
        images = fitting_pass(self.config, self.batches.dataset, index, self.prepare,
                              f"conditioning {name}" if self._speaks else "", among)
        fitted = self.conditioners[index] = fit_conditioner(self.network, index, parameters, images)
        if self._speaks:
            count = min(self.config.train.condition_images,
                        self.batches.dataset.count if among is None else len(among))
            tqdm.write(f"{name} conditioned on {count:,} images in "
                       f"{time.monotonic() - began:.1f} s: {fitted.summary()}")

    def _open(self, stage: int, parameters: ParameterVector) -> Kept | None:
        """Where responses are kept; None: they do not fit, and are computed each time."""
        network, batches = self.network, self.batches
        if stage < len(network.stages):
            plan, maps = network.stages[stage].plan.x, network.layout.geometry[stage].input[2]
        else:
            assert network.classifier is not None
            plan, maps = network.classifier.plan, network.classifier.shape[2]
        shape, entries = (*plan.held.shape, maps), batches.count * batches.variants
        if self.config.train.cache == "auto":
            is_scarce = needed(entries, shape, np.float16) > spare_memory()
            if network.communicator.allreduce_sum([float(is_scarce)])[0]:
                return None
        file = None
        if self.config.train.cache == "disk" and self._folder:
            name = f"stage{stage + 1}-replica{batches.replica}-block{network.block.rank}.h5"
            file = self._folder / name
        below = parameters_below(self.config, stage)
        numbers = [array for conditioner in self.conditioners[:stage] if conditioner
                   for array in conditioner.arrays().values()]
        kernel = [] if self.prepare.fitted.kernel is None else [self.prepare.fitted.kernel]
        mark = fingerprint(
            str((self.config.preprocess, self.config.stages[:stage], batches.first, batches.count,
                 batches.variants)),
            batches.dataset.fingerprint, *([] if batches.among is None else [batches.among]),
            *kernel, *(parameters[name] for name in below), *numbers)
        return Kept(entries, shape, np.float16, "train.cache", file, mark, network.communicator)


@dataclass(frozen=True)
class _Made:
    """What the thread has made for a step.

    whole : (row, col, map, image) or None
        What the step gets; None: it is put together from the cache, when the steps before have put
        their responses there.
    entries : (image,), missing : mask (image,), images : prepared, of the missing ones; or None
        What the cache is to be asked for, and what this step has to put there first.
    """
    whole: np.ndarray | None = None
    entries: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    missing: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    images: np.ndarray | None = None
