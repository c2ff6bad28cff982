"""The command ``hpclcae status``: where runs stand, and how to go on.

A run folder is all it needs. Exit codes: 0 all runs are complete, 3 some are not, 1 some are broken
(or there is no run). slurm/train.sbatch decides with them.
"""
import argparse
import csv
from pathlib import Path

from hpclcae.cluster import status
from hpclcae.cluster.status import BROKEN, COMPLETE, INCOMPLETE
from hpclcae.commands.arguments import output
from hpclcae.utils.files import replacing
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                        help="run folder; several give a table")
    parser.add_argument("--csv", type=output, metavar="FILE",
                        help="write the table of several runs to this file, too")
    parser.add_argument("--step", action="store_true",
                        help="print the step of the newest checkpoint only, 0 if none")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.step:
        print("\n".join(str(status.newest_step(folder)) for folder in args.runs))
        return 0
    found = [status.run_status(folder) for folder in args.runs]
    if len(found) == 1 and args.csv is None:
        print(status.describe(found[0]))
    else:
        rows = status.compare(found)
        print(table(list(rows[0]), [list(row.values()) for row in rows]))
        for s in found:
            if s.trouble:
                print(f"{s.folder}: {s.trouble}")
        if args.csv is not None:
            _write(rows, args.csv)
    codes = {s.code for s in found}
    return next(code for code in (BROKEN, INCOMPLETE, COMPLETE) if code in codes)


def _write(rows: list[dict[str, str]], path: Path) -> None:
    """Write the table as comma-separated values."""
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
