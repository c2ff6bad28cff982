"""Plots of simulated runs (extra: figures)."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.simulation.results import Simulated
from hpclcae.utils.files import save_figure

COLORS = "#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02"


def draw(found: Sequence[Simulated], path: Path, title: str, learns: bool) -> None:
    """Staleness and where time goes; with arithmetic the objective, too."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(12 if learns else 8, 3.6), layout="constrained")
    axes = figure.subplots(1, 4 if learns else 2)
    if learns:
        _curves(found, axes[0], axes[1])
    _staleness(found, axes[-2])
    _time(found, axes[-1])
    figure.suptitle(f"{title} (simulated)", fontsize=10)
    save_figure(figure, path, 150)


def _curves(found: Sequence[Simulated], by_work: Any, by_time: Any) -> None:
    for number, one in enumerate(found):
        made, seconds, objective = np.array(one.outcome.curve).T
        color, label = COLORS[number % len(COLORS)], _label(one)
        for axes, x in ((by_work, made), (by_time, seconds)):
            axes.plot(x, objective, color=color, label=label, lw=1.2)
    by_work.set(xlabel="minibatches", ylabel="objective")
    by_work.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    by_time.set(xlabel="simulated seconds", xscale="symlog")


def _staleness(found: Sequence[Simulated], axes: Any) -> None:
    for number, one in enumerate(found):
        counts = one.outcome.staleness
        share = counts / max(1, counts.sum())
        axes.step(np.arange(share.size), share,
                  color=COLORS[number % len(COLORS)], where="mid", lw=1.2,
                  label=_label(one))
    axes.set(xlabel="updates missed",
             ylabel="share of gradients")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _time(found: Sequence[Simulated], axes: Any) -> None:
    names = list(found[0].outcome.spent)
    left = np.zeros(len(found))
    for number, name in enumerate(names):
        share = np.array([one.outcome.spent[name] / (sum(one.outcome.spent.values()) or 1.0)
                          for one in found])
        axes.barh(range(len(found)), share, left=left,
                  color=COLORS[number % len(COLORS)], label=name)
        left += share
    axes.set_yticks(range(len(found)),
                    [f"{one.replicas} x {one.grid}" for one in found], fontsize=7)
    axes.set(xlabel="share of the replicas' time")
    axes.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def _label(one: Simulated) -> str:
    return f"{one.replicas} replica{'s' if one.replicas > 1 else ''}"
