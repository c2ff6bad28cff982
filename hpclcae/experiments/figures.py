"""Filters, learning curves, histograms, stimuli and a map of accuracies of one run.

Each figure is drawn from what the run left: a checkpoint, ``metrics.jsonl`` (training writes both),
``neurons.h5`` (``hpclcae neurons`` writes it). What is missing is named, with the command that
makes it.
"""
import contextlib
import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae import config as configuration
from hpclcae.checkpoint.metrics_log import metrics_path, read_content, records
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import results
from hpclcae.experiments.class_figures import draw_confusion, draw_learning, draw_reliability
from hpclcae.experiments.classification import HDF5, Classification, read_arrays
from hpclcae.experiments.filters import filter_shape
from hpclcae.experiments.made_from import require_same
from hpclcae.experiments.neurons import run_folder
from hpclcae.experiments.replica_figures import (draw_replicas, draw_survival, is_server,
                                                 read_parallel)
from hpclcae.survive import history
from hpclcae.utils.errors import InputError
from hpclcae.utils.text import drawable, entitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILTERS_ACROSS = 24  # about so many filters along each side of their figure
HISTOGRAM_BINS = 42  # divides the fine bins, and the thresholds stay edges
STIMULI_ACROSS = 8
#: Green and orange, told apart by most colour-blind people, too.
CONCEPT, OTHER = "#1b9e3e", "#d95f02"


def drawings(run: str, test: str | None = None) -> dict[str, Callable[[], "Figure"]]:
    """The figures of a run: name of the file, and the function that draws it.

    The functions raise an InputError where the run lacks what they draw from.

    Parameters
    ----------
    run : str
        Its folder, or one of its checkpoints.
    test : str, optional
        Where the test images are now; by default where hpclcae neurons read them.

    Raises
    ------
    InputError
        There is no such run.
    """
    folder = run_folder(run)
    name = drawable(folder.resolve().name)

    @functools.cache
    def neurons() -> dict[str, Any]:
        found = results.read_neurons(run)
        return found | {"concept": drawable(str(found["concept"]))}
    found: dict[str, Callable[[], Figure]] = {
        "filters.png": lambda: draw_filters(Model.load(run), name),
        "objective.png": lambda: draw_objective(read_metrics(folder), name),
        "histogram.png": lambda: draw_histograms(neurons(), name),
        "stimuli.png": lambda: draw_stimuli(neurons(), test, name),
        "means.png": lambda: draw_means(neurons(), test, name),
        "positions.png": lambda: draw_positions(neurons(), name)}
    if (folder / "parallel.json").exists():  # a run with parameter servers
        found["replicas.png"] = lambda: draw_parallel_run(folder, name)
    if (folder / history.LOG).exists():
        found["survival.png"] = lambda: draw_survived_run(folder, name)
    if validations := _supervised(folder):
        classes = functools.cache(lambda: read_arrays(folder / HDF5))
        found["classifier.png"] = lambda: draw_learning(
            _figure(11, 4.5, name, validations[0][-1]["step"], "how the classifier learnt"),
            *validations)
        for file, draw, size, subject in (
                ("confusion.png", draw_confusion, (8, 7.5), "what is taken for what"),
                ("reliability.png", draw_reliability, (6, 6.5), "how far to trust it")):
            found[file] = functools.partial(_of_classes, classes, draw, size, name, subject)
    return found


def _supervised(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int] | None:
    """Lines of metrics with a classifier, those of validation, steps of the classifier alone.

    None where the run has no classifier.
    """
    content = read_content(metrics_path(folder))
    found = records(content, "classifier")
    if not found:
        return None
    config = configuration.load(folder / "configuration.toml")
    return found, records(content, "validation"), config.classifier.steps


def _of_classes(classes: Callable[[], Classification],
                draw: Callable[["Figure", Classification], "Figure"],
                size: tuple[float, float], name: str, subject: str) -> "Figure":
    """A figure of what a classifier says of images."""
    found = classes()
    part = f"{subject}: {len(found.indices):,} {found.facts['part']} images"
    return draw(_figure(*size, name, int(found.facts["step"]), part), found)


def read_metrics(folder: Path, replica: int = 0) -> list[dict[str, Any]]:
    """Read the metrics of a replica in order of steps.

    Of a step that was repeated after a resume the last line counts. Lines that a crash cut short or
    damaged are passed over.

    Raises
    ------
    InputError
        There are none.
    """
    file = metrics_path(folder, replica)
    found = records(read_content(file), "objective", "seconds")
    if not found:
        raise InputError(f"{file} has no metrics: hpclcae train CONFIGURATION --out "
                         f"{shlex.quote(str(folder))} writes them")
    return found


