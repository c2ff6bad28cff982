"""What a neuron answers to a film, frame by frame: the strongest window of each frame.

Every frame is made small enough that a window of the network's size is as high as a share of its
shorter side, and is scanned (scan.py). A number and a window for each frame are kept; the film is
read once more for the pictures of the peaks.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import find_peaks

from hpclcae.checkpoint.trained import Model
from hpclcae.data.decode import Undecodable
from hpclcae.data.ingest import film as films
from hpclcae.experiments import scan
from hpclcae.experiments.invariance import require_finite
from hpclcae.experiments.ranks import Ranks
from hpclcae.experiments.record import Record
from hpclcae.experiments.scan import GREY, Neuron
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.text import drawable, entitle, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVERY = 0.2         # seconds from frame to frame
SHARES = (1.0, 0.5)  # side of a window over the shorter side of a frame
STEPS = 4           # windows overlap: each is moved by so much of its side, 1 / STEPS
PEAKS = 6           # of which the pictures are shown
APART = 1 / 25      # of the film, at least between two peaks
CURVE, LINE = "#0072b2", "#d55e00"  # told apart by all colour-blind people


@dataclass(frozen=True)
class Track:
    """The strongest window of each frame; arrays are float64 (frame,)."""
    seconds: np.ndarray
    response: np.ndarray
    top: np.ndarray    # pixels of the frame
    left: np.ndarray
    side: np.ndarray

    def peaks(self) -> np.ndarray:
        """The highest local maxima, in the order of time: numbers of frames."""
        far = max(1, round(APART * self.response.size))
        low = self.response.min() - 1
        at, _ = find_peaks(np.concatenate([[low], self.response, [low]]), distance=far)
        return np.sort((at - 1)[np.argsort(-self.response[at - 1], kind="stable")[:PEAKS]])


def frames(path: Path, every: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds, uint8 (row, col, 3)) of a film; fades and black are passed over.

    Raises
    ------
    InputError
        PyAV is missing; it is no film, or damaged from the beginning.
    """
    require("av", "images", "reading films")
    if not path.is_file():
        raise InputError(f"--film {path} is not a file: name a film")
    found = False
    try:
        for seconds, picture in films.frames(path, every):
            found = True
            yield seconds, picture.pixels
    except Undecodable as error:
        if not found:
            raise InputError(f"--film {path} cannot be read as a film: {error}") from error


