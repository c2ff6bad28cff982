"""The command ``hpclcae status``: where runs stand, and how to go on.

A run folder is all it needs. Exit codes: 0 all runs are complete, 3 some are not, 1 some are broken
(or there is no run). slurm/train.sbatch decides with them.
"""
import argparse
import csv
import io
from pathlib import Path

from hpclcae import config as configuration
from hpclcae.cluster import status
from hpclcae.cluster.restarts import judge
from hpclcae.cluster.status import BROKEN, COMPLETE, INCOMPLETE
from hpclcae.commands.arguments import output
from hpclcae.survive import history
from hpclcae.utils.files import check_output, replace_text
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN",
                        help="run folder; several give a table")
    parser.add_argument("--csv", type=output, metavar="FILE",
                        help="write the table of several runs to this file, too")
    parser.add_argument("--step", action="store_true",
                        help="print the step of the newest checkpoint only, 0 if none")
    parser.add_argument("--failed", metavar="WHAT",
                        help="write down that the job at work in RUN has failed, and why; the exit "
                        "code is 0 if it is to be started again, else 1 (slurm/common.sh asks)")
    parser.add_argument("--job", default="", metavar="NAME",
                        help="--failed: what the starts that are counted have in common")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.step:
        print("\n".join(str(status.newest_step(folder)) for folder in args.runs))
        return 0
    if args.failed is not None:
        return _judge(args.runs[0], args.job, args.failed)
    if args.csv is not None:
        check_output(args.csv, _is_table, "a table of runs")
    found = [status.run_status(folder) for folder in args.runs]
    if len(found) == 1 and args.csv is None:
        print(status.describe(found[0]))
        if rows := history.events(args.runs[0]):
            replicas = configuration.load(args.runs[0] / "configuration.toml").parallel.replicas
            print(f"survived           {history.describe(rows, replicas, found[0].seconds)}")
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


def _judge(run: Path, job: str, what: str) -> int:
    """Note a failure; the exit code says whether to start again.

    Ranks that end within MPI_Init leave no configuration: the default of train.restarts holds.
    """
    path = run / "configuration.toml"
    config = configuration.load(path) if path.exists() else configuration.Config()
    verdict = judge(run, job, what, config.train.restarts)
    print(f"hpclcae failed: {verdict.text}")
    return 0 if verdict.again else BROKEN


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(1000).startswith(b"run,state,step,")


def _write(rows: list[dict[str, str]], path: Path) -> None:
    """Write the table as comma-separated values."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())
