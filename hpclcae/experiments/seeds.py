"""Several runs of one network in one table: the spread of seeds beside the interval of the test."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.experiments.comparison import HONEST, MEASURES, Row, top_row
from hpclcae.experiments.labelled_images import interval
from hpclcae.experiments.made_from import weights_fingerprint
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table


def require_one_network(models: Sequence[Model]) -> None:
    """Refuse runs that do not differ in their seed alone, as far as their networks tell.

    Raises
    ------
    InputError
        Two have different stages, preprocessing or images, or the very same weights.
    """
    first, seen = models[0], {weights_fingerprint(models[0]): models[0]}
    for model in models[1:]:
        for what, mine, others in (
                ("stages", model.config.stages, first.config.stages),
                ("preprocessing", model.config.preprocess, first.config.preprocess),
                ("image sizes", *((m.config.data.size, m.config.data.channels)
                                  for m in (model, first)))):
            if mine != others:
                raise InputError(f"{first.path} and {model.path} have different {what}: only runs "
                                 "of one network make one table")
        twin = seen.setdefault(weights_fingerprint(model), model)
        if twin is not model:
            raise InputError(f"{twin.path} and {model.path} hold the same weights: a spread needs "
                             "runs of different seeds")


@dataclass(frozen=True, eq=False)
class SeveralRow:
    """The same row of several runs."""
    rows: tuple[Row, ...]
    tops: tuple[Row, ...]  # the top stages of these runs

    @property
    def name(self) -> str:
        """Of the row."""
        return self.rows[0].name

    @property
    def shared(self) -> bool:
        """Whether the row says nothing about the runs: chance, linear filters."""
        return all(row is self.rows[0] for row in self.rows)

    def values(self, measure: int) -> np.ndarray:
        """Shares (run,)."""
        return np.array([row.values[measure] for row in self.rows])

    def differences(self, measure: int) -> np.ndarray:
        """Top stage minus this row, shares (run,)."""
        return np.array([top.values[measure] - row.values[measure]
                         for top, row in zip(self.tops, self.rows)])

    def interval(self, measure: int) -> tuple[float, float]:
        """Interval of the mean over runs, from persons and photographs."""
        return interval(np.mean([row.replicates[measure] for row in self.rows], axis=0))

    def difference_interval(self, measure: int) -> tuple[float, float]:
        """The same of the top stage minus this row."""
        return interval(np.mean([top.replicates[measure] - row.replicates[measure]
                                 for top, row in zip(self.tops, self.rows)], axis=0))

    @property
    def equal_differences(self) -> tuple[np.ndarray, tuple[float, float]] | None:
        """Top stage minus this row if both chose among as many neurons: (run,) and its interval.

        None if that cannot be said.
        """
        pairs = [(top.equal, row.equal) for top, row in zip(self.tops, self.rows)
                 if top.equal and row.equal]
        if len(pairs) < len(self.rows):
            return None
        return (np.array([top.accuracy - other.accuracy for top, other in pairs]),
                interval(np.mean([top.replicates - other.replicates for top, other in pairs],
                                 axis=0)))

    def as_json(self) -> dict[str, object]:
        """Everything in the row: shares, what cannot be said is None."""
        figures: dict[str, object] = {"name": self.name, "shared": self.shared}
        for number, measure in enumerate(MEASURES):
            for key, values, between in (
                    (measure, self.values(number), self.interval(number)),
                    (f"top_minus_it_{measure}", self.differences(number),
                     self.difference_interval(number))):
                spread = np.std(values, ddof=1)
                figures[key] = {
                    "runs": [_known(value) for value in values], "mean": _known(values.mean()),
                    "spread": None if self.shared and key == measure else _known(spread),
                    "interval": None if math.isnan(between[0]) else between}
        if equal := self.equal_differences:
            figures["top_minus_it_equal_candidates"] = {
                "runs": equal[0].tolist(), "mean": float(equal[0].mean()),
                "interval": None if math.isnan(equal[1][0]) else equal[1]}
        return figures


def beside(runs: Sequence[Sequence[Row]]) -> list[SeveralRow]:
    """Put the rows of several runs beside each other; they must be the same rows."""
    tops = tuple(map(top_row, runs))
    return [SeveralRow(rows, tops) for rows in zip(*runs, strict=True)]


def equal_as_text(rows: Sequence[SeveralRow]) -> str:
    """A sentence about equal numbers of candidates; "" if nothing can be said."""
    top = next(row for row in rows if row.rows == row.tops)
    candidates = top.rows[0].candidates or 0
    more = [(row, equal) for row in rows if (equal := row.equal_differences)
            and (row.rows[0].candidates or 0) > candidates]
    if not more:
        return ""
    row, (differences, between) = min(more, key=lambda pair: pair[1][0].mean())
    return (f"with {candidates:,} candidates in every row the top stage is "
            f"{100 * differences.mean():+.1f} {_range(between, '[{:+.1f}, {:+.1f}]')} points above "
            f"the best of them, {row.name} ({100 * differences.min():+.1f} at least)")


def as_text(rows: Sequence[SeveralRow], runs: Sequence[str]) -> str:
    """Lay out the rows for a terminal, in percent; `runs` are their names."""
    measure = HONEST if not math.isnan(rows[0].values(HONEST)[0]) else MEASURES.index("accuracy")
    lines = []
    for row in rows:
        values, differences = row.values(measure), row.differences(measure)
        is_top = row.rows == row.tops
        lines.append([row.name, _percent(values.mean()),
                      "" if row.shared else _percent(np.std(values, ddof=1)),
                      _range(row.interval(measure), "{:.1f} .. {:.1f}"),
                      *([""] * len(runs) if row.shared else map(_percent, values)),
                      "" if is_top or math.isnan(differences[0]) else
                      f"{100 * differences.mean():+.1f} "
                      + _range(row.difference_interval(measure), "[{:+.1f}, {:+.1f}]"),
                      "" if is_top or math.isnan(differences[0])
                      else f"{100 * differences.min():+.1f}"])
    columns = ["final" if measure == HONEST else "best of 20", "sd", "95 % interval", *runs,
               "top minus it", "least"]
    return table([("", ""), *((column, ">") for column in columns)], lines, rule=False)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}"


def _range(between: tuple[float, float], form: str) -> str:
    return "" if math.isnan(between[0]) else form.format(*(100 * edge for edge in between))
