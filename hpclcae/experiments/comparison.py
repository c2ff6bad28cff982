"""The table of best neurons against baselines, and what may be concluded from it."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpclcae.experiments.single_neurons import (BestNeuron, LabelledImages, chance_replicates,
                                                interval)
from hpclcae.utils.tables import table

#: Le et al. 2012, faces: percent, and whether it was confirmed; if not, it is quoted from memory.
PAPER: dict[str, tuple[float, bool]] = {
    "chance": (64.8, False), "random": (67.0, False), "linear": (74.0, False),
    "first": (71.0, False), "top": (81.7, True)}
MEASURES = ("accuracy", "honest", "auc")


@dataclass(frozen=True, eq=False)
class Row:
    """One line: a population's best neuron, or the mean over several random populations."""
    name: str
    values: np.ndarray                  # (measure,): shares
    replicates: np.ndarray              # (measure, replicate)
    runs: tuple[BestNeuron, ...] = ()   # one for each seed
    paper: str = ""                     # key of PAPER
    trained: bool = False               # else a baseline

    @classmethod
    def of(cls, name: str, runs: Sequence[BestNeuron], paper: str = "",
           trained: bool = False) -> "Row":
        """Average the best neurons of one or several populations of the same kind."""
        values = np.array([[run.accuracy, run.honest, run.auc] for run in runs])
        return cls(name, values.mean(axis=0), np.mean([run.replicates for run in runs], axis=0),
                   tuple(runs), paper, trained)

    @classmethod
    def chance(cls, images: LabelledImages, replicates: int, batch: int) -> "Row":
        """The line of a neuron that tells nothing."""
        shares = chance_replicates(images, replicates, batch)
        return cls("chance", np.array([images.chance, images.chance, 0.5]),
                   np.stack([shares, shares, np.full(replicates, 0.5)]), paper="chance")

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracy over the seeds; None for a single one."""
        accuracies = [run.accuracy for run in self.runs]
        return float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None

    @property
    def best(self) -> BestNeuron | None:
        """The best neuron of the best run."""
        return max(self.runs, key=lambda run: run.accuracy, default=None)

    def as_json(self) -> dict[str, object]:
        """Everything in the line; accuracies and AUC are shares."""
        figures: dict[str, object] = {"name": self.name}
        for measure, value, replicates in zip(MEASURES, self.values, self.replicates):
            figures[measure], figures[f"{measure}_interval"] = float(value), interval(replicates)
        if self.best:
            figures |= {"neurons": self.best.neurons, "where": self.best.where,
                        "threshold": self.best.threshold, "minimum": self.best.minimum,
                        "maximum": self.best.maximum,
                        "auc_resolution": self.best.auc_resolution,
                        "honest_halves": self.best.honest_halves,
                        "accuracy_of_seeds": [run.accuracy for run in self.runs],
                        "accuracy_spread": self.spread}
        if self.paper:
            percent, confirmed = PAPER[self.paper]
            figures["paper_faces"] = {"percent": percent,
                                      "status": "confirmed" if confirmed else "recalled"}
        return figures


def as_text(rows: Sequence[Row]) -> str:
    """Lay out the rows for a terminal, in percent."""
    right = ("best of 20", "95 % interval", "honest", "95 % interval", "AUC", "neurons",
             "row, col, map")
    return table([("", ""), *((header, ">") for header in right), ("paper", "")],
                 [_cells(row) for row in rows], rule=False)


def _cells(row: Row) -> list[str]:
    accuracy, honest, auc = (f"{100 * value:.1f}" for value in row.values)
    spread = "" if row.spread is None else f" (sd {100 * row.spread:.1f})"
    near = ["{:.1f} .. {:.1f}".format(*(100 * edge for edge in interval(r)))
            for r in row.replicates]
    best = row.best
    neuron = [f"{best.neurons:,}", ", ".join(map(str, best.where))] if best else ["", ""]
    return [row.name, accuracy + spread, near[0], honest, near[1], auc, *neuron, _paper(row.paper)]


def _paper(key: str) -> str:
    if key not in PAPER:
        return ""
    percent, confirmed = PAPER[key]
    return f"{percent}" if confirmed else f"{percent} recalled"


@dataclass(frozen=True)
class Verdict:
    """Does one row beat another?

    The bootstrap replicates are paired: both were judged by the same images.
    """
    row: Row
    other: Row

    def difference(self, measure: int) -> tuple[float, float, float]:
        """Difference in points of percent, and its 95 % interval."""
        low, high = interval(self.row.replicates[measure] - self.other.replicates[measure])
        difference = float(self.row.values[measure] - self.other.values[measure])
        return 100 * difference, 100 * low, 100 * high

    @property
    def word(self) -> str:
        """Decide: both intervals, the paper's and the honest one, must lie on one side of zero.

        Against several random networks it must, besides, be better (or worse) than every one of
        them.
        """
        (_, low, high), (_, honest_low, honest_high) = self.difference(0), self.difference(1)
        others = [run.accuracy for run in self.other.runs] or [self.other.values[0]]
        if min(low, honest_low) > 0 and self.row.values[0] > max(others):
            return "beats"
        if max(high, honest_high) < 0 and self.row.values[0] < min(others):
            return "falls short of"
        return "is within noise of"

    def __str__(self) -> str:
        best, honest = (f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"
                        for difference, low, high in map(self.difference, (0, 1)))
        return f"{self.row.name} {self.word} {self.other.name}: {best} points, honest {honest}"

    def as_json(self) -> dict[str, object]:
        """The same for a program."""
        keys = ("points", "low", "high")
        return {"row": self.row.name, "verdict": self.word, "other": self.other.name,
                "accuracy": dict(zip(keys, self.difference(0))),
                "honest": dict(zip(keys, self.difference(1)))}
