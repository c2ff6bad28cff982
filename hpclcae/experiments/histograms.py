"""How the responses of neurons spread, with the concept and without it (paper: histograms)."""
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.experiments import probing
from hpclcae.experiments.invariance import area_under_curve
from hpclcae.experiments.neurons import concept_of
from hpclcae.experiments.probing import Probed
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.record import Record
from hpclcae.experiments.scan import Neuron
from hpclcae.utils.text import drawable, entitle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40
CONCEPT, REST = "#0072b2", "#e69f00"  # told apart by all colour-blind people
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def run(model: Model, neurons: Sequence[tuple[Neuron, float | None]], path: str | None, batch: int,
        seed: int, record: Record, ranks: Ranks = Ranks()) -> None:
    """Ask the neurons about the test set, print, and write what the record holds.

    The HDF5 file has ``response`` (neuron, image), ``index`` (image,), the positions in the
    dataset, and ``concept`` (image,).

    Parameters
    ----------
    neurons : sequence of (Neuron, float or None)
        Each with its threshold, if it is known.
    record : Record
        With the figure "responses".

    Raises
    ------
    InputError
        See `probing.probe`.
    """
    with probing.open_test(model, path) as test:
        record.about(test)
        found = probing.probe(model, [neuron for neuron, _ in neurons], test, batch, seed,
                              "histograms", ranks)
        concept = concept_of(test)
    rows = [_row(neuron, threshold, answers, found.concept)
            for (neuron, threshold), answers in zip(neurons, found.response)]
    record.table(f"Responses to '{concept}' and to the rest, {found.half}",
                 ["neuron", f"mean, '{concept}'", "mean, rest", "deviation, rest", "AUC, %",
                  "threshold", f"'{concept}' above, %", "rest above, %"], rows,
                 [f"{found.concept.sum():,} images show '{concept}', {(~found.concept).sum():,} do "
                  "not. AUC: how often, of a random pair, the one with it responds more."])
    record.figure(lambda: draw(neurons, found, concept), "responses",
                  f"How the responses of neurons spread over {found.index.size:,} test images "
                  f"({found.half}): '{concept}' against the rest, each in percent of its kind; "
                  "dashed: the threshold.",
                  "; ".join(f"neuron {row[0]}: mean response {row[1]} to '{concept}', {row[2]} to "
                            f"the rest, AUC {row[4]} %" for row in rows))
    record.values |= {"half": found.half, "concept": concept, "neurons": [
        {"neuron": str(neuron), "threshold": threshold, "auc": _auc(answers, found.concept),
         **{kind: dict(zip(map(str, QUANTILES), np.quantile(answers[mine], QUANTILES)))
            for kind, mine in (("concept", found.concept), ("rest", ~found.concept))}}
        for (neuron, threshold), answers in zip(neurons, found.response)]}
    record.arrays |= {"response": found.response, "index": found.index, "concept": found.concept}
    record.save()


def _row(neuron: Neuron, threshold: float | None, response: np.ndarray,
         concept: np.ndarray) -> list[str | float | None]:
    shares = [None if threshold is None else round(100 * float((response[mine] > threshold).mean()),
                                                   1) for mine in (concept, ~concept)]
    return [str(neuron), *(float(f"{value:.3g}") for value in (
        response[concept].mean(), response[~concept].mean(), response[~concept].std())),
        round(100 * _auc(response, concept), 1),
        None if threshold is None else float(f"{threshold:.3g}"), *shares]


def _auc(response: np.ndarray, concept: np.ndarray) -> float:
    alike = [np.full((mine.sum(), 1), 1 / mine.sum()) for mine in (concept, ~concept)]
    return float(area_under_curve(response[concept], response[~concept], *alike)[0])


def draw(neurons: Sequence[tuple[Neuron, float | None]], found: Probed,
         concept: str) -> "Figure":
    """A panel for each neuron."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(4.2 * len(neurons) + 0.4, 4), layout="constrained")
    entitle(figure, f"responses to the test images, {found.half}")
    panels = figure.subplots(1, len(neurons), squeeze=False)[0]
    for number, (axes, (neuron, threshold), response) in enumerate(
            zip(panels, neurons, found.response)):
        edges = np.histogram_bin_edges(response, BINS)
        for mine, colour, hatch, name in ((~found.concept, REST, None, "the rest"),
                                          (found.concept, CONCEPT, "///", drawable(concept))):
            counts = np.histogram(response[mine], edges)[0]
            axes.stairs(100 * counts / mine.sum(), edges, fill=True, alpha=0.45, color=colour,
                        hatch=hatch, label=f"{name} ({mine.sum():,})")
            axes.stairs(100 * counts / mine.sum(), edges, color=colour, linewidth=1.2)
        if threshold is not None:
            axes.axvline(threshold, color="black", linestyle="--",
                         label=f"threshold {threshold:.3g}")
        axes.set_title(f"neuron {neuron}\nAUC {100 * _auc(response, found.concept):.1f} %",
                       fontsize=10)
        axes.set(xlabel="response", ylabel="" if number else "percent of the kind")
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
        axes.legend(fontsize=8, loc="upper right")
    return figure
