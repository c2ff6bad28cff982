"""A neuron at every place and several scales of a larger picture.

A picture is made smaller or larger by each scale, and a window of the network's size visits every
`step`-th place; what the neuron answers to the window stands for the place. The maximum over all
windows makes a detector of it that does not mind where a face is, and how large.

Windows are made, prepared and forgotten batch by batch: of a picture only its scaled copy and one
number for every window are held.
"""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.decode import Undecodable, decode
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.single_neurons import Population, examine
from hpclcae.utils.errors import InputError

GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)

#: windows uint8 (window, row, col, channel) -> responses (neuron, window)
Asked = Callable[[np.ndarray], np.ndarray]
#: the same of one neuron -> responses (window,)
Detector = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Neuron:
    """One neuron of a stage (from 1)."""
    stage: int
    where: tuple[int, int, int]  # row, col, map

    @classmethod
    def parse(cls, text: str, model: Model) -> "Neuron":
        """Read STAGE/ROW,COL,MAP.

        Raises
        ------
        InputError
            It is written otherwise, or the network has no such neuron.
        """
        stage_text, _, place = text.partition("/")
        try:
            stage = int(stage_text)
            row, col, map_ = map(int, place.split(","))
        except ValueError:
            raise InputError(f"--neuron {text}: write STAGE/ROW,COL,MAP, for instance 3/0,0,7"
                             ) from None
        outputs = [geometry.output for geometry in model.network.layout.geometry]
        if not 1 <= stage <= len(outputs):
            raise InputError(f"--neuron {text}: stages are 1 to {len(outputs)}")
        if not all(0 <= at < size for at, size in zip((row, col, map_), outputs[stage - 1])):
            rows, cols, maps = outputs[stage - 1]
            raise InputError(f"--neuron {text}: stage {stage} has {rows} rows, {cols} cols and "
                             f"{maps} maps, counted from 0")
        return cls(stage, (row, col, map_))

    def __str__(self) -> str:
        return f"{self.stage}/{','.join(map(str, self.where))}"

    def detector(self, model: Model) -> Detector:
        """Its response as a function of windows of the network's size."""
        ask = asked(model, [self])
        return lambda windows: ask(windows)[0]


def asked(model: Model, neurons: Sequence[Neuron]) -> Asked:
    """The responses of some neurons as a function of windows of the network's size.

    All blocks of a network have to call that function with the same windows.

    Raises
    ------
    InputError
        When it is called: greedy training has not come to the stage of a neuron.
    """
    places = []  # stage, its neurons among all that are asked, where they are in the block's part
    for stage in sorted({neuron.stage for neuron in neurons}):
        mine = np.array([n for n, neuron in enumerate(neurons) if neuron.stage == stage])
        inside, place = model.own_part(stage, np.array([neurons[n].where for n in mine]))
        places.append((stage, mine[inside], tuple(place.T)))

    def ask(windows: np.ndarray) -> np.ndarray:
        stages = model.responses(model.prepare(windows))
        found = np.zeros((len(neurons), len(windows)), model.network.dtype)
        for stage, mine, place in places:
            if stage > len(stages):
                raise InputError(f"a neuron of stage {stage} is asked for, and {model.path} was "
                                 f"saved when stage {len(stages)} was being trained: train on, or "
                                 "name a neuron of the stages below")
            found[mine] = stages[stage - 1][place]
        model.network.communicator.sum_in_place(found)
        return found
    return ask


@dataclass(frozen=True)
class ScaleMap:
    """The responses at one scale."""
    scale: float
    rows: np.ndarray      # float64 (row,): top edges of the windows, pixels of the picture
    cols: np.ndarray      # float64 (col,): left edges
    side: float           # of a window, pixels of the picture
    response: np.ndarray  # float32 (image, row, col)

    def strongest(self, image: int) -> tuple[float, float, float]:
        """The strongest response to an image, and the top left corner of its window."""
        row, col = np.unravel_index(self.response[image].argmax(), self.response.shape[1:])
        return (float(self.response[image, row, col]), float(self.rows[row]), float(self.cols[col]))


def places(length: int, size: int, step: int) -> np.ndarray:
    """Where windows of `size` begin along `length` pixels: every `step`, and at the very end."""
    return np.unique(np.append(np.arange(0, length - size + 1, step), length - size))


def resized(frames: np.ndarray, scale: float) -> np.ndarray:
    """Make frames smaller or larger; a triangle filter, widened for smaller ones.

    Parameters
    ----------
    frames : uint8 array (image, row, col, channel)
    scale : float
        New side over old side.

    Returns
    -------
    uint8 array (image, row, col, channel)
    """
    if scale == 1:
        return frames
    down, across = (_interpolation(length, max(1, round(length * scale)))
                    for length in frames.shape[1:3])
    rows = np.einsum("Rr,irck->iRck", down, frames, optimize=True)
    out = np.einsum("Cc,iRck->iRCk", across, rows, optimize=True)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _interpolation(before: int, after: int) -> np.ndarray:
    """Weights float32 (after, before) of a triangle filter; each row sums to one."""
    width = max(1.0, before / after)
    centre = (np.arange(after)[:, None] + 0.5) * (before / after) - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(before) - centre) / width)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def require_windows(name: object, shape: Sequence[int], scales: Sequence[float],
                    size: int) -> None:
    """Check that the network's window fits into a picture of (rows, cols) at every scale.

    Raises
    ------
    InputError
        It does not: names the scale.
    """
    for scale in scales:
        rows, cols = (max(1, round(length * scale)) for length in shape)
        if min(rows, cols) < size:
            raise InputError(f"{name} at --scales {scale:g} has {rows}x{cols} pixels, the network "
                             f"sees {size}x{size}: leave such a scale away (at least "
                             f"{size / min(shape):.3g})")


