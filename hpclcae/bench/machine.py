"""The command ``hpclcae bench machine``: measure what predictions rest on, write it as TOML.

In one process it times the kernels at sizes that stages have, and everything else per number; then
it starts ``mpiexec -n R hpclcae bench machine`` for every number of ranks, which adds how ranks
reach each other and how much slower they compute side by side. Started by srun or mpiexec with one
rank on each of several nodes it adds the network to a file that is there.
"""
import argparse
import dataclasses
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae import config as configuration
from hpclcae.bench.common import (CLOCKS, MOST_TIMES, configure_limit, machine as facts,
                                  refuse_more_threads)
from hpclcae.bench.halo import Meter, Training
from hpclcae.bench.scaling import run_job
from hpclcae.cluster.launcher import launched
from hpclcae.cluster.machine import (ELEMENTS, PASSES, Kernel, Link, Machine, is_description, load,
                                     save)
from hpclcae.cluster.mpiexec import find_mpiexec
from hpclcae.cluster.prediction import LCN, MAPS, POOLING, predict
from hpclcae.commands.arguments import output, whole
from hpclcae.config import PreprocessConfig, StageConfig, UpdateConfig
from hpclcae.geometry import stage_geometry
from hpclcae.model.layers.local_filter import LocalFilter
from hpclcae.model.layers.unit_norm import filters
from hpclcae.model.layout import WHOLE, Layout
from hpclcae.model.optimizers import SLOTS, OptimizerKernel
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.preprocess import Preprocessing
from hpclcae.model.stage import Stage
from hpclcae.model.workspace import Workspace
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.utils.cores import cores, memory
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output
from hpclcae.utils.progress import progress
from hpclcae.utils.tables import table

if TYPE_CHECKING:
    from hpclcae.mpi.communicator import MpiCommunicator

#: Windows (side, maps) of the tiles that are timed, with their filters and minibatches.
WINDOWS = ((5, 1), (8, 1), (8, 4), (19, 3), (19, 8))
UNITS, IMAGES = (8, 32, 128), (1, 10, 100, 400)
#: FLOP of an encoding pass that is timed, and how many tiles it has at least and at most.
FLOP, TILES = 1e8, (4, 1024)
IMAGE, KERNEL = 48, 11  # side of the images that are prepared, of their whitening kernel
NUMBERS = 1 << 20       # of arrays that plain passes go over
DISK_BYTES = 64 << 20
MESSAGES = (8, 1 << 15, 1 << 18, 1 << 20)  # bytes
CHUNKS, CHUNK = 16, 1 << 20                # of a stream
RATE = 1e-12                               # hardly moves weights
EXCHANGES = 20                             # in a row, of which the median counts
SMALLEST = 1e-9  # seconds that a difference of two times may come to


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--out", type=output, default=Path("machine.toml"), metavar="FILE",
                        help="description to write (default machine.toml)")
    parser.add_argument("--ranks", type=whole(2, 10 ** 6), nargs="*", metavar="N",
                        help="numbers of ranks on this machine that are measured side by side "
                        "(default: 2, as many as cores, twice as many; none: no MPI is started)")
    parser.add_argument("--repeat", type=whole(1, MOST_TIMES), default=5, metavar="N",
                        help="rounds; their lower quartile counts (default 5)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall",
                        help="what computing is timed by; cpu: this process's own time, for a "
                        "machine that is busy with other work too; what lies between ranks is "
                        "always wall time (default wall)")
    configure_limit(parser, 300)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    refuse_more_threads()
    check_output(args.out, is_description, "a machine description")
    if launched().size > 1:
        return run_on_all_ranks("hpclcae bench machine", lambda world: _add_link(args, world))
    found = measure_node(args.out.absolute().parent, Timer(args.repeat, args.clock))
    _save(found, args.out)
    ranks = (sorted({2, max(2, found.cores), 2 * found.cores}) if args.ranks is None
             else sorted(set(args.ranks)))
    for number in ranks:
        error = run_job([find_mpiexec(), "-n", str(number), sys.executable, "-m", "hpclcae",
                         "bench", "machine", "--out", str(args.out), "--repeat", str(args.repeat)],
                        args.limit)
        if error is not None:
            raise InputError(f"{number} ranks: {error}")
    print(describe(load(args.out)))
    print(f"\nwritten to {args.out}: hpclcae plan CONFIGURATION --machine {args.out}")
    return 0


