"""What stands between two stages: numbers that are fitted on training images and then kept.

The pooled responses of a stage are standardised unit by unit (layers/standardise.py), contrast-
normalised across maps if the configuration says so (layers/contrast_norm.py, the paper's), given
unit contrast image by image and whitened (layers/whitening.py). The paper does not say how its
stages were fed; notes/decisions.md has what was measured with and without each part.

A `Conditioner` holds the numbers of the whole network's stage; `Conditioner.of_block` cuts out what
one block applies. conditioner_fit.py finds the numbers.
"""
from dataclasses import dataclass, fields, replace
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from hpclcae.config import Config, StageConfig
from hpclcae.geometry import StageGeometry
from hpclcae.partition.blocks import StagePlan


@dataclass(frozen=True)
class Conditioner:
    """Fitted numbers of one stage, of all positions.

    mean, deviation : (row, col, map) or None
        Of every pooled unit, or of its logarithm; deviation 0: it never changed.
    floor : () or (window row, window col) or None
        What is added to an image's standard deviation when its contrast is normalised.
    centre : (row, col, map) or (window row, window col, krow, kcol, map) or None
        Mean m of what is whitened.
    directions : centre's shape and one more axis, or None
        A (layers/whitening.py).
    spectrum : (direction,) or (window row, window col, direction) or None
        For inspection, largest first: the variance along each direction, as a share of all; with
        StageConfig.whiten_by = "pairs" the correlation across pairs.
    """
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None
    floor: np.ndarray | None = None
    centre: np.ndarray | None = None
    directions: np.ndarray | None = None
    spectrum: np.ndarray | None = None

    @classmethod
    def drawn(cls, config: StageConfig, geometry: StageGeometry, seed: int = 0) -> "Conditioner":
        """Numbers of the right shapes that were not fitted, for benchmarks and tests."""
        generator, rank = np.random.default_rng(seed), config.whiten
        fitted = cls(np.zeros(geometry.pooled), np.ones(geometry.pooled), np.full((), 0.1))
        if not rank:
            return fitted
        shape: tuple[int, ...] = geometry.output
        if config.window:
            shape = *geometry.passed_on[:2], config.window, config.window, config.maps
            fitted = replace(fitted, floor=np.full(shape[:2], 0.1))
        scale = (geometry.output[0] * geometry.output[1] * config.maps * rank) ** -0.25
        return replace(fitted, centre=np.zeros(shape),
                       directions=scale * generator.standard_normal((*shape, rank)),
                       spectrum=np.full((*shape[:-3], rank), 1 / rank))

    def arrays(self) -> dict[str, np.ndarray]:
        """What was fitted, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)
                if getattr(self, f.name) is not None}

    @property
    def is_windowed(self) -> bool:
        """Whether windows are conditioned each by itself."""
        return self.centre is not None and self.centre.ndim == 5

    def summary(self) -> str:
        """What was fitted, in words."""
        parts = []
        if self.deviation is not None:
            still = int((self.deviation == 0).sum())
            parts.append(f"mean and deviation of {self.deviation.size:,} units"
                         + (f" ({still:,} of them never change and stay 0)" if still else ""))
        if self.directions is not None and self.spectrum is not None:
            rank, windows = self.spectrum.shape[-1], self.spectrum[..., 0].size
            units = self.directions[..., 0].size // windows
            parts.append(f"{rank} of {units:,} directions"
                         + (f" of each of {windows} windows" if windows > 1 else ""))
        return ", ".join(parts) or "contrast of each image"

    def of_block(self, plan: StagePlan, dtype: DTypeLike) -> "BlockConditioner":
        """The numbers that one block applies."""
        def cut(array: np.ndarray | None, rows: slice, cols: slice) -> np.ndarray | None:
            return None if array is None else np.ascontiguousarray(array[rows, cols], dtype)

        def flat(array: np.ndarray | None, axes: int, units: int) -> np.ndarray | None:
            """The axes of units as one, after `axes` others."""
            if array is None:
                return None
            of_units = prod(array.shape[axes:axes + units])
            return array.reshape(*array.shape[:axes], of_units, *array.shape[axes + units:])
        h = slice(*plan.h.owned.rows), slice(*plan.h.owned.cols)
        mean, deviation = cut(self.mean, *h), cut(self.deviation, *h)
        gain = None
        if deviation is not None:
            gain = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        where = plan.c if self.is_windowed else plan.y.owned
        part = slice(*where.rows), slice(*where.cols)
        floor = self.floor
        if floor is not None and floor.ndim:
            floor = cut(floor, *part)
        axes = (2, 3) if self.is_windowed else (0, 3)
        return BlockConditioner(mean, gain, floor, flat(cut(self.centre, *part), *axes),
                                flat(cut(self.directions, *part), *axes))


@dataclass(frozen=True)
class BlockConditioner:
    """The same for one block, in its dtype; units as one axis."""
    mean: np.ndarray | None
    gain: np.ndarray | None        # 1 / deviation, 0 where that is 0
    floor: np.ndarray | None
    centre: np.ndarray | None
    directions: np.ndarray | None


def is_fitted(config: StageConfig) -> bool:
    """Whether a stage passes its responses on through numbers that have to be fitted."""
    return config.log or config.standardise or config.contrast or config.whiten > 0


def are_fitted(config: Config) -> tuple[bool, ...]:
    """The same of every stage; with a classifier also of the features that it gets."""
    own = (config.classifier.standardise,) if config.is_supervised else ()
    return *map(is_fitted, config.stages), *own
