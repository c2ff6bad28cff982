"""What a scan leaves: a heat map and the responses of each picture, the table of a labelled set.

scan.py computes; here files are read, written and drawn.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import made_from, scan
from hpclcae.experiments.comparison import Row, as_text, judge
from hpclcae.experiments.neurons import Settings, describe, labelled_images
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.results import read_neurons, save_json
from hpclcae.experiments.scan import Neuron, ScaleMap
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import (check_output, check_picture, is_hdf5, is_json, replacing_hdf5,
                                 save_figure)
from hpclcae.utils.provenance import versions
from hpclcae.utils.text import drawable, entitle, storable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "hpclcae scan"
SCHEMA = 1
SCALES = (0.6, 0.85, 1.2)
STEP = 4
LONGEST = 9.0  # inches, of a figure's picture


@dataclass(frozen=True)
class Scanner:
    """A neuron, and how it visits pictures.

    Raises
    ------
    InputError
        A scale or the step is not positive.
    """
    model: Model
    neuron: Neuron
    threshold: float | None  # above it the concept is meant; None: not known of this neuron
    scales: tuple[float, ...] = SCALES
    step: int = STEP
    batch: int = 100

    def __post_init__(self) -> None:
        for scale in self.scales:
            if not 0.001 <= scale <= 100:
                raise InputError(f"--scales {scale:g}: between 0.001 and 100")
        if self.step < 1:
            raise InputError(f"--step {self.step}: at least 1")
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: at least 1")

    @property
    def size(self) -> int:
        """Side of a window in the scaled picture, pixels."""
        return self.model.config.data.size

    @property
    def attributes(self) -> dict[str, object]:
        """What the results were made from."""
        known = {} if self.threshold is None else {"threshold": self.threshold}
        return {"kind": KIND, "schema": SCHEMA, "network": str(self.model.path),
                "step": self.model.step, "neuron": str(self.neuron), "window": self.size,
                "weights_fingerprint": made_from.weights_fingerprint(self.model),
                "scales": list(self.scales), "places_apart": self.step, **known}


def choose_neuron(run: str, model: Model, named: str | None) -> tuple[Neuron, float | None]:
    """The neuron that is named, or the best of the top stage by the results in the run folder.

    Returns
    -------
    Neuron
    float or None
        Its threshold, if there are results: that of the best neuron was chosen on the development
        half, that of one that is named on all images.

    Raises
    ------
    InputError
        There is no such neuron; none is named and there are no results, or they are about other
        weights.
    """
    if named:
        neuron = Neuron.parse(named, model)
        try:
            thresholds = read_neurons(run, model)["stages"][neuron.stage - 1]["threshold"]
        except InputError:
            return neuron, None
        return neuron, float(thresholds[neuron.where])
    stages = read_neurons(run, model)["stages"]
    best = stages[-1]["best"]
    row, col, map_ = map(int, best["where"])
    return Neuron(len(stages), (row, col, map_)), float(best["threshold"])


def scan_pictures(scanner: Scanner, pictures: Sequence[str], out: Path,
                  ranks: Ranks = Ranks()) -> list[Path]:
    """Scan pictures; write a heat map, scan-NAME.png, and the responses, scan-NAME.h5, of each.

    The HDF5 file has a group for every scale, ``scale0``, ``scale1``, ..., with ``response`` (row,
    col), the top left corners of the windows ``top`` (row,) and ``left`` (col,), and the attributes
    ``scale`` and ``side``: all lengths in pixels of the picture. Processes share the windows of
    each picture, and the first one writes.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        A picture cannot be read or is too small, or two have one name.
    """
    require("matplotlib", "figures", "drawing")
    stems = [Path(picture).stem for picture in pictures]
    for stem in stems:
        if stems.count(stem) > 1:
            raise InputError(f"two pictures are named {stem}: scan them into different --out "
                             "folders")
    channels, written = scanner.model.config.data.channels, []
    for picture in pictures:  # all before the work on the first
        scan.require_windows(picture, scan.read_picture(picture, channels).shape[:2],
                             scanner.scales, scanner.size)
    files = [_results(out, stem, ".png", ".h5") for stem in stems]
    detector = scanner.neuron.detector(scanner.model)
    for picture, stem, (drawing, numbers) in zip(pictures, stems, files):
        pixels = scan.read_picture(picture, channels)
        total = scan.batches(1, pixels.shape[:2], scanner.size, scanner.scales, scanner.step,
                             scanner.batch)
        ticks = ranks.progress(range(-(-total // ranks.groups)), stem, "batches")
        maps = scan.scan(pixels[None], detector, scanner.size, scanner.scales, scanner.step,
                         scanner.batch, lambda: next(ticks, None), ranks)
        next(ticks, None)
        if not ranks.is_first:
            continue
        out.mkdir(parents=True, exist_ok=True)
        with replacing_hdf5(numbers) as store:
            store.attrs.update(storable(scanner.attributes | {"picture": str(picture)}))
            for number, found in enumerate(maps):
                group = store.create_group(f"scale{number}")
                group.attrs.update(scale=found.scale, side=found.side)
                group["response"], group["top"] = found.response[0], found.rows
                group["left"] = found.cols
        figure = draw_scan(pixels, maps, scanner, stem)
        save_figure(figure, drawing, 150)
        written += [drawing, numbers]
    return written


def _results(out: Path, name: str, *suffixes: str) -> list[Path]:
    """Where results go; what is there already must be from an earlier scan."""
    files = [out / f"scan-{name}{suffix}" for suffix in suffixes]
    for file in files:
        if file.suffix == ".png":
            check_picture(file, "hpclcae neurons --scan")
        else:
            check_output(file, _is_scan, "a result (hpclcae neurons --scan)")
    return files


def _is_scan(path: Path) -> bool:
    return is_hdf5(path, KIND) if path.suffix == ".h5" else is_json(path, "kind", KIND)


def strongest_window(maps: Sequence[ScaleMap]) -> tuple[float, float, float, float]:
    """The strongest response to a picture, and its window: top, left and side."""
    return max((*found.strongest(0), found.side) for found in maps)


def draw_scan(pixels: np.ndarray, maps: Sequence[ScaleMap], scanner: Scanner,
              name: str) -> "Figure":
    """The picture with the window of the strongest response, and the heat map over it."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    rows, cols = pixels.shape[:2]
    wide, high = (LONGEST * side / max(rows, cols) for side in (cols, rows))
    figure = Figure(figsize=(max(6.0, 2 * wide + 1), high + 1), layout="constrained")
    known = "" if scanner.threshold is None else f", threshold {scanner.threshold:.3g}"
    entitle(figure, f"{drawable(name)}: neuron {scanner.neuron} at step "
                    f"{scanner.model.step:,}{known}; windows of "
                    f"{', '.join(f'{found.side:.0f}' for found in maps)} pixels")
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    left, right = figure.subplots(1, 2)
    response, top, at, side = strongest_window(maps)
    left.imshow(shown, cmap="gray", vmin=0, vmax=255)
    left.add_patch(Rectangle((at - 0.5, top - 0.5), side, side, fill=False, color="#d95f02",
                             linewidth=2))
    left.set_title(f"strongest: {response:.3g}")
    grey = pixels.mean(axis=2)
    right.imshow(grey, cmap="gray", vmin=0, vmax=255)
    heat = scan.heat_map(maps, (rows, cols))
    drawn = right.imshow(heat, cmap="inferno", alpha=0.6)
    if scanner.threshold is not None and (
            np.nanmin(heat) < scanner.threshold < np.nanmax(heat)):
        right.contour(heat, [scanner.threshold], colors="white", linewidths=1)
    figure.colorbar(drawn, ax=right, label="strongest response over scales", fraction=0.046)
    for axes in (left, right):
        axes.set_axis_off()
    return figure


