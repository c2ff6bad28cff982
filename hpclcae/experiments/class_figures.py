"""How a classifier learnt, what it confuses and how far its confidence can be trusted.

Drawn from metrics.jsonl and classification.h5 by ``hpclcae figures``.
"""
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae.experiments.classification import Classification
from hpclcae.utils.text import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 60  # of a matrix; of more, those with the most mistakes are shown
MOST_NAMES = 30    # of classes beside it
TRAINING, HELD_BACK = "#6f8f3f", "#d95f02"


def draw_learning(figure: "Figure", metrics: Sequence[dict[str, Any]],
                  validations: Sequence[dict[str, Any]], alone: int) -> "Figure":
    """Objective and share of images that are right, of minibatches and of validation images.

    Parameters
    ----------
    alone : int
        Steps of the classifier alone; a line shows where they end.
    """
    left, right = figure.subplots(1, 2)
    steps = [record["step"] for record in metrics]
    for axes, of_training, held_back, title in (
            (left, "data", "objective", "objective, without penalty"),
            (right, "right", "top1", "share of images in their class")):
        axes.plot(steps, [record["classifier"].get(of_training, np.nan) for record in metrics],
                  color=TRAINING, label="minibatches")
        axes.plot([record["step"] for record in validations],
                  [record["validation"].get(held_back, np.nan) for record in validations],
                  "o-", color=HELD_BACK, label="validation images")
        if 0 < alone < steps[-1]:
            axes.axvline(alone, color="grey", linestyle=":", label="then the whole network")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.legend(fontsize=8)
    left.set_yscale("log")
    return figure


def draw_confusion(figure: "Figure", found: Classification) -> "Figure":
    """Of the images of each class, the share that is put into each class."""
    evaluation, classes = found.evaluation, len(found.names)
    pairs = evaluation.confused()
    wrong = pairs[pairs[:, 0] != pairs[:, 1]]
    mistakes = (np.bincount(wrong[:, 0], wrong[:, 2], classes)
                + np.bincount(wrong[:, 1], wrong[:, 2], classes))
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
    place = np.full(classes, -1)
    place[shown] = np.arange(len(shown))
    matrix = np.zeros((len(shown), len(shown)))
    inside = (place[pairs[:, 0]] >= 0) & (place[pairs[:, 1]] >= 0)
    matrix[place[pairs[inside, 0]], place[pairs[inside, 1]]] = pairs[inside, 2]
    images = np.bincount(evaluation.labels, minlength=classes)[shown]
    matrix /= np.maximum(images, 1)[:, None]
    axes = figure.subplots()
    drawn = axes.imshow(matrix, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, label="share of the images of the true class")
    names = [drawable(found.names[number]) for number in shown]
    if len(shown) > MOST_NAMES:
        names = []
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("class with the highest score")
    axes.set_ylabel("true class")
    if len(shown) < classes:
        axes.set_title(f"the {len(shown)} of {classes:,} classes with the most mistakes",
                       fontsize=10)
    return figure


def draw_reliability(figure: "Figure", found: Classification) -> "Figure":
    """How often the classifier is right where it is how sure."""
    confidence, right, images = found.evaluation.reliability().T
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    there = images > 0
    curve.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as often as it says")
    curve.plot(confidence[there], right[there], "o-", color=HELD_BACK,
               label=f"calibration error {100 * found.evaluation.calibration_error():.1f} %")
    curve.set_ylabel("share right")
    curve.legend(fontsize=8)
    edges = np.linspace(0, 1, len(images) + 1)
    counts.bar(edges[:-1], images, width=np.diff(edges), align="edge", color=TRAINING,
               edgecolor="white")
    counts.set_ylabel("images")
    counts.set_xlabel("probability of the class with the highest score")
    return figure
