"""Fitting a conditioner on training images, in passes over them (model/conditioner.py).

Memory does not grow with the images: sums, sums of squares and covariances are gathered portion by
portion. All blocks of a network take part; each ends with the numbers of the whole stage, and the
bits do not depend on the grid as long as the responses do not.
"""
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.linalg

from hpclcae.config import StageConfig
from hpclcae.model.conditioner import Conditioner
from hpclcae.model.layers.whitening import WindowWhitening
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.stage import Stage, StageActivations
from hpclcae.partition.blocks import Rectangle
from hpclcae.utils.errors import InputError

#: Starts a pass: prepared images (row, col, channel, image), what the block holds, portion by
#: portion, the same in every pass. With pairs, images 2 i and 2 i + 1 of a portion are one.
Pass = Callable[[], Iterator[np.ndarray]]

CONTRAST_IMAGES = 2000    # that the floor of the contrast is taken from
CONTRAST_FLOOR = 0.1      # in units of the mean deviation of an image
DEVIATION_FLOOR = 1e-3    # added to each unit's deviation, in units of the root mean square of all
LEAST_VARIANCE = 1e-9     # of a direction that the images vary in, in units of the largest; with
#                           less than float64 ten times its resolution: below that is rounding
POOL = 200                # pairs: directions of largest variance among which they choose
COVARIANCE_BYTES = 10**9  # of the windows whose covariances are gathered in one pass
LARGEST_MAP = 20_000      # units; the covariance of a whole map is a square of so many


def fit_conditioner(network: Network, index: int, parameters: ParameterVector,
                    images: Pass) -> Conditioner:
    """Fit what stands above stage `index` (from 0); the stages below are conditioned already.

    The stage is left with it. Above the last stage the features of a classifier are standardised:
    its index is the number of stages.

    Raises
    ------
    InputError
        There are too few images for the rank, or the responses vary in fewer directions.
    """
    if index == len(network.stages):
        return _fit_features(network, parameters, images)
    stage, config = network.stages[index], network.config.stages[index]
    stage.condition(None)
    fit = _Fit(network, index, parameters, images)
    fitted = fit.standardised() if config.standardise or config.log else Conditioner()
    stage.condition(fitted, partly=True)
    if config.window:
        fitted = fit.windows(fitted)
    elif config.contrast or config.whiten:
        fitted = fit.map(fitted)
    stage.condition(fitted)
    return fitted


def _fit_features(network: Network, parameters: ParameterVector, images: Pass) -> Conditioner:
    """Mean and deviation of the top stage's responses, for the classifier above it."""
    assert network.classifier is not None
    fit = _Fit(network, len(network.stages) - 1, parameters, images)
    fitted = fit.moments(lambda state: state.y, fit.stage.plan.y.owned, fit.stage.geometry.output)
    network.classifier.condition(fitted)
    return fitted


