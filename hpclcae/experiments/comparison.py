"""The table of best neurons against baselines, and what may be concluded from it."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.experiments import paper
from hpclcae.experiments.close_look import JudgedNeuron
from hpclcae.experiments.fewer_candidates import DRAWS, Equal
from hpclcae.experiments.labelled_images import (DEVELOPMENT, FINAL, LabelledImages, group_weights,
                                                 interval, ratio)
from hpclcae.experiments.single_neurons import Population
from hpclcae.utils.tables import table

#: honest: chosen on the development half, right on the final half; auc: of that neuron, on the
#: final half; accuracy: the paper's, best of 20 thresholds, chosen and judged on all images.
MEASURES = ("honest", "auc", "accuracy")
HONEST, AUC, ACCURACY = range(3)


@dataclass(frozen=True, eq=False)
class Row:
    """One line: a population's best neuron, or the mean over several random populations.

    What cannot be said is NaN.
    """
    name: str
    values: np.ndarray                      # (measure,): shares
    replicates: np.ndarray                  # (measure, replicate)
    chosen: tuple[JudgedNeuron, ...] = ()   # on the development half; one for each random seed
    best: tuple[JudgedNeuron, ...] = ()     # of all images; one for each random seed
    equal: Equal | None = None              # honest, with as many candidates as the top
    paper: str = ""                         # row of experiments/paper.py
    trained: bool = False                   # else a baseline

    @classmethod
    def of(cls, name: str, populations: Sequence[Population], paper: str = "",
           trained: bool = False) -> "Row":
        """Average the best neurons of one or several populations of the same kind."""
        best = tuple(population.best for population in populations)
        chosen = tuple(population.chosen for population in populations if population.chosen)
        known = [population.equal for population in populations if population.equal]
        equal = Equal(float(np.mean([each.accuracy for each in known])),
                      float(np.mean([each.spread for each in known])),
                      np.mean([each.replicates for each in known], axis=0)) if known else None
        return cls(name, *_measured(chosen, best), chosen, best, equal, paper, trained)

    @classmethod
    def by_training(cls, name: str, neuron: JudgedNeuron) -> "Row":
        """The line of a neuron that training labels chose; its threshold is from development."""
        return cls(name, *_measured((neuron,), ()), chosen=(neuron,))

    @classmethod
    def chance(cls, images: LabelledImages, replicates: int, batch: int) -> "Row":
        """The line of a neuron that tells nothing: always the more frequent answer."""
        mostly = images.concept.mean() > 0.5
        right = images.concept == mostly
        final = images.half == FINAL
        honestly = np.zeros(right.size, bool)
        if not images.why_not_honest:
            honestly = images.concept == (images.concept[images.half == DEVELOPMENT].mean() > 0.5)
        weighted = np.zeros((4, 0 if images.why_no_interval else replicates), np.int64)
        for first in range(0, right.size, batch):
            part = slice(first, first + batch)
            weights = group_weights(images.key[part], weighted.shape[1])
            for row, counted in zip(weighted, (final & honestly, final, right,
                                               np.ones(right.size, bool))):
                row += weights[counted[part]].sum(axis=0)
        honest, accuracy = ratio(*weighted[:2]), ratio(*weighted[2:])
        share = np.nan if images.why_not_honest else honestly[final].mean()
        half = np.nan if images.why_not_honest else 0.5
        return cls("chance", np.array([share, half, right.mean()]),
                   np.stack([honest * (share / share), np.full(honest.size, half), accuracy]),
                   paper="chance")

    @property
    def candidates(self) -> int | None:
        """Among so many it was chosen."""
        return next((neuron.neurons for neuron in (*self.chosen, *self.best)), None)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the headline over random seeds; None for a single one."""
        shares = [neuron.accuracy for neuron in self.chosen or self.best]
        return float(np.std(shares, ddof=1)) if len(shares) > 1 else None

    def as_json(self, images: LabelledImages) -> dict[str, object]:
        """Everything in the line; accuracies and AUC are shares, what cannot be said is None."""
        figures: dict[str, object] = {"name": self.name}
        for measure, value, replicates in zip(MEASURES, self.values, self.replicates):
            figures[measure] = None if math.isnan(value) else float(value)
            low, high = interval(replicates)
            figures[f"{measure}_interval"] = None if math.isnan(low) else (low, high)
        figures |= {"candidates": self.candidates, "spread": self.spread}
        if self.equal:
            low, high = interval(self.equal.replicates)
            figures["equal_candidates"] = {
                "honest": self.equal.accuracy, "spread": self.equal.spread, "draws": DRAWS,
                "honest_interval": None if math.isnan(low) else (low, high)}
        for key, neurons in (("chosen", self.chosen), ("best", self.best)):
            figures[key] = [_neuron_as_json(neuron, images) for neuron in neurons]
        if self.paper:
            percent, confirmed = paper.figure("face", self.paper) or (None, False)
            figures["paper_faces"] = {"percent": percent,
                                      "status": "confirmed" if confirmed else "recalled"}
        return figures