def _save(found: Machine, path: Path) -> None:
    save(found, path, ["What this machine can do, measured by 'hpclcae bench machine'."])


def lower_quartile(times: list[float]) -> float:
    """Of repeated times: what other work on the machine disturbed is the longer half."""
    return sorted(times)[(len(times) - 1) // 4]


class Timer:
    """Repeats calls and reads a clock.

    Parameters
    ----------
    repeat : int
        Rounds after a first one.
    clock : str
        Of common.CLOCKS.
    """

    def __init__(self, repeat: int, clock: str = "wall") -> None:
        self.repeat, self._clock = repeat, CLOCKS[clock]

    def once(self, call: Callable[[], object]) -> float:
        """Seconds of one call."""
        began = self._clock()
        call()
        return self._clock() - began

    def all(self, calls: Mapping[str, Callable[[], object]], times: int = 1) -> dict[str, float]:
        """Seconds of each call, all in turn in `times` times as many rounds."""
        found: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(times * self.repeat):
            for name, call in calls.items():
                found[name].append(self.once(call))
        return {name: max(SMALLEST, lower_quartile(values)) for name, values in found.items()}


WALL = Timer(1)


# ---- one node ------------------------------------------------------------------------------------

def measure_node(folder: Path, timer: Timer) -> Machine:
    """Everything that one process can measure; the disk is that of `folder`."""
    kernel = measure_kernel(timer)
    elements = measure_elements(timer)
    here = facts()
    through = 1 / (2 * max(elements["pack"], SMALLEST / 1e3) / 4)  # a copy out and a copy in
    bare = Machine(f"{here['cpu']}; {here['blas']['name']} {here['blas']['kernels']}", cores(),
                   float(memory()), measure_disk(folder), measure_jitter(timer), 0.0, 0.0,
                   kernel, elements, (Link("node", 1, 0.0, 0.0, through, 0.0, through, 1.0),))
    stage, row = measure_overheads(bare, timer)
    return dataclasses.replace(bare, stage=stage, position_row=row)


def _sweeps(field: int, maps_in: int, units: int, images: int,
            tiles: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """The sweeps of PASSES over rows x cols of tiles."""
    rows, cols = tiles
    plan = LocalFilter(rows + field - 1, cols + field - 1, maps_in, units, field, tile=1)
    random = np.random.default_rng(0)
    encoder, decoder = (filters(random.standard_normal(plan.shape, np.float32), norm, 1.0)
                        for norm in ("free", "unit"))
    x, residual, dx = (random.standard_normal((plan.rows, plan.cols, maps_in, images), np.float32)
                       for _ in range(3))
    z, dz = (random.standard_normal((rows, cols, units, images), np.float32) for _ in range(2))
    work = Workspace()

    def backward(into: np.ndarray | None) -> None:
        plan.backward(encoder, decoder, x, z, residual, 0.0, dz, into, lambda *row: None, work)
    return {"encode": lambda: plan.encode(encoder, x, z, work),
            "forward": lambda: plan.encode_decode(encoder, decoder, x, z, residual, work),
            "backward": lambda: backward(None), "backward dx": lambda: backward(dx)}


def measure_kernel(timer: Timer) -> Kernel:
    """Rates at every size, and what a row of tiles costs by itself."""
    rows = (4, 64)
    tiny = [timer.all(_sweeps(2, 1, 1, 1, (number, 1)), 4) for number in rows]
    row = {kind: max(SMALLEST, (tiny[1][kind] - tiny[0][kind]) / (rows[1] - rows[0]))
           for kind in PASSES}
    shape = len(WINDOWS), len(UNITS), len(IMAGES)
    rates = {kind: np.zeros(shape) for kind in PASSES}
    sizes = list(product(range(shape[0]), range(shape[1]), range(shape[2])))
    for place in progress(sizes, "products", unit="sizes"):
        (field, maps_in), units, images = (WINDOWS[place[0]], UNITS[place[1]], IMAGES[place[2]])
        flop = 2.0 * field * field * maps_in * units * images
        side = math.isqrt(int(min(max(FLOP / flop, TILES[0]), TILES[1])))
        found = timer.all(_sweeps(field, maps_in, units, images, (side, side)))
        for kind, passes in PASSES.items():
            seconds = max(found[kind] - side * row[kind], 0.1 * found[kind])
            rates[kind][place] = side * side * flop * passes / seconds
    return Kernel(tuple(field * field * maps_in for field, maps_in in WINDOWS), UNITS, IMAGES,
                  {kind: found.tolist() for kind, found in rates.items()}, row)


def measure_elements(timer: Timer) -> dict[str, float]:
    """Seconds a number of all that is no product."""
    positions, images = 24 + POOLING - 1, 100
    config = StageConfig(receptive_field=1, maps=MAPS, pooling=POOLING, lcn=LCN)
    stage = Stage.whole(config, stage_geometry(config, positions, positions, 1), "stage",
                        np.float32)
    random, work, keep = np.random.default_rng(0), Workspace(), Workspace()
    z = random.standard_normal((positions, positions, MAPS, images), np.float32)
    h = np.empty((24, 24, MAPS, images), np.float32)
    dh, dz = np.ones_like(h), np.empty_like(z)
    stage.pooling.forward(z, h, work)
    assert stage.norm is not None
    norm, y = stage.norm, np.empty((20, 20, MAPS, images), np.float32)
    cache = norm.forward(h, y, keep, work)
    dy = np.ones_like(y)
    weights = random.standard_normal((4, 4, 1024, 32), np.float32)
    flat, gradient = random.standard_normal((2, NUMBERS), np.float32)
    slots = {rule: [np.ones(NUMBERS, np.float32) for _ in SLOTS[rule]] for rule in SLOTS}
    kernels = {rule: OptimizerKernel(UpdateConfig(rule=rule, rate=RATE),  # type: ignore[arg-type]
                                     np.float32) for rule in SLOTS}
    pictures = random.integers(0, 256, (images, IMAGE, IMAGE, 1), np.uint8)
    kernel = np.zeros((KERNEL, KERNEL, 1, 1), np.float32)
    kernel[KERNEL // 2, KERNEL // 2] = 1
    plain, whitened = (Preprocessing(PreprocessConfig(whitening=side), part).preprocessor(
        IMAGE, np.float32) for side, part in ((0, None), (KERNEL, kernel)))
    parted, buffer = z[:, 3:3 + POOLING - 1], np.empty(
        (positions, POOLING - 1, MAPS, images), np.float32)

    def update(rule: str) -> Callable[[], object]:
        return lambda: kernels[rule].apply(flat, gradient, slots[rule], RATE, 64, 1)
    calls: dict[str, tuple[Callable[[], object], float]] = {
        "pooling": (lambda: stage.pooling.forward(z, h, work), z.size),
        "pooling back": (lambda: stage.pooling.backward(z, h, dh, dz, work), z.size),
        "contrast": (lambda: norm.forward(h, y, keep, work), h.size),
        "contrast back": (lambda: norm.backward(h, y, cache, dy, dh, work), h.size),
        "norm": (lambda: filters(weights, "unit", 1.0), weights.size),
        **{rule: (update(rule), NUMBERS) for rule in SLOTS},
        "prepare": (lambda: plain(pictures), pictures.size),
        "whiten": (lambda: whitened(pictures), pictures.size * KERNEL ** 2),
        "pass": (lambda: np.multiply(flat, np.float32(1.5), out=gradient), NUMBERS),
        "pack": (lambda: np.copyto(buffer, parted), buffer.size)}
    seconds = timer.all({name: call for name, (call, _) in calls.items()}, 2)
    found = {name: seconds[name] / size for name, (_, size) in calls.items()}
    found["whiten"] = max(0.0, (seconds["whiten"] - seconds["prepare"]) / calls["whiten"][1])
    return {name: found[name] for name in ELEMENTS}


def _small_stage(positions: int, images: int, maps: int) -> Callable[[], object]:
    """A step of a stage of some milliseconds."""
    config = StageConfig(receptive_field=2, maps=maps, pooling=2, lcn=3, tile=1)
    stage = Stage.whole(config, stage_geometry(config, positions, 8, maps), "stage", np.float32)
    parameters = ParameterVector(stage.parameter_shapes())
    stage.initialise(parameters, 0, 0)
    x, dx = np.ones((2, positions, 8, maps, images), np.float32)
    dy, work = np.ones((*stage.geometry.output, images), np.float32), Workspace()

    def step() -> None:
        state = stage.forward(parameters, x, work, objective=True)
        stage.backward(state, dy, dx, lambda *row: None, work)
    return step


#: Two networks in which what is called counts more than what is computed.
OVERHEAD = """
data = {{size = {size}, channels = 1}}
preprocess = {{whitening = 3}}
train = {{batch = 10}}
update = {{rule = "sgd"}}
stages = [{stage}, {stage}, {stage}]
"""
OVERHEAD_STAGE = "{receptive_field = 3, maps = 4, pooling = 2, lcn = 3}"
OVERHEAD_SIZES = 20, 44


def measure_overheads(bare: Machine, timer: Timer) -> tuple[float, float]:
    """Seconds of a stage in a step, and of a row of positions, beyond what is counted otherwise.

    Parameters
    ----------
    bare : Machine
        A description without the two.
    """
    configs = [configuration.loads(OVERHEAD.format(size=size, stage=OVERHEAD_STAGE))
               for size in OVERHEAD_SIZES]
    training = [Training(config, WHOLE, Meter(SerialCommunicator())) for config in configs]
    found = timer.all({str(n): one.round for n, one in enumerate(training)}, 4)
    layouts = [Layout(config) for config in configs]
    few, many = (found[str(n)] - predict(layout, bare).seconds
                 for n, layout in enumerate(layouts))
    rows = [sum(shape.filtered[0] for shape in layout.geometry) for layout in layouts]
    row = max(0.0, (many - few) / (rows[1] - rows[0]))
    return max(0.0, few - rows[0] * row) / len(configs[0].stages), row


def measure_jitter(timer: Timer, times: int = 60) -> float:
    """Spread of equal steps of some milliseconds: half of what the middle two thirds span."""
    step = _small_stage(64, images=20, maps=8)
    step()
    found = sorted(timer.once(step) for _ in range(times))
    low, high = found[times // 6], found[-1 - times // 6]
    return (high - low) / 2 / statistics.median(found)


def measure_disk(folder: Path) -> float:
    """Bytes a second of a file that is written and synchronised."""
    path, content = folder / f".hpclcae-{os.getpid()}.partial", bytes(DISK_BYTES)

    def write() -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    try:
        return DISK_BYTES / min(WALL.once(write) for _ in range(2))
    finally:
        path.unlink(missing_ok=True)


# ---- several ranks -------------------------------------------------------------------------------

def _add_link(args: argparse.Namespace, world: "MpiCommunicator") -> None:
    """Measure how these ranks reach each other; the first adds it to the file."""
    if world.rank == 0 and not args.out.exists():
        raise InputError(f"{args.out} is not there: first run 'hpclcae bench machine --out "
                         f"{args.out}' in one process, on one of the nodes")
    names = world.gather_texts(platform.node())
    distinct = len(set(names))
    if distinct not in (1, world.size):
        raise InputError(f"{world.size} ranks on {distinct} nodes: start all on one node, or one "
                         "on each node, so that it is known which of the two is measured")
    link = measure_link(world, "node" if distinct == 1 else "network", args.repeat)
    if world.rank == 0:
        _save(load(args.out).with_link(link), args.out)


def measure_link(world: "MpiCommunicator", where: str, repeat: int) -> Link:
    """The way between ranks; all call it, and get the same."""
    after, before = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    calls: dict[str, Callable[[], object]] = {}
    channels = []

    def ring(tag: int, size: int, count: int) -> Callable[[], None]:
        channel = world.channel(tag, [(after, np.ones(size, np.uint8)) for _ in range(count)],
                                [(before, np.ones(size, np.uint8)) for _ in range(count)])
        channels.append(channel)

        def exchange() -> None:
            channel.start()
            channel.wait()
        return exchange
    for tag, size in enumerate(MESSAGES):
        calls[f"{size}"] = ring(tag, size, 1)
    calls["many"] = ring(len(MESSAGES), MESSAGES[0], 8)
    calls["total"] = lambda: world.allreduce_sum(np.zeros((4, 3)))
    sent = [(1, np.ones(CHUNK, np.uint8)) for _ in range(CHUNKS)] if world.rank == 0 else []
    received = ([(0, np.ones(CHUNK, np.uint8)) for _ in range(CHUNKS)] if world.rank == 1 else [])
    one_way = world.channel(len(MESSAGES) + 1, sent, received)
    channels.append(one_way)

    def stream() -> None:
        one_way.start()
        one_way.wait()
    calls["stream"] = stream
    seconds = {name: _agreed(world, _rounds(world, call, 1 if name == "stream" else EXCHANGES,
                                            repeat)) for name, call in calls.items()}
    for channel in channels:
        channel.close()
    latency = seconds[f"{MESSAGES[0]}"]
    sizes = np.array(MESSAGES[1:], float)
    above = np.array([max(seconds[f"{size}"] - latency, SMALLEST) for size in MESSAGES[1:]])
    # seconds above the latency = bytes / bandwidth, errors counted in parts
    bandwidth = float(np.sum((sizes / above) ** 2) / np.sum(sizes / above))
    return Link(where, world.size, latency, max(0.0, (seconds["many"] - latency) / 7), bandwidth,
                seconds["total"], CHUNKS * CHUNK / seconds["stream"], _slowdown(world, repeat))


def _rounds(world: "MpiCommunicator", call: Callable[[], object], times: int,
            repeat: int) -> float:
    """Seconds of one of `times` calls in a row, that all begin together."""
    call()
    found = []
    for _ in range(repeat + 1):
        world.allreduce_sum(0)
        found.append(WALL.once(lambda: [call() for _ in range(times)]) / times)
    return lower_quartile(found[1:])


def _agreed(world: "MpiCommunicator", seconds: float) -> float:
    """The largest of what the ranks measured (of a stream the others have nothing to do)."""
    found = np.array([seconds])
    world.combine(found, "maximum")
    return float(found[0])


def _slowdown(world: "MpiCommunicator", repeat: int) -> float:
    """Of computing: all ranks at once, over each alone while the others sleep."""
    field, maps_in = WINDOWS[2]
    step = _sweeps(field, maps_in, 32, 100, (12, 12))["backward dx"]
    step()
    alone, together = [], []
    for _ in range(repeat):
        for turn in range(world.size):
            world.allreduce_sum(0)
            if turn == world.rank:
                alone.append(WALL.once(step))
        world.allreduce_sum(0)
        together.append(WALL.once(lambda: [step() for _ in range(4)]) / 4)
    ratio = lower_quartile(together) / lower_quartile(alone)
    return float(world.allreduce_sum(ratio)) / world.size


# ---- what is printed -----------------------------------------------------------------------------

def describe(found: Machine) -> str:
    """The description for people."""
    kernel = found.kernel
    lines = [(inputs, units, *(kernel.rate(kind, inputs, units, 100) / 1e9 for kind in PASSES))
             for inputs in kernel.inputs for units in kernel.units]
    links = [(link.where, link.ranks, 1e6 * link.latency, 1e6 * link.message,
              link.bandwidth / 1e9, 1e6 * link.total, link.stream / 1e9, link.slowdown)
             for link in found.links]
    return "\n".join([
        f"{found.name}; {found.cores} cores, {found.memory / 1e9:.1f} GB, disk "
        f"{found.disk / 1e9:.2f} GB/s, jitter {100 * found.jitter:.1f} %",
        "\nproducts, 100 images, GFLOP/s",
        table([("inputs", "d"), ("units", "d"), *((kind, ".1f") for kind in PASSES)], lines),
        "\nnanoseconds a number: " + ", ".join(f"{name} {1e9 * value:.3g}" for name, value
                                               in found.elements.items()),
        f"microseconds: a stage {1e6 * found.stage:.0f}, a row of positions "
        f"{1e6 * found.position_row:.1f}, a row of tiles "
        + ", ".join(f"{kind} {1e6 * value:.1f}" for kind, value in kernel.row.items()),
        "\nranks", table([("where", ""), ("ranks", "d"), ("latency, us", ".1f"),
                          ("a message", ".1f"), ("GB/s", ".2f"), ("sum, us", ".1f"),
                          ("stream, GB/s", ".2f"), ("computing slower", ".2f")], links)])