def scan_set(scanner: Scanner, path: str, settings: Settings, out: Path,
             ranks: Ranks = Ranks()) -> list[Path]:
    """Judge the maximum over all places and scales on a labelled set of larger frames.

    The threshold is chosen on the development half and judged on the final half. Prints the table;
    writes it as JSON, and the maxima (image,) with their windows as HDF5: ``index`` is the position
    in the dataset, lengths are pixels of the frame. Processes share the frames, and the first one
    prints and writes.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        The set has no labels or other channels, or its frames are too small.
    """
    with Dataset(path) as test:
        channels = scanner.model.config.data.channels
        if test.channels != channels:
            raise InputError(f"{path} holds images of {test.channels} channels, the network takes "
                             f"{channels}")
        scan.require_windows(path, (test.rows, test.cols), scanner.scales, scanner.size)
        images = labelled_images(test, settings)
        written = _results(out, Path(path).stem, ".json", ".h5")
        ranks.say(describe(test, images))
        found = scan.maxima(test, images.index, scanner.neuron.detector(scanner.model),
                            scanner.size, scanner.scales, scanner.step, scanner.batch, ranks)
        source = {"test": str(test.path), "test_images": test.count,
                  "test_fingerprint": test.fingerprint,
                  "framing": test.framing}
    if not ranks.is_first:
        return written
    population = scan.judge_maxima(found["response"], images, settings.bootstrap, settings.batch)
    rows = [Row.chance(images, settings.bootstrap, settings.batch),
            Row.of(f"neuron {scanner.neuron}, scanned", [population], trained=True)]
    print(f"\n{as_text(rows)}\n")
    out.mkdir(parents=True, exist_ok=True)
    attributes = scanner.attributes | source
    with replacing_hdf5(written[1]) as store:
        store.attrs.update(storable(attributes))
        store["index"] = images.index
        for name, values in found.items():
            store[name] = values
    save_json(written[0], attributes | {
        "unit": "share (verdicts: points of percent)",
        "rows": [row.as_json(images) for row in rows],
        "verdicts": [verdict.as_json() for verdict in judge(rows)],
        "why_not_honest": images.why_not_honest, "why_no_interval": images.why_no_interval,
        "resampled": images.resampled, "versions": versions()})
    return written