def filter_mosaic(
        weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Lay out the filters of evenly spread positions, each position a block of all its maps.

    Every filter is scaled by its own largest weight: grey is zero, white the largest, black its
    negative.

    Parameters
    ----------
    weights : array (row, col, krow, kcol, channel, map)

    Returns
    -------
    pixels : (y, x, channel), from 0 to 1
    rows, cols : the positions shown
    block : height and width of a position's block, pixels
    """
    maps = weights.shape[-1]
    high = max(d for d in range(1, int(maps ** 0.5) + 1) if maps % d == 0)
    if maps > 3 * high * high:  # a prime number, say: leave places empty, draw no long line
        high = int(maps ** 0.5)
    wide = -(-maps // high)
    counts = [max(1, min(size, FILTERS_ACROSS // side))
              for size, side in zip(weights.shape[:2], (high, wide))]
    rows, cols = (np.unique(np.linspace(0, size - 1, count).round().astype(int))
                  for size, count in zip(weights.shape[:2], counts))
    side_y, side_x, channels = weights.shape[2:5]
    block = high * (side_y + 1) + 2, wide * (side_x + 1) + 2
    pixels = np.ones((rows.size * block[0], cols.size * block[1], channels))
    for place in np.ndindex(rows.size, cols.size, maps):
        filter_ = weights[rows[place[0]], cols[place[1]], ..., place[2]]
        top = place[0] * block[0] + place[2] // wide * (side_y + 1)
        left = place[1] * block[1] + place[2] % wide * (side_x + 1)
        largest = np.abs(filter_).max() or 1.0
        pixels[top:top + side_y, left:left + side_x] = 0.5 + 0.5 * filter_ / largest
    return pixels, rows, cols, block


def draw_filters(model: Model, name: str) -> "Figure":
    """Filters of the first stage at evenly spread positions."""
    weights = model.filters(0)
    pixels, rows, cols, block = filter_mosaic(weights)
    figure = _figure(9, 8.4 * pixels.shape[0] / pixels.shape[1] + 1.1, name, model.step,
                     f"filters of stage 1 at {rows.size} x {cols.size} of {weights.shape[0]} x "
                     f"{weights.shape[1]} positions, all {weights.shape[-1]} maps\n"
                     f"{filter_shape(weights)}")
    axes = figure.subplots()
    axes.imshow(_showable(pixels), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks((np.arange(cols.size) + 0.5) * block[1] - 2, cols)
    axes.set_yticks((np.arange(rows.size) + 0.5) * block[0] - 2, rows)
    axes.set(xlabel="col of the position", ylabel="row of the position")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def draw_objective(metrics: list[dict[str, Any]], name: str) -> "Figure":
    """Learning curves: the objective and its parts, the response, rate and speed.

    A collapse shows in the response.
    """
    steps = [record["step"] for record in metrics]
    figure = _figure(12, 7, name, steps[-1], "what the objective is made of, mean over a minibatch")
    panels = figure.subplots(2, 3, sharex=True)

    def curve(record: dict[str, Any], stage: int, key: str) -> float:
        stages = record.get("stages") or []
        value = (stages[stage] or {}).get(key) if stage < len(stages) else None
        return np.nan if value is None else value

    count = max(len(record.get("stages") or []) for record in metrics)
    for axes, key, title in ((panels[0, 1], "reconstruction", "reconstruction error"),
                             (panels[0, 2], "sparsity", "sparsity"),
                             (panels[1, 0], "response", "response, root mean square")):
        for stage in range(count):
            axes.plot(steps, [curve(record, stage, key) for record in metrics],
                      label=f"stage {stage + 1}")
        _scale(axes, title, logarithmic=True)
        axes.legend()
    for axes, key, title in ((panels[0, 0], "objective", "objective"),
                             (panels[1, 1], "rate", "learning rate"),
                             (panels[1, 2], "images_per_second", "images per second")):
        axes.plot(steps, [np.nan if record.get(key) is None else record[key] for record in metrics],
                  color="black")
        _scale(axes, title, logarithmic=key == "objective")
    for axes in panels[1]:
        axes.set_xlabel("step")
    return figure


def draw_parallel_run(folder: Path, name: str) -> "Figure":
    """How replicas and servers worked together."""
    ranks = read_parallel(folder)
    workers = [rank for rank in ranks if not is_server(rank)]
    replicas = 1 + max(int(rank["role"].split()[1]) for rank in workers)
    metrics = [read_metrics(folder, replica) for replica in range(replicas)]
    subject = (f"replicas: {replicas}, blocks of each: {len(workers) // replicas}, servers: "
               f"{len(ranks) - len(workers)}, transport: {ranks[0]['transport']}")
    return draw_replicas(_figure(15, 7.5, name, metrics[0][-1]["step"], subject), ranks, metrics)


def draw_survived_run(folder: Path, name: str) -> "Figure":
    """What failed in a surviving run, and what it cost."""
    rows, metrics = history.events(folder), {0: read_metrics(folder)}
    begun = (path.stem.removeprefix("metrics-replica")
             for path in folder.glob("metrics-replica*.jsonl"))
    for replica in sorted(int(number) for number in begun if number.isdecimal()):
        with contextlib.suppress(InputError):  # it did not come to a line
            metrics[replica] = read_metrics(folder, replica)
    replicas = configuration.load(folder / "configuration.toml").parallel.replicas
    subject = history.describe(rows, replicas, metrics[0][-1]["seconds"])
    return draw_survival(_figure(12, 6, name, metrics[0][-1]["step"], subject), rows, metrics)


def draw_histograms(neurons: dict[str, Any], name: str) -> "Figure":
    """How the responses of the best neuron of each stage spread, with and without the concept."""
    stages = neurons["stages"]
    chosen = ("chosen on the development half, to the images of the final half"
              if stages[0]["honest"] else f"to the {neurons['test_images']:,} test images")
    figure = _figure(5 * len(stages), 4.8, name, neurons["step"],
                     f"responses of the best neuron of each stage, {chosen}")
    panels = figure.subplots(1, len(stages), squeeze=False)[0]
    for number, (axes, stage) in enumerate(zip(panels, stages), start=1):
        best = stage["best"]
        counts = stage["histogram"].reshape(2, HISTOGRAM_BINS, -1).sum(axis=2)
        edges = np.linspace(best["minimum"], best["maximum"], HISTOGRAM_BINS + 1)
        for count, colour, label in zip(counts, (OTHER, CONCEPT), ("the rest", neurons["concept"])):
            axes.stairs(100 * count / count.sum(), edges, fill=True, alpha=0.5, color=colour,
                        label=f"{label} ({count.sum():,})")
        axes.axvline(best["threshold"], color="black", linestyle="--",
                     label=f"threshold {best['threshold']:.3g}")
        axes.set(title=f"{_neuron(number, best)}\n{100 * best['accuracy']:.1f} % right, AUC "
                 f"{100 * best['auc']:.1f}", xlabel="response",
                 ylabel="percent of the kind" if number == 1 else "")
        axes.legend()
    return figure


def draw_stimuli(neurons: dict[str, Any], test_path: str | None, name: str) -> "Figure":
    """Test images with the highest response of best neurons.

    They are those of the first stage, of the top stage, and of the stage with the best of all. Of a
    neuron that the development half chose, they are the images of the final half.

    Raises
    ------
    InputError
        The test set is not the one that the neurons were tested with.
    """
    accuracies = [stage["best"]["accuracy"] for stage in neurons["stages"]]
    numbers = sorted({1, int(np.argmax(accuracies)) + 1, len(accuracies)})
    with _test_images(neurons, test_path) as test:
        shown = {number: neurons["stages"][number - 1]["stimuli"] for number in numbers}
        mosaics = {number: stimulus_mosaic(test.read(chosen), np.asarray(test.labels)[chosen] == 1)
                   for number, chosen in shown.items()}
    figure = _figure(6.4 * len(numbers), 5.8, name, neurons["step"],
                     "images of the "
                     f"{'final half' if neurons['stages'][0]['honest'] else 'test set'} with the "
                     "highest response, in rows from the highest; frames: "
                     f"green '{neurons['concept']}', orange the rest")
    for axes, number in zip(figure.subplots(1, len(numbers), squeeze=False)[0], numbers):
        share = mosaics[number][1]
        axes.imshow(_showable(mosaics[number][0]))
        axes.set_title(f"{_neuron(number, neurons['stages'][number - 1]['best'])}\n"
                       f"{100 * share:.0f} % of these show '{neurons['concept']}'")
        axes.set_axis_off()
        axes.set_anchor("S")  # what is left over of the height keeps the titles apart
    return figure


def draw_means(neurons: dict[str, Any], test_path: str | None, name: str) -> "Figure":
    """Means of the test images with the highest response, beside those of all images.

    What they have in common stays, no single picture is shown. Each image counts with mean 0 and
    deviation 1.

    Raises
    ------
    InputError
        The test set is not the one that the neurons were tested with.
    """
    stages, concept = neurons["stages"], neurons["concept"]
    with _test_images(neurons, test_path) as test:
        labels = np.asarray(test.labels)
        panels = {f"all that show '{concept}'": np.flatnonzero(labels == 1),
                  "the rest": np.flatnonzero(labels == 0)}
        for number, stage in enumerate(stages, start=1):
            share = (labels[stage["stimuli"]] == 1).mean()
            panels[f"the {len(stage['stimuli'])} highest of the best\nneuron of stage {number}: "
                   f"{100 * share:.0f} % show it"] = stage["stimuli"]
        means = {title: mean_image(test, chosen) for title, chosen in panels.items()}
    figure = _figure(3.2 * len(means), 4.4, name, neurons["step"],
                     "means of test images, each with mean 0 and deviation 1")
    for axes, (title, mean) in zip(figure.subplots(1, len(means)), means.items()):
        largest = np.abs(mean).max() or 1.0
        axes.imshow(_showable(0.5 + 0.5 * mean / largest), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    return figure


def mean_image(test: Dataset, chosen: np.ndarray, portion: int = 500) -> np.ndarray:
    """Mean (row, col, channel) of some images, each brought to mean 0 and deviation 1."""
    total = np.zeros((test.rows, test.cols, test.channels))
    for first in range(0, len(chosen), portion):
        images = test.read(np.sort(chosen[first:first + portion])).astype(float)
        images -= images.mean(axis=(1, 2, 3), keepdims=True)
        images /= np.maximum(images.std(axis=(1, 2, 3), keepdims=True), 1e-9)
        total += images.sum(axis=0)
    return total / max(1, len(chosen))


def _test_images(neurons: dict[str, Any], test_path: str | None) -> Dataset:
    """Open the test set that the neurons were tested with."""
    path = Path(test_path or neurons["test"])
    test = Dataset(path)
    try:
        if test.count != neurons["test_images"]:
            raise InputError(f"{path} holds {test.count} images, the neurons were tested with "
                             f"{neurons['test_images']}: --test names the file they were tested "
                             "with")
        require_same(neurons.get("test_fingerprint"), test.fingerprint, "neurons.h5",
                     f"test set than {path}", "--test names the file the neurons were tested with")
    except InputError:
        test.close()
        raise
    return test


def stimulus_mosaic(images: np.ndarray, concept: np.ndarray) -> tuple[np.ndarray, float]:
    """Lay out images in rows, framed by what they show.

    Parameters
    ----------
    images : uint8 array (image, row, col, channel)
    concept : bool array (image,)

    Returns
    -------
    uint8 array (y, x, 3), and the share of the images that show the concept.
    """
    frame = max(2, images.shape[1] // 16)
    down = -(-len(images) // STIMULI_ACROSS)
    high, wide = (size + 2 * frame + 2 for size in images.shape[1:3])
    pixels = np.full((down * high, STIMULI_ACROSS * wide, 3), 255, np.uint8)
    colours = [[int(colour[i:i + 2], 16) for i in (1, 3, 5)] for colour in (OTHER, CONCEPT)]
    for number, (image, shows) in enumerate(zip(images, concept)):
        top, left = number // STIMULI_ACROSS * high, number % STIMULI_ACROSS * wide
        pixels[top:top + high - 2, left:left + wide - 2] = colours[int(shows)]
        pixels[top + frame:top + high - 2 - frame, left + frame:left + wide - 2 - frame] = image
    return pixels, float(np.mean(concept))


def draw_positions(neurons: dict[str, Any], name: str) -> "Figure":
    """The accuracy of the best map at each position of each stage, on one scale."""
    best = [100 * stage["accuracy"].max(axis=2) for stage in neurons["stages"]]
    figure = _figure(4.4 * len(best) + 1, 5, name, neurons["step"],
                     "accuracy of the best map at each position, percent, concept "
                     f"'{neurons['concept']}'")
    low, high = min(map(np.min, best)), max(map(np.max, best))
    panels = figure.subplots(1, len(best), squeeze=False)[0]
    for number, (axes, accuracy) in enumerate(zip(panels, best), start=1):
        picture = axes.imshow(accuracy, vmin=low, vmax=high, cmap="viridis",
                              interpolation="nearest")
        axes.set(title=f"stage {number}: {accuracy.min():.1f} to {accuracy.max():.1f}",
                 xlabel="col", ylabel="row" if number == 1 else "")
        axes.locator_params(integer=True)
    figure.colorbar(picture, ax=panels[-1], label="percent right", fraction=0.046)
    return figure


def _figure(width: float, height: float, name: str, step: int, subject: str) -> "Figure":
    """Make a figure with run, step and subject in its title; it depends on no display."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    entitle(figure, f"{name}, step {step:,}: {subject}")
    return figure


def _neuron(stage: int, best: dict[str, Any]) -> str:
    row, col, map_ = best["where"]
    return f"stage {stage}, row {row}, col {col}, map {map_}"


def _scale(axes: "Axes", title: str, logarithmic: bool) -> None:
    """Title and grid; a logarithmic axis if all that is drawn is positive."""
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    if logarithmic and (values[np.isfinite(values)] > 0).all():
        axes.set_yscale("log")
    axes.set_title(title)
    axes.grid(alpha=0.3)


def _showable(pixels: np.ndarray) -> np.ndarray:
    """Drop the channel axis of grey pixels, as imshow wants it."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
