"""The command ``hpclcae bench data``: what reading and preparing images cost a training step.

Times of a busy machine say little, so the rows are ratios of what is timed in turn, round by round,
on images of noise that are written first and removed at the end:

- A training step with real reading against the same step with a minibatch that is there already,
  in every phase of the configuration: read ahead from memory, read ahead from disk, and read in the
  step itself. The system is told to drop the file from its memory before every round. The steps
  around a measurement are not timed: the one that fills the line, and what the thread makes after
  the last one.
- Bytes per second of shuffled minibatches, whole or a block's slab of them, against a plain read of
  the same file from its beginning to its end; from the disk (the system is told to drop the file
  from its memory) and from memory. --clock cpu, for a busy machine, concerns these rows alone.
"""
import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpclcae import config as configuration
from hpclcae.bench import common
from hpclcae.bench.common import CLOCKS, Report, forget, ratio
from hpclcae.commands.arguments import output, whole
from hpclcae.config import Config
from hpclcae.data.compression import COMPRESSIONS, filters
from hpclcae.data.dataset import Dataset, read_direct
from hpclcae.data.minibatches import RUN, MinibatchStream
from hpclcae.data.writer import DatasetWriter
from hpclcae.model import preprocess
from hpclcae.model.conditioner import Conditioner, is_fitted
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.phases import Phase, phases
from hpclcae.training.inputs import Inputs
from hpclcae.training.step import train_step
from hpclcae.utils.errors import InputError, MissingExtraError
from hpclcae.utils.tables import table

DEFAULT = "run/plain.toml"
PIECE = 1 << 22  # bytes of a plain read
#: Where a step's images come from: ahead, and data.keep.
WAYS = {"ahead, kept": (True, 1.0), "ahead, from disk": (True, 0.0), "in the step": (False, 0.0)}
#: The part of an image's rows and cols that a block of a grid reads; with the halo of a receptive
#: field and of whitening, as in run/paper.toml.
SLABS = {"whole images": 1.0, "a block of 2x2": 0.58}
#: Images of a chunk, and pixels along its side (0: the image's); those of our files come first.
CHUNKS = ((8, 64), (8, 32), (8, 100), (8, 0), (1, 64), (1, 0), (32, 64))


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", nargs="?", default=DEFAULT,
                        help=f"TOML file (default {DEFAULT})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set data.size=64")
    parser.add_argument("--images", type=whole(1, 10**7), default=1000, metavar="N",
                        help="images that are written (default 1000)")
    parser.add_argument("--steps", type=whole(1, common.MOST_TIMES), default=20, metavar="N",
                        help="steps of each way and round (default 20)")
    parser.add_argument("--only", choices=("steps", "reading"),
                        help="one of the two tables (default both)")
    parser.add_argument("--folder", type=output, default=Path("."), metavar="DIR",
                        help="a folder on the disk to read from; what is written there is removed "
                        "(default .)")
    common.configure(parser, repeat=5)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    common.refuse_more_threads()
    config = configuration.load(args.configuration, args.changes)
    most = max(phase.batch for phase in phases(config))
    if args.images < most:
        raise InputError(f"--images {args.images} is less than a minibatch of {most}")
    if not args.folder.is_dir():
        raise InputError(f"--folder {args.folder} is not a folder")
    report = Report("data", args)
    print(report.heading())
    case = " ".join([str(args.configuration), *args.changes])
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-data-") as name:
        path = Path(name) / "train.h5"
        _write(path, config, args.images)
        if args.only != "reading":
            with Dataset(path) as dataset:
                _steps(case, config, dataset, args.steps, report)
        if args.only != "steps":
            _reading(case, path, config, report)
    report.warn_if_busy()
    return 0


def _write(path: Path, config: Config, count: int) -> None:
    """Images of smooth noise, which compresses about as photographs do."""
    random, size, channels = np.random.default_rng(0), config.data.size, config.data.channels
    with DatasetWriter(path, size, channels) as writer:
        for _ in range(count):
            image = 110 + 20 * random.standard_normal((size, size, channels)).cumsum(1) / size**.5
            writer.append(np.clip(image, 0, 255).astype(np.uint8), source="", group="noise",
                          original=(size, size), crop=(0, 0, size, size))


