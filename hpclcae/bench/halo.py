"""The command ``hpclcae bench halo``: what the exchanges of a training step cost.

That is what they send, and how long they take. It trains on random images, prepared like real ones.
An exchange costs its copying (into buffers and back), the transfer, and waiting for blocks that
come later. The block that waits least has waited for the transfer alone; what the others wait
longer is imbalance, which no faster network would remove.
"""
import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from hpclcae import config as configuration
from hpclcae.bench.cases import RATE
from hpclcae.bench.common import MOST_TIMES, Report, configure_json, refuse_more_threads
from hpclcae.cluster.launcher import launched
from hpclcae.commands.arguments import whole
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.phases import phases
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.preprocess import Preprocessing
from hpclcae.model.schedule import Schedule
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.partition.blocks import ARRAYS, Grid
from hpclcae.partition.communicator import Buffers, Channel, Communicator, SerialCommunicator
from hpclcae.partition.cost import choose_grid, traffic
from hpclcae.partition.halo import Exchange
from hpclcae.training.step import train_step
from hpclcae.utils.tables import table
from hpclcae.utils.timers import Timers

T = TypeVar("T")
DEFAULT = "run/plain.toml"
START = ("one rank has nobody to exchange with; start more, for instance: mpiexec -n 2 hpclcae "
         "bench halo")
#: A stage as in the paper, between two small ones: it takes its input from one and gets gradients
#: from the other.
PAPER_STAGE = """
data = {{size = {side}, channels = 3}}
stages = [{{receptive_field = 1, pooling = 1, lcn = 0}}, {{}},
          {{receptive_field = 1, pooling = 1, lcn = 0}}]
"""
PARTS = ("prepare", "forward", "backward and update")

Key = tuple[int, str]  # stage, counted from 0, and what is exchanged, as in cost.traffic
SUMS: Key = (-1, "sums over all blocks")
_BYTES, _SECONDS, _WAITED, _TIMES = range(4)  # what is kept of an exchange


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    configure_case(parser)
    parser.add_argument("--grid", default="auto", metavar="ROWSxCOLUMNS",
                        help="grid of blocks (default auto)")
    parser.add_argument("--steps", type=whole(1, MOST_TIMES), default=10, metavar="N",
                        help="training steps of every stage after the first one; their median "
                        "counts (default 10)")
    configure_json(parser)