def _measured(chosen: Sequence[JudgedNeuron], best: Sequence[JudgedNeuron]
              ) -> tuple[np.ndarray, np.ndarray]:
    """Values (measure,) and replicates (measure, replicate), means over the neurons."""
    replicates = (*chosen, *best)[0].replicates.shape[1]
    values, rows = np.full(3, np.nan), np.full((3, replicates), np.nan)
    if chosen:
        values[:2] = np.mean([(neuron.accuracy, neuron.auc) for neuron in chosen], axis=0)
        rows[:2] = np.mean([neuron.replicates for neuron in chosen], axis=0)
    if best:
        values[ACCURACY] = np.mean([neuron.accuracy for neuron in best])
        rows[ACCURACY] = np.mean([neuron.replicates[0] for neuron in best], axis=0)
    return values, rows


def _neuron_as_json(neuron: JudgedNeuron, images: LabelledImages) -> dict[str, object]:
    keys = ("where", "accuracy", "auc", "auc_resolution", "threshold", "minimum", "maximum",
            "false_alarms")
    shown: dict[str, dict[str, object]] = {
        source: {"images": int(answers.sum()), "hits": int(answers[1])}
        for source, answers in zip(images.sources, neuron.answers[1]) if answers.any()}
    for number, source in enumerate(images.sources):
        if source in shown and len(shown) > 1:
            accuracy, replicates = neuron.without_source(number)
            low, high = interval(replicates)
            shown[source] |= {"accuracy_without_it": accuracy,
                              "interval_without_it": None if math.isnan(low) else (low, high)}
    return {key: getattr(neuron, key) for key in keys} | {"concept_by_source": shown}


@dataclass(frozen=True)
class Verdict:
    """Does one row beat another?

    The bootstrap replicates are paired: both were judged by the same images.
    """
    row: Row
    other: Row

    def difference(self, measure: int) -> tuple[float, float, float]:
        """Difference in points of percent, and its 95 % interval; NaN where nothing can be said."""
        low, high = interval(self.row.replicates[measure] - self.other.replicates[measure])
        difference = float(self.row.values[measure] - self.other.values[measure])
        return 100 * difference, 100 * low, 100 * high

    @property
    def equal_difference(self) -> tuple[float, float, float]:
        """The honest difference if both were chosen among as many neurons as the top stage has."""
        if self.row.equal is None or self.other.equal is None:
            return np.nan, np.nan, np.nan
        low, high = interval(self.row.equal.replicates - self.other.equal.replicates)
        return 100 * (self.row.equal.accuracy - self.other.equal.accuracy), 100 * low, 100 * high

    @property
    def word(self) -> str:
        """Decide: the interval of the honest difference must lie on one side of zero.

        Against several random networks it must, besides, be better (or worse) than every one of
        them. "" if nothing can be said.
        """
        difference, low, high = self.difference(HONEST)
        others = [neuron.accuracy for neuron in self.other.chosen] or [self.other.values[HONEST]]
        if math.isnan(difference) or math.isnan(low):
            return ""
        if low > 0 and self.row.values[HONEST] > max(others):
            return "beats"
        if high < 0 and self.row.values[HONEST] < min(others):
            return "falls short of"
        return "is within noise of"

    def __str__(self) -> str:
        """The honest difference with its interval, for a cell."""
        return _difference(*self.difference(HONEST))

    def as_json(self) -> dict[str, object]:
        """The same for a program; points of percent."""
        def numbers(difference: tuple[float, float, float]) -> dict[str, float | None]:
            return {key: None if math.isnan(value) else value for key, value in
                    zip(("points", "low", "high"), difference)}
        return {"row": self.row.name, "verdict": self.word, "other": self.other.name,
                "honest": numbers(self.difference(HONEST)),
                "accuracy": numbers(self.difference(ACCURACY)),
                "equal_candidates": numbers(self.equal_difference)}