def follow(model: Model, neuron: Neuron, path: Path, every: float = EVERY,
           shares: Sequence[float] = SHARES, batch: int = 100, ranks: Ranks = Ranks()) -> Track:
    """The response of a neuron to a film.

    Processes share the frames; each decodes all of them, since a film can be read in order only.

    Parameters
    ----------
    every : float
        Seconds from frame to frame.
    shares : sequence of float
        Sides of the windows over the shorter side of a frame, at most 1.
    batch : int
        Windows at a time.

    Raises
    ------
    InputError
        See `frames`; a frame is too small; a response is not finite.
    """
    size, channels = model.config.data.size, model.config.data.channels
    detector, found = neuron.detector(model), []
    mine = ranks.mine(frames(path, every))
    for seconds, pixels in ranks.progress(mine, f"film {path.name}", "frames"):
        least = min(pixels.shape[:2])
        if channels == 1:
            pixels = np.rint(pixels @ GREY).astype(np.uint8)[..., None]
        scales = [(size + 1e-6) / (least * share) for share in shares]
        scan.require_windows(f"--film {path}", pixels.shape[:2], scales, size)
        maps = scan.scan(pixels[None], detector, size, scales, max(1, size // STEPS), batch)
        response, top, left, side = max((*each.strongest(0), each.side) for each in maps)
        found.append((seconds, response, top, left, side))
    track = Track(*np.array(ranks.everyones(found), float).T)
    require_finite(track.response)
    return track


def pictures(path: Path, every: float, numbers: np.ndarray) -> list[np.ndarray]:
    """The frames of some numbers, in order."""
    wanted, found = set(numbers.tolist()), []
    for number, (_, pixels) in enumerate(frames(path, every)):
        if number in wanted:
            found.append(pixels)
        if len(found) == len(wanted):
            break
    return found


def run(model: Model, neuron: Neuron, threshold: float | None, path: Path, every: float,
        shares: Sequence[float], batch: int, record: Record, ranks: Ranks = Ranks()) -> None:
    """Follow a neuron through a film, print, and write what the record holds.

    The HDF5 file has ``seconds``, ``response``, ``top``, ``left`` and ``side`` (frame,): the window
    of the strongest response, pixels of the frame.

    Parameters
    ----------
    record : Record
        With the figure "track".

    Raises
    ------
    InputError
        See `follow`.
    """
    track = follow(model, neuron, path, every, shares, batch, ranks)
    peaks = track.peaks()
    name = printable(path.name)
    above = None if threshold is None else float((track.response > threshold).mean())
    record.text(f"{name}: {track.seconds.size:,} frames in {track.seconds[-1]:.1f} s, neuron "
                f"{neuron}" + ("" if above is None else f", above its threshold {threshold:.3g} in "
                                                        f"{above:.0%} of them"))
    record.table(f"Peaks of the response to {name}",
                 ["peak", "second", "response", "top", "left", "side"],
                 [[number, round(float(track.seconds[at]), 2), float(f"{track.response[at]:.3g}"),
                   *(round(float(values[at])) for values in (track.top, track.left, track.side))]
                  for number, at in enumerate(peaks, start=1)],
                 ["Window of the strongest response, pixels of the frame. It is the strongest of "
                  "many windows, and the threshold was chosen for single framed images: it is "
                  "passed more often here."])
    record.figure(lambda: draw(track, peaks, pictures(path, every, peaks), threshold,
                               f"neuron {neuron}, {drawable(path.name)}"), "track",
                  f"The strongest response of neuron {neuron} to each frame of {name}, and the "
                  "frames at its peaks with the window it responds to.",
                  f"A curve over {track.seconds[-1]:.0f} seconds with {peaks.size} numbered peaks "
                  f"from {track.response[peaks].min():.3g} to {track.response[peaks].max():.3g}, "
                  "and a thumbnail of each.")
    record.values |= {"film": name, "neuron": str(neuron), "threshold": threshold, "every": every,
                      "shares": list(shares), "frames": track.seconds.size, "above": above,
                      "peaks": [{"second": track.seconds[at], "response": track.response[at]}
                                for at in peaks]}
    record.arrays |= {field: getattr(track, field)
                      for field in ("seconds", "response", "top", "left", "side")}
    record.save()


def draw(track: Track, peaks: np.ndarray, shown: Sequence[np.ndarray], threshold: float | None,
         subject: str) -> "Figure":
    """The response over time, and the frames at its peaks."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    entitle(figure, f"{subject}: strongest response in each frame")
    grid = figure.add_gridspec(2, max(1, len(shown)), height_ratios=(1.5, 1))
    axes = figure.add_subplot(grid[0, :])
    axes.plot(track.seconds, track.response, color=CURVE, linewidth=1.2)
    if threshold is not None:
        axes.axhline(threshold, color=LINE, linestyle="--", linewidth=1.2,
                     label=f"threshold {threshold:.3g}")
        axes.legend(fontsize=8)
    for number, at in enumerate(peaks, start=1):
        axes.plot(track.seconds[at], track.response[at], "o", color="black", markersize=4)
        axes.annotate(str(number), (track.seconds[at], track.response[at]), (0, 5),
                      textcoords="offset points", ha="center", fontsize=9)
    axes.margins(y=0.15)
    axes.set(xlabel="seconds", ylabel="response")
    for number, (at, pixels) in enumerate(zip(peaks, shown), start=1):
        panel = figure.add_subplot(grid[1, number - 1])
        panel.imshow(pixels)
        panel.add_patch(Rectangle((track.left[at] - 0.5, track.top[at] - 0.5), track.side[at],
                                  track.side[at], fill=False, color=LINE, linewidth=2))
        panel.set_title(f"{number}: {track.seconds[at]:.1f} s, {track.response[at]:.3g}",
                        fontsize=9)
        panel.set_axis_off()
    return figure
