"""How many images a second a network looks at, beside what its filters alone could do.

Both are timed in turns, so that whatever else a machine does is in both, and the medians count.
"""
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.training_images import prepared_ahead

IMAGES = 3000      # are looked at in a round, at most
ROUNDS = 9
SECONDS = 3.0      # that all rounds may take, if the first one leaves time for others


@dataclass(frozen=True)
class Rates:
    """Images a second of one process."""
    forward: float    # read, prepared, and through all stages
    encode: float     # through the filters of all stages alone: the kernel that the bench measures
    gflop: float      # of the filters, an image
    share: float      # the first as a share of the second
    computing: float  # the same of the processor's time in the thread that computes alone: what the
    #                   share is where a core is free for reading and preparing

    def __str__(self) -> str:
        return (f"forward pass: {self.forward:,.0f} images/s with reading and preparing, "
                f"{self.share:.2f} of the filters alone ({self.encode:,.0f} images/s, "
                f"{self.encode * self.gflop:.1f} GFLOP/s); {self.computing:.2f} with a core free "
                "for reading")


def measure(model: Model, dataset: Dataset, batch: int) -> Rates:
    """Time passes over some images of a dataset, and the same number through the filters alone."""
    count = min(dataset.count, IMAGES)
    batches = [np.arange(first, min(first + batch, count)) for first in range(0, count, batch)]
    filters, gflop = _filters(model, batches[0].size)

    def forward() -> None:
        for x in prepared_ahead(model, dataset, batches):
            model.responses(x)

    def encode() -> None:
        for _ in batches:
            filters()
    model.responses(model.prepare(dataset.read(batches[0])))  # what is made and allocated once
    filters()
    times = [(*_timed(forward), *_timed(encode))]
    blocks = model.network.communicator  # those of a network make as many rounds as the others
    seconds = blocks.allreduce_sum(times[0][0] + times[0][2]) / blocks.size
    for _ in range(min(ROUNDS - 1, int(SECONDS / float(seconds)))):
        times.append((*_timed(forward), *_timed(encode)))
    encoded = len(batches) * batches[0].size / count
    elapsed, _, alone, _ = (statistics.median(column) for column in zip(*times))
    share, computing = (statistics.median(round_[2 + clock] / encoded / round_[clock]
                                          for round_ in times) for clock in (0, 1))
    return Rates(count / elapsed, encoded * count / alone, gflop, share, computing)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor in this thread."""
    began, busy = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - began, time.thread_time() - busy


def _filters(model: Model, batch: int) -> tuple[Callable[[], None], float]:
    """What passes `batch` images through the filters alone, and GFLOP an image."""
    network, generator = model.network, np.random.default_rng(0)
    stages, flop = [], 0.0
    for stage in network.stages:
        plan = stage.filter
        shapes = (plan.rows, plan.cols, plan.maps_in), (plan.out_rows, plan.out_cols, plan.maps)
        x = generator.standard_normal((*shapes[0], batch)).astype(plan.dtype)
        stages.append((plan, stage.filters(model.parameters, "encode"), x,
                       np.empty((*shapes[1], batch), plan.dtype)))
        flop += 2.0 * plan.out_rows * plan.out_cols * plan.maps * plan.fan_in

    def encode() -> None:
        for plan, filters, x, z in stages:
            plan.encode(filters, x, z, network.work)
    return encode, flop / 1e9