class _Fit:
    """The passes of one fit."""

    def __init__(self, network: Network, index: int, parameters: ParameterVector,
                 images: Pass) -> None:
        self.network, self.index, self.parameters, self.images = network, index, parameters, images
        self.stage: Stage = network.stages[index]
        self.config: StageConfig = network.config.stages[index]
        self.name = f"stages.{index}"
        self.count = 0  # images of a pass

    def _states(self, most: int | None = None) -> Iterator[StageActivations]:
        self.count = 0
        for x in self.images():
            if most is not None and self.count >= most:
                return
            self.count += x.shape[-1]
            yield self.network.activations(self.parameters, x, self.index)

    def _whole(self, part: np.ndarray, where: Rectangle, rows: int, cols: int) -> np.ndarray:
        """The whole of an array (row, col, ...) of which every block has its part."""
        whole = np.zeros((rows, cols, *part.shape[2:]))
        whole[slice(*where.rows), slice(*where.cols)] = part
        self.network.communicator.sum_in_place(whole)
        return whole

    # ---- units -----------------------------------------------------------------------------------

    def standardised(self) -> Conditioner:
        """Mean and deviation of every unit; those of units that are not standardised are 0, 1."""
        owned, shape = self.stage.plan.h.owned, self.stage.geometry.pooled
        if not self.config.standardise:
            return Conditioner(np.zeros(shape), np.ones(shape))
        return self.moments(lambda state: np.log(state.h) if self.config.log else state.h, owned,
                            shape)

    def moments(self, units: Callable[[StageActivations], np.ndarray], owned: Rectangle,
                shape: tuple[int, int, int]) -> Conditioner:
        """Mean and deviation of every unit of an array of that shape, of which a block owns a part.
        """
        # Sums of differences from the first portion's mean lose nothing to large means.
        first = total = power = np.zeros((*owned.shape, shape[2]))
        for state in self._states():
            u = units(state)
            if not first.any():
                first = u.mean(axis=-1, dtype=np.float64)
            off = u - first[..., None]
            total = total + off.sum(axis=-1)
            power = power + np.einsum("yxmi,yxmi->yxm", off, off)
        spread = power / self.count - np.square(total / self.count)
        variance = self._whole(np.maximum(spread, 0), owned, *shape[:2])
        mean = self._whole(first + total / self.count, owned, *shape[:2])
        overall = np.sqrt(variance.mean())
        alive = variance > np.square(1e-6 * np.maximum(overall, 1e-30))
        if not alive.any():
            raise InputError(f"stage {self.index + 1} gives the same response to all {self.count} "
                             "images that its conditioner is fitted on: its training went wrong "
                             "(look at its filters), or the images are all the same")
        deviation = np.where(alive, np.sqrt(variance) + DEVIATION_FLOOR * overall, 0.0)
        return Conditioner(mean, deviation)

    # ---- the whole map ---------------------------------------------------------------------------

    def map(self, fitted: Conditioner) -> Conditioner:
        """Contrast and directions of the map as a whole."""
        config, (rows, cols, maps) = self.config, self.stage.geometry.output
        units, owned = rows * cols * maps, self.stage.plan.y.owned
        floor = np.zeros(())
        if config.contrast:
            floor = np.asarray(CONTRAST_FLOOR * self._mean_deviation(units))
        if not config.whiten:
            return Conditioner(**fitted.arrays(), floor=floor)
        if units > LARGEST_MAP:
            raise InputError(f"{self.name}.whiten = {config.whiten}: the whole map has {units} "
                             f"units, its covariance {units} x {units} numbers (limit "
                             f"{LARGEST_MAP}): set {self.name}.window to whiten windows of it")
        covariance = _Covariance(units)
        for state in self._states():
            r, _ = self.stage.map_whitening.normalised(state.y, float(floor), self.stage.kept)
            covariance.add(self._whole(r.reshape(state.y.shape), owned, rows, cols)
                           .reshape(units, -1).astype(r.dtype))
        values, vectors = covariance.directions(config.whiten, self)
        # A A' scaled so that the units have variance 1 on average.
        gain = np.sqrt(units / config.whiten) / np.sqrt(values)
        return Conditioner(**fitted.arrays(), floor=floor,
                           centre=covariance.mean.reshape(rows, cols, maps),
                           directions=(vectors * np.sqrt(gain)).reshape(rows, cols, maps, -1),
                           spectrum=values / covariance.variance)

    def _mean_deviation(self, units: int) -> float:
        total = self.network.communicator.allreduce_sum
        found = []
        for state in self._states(CONTRAST_IMAGES):
            sums = np.stack([state.y.sum(axis=(0, 1, 2), dtype=np.float64),
                             np.einsum("yxmi,yxmi->i", state.y, state.y, dtype=np.float64,
                                       casting="same_kind")])
            mean, power = total(sums) / units
            found.append(np.sqrt(np.maximum(power - mean ** 2, 0)))
        return float(np.concatenate(found).mean())

    # ---- windows ---------------------------------------------------------------------------------

    def windows(self, fitted: Conditioner) -> Conditioner:
        """Contrast and directions of every window; each block fits those that it owns."""
        config, sublayer = self.config, self.stage.window_whitening
        rows, cols, rank = self.stage.geometry.passed_on
        n, owned = sublayer.units, self.stage.plan.c
        places = list(sublayer.places())
        floor = np.zeros(owned.shape)
        if config.contrast:
            seen = 0
            for state in self._states(CONTRAST_IMAGES):
                sublayer.fill(state.held_y)
                for place, where in places:
                    _, deviation = sublayer.normalised(state.held_y, where, 0.0)
                    floor[place] += 0 if deviation is None else deviation.sum()
                seen = self.count
            floor *= CONTRAST_FLOOR / seen
        centre, directions = np.zeros((*owned.shape, n)), np.zeros((*owned.shape, n, rank))
        spectrum = np.zeros((*owned.shape, rank))
        pairs = config.whiten_by == "pairs"
        # All blocks make as many passes, as all take part in those of the stages below.
        each = max(1, COVARIANCE_BYTES // (n * n * 8 * (2 if pairs else 1)))
        needed = -(-len(places) // each)
        passes = int(self.network.communicator.allreduce_sum(
            [float(number < needed) for number in range(rows * cols)]).astype(bool).sum())
        for number in range(passes):
            group = places[number * each:(number + 1) * each]
            covariances = [_Covariance(n, pairs) for _ in group]
            self._gather(group, covariances, sublayer, floor)
            for (place, _), covariance in zip(group, covariances):
                centre[place] = covariance.mean
                if pairs:
                    spectrum[place], directions[place] = covariance.alike(rank, self)
                else:
                    values, vectors = covariance.directions(rank, self)
                    directions[place] = vectors / np.sqrt(values)
                    spectrum[place] = values / covariance.variance
        side, maps = config.window, self.stage.geometry.output[2]
        units = side, side, maps
        return Conditioner(
            **fitted.arrays(), floor=self._whole(floor, owned, rows, cols),
            centre=self._whole(centre, owned, rows, cols).reshape(rows, cols, *units),
            directions=self._whole(directions, owned, rows, cols).reshape(rows, cols, *units, rank),
            spectrum=self._whole(spectrum, owned, rows, cols))

    def _gather(self, group: Sequence[tuple[tuple[int, int], tuple[slice, slice]]],
                covariances: Sequence["_Covariance"], sublayer: WindowWhitening,
                floor: np.ndarray) -> None:
        for state in self._states():
            sublayer.fill(state.held_y)
            for (place, where), covariance in zip(group, covariances):
                covariance.add(sublayer.normalised(state.held_y, where, float(floor[place]))[0])


class _Covariance:
    """Mean and covariance of columns (unit, image), gathered in portions.

    Parameters
    ----------
    pairs : bool
        Also how columns 2 i and 2 i + 1 vary together.
    """

    def __init__(self, units: int, pairs: bool = False) -> None:
        self.count, self._total, self._least = 0, np.zeros(units), LEAST_VARIANCE
        self._products = np.zeros((units, units))
        self._across = np.zeros((units, units)) if pairs else None

    def add(self, r: np.ndarray) -> None:
        """Take in a portion."""
        self.count += r.shape[1]
        self._total += r.sum(axis=1, dtype=np.float64)
        self._products += r @ r.T
        self._least = max(self._least, 10 * float(np.finfo(r.dtype).eps))
        if self._across is not None:
            both = r[:, ::2] @ r[:, 1::2].T
            self._across += both
            self._across += both.T

    @property
    def mean(self) -> np.ndarray:
        """Of every unit."""
        return self._total / self.count

    @property
    def variance(self) -> float:
        """Of all units together."""
        return float(np.trace(self._products) / self.count - np.square(self.mean).sum())

    def directions(self, rank: int, fit: _Fit, pool: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The largest eigenvalues of the covariance and their vectors (unit, direction).

        They are `rank`, or up to `pool` if that is more, as far as the images vary.
        """
        if self.count <= rank:
            raise InputError(f"{fit.name}.whiten = {rank}: {self.count} images are too few to find "
                             f"{rank} directions: use more images (train.condition_images, or a "
                             "larger dataset) or a smaller rank")
        covariance = self._products / self.count - np.outer(self.mean, self.mean)
        units = len(covariance)
        most = min(units, max(rank, pool))
        values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(units - most, units - 1))
        values, vectors = values[::-1], vectors[:, ::-1]
        varied = int((values > self._least * max(values[0], 1e-30)).sum())
        if varied < rank:
            raise InputError(f"{fit.name}.whiten = {rank}: the responses of stage {fit.index + 1} "
                             f"vary in only {varied} directions: make it at most {varied}")
        values, vectors = values[:varied], vectors[:, :varied]
        # The sign of a vector is arbitrary: its largest element is made positive.
        largest = np.abs(vectors).argmax(axis=0)
        return values, vectors * np.sign(vectors[largest, np.arange(varied)])

    def alike(self, rank: int, fit: _Fit) -> tuple[np.ndarray, np.ndarray]:
        """Correlations across pairs, and the white directions (unit, direction) that have them.

        They are chosen among the POOL directions of largest variance.
        """
        assert self._across is not None
        values, vectors = self.directions(rank, fit, POOL)
        white = vectors / np.sqrt(values)
        across = self._across / self.count - np.outer(self.mean, self.mean)
        found = scipy.linalg.eigh(white.T @ across @ white)
        correlations, chosen = found[0][::-1][:rank], found[1][:, ::-1][:, :rank]
        return correlations, white @ chosen
