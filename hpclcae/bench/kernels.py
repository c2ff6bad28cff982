"""The command ``hpclcae bench kernels``: rates of kernels, of a stage, of a training step."""
import argparse
import math
import statistics
import tracemalloc
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hpclcae.bench import common, roofline, side_by_side
from hpclcae.bench.cases import ALL_PASSES, STAGE_STEP, NetworkCase, StageCase, Timed
from hpclcae.bench.common import SGEMM, Report, Sgemm
from hpclcae.commands.arguments import output, whole
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_picture
from hpclcae.utils.tables import table

#: Parts that cannot be timed alone: name -> (whole, what is taken away).
DIFFERENCES = {"decode (difference)": ("encode, decode", ["encode"]),
               "dW2 (difference)": ("dZ, dW1, dW2", ["dZ", "dW1"])}
#: Columns of the overview over several batches and tiles.
OVERVIEW = ("encode", "encode, decode", "dZ, dW1, dW2, dX", ALL_PASSES, STAGE_STEP)
SCALED_POSITIONS, SCALED_IMAGES = (12, 16, 24, 32, 48), (25, 50, 100, 200, 400)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--maps-in", type=whole(1, 4096), nargs="+", default=[3, 8], metavar="N",
                        help="input maps: 3 is the paper's first stage, 8 the others (default 3 8)")
    parser.add_argument("--batch", type=whole(1, 65_536), nargs="+", default=[100], metavar="N",
                        help="images a minibatch (default 100)")
    parser.add_argument("--tile", type=whole(0, 4096), nargs="+", default=[0], metavar="N",
                        help="side of a kernel tile; 0: the one that training would use (default "
                        "0)")
    parser.add_argument("--positions", type=whole(1, 4096), default=48, metavar="N",
                        help="side of the patch of output positions (default 48, at least 9)")
    parser.add_argument("--size", type=whole(1, 4096), default=96, metavar="PIXELS",
                        help="side of the images of the whole network (default 96, at least 76)")
    parser.add_argument("--quick", action="store_true",
                        help="small patches, three rounds: a look, not a measurement")
    parts = parser.add_argument_group("instead of the tables")
    parts.add_argument("--paper", action="store_true",
                       help="a step of the paper's network, 200x200 pixels, sgd in place: 10 GB of "
                       "weights, minutes")
    parts.add_argument("--allocations", action="store_true",
                       help="new memory within a step (part of the tables too)")
    parts.add_argument("--scaling", action="store_true",
                       help="time of a stage step against positions and images, over a factor of "
                       "16 each")
    parts.add_argument("--plot", type=output, metavar="PNG",
                       help="rate against batch, 1 to 256, beside the roofline (extra: figures)")
    parts.add_argument("--side-by-side", type=whole(1, 4096), metavar="N",
                       help="rates of N processes at once, each on a core of its own, over one "
                       "alone")
    common.configure(parser, repeat=5)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    common.refuse_more_threads()
    if args.quick:
        args.positions, args.size, args.repeat = min(args.positions,
                                                     24), min(args.size, 80), min(args.repeat, 3)
    _check(args)
    if args.plot:
        check_picture(args.plot, "--plot")
    report = Report("kernels", args)
    print(report.heading())
    chosen = False
    for wanted, part in ((args.paper, _paper), (args.scaling, _scaling),
                         (args.allocations, _allocations),
                         (args.plot, roofline.run), (args.side_by_side, side_by_side.run)):
        if wanted:
            part(args, report)
            chosen = True
    if not chosen:
        _tables(args, report)
        _allocations(args, report)
    report.warn_if_busy()
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse sizes that the paper's windows do not fit."""
    if args.positions < 9:
        raise InputError(f"--positions {args.positions} is too small for pooling and contrast "
                         "normalisation; it must be at least 9")
    if args.size < 76:
        raise InputError(f"--size {args.size}: the third stage sees 76 pixels; it must be at least "
                         "76")
    if min(args.tile) < 0:
        raise InputError(f"--tile {min(args.tile)} is negative; 0 leaves the choice to the rule")


# ---- tables --------------------------------------------------------------------------------------


def _tables(args: argparse.Namespace, report: Report) -> None:
    """Every part of a stage for all maps, batches and tiles, then the whole network."""
    lines = []
    for maps_in in args.maps_in:
        for batch in args.batch:
            for tile in args.tile:
                case = StageCase(maps_in, args.positions, batch, tile)
                rates = measure(case.label, case.timed(), report)
                best = rates[SGEMM]
                lines.append((maps_in, batch, case.tile, *[rates[name] for name in OVERVIEW], best,
                              rates[ALL_PASSES] / best, rates[STAGE_STEP] / best))
    for batch in args.batch:
        network = NetworkCase(args.size, batch, "momentum")
        measure(network.label, {"training step": Timed(network.step, network.flop)}, report)
    if len(lines) > len(args.maps_in):
        print("\nGFLOP/s by batch and tile\n"
              + table([("maps in", "d"), ("batch", "d"), ("tile", "d"),
                       *[(name, ".1f") for name in (*OVERVIEW, SGEMM)],
                       ("six of sgemm", ".2f"), ("stage of sgemm", ".2f")], lines))