def configure_case(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that say which network is measured."""
    parser.add_argument("configuration", nargs="?", default=DEFAULT,
                        help=f"TOML file (default {DEFAULT})")
    parser.add_argument("--stage", type=whole(1, 65_536), metavar="SIDE",
                        help="instead of a file: one stage of the paper's on SIDE x SIDE positions "
                        "of 8 maps")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set train.batch=20")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    refuse_more_threads()
    size = launched().size
    if size == 1:
        print(START)
        _run(args, SerialCommunicator())
        return 0
    return run_on_all_ranks("hpclcae bench halo", lambda communicator: _run(args, communicator))


def _run(args: argparse.Namespace, communicator: Communicator) -> None:
    if args.stage:
        config = configuration.loads(PAPER_STAGE.format(side=args.stage), args.changes, "--stage")
        name = f"stage of the paper's, {args.stage}x{args.stage} positions"
    else:
        config = configuration.load(args.configuration, args.changes)
        name = str(args.configuration)
    grid = choose_grid(config, communicator.size, args.grid)
    args.repeat, args.clock = args.steps, "wall"
    report = Report("halo", args, ["mpi4py"]) if communicator.rank == 0 else None
    costs = measure(config, grid, communicator, args.steps)
    if report:
        case = " ".join([name, *args.changes, f"grid {grid}"])
        print(report.heading())
        _print(case, config, costs, report)


# ---- what is measured ----------------------------------------------------------------------------

@dataclass(frozen=True)
class Cost:
    """One exchange, all per training step.

    Greedy training: the mean over steps that train each of the stages.

    sent and least are bytes, summed over the blocks: what was sent, and what the geometry needs.
    The others are seconds, means over the blocks: copied into and out of buffers, transferred, and
    waited for later blocks.
    """
    times: float
    sent: float
    least: float
    copied: float
    transferred: float
    waited: float

    @property
    def seconds(self) -> float:
        """All that the exchange takes."""
        return self.copied + self.transferred + self.waited


@dataclass(frozen=True)
class Costs:
    """What a step costs: its exchanges, and seconds of its PARTS, which contain them."""
    exchanges: dict[Key, Cost]
    parts: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Of a step."""
        return sum(self.parts)


def measure(config: Config, grid: Grid, communicator: Communicator, rounds: int) -> Costs:
    """Train the communicator's block for `rounds` after a first one.

    The result is the same on every block. A round is one training step, or one of every stage if
    the training is greedy.
    """
    meter = Meter(communicator)
    training = Training(config, grid, meter)
    training.round()
    meter.rounds.clear()
    communicator.allreduce_sum(0)  # all start together
    parts = np.array([training.round() for _ in range(rounds)]) / len(training.phases)
    keys = [*((t.stage, t.what) for t in traffic(config, grid)), SUMS]
    # (round, key, _TIMES)
    mine = np.array([[found[key] for key in keys] for found in meter.rounds]) / len(training.phases)
    mean = communicator.allreduce_sum(mine) / communicator.size
    waits = np.zeros((communicator.size, *mine.shape[:2]))
    waits[communicator.rank] = mine[..., _WAITED]
    transferred = communicator.allreduce_sum(waits).min(axis=0)
    copied, waited = mean[..., _SECONDS] - mean[..., _WAITED], mean[..., _WAITED] - transferred
    least = least_bytes(config, grid)
    medians = (np.median(a, axis=0) for a in (mean[..., _TIMES], mean[..., _BYTES]
                                              * communicator.size, copied, transferred, waited))
    exchanges = {key: Cost(times, sent, least.get(key, 0), *seconds)
                 for key, times, sent, *seconds in zip(keys, *medians)}
    step = np.median(communicator.allreduce_sum(parts) / communicator.size, axis=0)
    return Costs(exchanges, tuple(step))


def step_in(rows: Path) -> float:
    """Seconds of a step, in what the command has written to a file of rows (--json)."""
    found = map(json.loads, rows.read_text().splitlines())
    return float(next(row["value"] for row in found if row["metric"] == "step"))


def least_bytes(config: Config, grid: Grid) -> dict[Key, float]:
    """Bytes per training step that the geometry needs.

    Every position goes once to every block that lacks it.
    """
    item, batches = np.dtype(config.train.dtype).itemsize, [one.batch for one in phases(config)]

    def images(stage: int, what: str) -> float:
        """The mean over the phases."""
        if config.train.gradient != "greedy":
            return batches[0]
        # also below the stage that is trained; what it passes on itself nobody asks for
        if what in ("fill x", "fill z"):
            some = batches[stage:]
        elif what.startswith("fill") and what != "fill residual":
            some = batches[stage + 1:]
        else:
            some = [batches[stage]]
        return sum(some) / len(batches)
    return {(t.stage, t.what): t.values * item * images(t.stage, t.what)
            for t in traffic(config, grid)}


class Training:
    """Training of one block on random images."""

    def __init__(self, config: Config, grid: Grid, meter: "Meter") -> None:
        config = replace(config, update=replace(config.update, rate=RATE))
        self.config, self.meter = config, meter
        self.network = Network(Layout(config, grid), meter)
        self.network.condition_unfitted()
        meter.watch(self.network)
        self.parameters = self.network.parameters(config.train.seed)
        self.optimizer = Optimizer(config.update, self.parameters, self.network.block.fan_in)
        self.schedule = Schedule(config)
        self.phases = phases(config)
        size, channels, side = config.data.size, config.data.channels, config.preprocess.whitening
        kernel = np.zeros((side, side, channels, channels)) if side else None
        if kernel is not None:
            kernel[side // 2, side // 2] = np.eye(channels)
        self.prepare = Preprocessing(config.preprocess, kernel).preprocessor(
            size, self.network.dtype, self.network.block.plan.stages[0].x, meter)
        read = self.prepare.pixels
        whole = np.random.default_rng(0).integers(
            0, 256, (max(phase.batch for phase in self.phases), size, size, channels), np.uint8)
        self.images = whole[:, slice(*read.rows), slice(*read.cols)].copy()

    def round(self) -> list[float]:
        """Seconds of each of PARTS."""
        self.meter.begin_round()
        seconds = np.zeros(len(PARTS))
        for phase in self.phases:
            self.meter.begin_step()
            self.optimizer.begin(self.schedule.learning_rate(phase.first))
            timers = Timers()
            with timers("prepare"):
                x = self.prepare(self.images[:phase.batch])
            train_step(self.network, self.optimizer, phase.first, x, timers=timers)
            seconds += list(timers.seconds.values())
        return list(seconds)


class Meter(Communicator):
    """A communicator that passes everything on.

    It keeps what each exchange sends and how long it takes.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.rounds: list[dict[Key, np.ndarray]] = []
        self._used: Counter[tuple[int, str]] = Counter()
        self._running = SUMS

    def begin_round(self) -> None:
        """What follows is kept by itself."""
        self.rounds.append({})

    def begin_step(self) -> None:
        """A training step begins: the next exchange of an array is the first of this step."""
        self._used.clear()

    def watch(self, network: Network) -> None:
        """Time the exchanges of a network that has this communicator."""
        for stage in network.stages:
            for owner in (stage, stage.norm, stage.window_whitening):
                for exchange in vars(owner).values() if owner else ():
                    if isinstance(exchange, Exchange):
                        setattr(exchange, "start_fill",
                                self._timed(exchange, "fill", exchange.start_fill))
                        setattr(exchange, "start_fold",
                                self._timed(exchange, "fold", exchange.start_fold))

    def _timed(self, exchange: Exchange, kind: str,
               start: Callable[[np.ndarray], Callable[[], None]]
               ) -> Callable[[np.ndarray], Callable[[], None]]:
        stage, array = divmod(exchange.plan.tag, len(ARRAYS))
        name = ARRAYS[array]

        def timed_start(values: np.ndarray) -> Callable[[], None]:
            nth = self._used[stage, kind + name]
            self._used[stage, kind + name] += 1
            key = stage, _purpose(stage, name, kind, nth)
            with self._running_as(key, 1):
                finish = start(values)

            def timed_finish() -> None:
                with self._running_as(key, 0):
                    finish()
            return timed_finish
        return timed_start

    @contextmanager
    def _running_as(self, key: Key, times: int) -> Iterator[None]:
        """Add the time of the block, and all that channels do in it, to `key`."""
        self._running = key
        began = time.perf_counter()
        yield
        self.add(_SECONDS, time.perf_counter() - began)
        self.add(_TIMES, times)
        self._running = SUMS

    def add(self, what: int, value: float) -> None:
        """Add to what is kept of the exchange that is running."""
        if self.rounds:
            self.rounds[-1].setdefault(self._running, np.zeros(4))[what] += value

    def channel(self, tag: int, sends: Buffers, receives: Buffers) -> "_MeteredChannel":
        """See exchange.Communicator."""
        return _MeteredChannel(self, self._communicator.channel(tag, sends, receives),
                               sum(buffer.nbytes for _, buffer in sends))

    def allreduce_sum(self, values: ArrayLike) -> np.ndarray:
        """See exchange.Communicator. All of its time counts as waiting, none of its few bytes."""
        began = time.perf_counter()
        total = self._communicator.allreduce_sum(values)
        seconds = time.perf_counter() - began
        for what, value in ((_SECONDS, seconds), (_WAITED, seconds), (_TIMES, 1)):
            self.add(what, value)
        return total

    def combine(self, values: np.ndarray, how: str) -> None:
        """Passed on; no training step does it."""
        self._communicator.combine(values, how)

    def gather(self, value: T, patience: float = math.inf) -> list[T]:
        """Passed on; no training step does it."""
        return self._communicator.gather(value, patience)

    def sum_in_place(self, array: np.ndarray) -> None:
        """See exchange.Communicator. Counts as waiting."""
        began = time.perf_counter()
        self._communicator.sum_in_place(array)
        seconds = time.perf_counter() - began
        for what, value in ((_SECONDS, seconds), (_WAITED, seconds), (_TIMES, 1)):
            self.add(what, value)

    def close(self) -> None:
        """See exchange.Communicator."""
        self._communicator.close()


class _MeteredChannel:
    """A channel that tells the meter what it sends and how long it waits."""

    def __init__(self, meter: Meter, channel: Channel, size: int) -> None:
        self._meter, self._channel, self._size = meter, channel, size

    def start(self) -> None:
        """See exchange.Channel."""
        self._meter.add(_BYTES, self._size)
        self._channel.start()

    def wait(self) -> None:
        """See exchange.Channel."""
        began = time.perf_counter()
        self._channel.wait()
        self._meter.add(_WAITED, time.perf_counter() - began)

    def close(self) -> None:
        """See exchange.Channel."""
        self._channel.close()


def _purpose(stage: int, array: str, kind: str, nth: int) -> str:
    """What the nth exchange of this kind in a training step is for, as in cost.traffic."""
    if array == "x":
        order = {"fill": ["fill x", "fill residual"][stage == 0:],
                 "fold": ["fold residual", "fold dx"]}[kind]
        return order[nth]
    return {"fill z": "fill z", "fold z": "fold dz", "fill y": "fill y",
            "fold y": "fold dy"}.get(f"{kind} {array}",
                                     f"{kind} mean of {array}{'^2' * (array == 'g')}")


# ---- what is printed -----------------------------------------------------------------------------

COLUMNS = [("stage", ""), ("exchange", ""), ("times", ".2f"), ("kB", ",.1f"), ("over least", ""),
           ("ms each", ".3f"),
           ("copy", ".3f"), ("transfer", ".3f"), ("wait", ".3f"), ("% of step", ".2f")]


def _print(case: str, config: Config, costs: Costs, report: Report) -> None:
    lines = []
    # SUMS last
    order = sorted(costs.exchanges.items(), key=lambda item: item[0][0] % (len(config.stages) + 1))
    for (stage, what), cost in order:
        if not cost.times:
            continue
        share, each = cost.seconds / costs.seconds, 1e3 / cost.times
        least = f"{cost.sent / cost.least:.3f}" if cost.least else "-"
        where = f"stage {stage + 1}, " if stage >= 0 else ""
        lines.append((where[:-2], what, cost.times, cost.sent / 1e3, least, cost.seconds * each,
                      cost.copied * each, cost.transferred * each, cost.waited * each, 100 * share))
        for metric, value, unit in (("sent a step", cost.sent, "bytes"),
                                    ("least a step", cost.least, "bytes"),
                                    ("seconds each", cost.seconds / cost.times, "s"),
                                    ("share of step", share, "1")):
            report.add(case, f"{where}{what}: {metric}", value, unit)
    print(f"\n{case}, batch {config.train.batch}, {config.train.dtype}; bytes are a training "
          "step's, of all blocks")
    print(table(COLUMNS, lines))
    sent = sum(cost.sent for cost in costs.exchanges.values())
    shares = {name: sum(getattr(cost, name) for cost in costs.exchanges.values()) / costs.seconds
              for name in ("seconds", "copied", "transferred", "waited")}
    rate = config.train.batch / costs.seconds
    print(f"\nexchanges {100 * shares['seconds']:.1f} % of a step (copies "
          f"{100 * shares['copied']:.1f}, transfer {100 * shares['transferred']:.1f}, waiting for "
          f"later blocks {100 * shares['waited']:.1f}), {sent / 1e6:.2f} MB")
    print(f"step {1e3 * costs.seconds:.2f} ms, {rate:.1f} images/s: "
          + ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name,
                      seconds in zip(PARTS, costs.parts)))
    report.add(case, "exchanges: share of step", shares["seconds"], "1")
    report.add(case, "step", costs.seconds, "s")
    report.add(case, "rate", rate, "images/s")