def scan(frames: np.ndarray, detector: Detector, size: int, scales: Sequence[float], step: int,
         batch: int, tick: Callable[[], object] = lambda: None,
         ranks: Ranks = Ranks()) -> list[ScaleMap]:
    """Scan frames of one shape at every scale.

    Parameters
    ----------
    frames : uint8 array (image, row, col, channel)
    detector : Detector
    size : int
        Side of the network's input, pixels.
    scales : sequence of float
    step : int
        Pixels of the scaled frame from window to window.
    batch : int
        Windows at a time.
    tick : callable
        Called after each batch of this process.
    ranks : Ranks, optional
        The processes that share the windows; all have the same frames, and all responses.
    """
    maps = []
    for scale in scales:
        scaled = resized(frames, scale)
        rows, cols = (places(length, size, step) for length in scaled.shape[1:3])
        windows = np.lib.stride_tricks.sliding_window_view(scaled, (size, size), axis=(1, 2))
        shape = len(frames), rows.size, cols.size
        count, found = int(np.prod(shape)), []
        for first in ranks.mine(range(0, count, batch)):
            image, row, col = np.unravel_index(np.arange(first, min(first + batch, count)), shape)
            chosen = windows[image, rows[row], cols[col]]  # (window, channel, row, col)
            found.append(detector(np.moveaxis(chosen, 1, -1)).astype(np.float32))
            tick()
        response = np.concatenate(ranks.everyones(found))
        down, across = np.divide(frames.shape[1:3], scaled.shape[1:3]).tolist()
        maps.append(ScaleMap(scale, rows * down, cols * across, size * down,
                             response.reshape(shape)))
    return maps


def batches(count: int, shape: Sequence[int], size: int, scales: Sequence[float], step: int,
            batch: int) -> int:
    """How many batches `scan` makes of `count` frames of (rows, cols)."""
    windows = [np.prod([places(max(1, round(length * scale)), size, step).size for length in shape])
               for scale in scales]
    return sum(-(-count * int(each) // batch) for each in windows)


def heat_map(maps: Sequence[ScaleMap], shape: Sequence[int], image: int = 0) -> np.ndarray:
    """The strongest response at each pixel of a picture, over scales; float64 (row, col).

    A response stands at the centre of its window; between centres it is interpolated. NaN where no
    window has its centre near.
    """
    strongest = np.full(tuple(shape), np.nan)
    for found in maps:
        down, across = (_between(edges + found.side / 2 - 0.5, length)
                        for edges, length in zip((found.rows, found.cols), shape))
        strongest = np.fmax(strongest, down @ found.response[image].astype(np.float64) @ across.T)
    return strongest


def _between(centres: np.ndarray, length: int) -> np.ndarray:
    """Weights (pixel, centre) of linear interpolation; NaN further out than half a distance.

    The one centre of a window as long as the picture stands for all of it.
    """
    pixels = np.arange(length)
    weights = np.array([np.interp(pixels, centres, line) for line in np.eye(centres.size)]).T
    if centres.size > 1:
        near = np.diff(centres).max() / 2
        weights[(pixels < centres[0] - near) | (pixels > centres[-1] + near)] = np.nan
    return weights


def read_picture(path: str | Path, channels: int) -> np.ndarray:
    """Read a picture as uint8 (row, col, channel), as many channels as the network takes.

    Raises
    ------
    InputError
        It is missing, or cannot be decoded.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"--scan {path} is not a file: name pictures")
    try:
        pixels = decode(file).pixels
    except Undecodable as error:
        raise InputError(f"--scan {path} cannot be read as a picture: {error}") from error
    if channels == 3:
        return pixels
    return np.rint(pixels @ GREY).astype(np.uint8)[..., None]


def maxima(dataset: Dataset, index: np.ndarray, detector: Detector, size: int,
           scales: Sequence[float], step: int, batch: int,
           ranks: Ranks = Ranks()) -> dict[str, np.ndarray]:
    """The strongest response to each of some frames, and where it is; processes share the frames.

    Returns
    -------
    dict of float64 arrays (image,)
        ``response``, ``scale``, ``top``, ``left`` and ``side`` of its window, pixels.
    """
    frames = max(1, batch // 4)  # whose scaled copies are held
    shape = dataset.rows, dataset.cols
    parts = list(ranks.mine(index[first:first + frames]
                            for first in range(0, index.size, frames)))
    total = sum(batches(part.size, shape, size, scales, step, batch) for part in parts)
    ticks = ranks.progress(range(total), f"scan of {dataset.path.name}", unit="batches")
    found = []
    for part in parts:
        maps = scan(dataset.read(part), detector, size, scales, step, batch,
                    lambda: next(ticks, None))
        found.append([max((peak, each.scale, top, left, each.side) for each in maps
                          for peak, top, left in [each.strongest(image)])
                      for image in range(part.size)])
    next(ticks, None)
    return dict(zip(("response", "scale", "top", "left", "side"),
                    np.concatenate(ranks.everyones(found)).T))


def judge_maxima(response: np.ndarray, images: LabelledImages, replicates: int,
                 batch: int) -> Population:
    """Examine one detector whose responses (image,) to the labelled images are known."""
    def start() -> Iterator[tuple[Sequence[np.ndarray], slice]]:
        for first in range(0, response.size, batch):
            part = slice(first, first + batch)
            yield [response[None, None, None, part]], part
    return examine(start, images, replicates)[0]