def top_row(rows: Sequence[Row]) -> Row:
    """The row of the highest trained stage."""
    return [row for row in rows if row.trained][-1]


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Hold the top stage against every other row."""
    top = top_row(rows)
    return [Verdict(top, other) for other in rows if other is not top]


def luckiest(rows: Sequence[Row]) -> Verdict | None:
    """The top stage against the best of all rows that had more candidates, once none has more."""
    top = top_row(rows)
    more = [(row.equal.accuracy, row) for row in rows
            if row.equal and (row.candidates or 0) > (top.candidates or 0)]
    return Verdict(top, max(more, key=lambda pair: pair[0])[1]) if more else None


def equal_as_text(rows: Sequence[Row]) -> str:
    """A sentence about equal numbers of candidates; "" if nothing can be said."""
    verdict = luckiest(rows)
    if verdict is None or verdict.row.equal is None or verdict.other.equal is None:
        return ""
    return (f"with {verdict.row.candidates:,} candidates in every row the top stage is "
            f"{_difference(*verdict.equal_difference)} points above the best of them, "
            f"{verdict.other.name} ({100 * verdict.other.equal.accuracy:.1f})")


def as_text(rows: Sequence[Row], candidates: int | None = None) -> str:
    """Lay out the rows for a terminal, in percent; arguments as in `cells`."""
    columns, lines = cells(rows, candidates)
    return table([("", ""), *((column, ">") for column in columns[1:])], lines, rule=False)


def cells(rows: Sequence[Row], candidates: int | None = None,
          concept: str = "face") -> tuple[list[str], list[list[str]]]:
    """The columns of a table and its cells, in percent.

    Parameters
    ----------
    rows : sequence of Row
    candidates : int, optional
        How many candidates were drawn for the column of equal numbers of them; None: no column.
    concept : str
        Whose figures of the paper stand beside them.
    """
    verdicts = {verdict.other: str(verdict) for verdict in judge(rows)}
    honest = any(not math.isnan(row.values[HONEST]) for row in rows)
    columns = ["final", "95 % interval", "AUC"] if honest else []
    columns += [f"of {candidates:,}"] if honest and candidates else []
    columns += ["among", *(["top minus it"] if honest else []), "best of 20",
                *([] if honest else ["95 % interval"]), "paper"]
    lines = []
    for row in rows:
        known = {"final": _percent(row.values[HONEST]) + _deviation(row.spread),
                 "95 % interval": _range(row.replicates[HONEST if honest else ACCURACY]),
                 "AUC": _percent(row.values[AUC]),
                 "of": _percent(row.equal.accuracy if row.equal else np.nan),
                 "among": f"{row.candidates:,}" if row.candidates else "",
                 "top minus it": verdicts.get(row, ""), "paper": paper.as_text(concept, row.paper),
                 "best of 20": _percent(row.values[ACCURACY])}
        lines.append([row.name, *(known["of" if column.startswith("of ") else column]
                                  for column in columns)])
    return ["", *columns], lines


def sources_as_text(rows: Sequence[Row], images: LabelledImages) -> str:
    """What `source_cells` has, for a terminal."""
    columns, lines = source_cells(rows, images)
    return table([(columns[0], ""), *((column, ">") for column in columns[1:])], lines, rule=False)


def source_cells(rows: Sequence[Row], images: LabelledImages) -> tuple[list[str], list[list[str]]]:
    """Answers "yes" by source of the images of the final half, in percent, for some rows.

    Below them, where the concept comes from several sources, the accuracy without each of them.
    """
    final = images.half == FINAL
    neurons = [row.chosen[0] for row in rows]
    shown = final & images.concept
    found = [number for number in range(len(images.sources))
             if (shown & (images.source == number)).any()]

    def line(name: str, mine: np.ndarray, shares: Sequence[float]) -> list[str]:
        return [name, f"{mine.sum():,}", f"{images.count_groups(mine):,}", *map(_percent, shares)]

    lines = [line(f"found: {images.sources[number]}", shown & (images.source == number),
                  [neuron.hits[number] for neuron in neurons]) for number in found]
    lines.append(line("false alarms", final & ~images.concept,
                      [neuron.false_alarms for neuron in neurons]))
    if len(found) > 1:
        lines += [line(f"right without {images.sources[number]}",
                       final & ~(shown & (images.source == number)),
                       [neuron.without_source(number)[0] for neuron in neurons])
                  for number in found]
    names = [row.name.removeprefix("trained, ").removeprefix("linear: ") for row in rows]
    return ["final half, percent", "images", "groups", *names], lines


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}"


def _difference(difference: float, low: float, high: float) -> str:
    if math.isnan(difference):
        return ""
    return f"{difference:+.1f}" + ("" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]")


def _deviation(spread: float | None) -> str:
    return "" if spread is None else f" (sd {100 * spread:.1f})"


def _range(replicates: np.ndarray) -> str:
    low, high = interval(replicates)
    return "" if math.isnan(low) else f"{100 * low:.1f} .. {100 * high:.1f}"
