"""What neurons like to see: test images of highest response, their mean, a numerical optimum."""
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.experiments import optimum, probing
from hpclcae.experiments.figures import stimulus_mosaic
from hpclcae.experiments.neurons import concept_of
from hpclcae.experiments.optimum import Optima
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.record import Record
from hpclcae.experiments.scan import Neuron
from hpclcae.utils.text import drawable, entitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def run(model: Model, neurons: Sequence[Neuron], path: str | None, starts: int, iterations: int,
        batch: int, seed: int, record: Record, ranks: Ranks = Ranks()) -> None:
    """Find images and optima, print, and write what the record holds.

    The HDF5 file has ``highest`` (neuron, image), positions in the dataset, ``response`` (neuron,
    image), ``mean`` (neuron, row, col, channel) of the highest 1 %, and of the optima ``optimum``
    (neuron, row, col, channel), grey levels, and ``optimum_response`` (neuron, start).

    Parameters
    ----------
    starts, iterations : int
        See `optimum.find`.
    record : Record
        With the figure "stimuli".

    Raises
    ------
    InputError
        See `probing.probe` and `optimum.find`.
    """
    with probing.open_test(model, path) as test:
        record.about(test)
        found = probing.probe(model, neurons, test, batch, seed, "stimuli", ranks)
        first = probing.highest(found.response)
        optima = optimum.find(model, neurons, starts, iterations, seed, batch, ranks)
        mosaics = [stimulus_mosaic(test.read(found.index[chosen]), found.concept[chosen])[0]
                   for chosen in first]
        means = np.stack([probing.mean_of_highest(test, found.index, response)
                          for response in found.response])
        concept = concept_of(test)
    strongest = np.take_along_axis(found.response, first, axis=1)
    shows = found.concept[first].mean(axis=1)
    rows: list[list[str | int | float | None]] = [
        [str(neuron), round(100 * float(share), 1), *map(_short, (
            best[0], best[-1], optima.response[number, 0], optima.shown[number],
            optima.response[number, -1], optima.alike[number]))]
        for number, (neuron, share, best) in enumerate(zip(neurons, shows, strongest))]
    record.table(
        f"The {first.shape[1]} images of highest response ({found.half}) and the numerical optimum",
        ["neuron", f"show '{concept}', %", "highest", f"number {first.shape[1]}", "optimum",
         "as shown", "worst start", "alike"], rows,
        [f"Optimum: the highest response of {starts} climbs of {iterations} steps over pictures "
         f"whose pixels deviate from grey by {optimum.CONTRAST:g} levels in the root mean square; "
         "as shown: to whole levels from 0 to 255; alike: correlation of the two best climbs, sign "
         "aside. It is a local maximum: another start finds another picture."])
    record.figure(lambda: draw(neurons, mosaics, means, optima, shows, found.half, concept),
                  "stimuli",
                  f"Of each neuron the {first.shape[1]} test images of highest response "
                  f"({found.half}), in rows from the highest, framed in green where they show "
                  f"'{concept}', in orange where not; the mean image of the highest 1 %; and the "
                  "numerical optimum.",
                  "; ".join(f"neuron {neuron}: {100 * share:.0f} % of the images show '{concept}'"
                            for neuron, share in zip(neurons, shows)))
    record.values |= {
        "half": found.half, "concept": concept, "contrast": optimum.CONTRAST, "neurons": [
            {"neuron": str(neuron), "highest": found.index[first[number]],
             "response": strongest[number], "share": shows[number],
             "optimum_response": optima.response[number], "optimum_shown": optima.shown[number],
             "optimum_alike": optima.alike[number]} for number, neuron in enumerate(neurons)]}
    record.arrays |= {"highest": found.index[first], "response": strongest, "mean": means,
                      "optimum": optima.pixels, "optimum_response": optima.response}
    record.save()


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def draw(neurons: Sequence[Neuron], mosaics: Sequence[np.ndarray], means: np.ndarray,
         optima: Optima, shows: np.ndarray, half: str, concept: str) -> "Figure":
    """A column for each neuron: images, their mean, the optimum."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(4.6 * len(neurons), 6.6), layout="constrained")
    entitle(figure, f"test images of highest response, {half}; below: the mean of the highest 1 %, "
                    "and the numerical optimum")
    grid = figure.add_gridspec(2, 2 * len(neurons), height_ratios=(1.9, 1))
    for number, neuron in enumerate(neurons):
        axes = figure.add_subplot(grid[0, 2 * number:2 * number + 2])
        _picture(axes, mosaics[number], f"neuron {neuron}\n{100 * shows[number]:.0f} % show "
                                        f"'{drawable(concept)}'")
        mean = means[number]
        largest = np.abs(mean).max() or 1.0
        _picture(figure.add_subplot(grid[1, 2 * number]), 0.5 + 0.5 * mean / largest, "mean")
        _picture(figure.add_subplot(grid[1, 2 * number + 1]), optima.pictures()[number],
                 f"optimum: {optima.response[number, 0]:.3g}")
    return figure


def _picture(axes: "Axes", pixels: np.ndarray, title: str) -> None:
    grey = pixels.shape[-1] == 1
    axes.imshow(pixels[..., 0] if grey else pixels, cmap="gray", vmin=0,
                vmax=255 if pixels.dtype == np.uint8 else 1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