# ---- steps ---------------------------------------------------------------------------------------


def _steps(case: str, config: Config, dataset: Dataset, count: int, report: Report) -> None:
    """A table of every phase."""
    network = Network(Layout(config))
    parameters = network.parameters(config.train.seed)
    optimizer = Optimizer(config.update, parameters, network.block.fan_in)
    optimizer.begin(1e-6)
    fitted = preprocess.fit(config.preprocess, dataset.read(np.arange(min(100, dataset.count))))
    prepare = fitted.preprocessor(config.data.size, network.dtype)
    drawn = [Conditioner.drawn(stage, geometry) if is_fitted(stage) else None
             for stage, geometry in zip(config.stages, network.layout.geometry)]
    lines = []
    for phase in phases(config):
        with contextlib.ExitStack() as stack:
            ways = {}
            for name, (ahead, keep) in WAYS.items():
                kept = _with(config, keep)
                batches = MinibatchStream(dataset, phases(config), 0, mirror=config.data.mirror)
                network.config = kept
                ways[name] = _Way(stack.enter_context(
                    Inputs(network, batches, prepare, drawn, ahead=ahead)), phase, optimizer)
            there = ways["in the step"].inputs.read(phase.first, parameters).copy()
            for way in ways.values():  # pixels and responses are kept from now on
                way.fill(dataset.count)

            def from_memory() -> None:
                for _ in range(count):
                    train_step(network, optimizer, phase.first, there,
                               given=ways["in the step"].inputs.is_given(phase.first))
            times = _in_turn({"from memory": (_nothing, from_memory, _nothing),
                              **{name: (way.enter, partial(way.steps, count), way.leave)
                                 for name, way in ways.items()}}, report.repeat)
            for way in ways.values():
                way.inputs.close()
        stage = "all stages" if phase.stage is None else f"stage {phase.stage + 1}"
        step = statistics.median(times["from memory"]) / count
        row = [f"{stage}, batch {phase.batch}", 1e3 * step]
        report.add(f"{case}, {stage}", "step from memory", step, "s")
        for name, way in ways.items():
            over = ratio(times[name], times["from memory"])
            waited = sum(way.waited[1:]) / sum(times[name])
            report.add(f"{case}, {stage}", f"step, {name}, over step from memory", over, "ratio")
            report.add(f"{case}, {stage}", f"wait for images, {name}, of the step", waited, "share")
            row += [over, 100 * waited]
        lines.append(row)
    print(f"\n{case}: a step with real reading over the same step from memory, and its share of "
          "waiting, %\n" + table(
              ["", ("ms", ".1f"), *[c for name in WAYS
                                    for c in ((name, ".3f"), ("waits", ".2f"))]], lines))