def measure(label: str, timed: Mapping[str, Timed], report: Report) -> dict[str, float]:
    """Time everything, print a table, report; returns GFLOP/s by name, "sgemm" among them."""
    times = report.paired({name: part.run for name, part in timed.items()})
    seconds = {name: statistics.median(values) for name, values in times.items()}
    flop = {name: part.flop for name, part in timed.items()}
    for name, (all_, parts) in DIFFERENCES.items():
        if all_ in flop:
            seconds[name] = max(1e-9, seconds[all_] - sum(seconds[p] for p in parts))
            flop[name] = flop[all_] - sum(flop[p] for p in parts)
    rates = {name: flop[name] / seconds[name] / 1e9 for name in flop}
    best, worst = (Sgemm.rate(choose(times[SGEMM])) for choose in (min, max))
    print(f"\n{label}; sgemm {best:.1f} GFLOP/s (at its slowest {worst:.1f})")
    print(table([("", ""), ("ms", ".2f"), ("GFLOP/s", ".2f"), ("of sgemm", ".3f")],
                [(name, seconds[name] * 1e3, rate, rate / best) for name, rate in rates.items()]))
    report.add(label, SGEMM, best, "GFLOP/s")
    for name, rate in rates.items():
        report.add(label, name, seconds[name], "s")
        report.add(label, name, rate, "GFLOP/s")
        report.add(label, name, rate / best, "of sgemm")
    return {SGEMM: best, **rates}


def _paper(args: argparse.Namespace, report: Report) -> None:
    """A step of the network in the paper's own size."""
    for batch in args.batch:
        case = NetworkCase(200, batch, "sgd")
        measure(case.label, {"training step": Timed(case.step, case.flop)}, report)


# ---- growth and memory ---------------------------------------------------------------------------


def _scaling(args: argparse.Namespace, report: Report) -> None:
    """Time of a stage step against positions and against images."""
    batch, positions = args.batch[0], min(args.positions, 24)
    for maps_in in args.maps_in:
        tile = args.tile[0] or StageCase(maps_in, positions, batch).tile  # one tile for all sizes
        for name, sizes in (("positions", SCALED_POSITIONS), ("images", SCALED_IMAGES)):
            counts, seconds, lines = [], [], []
            for size in sizes:
                by_positions = name == "positions"
                case = StageCase(maps_in, size if by_positions else positions, batch if by_positions
                                 else size, tile)
                step = case.steps()[STAGE_STEP]
                counts.append(size ** 2 if by_positions else size)
                seconds.append(statistics.median(report.paired({"step": step.run})["step"]))
                lines.append((counts[-1], seconds[-1] * 1e3, step.flop / seconds[-1] / 1e9))
                report.add(f"{case.label}, by {name}", STAGE_STEP, seconds[-1], "s")
            exponent = fitted_exponent(counts, seconds)
            print(f"\n{maps_in} maps in, tile {tile}: time of a stage step grows as {name} ** "
                  f"{exponent:.3f}")
            print(table([(name, "d"), ("ms", ".2f"), ("GFLOP/s", ".1f")], lines))
            report.add(f"{maps_in} maps in, tile {tile}", f"growth with {name}",
                       exponent, "exponent")


def fitted_exponent(counts: Sequence[float], seconds: Sequence[float]) -> float:
    """e of the power law seconds ~ counts ** e that fits best on logarithmic scales."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def _allocations(args: argparse.Namespace, report: Report) -> None:
    """New memory within one step of the steady state."""
    batch = args.batch[0]
    lines = []
    stages = [StageCase(maps_in, args.positions, batch, args.tile[0]) for maps_in in args.maps_in]
    network = NetworkCase(args.size, batch, "momentum")
    for label, step in [*[(c.label, c.steps()["stage step, momentum"].run) for c in stages],
                        (network.label, network.step)]:
        peak = new_memory(step)
        lines.append((label, peak / 1e6))
        report.add(label, "peak of new memory in a step", peak, "bytes")
    smallest = min(math.prod(c.stage.geometry.pooled[1:]) for c in stages) * batch * 4
    print("\nnew memory within a step of the steady state (one row of h, a small array, has "
          f"{smallest / 1e6:.2f} MB)")
    print(table([("", ""), ("peak, MB", ".3f")], lines))


def new_memory(step: Callable[[], object]) -> int:
    """Bytes by which allocations of Python and NumPy exceed those before, at most, in a third step.

    No single block that the step allocates is larger.
    """
    step()
    tracemalloc.start()
    try:
        step()  # what is allocated once and kept is there after this one
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
