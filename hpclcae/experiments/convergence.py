"""How several runs learn, at equal work and at equal time.

It is for runs of one configuration that differ in replicas and consistency. The minibatches of all
replicas are counted, so at an equal abscissa two runs have computed the same number of gradients
(synchronous training applies their mean).
"""
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint.trained import Model
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.figures import read_metrics
from hpclcae.experiments.replica_figures import read_parallel
from hpclcae.training.step import all_losses
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TESTED, BATCH = 500, 100  # images that are held out, and of them at a time
SMOOTHED = 5  # lines of metrics that a point of a curve is the mean of


def read(folder: Path) -> dict[str, Any]:
    """The curves of a run, each point the mean over SMOOTHED lines of its metrics.

    Returns
    -------
    dict
        ``name``, ``minibatches`` of all replicas, ``seconds`` and ``objective`` of the first
        replica, ``megabytes`` that all replicas have fetched and pushed, arrays (point,), and the
        mean ``staleness`` of its gradients.

    Raises
    ------
    InputError
        It is no run folder, or it has too few lines of metrics.
    """
    config = checkpoint.load_state(checkpoint.find(folder)).config
    records = read_metrics(folder)
    if len(records) < 2 * SMOOTHED:
        raise InputError(f"{folder} has {len(records)} lines of metrics, a curve needs "
                         f"{2 * SMOOTHED}: train longer, or with a smaller train.log_every")
    window = np.ones(SMOOTHED) / SMOOTHED

    def smooth(key: str) -> np.ndarray:
        return np.convolve([record[key] for record in records], window, "valid")
    steps = smooth("step").astype(int)
    return {"name": describe(config), "minibatches": steps * config.parallel.replicas,
            "megabytes": steps / records[-1]["step"] * megabytes(folder),
            "seconds": smooth("seconds"), "objective": smooth("objective"),
            "staleness": mean_staleness(folder)}


def describe(config: Config) -> str:
    """What tells such runs apart."""
    parallel = config.parallel
    if not parallel.servers:
        return "no servers"
    replicas = f"{parallel.replicas} replica{'s' if parallel.replicas > 1 else ''}"
    if parallel.elastic:
        return f"{replicas}, elastic every {parallel.push_every}"
    if parallel.outer_rate:
        return f"{replicas}, outer every {parallel.push_every}"
    backup = f", {parallel.backup} backup" if parallel.backup else ""
    more = {"bounded": f" {parallel.staleness}", "synchronous": backup}
    scaled = ", scaled rate" if config.update.staleness_scaled else ""
    return f"{replicas}, {parallel.consistency}{more.get(parallel.consistency, '')}{scaled}"


def megabytes(folder: Path) -> float:
    """Megabytes (1e6) that all workers have fetched and pushed; 0 without servers.

    They are the same in every step, or in every few (fetch_every).
    """
    if not (folder / "parallel.json").exists():
        return 0.0
    return sum(rank.get("fetched_bytes", 0) + rank.get("pushed_bytes", 0)
               for rank in read_parallel(folder)) / 1e6


def held_out(folder: Path, images: Path) -> float:
    """Objective, per image, of what the servers hold at the end, on images that are spread evenly
    over a dataset (TESTED of them).

    Raises
    ------
    InputError
        The dataset cannot be read, or its images do not fit.
    """
    model = Model.load(folder)
    found = []
    with Dataset(images) as dataset:
        which = np.unique(np.linspace(0, dataset.count - 1, TESTED, dtype=int))
        for part in np.array_split(which, -(-which.size // BATCH)):
            x = model.prepare(dataset.read(part))
            losses = all_losses(model.network, model.network.forward(model.parameters, x), None)
            found.append(len(part) * sum(loss.objective for loss in losses if loss))
    return sum(found) / which.size


def mean_staleness(folder: Path) -> float:
    """Mean staleness of the gradients that were applied; 0 without servers."""
    if not (folder / "parallel.json").exists():
        return 0.0
    counts = np.zeros(0)
    for rank in read_parallel(folder):
        if any(rank.get("staleness", [])):
            counts = np.array(rank["staleness"]) + (counts if counts.size else 0)
    return float(counts @ np.arange(counts.size) / counts.sum()) if counts.size else 0.0


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the objective of all runs, against minibatches and against seconds, into a PNG file."""
    require("matplotlib", "figures", "drawing")
    from matplotlib.figure import Figure
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for key, label, axes in (("minibatches", "minibatches of all replicas", left),
                             ("seconds", "seconds", right)):
        for r in runs:
            axes.plot(r[key], r["objective"], linewidth=1.2, label=r["name"])
        _finish(axes, label)
    left.set_ylabel("objective of the first replica, per image")
    left.legend(fontsize="small")
    save_figure(figure, path, 110)


def _finish(axes: "Axes", label: str) -> None:
    axes.set(xlabel=label, yscale="log")
    axes.grid(alpha=0.3, which="both")
