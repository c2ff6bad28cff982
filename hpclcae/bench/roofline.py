"""Rate against batch beside the roofline, a part of ``hpclcae bench kernels``.

The roofline is what sgemm and the memory allow. A pass over the weights reads each of them once and
does two FLOP with it for every image, so its arithmetic intensity is 2 B FLOP for 4 bytes. Below
the ridge the memory limits the rate, above it sgemm.
"""
import argparse
import statistics
from pathlib import Path

import numpy as np

from hpclcae.bench.cases import ALL_PASSES, StageCase
from hpclcae.bench.common import SGEMM, Report, Sgemm
from hpclcae.utils.errors import require
from hpclcae.utils.files import save_figure
from hpclcae.utils.tables import table

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHOWN = ("encode", ALL_PASSES)
#: Numbers of the array whose reading measures the memory: far larger than any cache.
STREAMED = 64 * 1024 ** 2


def run(args: argparse.Namespace, report: Report, batches: tuple[int, ...] = BATCHES) -> None:
    """Measure, print and draw."""
    require("matplotlib", "figures", "--plot")
    peak, bandwidth = limits(report)
    curves: dict[tuple[int, str], list[float]] = {(m, name): [] for m in args.maps_in
                                                  for name in SHOWN}
    for maps_in in args.maps_in:
        for batch in batches:
            case = StageCase(maps_in, args.positions, batch, args.tile[0])
            timed = {name: part for name, part in case.filters().items() if name in SHOWN}
            times = report.paired({name: part.run for name, part in timed.items()})
            for name, part in timed.items():
                rate = part.flop / statistics.median(times[name]) / 1e9
                curves[maps_in, name].append(rate)
                report.add(case.label, f"{name}, by batch", rate, "GFLOP/s")
    roof = [min(peak, bandwidth * batch / 2) for batch in batches]
    print(f"\nGFLOP/s by batch; sgemm {peak:.1f} GFLOP/s, memory {bandwidth:.1f} GB/s: the ridge "
          f"is at batch {2 * peak / bandwidth:.1f}")
    print(table([("batch", "d"), ("roof", ".1f"),
                 *[(f"{name}, {maps_in} maps in", ".1f") for maps_in, name in curves]],
                list(zip(batches, roof, *curves.values()))))
    draw(args.plot, batches, curves, peak, bandwidth, report.heading())
    print(f"wrote {args.plot}")


def limits(report: Report) -> tuple[float, float]:
    """GFLOP/s of sgemm and GB/s of reading memory."""
    stream = np.ones(STREAMED, np.float32)
    times = report.paired({"read": lambda: np.dot(stream, stream)})
    peak, bandwidth = Sgemm.rate(min(times[SGEMM])), stream.nbytes / min(times["read"]) / 1e9
    report.add("roofline", SGEMM, peak, "GFLOP/s")
    report.add("roofline", "memory, read", bandwidth, "GB/s")
    return peak, bandwidth


def draw(path: Path, batches: tuple[int, ...], curves: dict[tuple[int, str], list[float]],
         peak: float, bandwidth: float, heading: str) -> None:
    """Write the picture."""
    figure_class = require("matplotlib.figure", "figures", "--plot").Figure
    figure = figure_class(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    dense = np.geomspace(batches[0], batches[-1], 200)
    axes.plot(dense, np.minimum(peak, bandwidth * dense / 2), color="black",
              label=f"roofline: sgemm {peak:.0f} GFLOP/s, memory {bandwidth:.0f} GB/s")
    for (maps_in, name), rates in curves.items():
        axes.plot(batches, rates, "o-" if name == ALL_PASSES else "s--",
                  label=f"{name}, {maps_in} maps in")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(batches, map(str, batches))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="images a minibatch (each weight that is read takes part in 2 FLOP an image)",
             ylabel="useful GFLOP/s of one core")
    axes.set_title(heading.split(";")[0], fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_figure(figure, path, 150)
