"""How many images a second a network looks at, beside what its filters alone could do."""
import time
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.training_images import prepared_ahead

IMAGES = 1000      # are looked at
SECONDS = 0.2      # at least, for the filters alone


@dataclass(frozen=True)
class Rates:
    """Images a second of one process."""
    forward: float  # read, prepared, and through all stages
    encode: float   # through the filters of all stages alone: the kernel that the bench measures
    gflop: float    # of the filters, an image

    @property
    def share(self) -> float:
        """The first as a share of the second."""
        return self.forward / self.encode

    def __str__(self) -> str:
        return (f"forward pass: {self.forward:,.0f} images/s with reading and preparing, "
                f"{self.share:.2f} of the filters alone ({self.encode:,.0f} images/s, "
                f"{self.encode * self.gflop:.1f} GFLOP/s)")


def measure(model: Model, dataset: Dataset, batch: int) -> Rates:
    """Time a pass over some images of a dataset, and the same number through the filters alone."""
    count = min(dataset.count, IMAGES)
    batches = [np.arange(first, min(first + batch, count)) for first in range(0, count, batch)]
    model.responses(model.prepare(dataset.read(batches[0])))  # what is allocated once
    began = time.perf_counter()
    for x in prepared_ahead(model, dataset, batches):
        model.responses(x)
    forward = count / (time.perf_counter() - began)
    return Rates(forward, *_filters(model, min(batch, count)))


def _filters(model: Model, batch: int) -> tuple[float, float]:
    """Images a second through the filters alone, and GFLOP an image."""
    network, generator = model.network, np.random.default_rng(0)
    stages, flop = [], 0.0
    for stage in network.stages:
        plan = stage.filter
        shapes = (plan.rows, plan.cols, plan.maps_in), (plan.out_rows, plan.out_cols, plan.maps)
        x = generator.standard_normal((*shapes[0], batch)).astype(plan.dtype)
        stages.append((plan, stage.filters(model.parameters, "encode"), x,
                       np.empty((*shapes[1], batch), plan.dtype)))
        flop += 2.0 * plan.out_rows * plan.out_cols * plan.maps * plan.fan_in
    seconds, rounds = 0.0, 0
    while seconds < SECONDS:
        began = time.perf_counter()
        for plan, filters, x, z in stages:
            plan.encode(filters, x, z, network.work)
        seconds += (time.perf_counter() - began) * (rounds > 0)  # the first one allocates
        rounds += 1
    return (rounds - 1) * batch / seconds, flop / 1e9
