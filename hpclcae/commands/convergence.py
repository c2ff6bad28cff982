"""The command ``hpclcae convergence``: how several runs learn, at equal work and at equal time."""
import argparse
from pathlib import Path

import numpy as np

from hpclcae.commands.arguments import output
from hpclcae.experiments.convergence import draw, read
from hpclcae.utils.files import check_picture
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--plot", type=output, metavar="PNG",
                        help="draw the curves (extra: figures)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.plot:
        check_picture(args.plot, "--plot")
    runs = [read(folder) for folder in args.runs]
    work = min(r["minibatches"][-1] for r in runs)
    seconds = min(r["seconds"][-1] for r in runs)
    rows = [[r["name"], int(r["minibatches"][-1]), round(float(r["seconds"][-1]), 1),
             round(r["staleness"], 1),
             round(float(np.interp(work, r["minibatches"], r["objective"])), 1),
             round(float(np.interp(seconds, r["seconds"], r["objective"])), 1)] for r in runs]
    print(table(["run", "minibatches", "seconds", "staleness", f"objective at {work} minibatches",
                 f"at {seconds:.0f} seconds"], rows))
    if args.plot:
        draw(runs, args.plot)
        print(f"curves: {args.plot}")
    return 0
