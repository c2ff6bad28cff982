"""The command ``hpclcae convergence``: how several runs learn, at equal work, time and bytes."""
import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.commands.arguments import output
from hpclcae.experiments.convergence import draw, held_out, read
from hpclcae.utils.files import check_picture
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--images", type=Path, metavar="FILE",
                        help="also compare what the servers hold at the end, on images of this "
                        "dataset")
    parser.add_argument("--plot", type=output, metavar="PNG",
                        help="draw the curves (extra: figures)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.plot:
        check_picture(args.plot, "--plot")
    runs = [read(folder) for folder in args.runs]
    if args.images:
        for run, folder in zip(runs, args.runs):
            run["held out"] = held_out(folder, args.images)
    shared = {key: min(r[key][-1] for r in runs) for key in ("minibatches", "seconds")}
    shared["megabytes"] = min((r["megabytes"][-1] for r in runs if r["megabytes"][-1]), default=0)
    names = list(dict.fromkeys(r["name"] for r in runs))
    rows = [_row([r for r in runs if r["name"] == name], shared) for name in names]
    print(table(["run", "runs", "minibatches", "seconds", "MB", "staleness",
                 f"objective at {shared['minibatches']} minibatches",
                 f"at {shared['seconds']:.0f} seconds", f"at {shared['megabytes']:.3g} MB",
                 *["at the end, held out"] * (args.images is not None)], rows))
    if args.plot:
        draw(runs, args.plot)
        print(f"curves: {args.plot}")
    return 0


def _row(runs: Sequence[dict[str, Any]], shared: dict[str, float]) -> list[object]:
    """Means over runs of one kind, as of several seeds; where there are several, +- deviations."""
    def last(key: str) -> float:
        return float(np.mean([r[key][-1] for r in runs]))

    def at(key: str) -> str:
        if not runs[0][key][-1]:  # nothing was sent
            return ""
        return _spread([np.interp(shared[key], r[key], r["objective"]) for r in runs])
    held = [r["held out"] for r in runs if "held out" in r]
    return [runs[0]["name"], len(runs), round(last("minibatches")), round(last("seconds"), 1),
            round(last("megabytes"), 1), round(float(np.mean([r["staleness"] for r in runs])), 1),
            *map(at, ("minibatches", "seconds", "megabytes")),
            *([_spread(held)] if held else [])]


def _spread(values: Sequence[float]) -> str:
    """The mean, and the deviation of several."""
    more = f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{more}"
