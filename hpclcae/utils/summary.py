"""What many numbers are like, in constant memory: counts, moments, quantiles and a histogram."""
import math
from dataclasses import dataclass

import numpy as np

QUANTILES = 1, 5, 25, 50, 75, 95, 99  # percent
BARS = 20                             # of the histogram


@dataclass(frozen=True)
class Summary:
    """What the numbers of a result are like; all but the counts are of the finite ones.

    Attributes
    ----------
    count, not_finite : int
        All numbers, and those of them that are inf or nan.
    mean, rms, minimum, maximum : float
        nan if no number is finite.
    quantiles : tuple of float
        At `QUANTILES` percent, interpolated as `numpy.quantile` does. Exact if the result was one
        block (some hundred thousand numbers), and for the weights themselves if they are float32.
        Else each number that is interpolated is cut after 24 binary digits, so it is wrong by
        less than 6e-8 of its value (by less than 2e-315 where float64 is subnormal).
    histogram : ndarray of int
        Numbers in each of `BARS` equal parts from minimum to maximum; none if these are equal.
    """
    count: int
    not_finite: int
    mean: float
    rms: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]
    histogram: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """Where the parts of the histogram begin, and where the last one ends."""
        return np.linspace(self.minimum, self.maximum, BARS + 1)


class SummaryCollector:
    """Counts, sums and quantiles of numbers that come in blocks, each block twice.

    `look` at all blocks, then `look_again` at all, then ask for the `summary`.

    Quantiles are found by digits. As integers of 64 bits, in which a sign, an exponent and a
    mantissa stand in this order, positive numbers are sorted as their values are; `_keys` does it
    for negative ones as well. The first look counts the numbers by their leading `_FIRST` digits;
    then it is known with which digits the numbers around each quantile begin, and the second look
    counts those numbers by the next `_SECOND` digits. 12 digits are sign and exponent, so 24 are
    known of the mantissa, one more than float32 has.
    """
    _FIRST, _SECOND = 19, 17

    def __init__(self) -> None:
        self.count = self._not_finite = 0
        self._sum = self._squares = 0.0
        self._minimum, self._maximum = math.inf, -math.inf
        self._leading = np.zeros(1 << self._FIRST, np.int64)
        self._next: dict[int, np.ndarray] = {}  # leading digits -> counts by the next ones
        self._bars = np.zeros(BARS, np.int64)
        self._last = np.empty(0)

    @property
    def _finite(self) -> int:
        return self.count - self._not_finite

    def look(self, values: np.ndarray) -> None:
        """Look at a block for the first time."""
        finite = values[np.isfinite(values)]
        self.count += values.size
        self._not_finite += values.size - finite.size
        if not finite.size:
            return
        with np.errstate(over="ignore"):
            self._sum += float(finite.sum())
            self._squares += float(np.square(finite).sum())
        self._minimum = min(self._minimum, float(finite.min()))
        self._maximum = max(self._maximum, float(finite.max()))
        np.add.at(self._leading, _keys(finite) >> (64 - self._FIRST), 1)

    def look_again(self, values: np.ndarray) -> None:
        """Look at a block for the second time, when all were looked at."""
        finite = self._last = values[np.isfinite(values)]
        width = self._maximum - self._minimum
        if 0 < width < math.inf:
            bars = ((finite - self._minimum) / width * BARS).astype(np.int64)
            self._bars += np.bincount(np.minimum(bars, BARS - 1), minlength=BARS)
        if not self._next and self._finite:
            begins = np.searchsorted(self._leading.cumsum(), self._ranks()[0].ravel(), "right")
            self._next = {int(begin): np.zeros(1 << self._SECOND, np.int64) for begin in begins}
        keys = _keys(finite)
        leading = keys >> (64 - self._FIRST)
        following = (keys >> (64 - self._FIRST - self._SECOND)) & ((1 << self._SECOND) - 1)
        for begin, counts in self._next.items():
            np.add.at(counts, following[leading == begin], 1)

    def _ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Ranks before and after each quantile (2, quantile), and how far it is between them."""
        place = (self._finite - 1) * np.array(QUANTILES) / 100
        before = np.floor(place).astype(np.int64)
        return np.stack([before, np.minimum(before + 1, self._finite - 1)]), place - before

    def _ranked(self, rank: int) -> float:
        """The number of a rank, 0 for the smallest."""
        ends = self._leading.cumsum()
        begin = int(np.searchsorted(ends, rank, "right"))
        rank -= int(ends[begin] - self._leading[begin])
        following = int(np.searchsorted(self._next[begin].cumsum(), rank, "right"))
        unknown = 64 - self._FIRST - self._SECOND  # digits at the end: 0 of the mantissa
        key = (begin << self._SECOND | following) << unknown
        if key >= 1 << 63:
            bits = key - (1 << 63)
        else:
            bits = ~(key | (1 << unknown) - 1) % (1 << 64)
        return float(np.uint64(bits).view(np.float64))

    def summary(self, exact: bool) -> Summary:
        """What was found; `exact`: there was one block, so that its quantiles can be computed."""
        if not self._finite:
            nothing = (math.nan,) * 4
            return Summary(self.count, self._not_finite, *nothing, (math.nan,) * len(QUANTILES),
                           self._bars)
        with np.errstate(all="ignore"):
            if exact:
                quantiles = np.quantile(self._last, np.array(QUANTILES) / 100)
            else:
                ranks, way = self._ranks()
                before, after = np.vectorize(self._ranked, otypes=[float])(ranks)
                quantiles = before + (after - before) * way
        return Summary(self.count, self._not_finite, self._sum / self._finite,
                       math.sqrt(self._squares / self._finite), self._minimum, self._maximum,
                       tuple(map(float, quantiles)), self._bars)


def _keys(values: np.ndarray) -> np.ndarray:
    """Integers of 64 bits, uint64, that are sorted as finite numbers are."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    return np.where(bits >> 63, ~bits, bits | (1 << 63))