class _Way:
    """Steps of a phase that get their images in one way."""

    def __init__(self, inputs: Inputs, phase: Phase, optimizer: Optimizer) -> None:
        self.inputs, self.phase, self.optimizer = inputs, phase, optimizer
        self._step, self._before = phase.first, 0.0
        self.waited: list[float] = []  # seconds, of every round

    def fill(self, images: int) -> None:
        """Read for an epoch."""
        for _ in range(-(-images // self.phase.batch) + 1):
            self._read()

    def enter(self) -> None:
        """Two steps, after which the line is filled."""
        forget([self.inputs.batches.dataset.path])
        self.steps(2)
        self._before = self._waits()

    def steps(self, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            train_step(self.inputs.network, self.optimizer, self.phase.first, self._read(),
                       given=self.inputs.is_given(self.phase.first))

    def leave(self) -> None:
        """Wait for what the thread makes after the last step."""
        self.waited.append(self._waits() - self._before)
        self.inputs.settle()

    def _waits(self) -> float:
        seconds = self.inputs.timers.seconds
        return sum(seconds.get(name, 0.0) for name in ("wait for images", "respond"))

    def _read(self) -> np.ndarray:
        """The images of the next step; after the last one of the phase, from its first again."""
        step = self._step
        self._step = step + 1 if step + 1 < self.phase.end else self.phase.first
        return self.inputs.read(step, self.optimizer.parameters)


def _with(config: Config, keep: float) -> Config:
    return configuration.loads(configuration.dumps(config), [f"data.keep={keep}"])


def _in_turn(ways: dict[str, tuple[Callable[[], None], Callable[[], None], Callable[[], None]]],
             rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of each in every round; what is before and after is not timed."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, (enter, function, leave) in ways.items():
            enter()
            began = clock()
            function()
            if number:  # the first round warms up
                times[name].append(clock() - began)
            leave()
    return times


# ---- reading -------------------------------------------------------------------------------------


def _reading(case: str, path: Path, config: Config, report: Report) -> None:
    """A table of chunks, compressions and slabs."""
    with Dataset(path) as dataset:
        images = dataset.read(np.arange(dataset.count))
    count, size = len(images), config.data.size
    lines: list[list[Any]] = []
    starts = np.random.default_rng(0).permutation(count // RUN) * RUN
    across = np.minimum(starts + RUN // 2, count - RUN)
    for label, where in _files(path.parent, images):
        cases = [(slab, starts, int(share * size)) for slab, share in SLABS.items()]
        if label.startswith(f"{RUN} ") and not lines:
            cases.append(("whole images, runs across chunks", across, size))
        with h5py.File(where, "r", locking=False) as file:
            for slab, order, side in cases:
                wanted, stored = images.nbytes * (side / size)**2, where.stat().st_size
                cells: list[Any] = [label, slab, stored / images.nbytes]
                for source, before in (("disk", partial(forget, [where])), ("memory", _nothing)):
                    times = _in_turn({"plain": (before, partial(_plain, where), _nothing),
                                      "runs": (before, partial(_runs, file["images"], order, side),
                                               _nothing)}, report.repeat, CLOCKS[report.clock])
                    cells += [ratio(times["plain"], times["runs"]) * wanted / stored,
                              wanted / statistics.median(times["runs"]) / 1e6]
                    report.add(f"{case}, {label}, {slab}", f"from {source}", cells[-2],
                               "of a plain read's bytes/s")
                lines.append(cells)
        where.unlink()
    print(f"\n{case}: shuffled runs of {RUN} images, bytes/s over those of a plain read\n"
          + table(["chunk", "read", ("size", ".2f"), ("disk", ".2f"), ("MB/s", ".0f"),
                   ("memory", ".2f"), ("MB/s", ".0f")], lines))


def _files(folder: Path, images: np.ndarray) -> Iterator[tuple[str, Path]]:
    """The same images in files of other chunks and compressions, with what they are called."""
    size = images.shape[1]
    ours = CHUNKS[0][1] if CHUNKS[0][1] < size else 0
    for number, side in dict.fromkeys((number, side if 0 < side < size else 0)
                                      for number, side in CHUNKS):
        tile = -(-size // max(1, round(size / side))) if side else size
        for compress in COMPRESSIONS if (number, side) == (RUN, ours) else ("none",):
            with contextlib.suppress(MissingExtraError):
                where, arguments = folder / "read.h5", filters(compress)
                with h5py.File(where, "w") as file:
                    file.create_dataset("images", data=images, chunks=(
                        min(number, len(images)), tile, tile, images.shape[3]), **arguments)
                yield f"{number} x {tile}x{tile}" + f", {compress}" * bool(arguments), where


def _runs(data: h5py.Dataset, starts: np.ndarray, side: int) -> None:
    """Read a corner of all images once, run by run."""
    out = np.empty((RUN, side, side, data.shape[3]), np.uint8)
    for start in starts.tolist():
        read_direct(data, out, np.s_[start:start + RUN, :side, :side], np.s_[:])


def _nothing() -> None:
    pass


def _plain(path: Path) -> None:
    """Read a file from its beginning to its end, piece by piece."""
    memory = bytearray(PIECE)
    with FileIO(path) as file:
        while file.readinto(memory):
            pass
