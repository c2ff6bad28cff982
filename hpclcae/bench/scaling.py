"""The command ``hpclcae bench scaling``: how much faster several ranks train one network than one rank does.

It starts ``mpiexec -n N hpclcae bench halo`` for every number of ranks in turn, round after round, so that ratios are
formed of times that lie close together. On fewer cores than ranks a step cannot get faster than on as many ranks as
cores; efficiency is the speed-up over what the cores allow.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hpclcae.bench.common import Report, machine, positive, ratio, refuse_more_threads, table
from hpclcae.bench.halo import configure_case
from hpclcae.errors import InputError

#: Open MPI refuses more ranks than cores unless it is told (version 5, version 4); MPICH does not know the names.
OVERSUBSCRIBE = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe": "1"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    configure_case(parser)
    parser.add_argument("--ranks", type=positive, nargs="+", default=[1, 2], metavar="N",
                        help="numbers of ranks; the first one is what the others are compared with (default 1 2)")
    parser.add_argument("--repeat", type=positive, default=5, metavar="N",
                        help="rounds, each of which starts every number of ranks once (default 5)")
    parser.add_argument("--steps", type=positive, default=10, metavar="N",
                        help="training steps of every stage in each job; their median counts (default 10)")
    parser.add_argument("--limit", type=positive, default=600, metavar="SECONDS",
                        help="a job that takes longer is killed (default 600)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append one JSON object a row to this file")
    parser.set_defaults(clock="wall")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    refuse_more_threads()
    report = Report("scaling", args, ["mpi4py"])
    seconds: dict[int, list[float]] = {ranks: [] for ranks in args.ranks}
    mpiexec = find_mpiexec()
    for _ in range(args.repeat):
        for ranks, times in seconds.items():
            times.append(seconds_of_step(mpiexec, ranks, args))
    name = f"stage of the paper's, {args.stage}x{args.stage} positions" if args.stage else str(args.configuration)
    case = " ".join([name, *args.changes])
    cores, first, lines = machine()["cores"], args.ranks[0], []
    for ranks, times in seconds.items():
        speed_up = ratio(seconds[first], times)
        efficiency = speed_up * min(first, cores) / min(ranks, cores)
        step = statistics.median(times)
        lines.append((ranks, 1e3 * step, min(times) * 1e3, max(times) * 1e3, speed_up, efficiency))
        for metric, value, unit in (("step", step, "s"), ("speed-up", speed_up, "ratio"),
                                    ("efficiency", efficiency, "ratio")):
            report.add(case, f"{ranks} ranks over {first}: {metric}" if unit == "ratio" else f"{ranks} ranks: {metric}",
                       value, unit)
    print(report.heading())
    print(f"\n{case}; efficiency is of {cores} cores")
    print(table([("ranks", "d"), ("ms a step", ".2f"), ("least", ".2f"), ("most", ".2f"),
                 (f"speed-up over {first}", ".3f"), ("efficiency", ".3f")], lines))
    return 0


def find_mpiexec() -> str:
    """The mpiexec beside Python's executable, where wheels of MPI libraries put it, or else that of PATH.

    Raises
    ------
    InputError
        There is none.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which("mpiexec", path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if not found:
        raise InputError("there is no mpiexec, beside Python's executable or on PATH: load the cluster's MPI, or "
                         "pip install 'hpclcae[mpich]'")
    return found


def seconds_of_step(mpiexec: str, ranks: int, args: argparse.Namespace) -> float:
    """Run one job.

    Raises
    ------
    InputError
        It failed or took too long; the message ends with what the job said.
    """
    case = ["--stage", str(args.stage)] if args.stage else [str(args.configuration)]
    changes = [word for change in args.changes for word in ("--set", change)]
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "hpclcae", "bench", "halo", *case, *changes,
                   "--steps", str(args.steps), "--json", str(rows)]
        error = run_job(command, args.limit)
        if error is not None:
            raise InputError(f"{ranks} ranks: {error}")
        found = [json.loads(line) for line in rows.read_text().splitlines()]
    return next(row["value"] for row in found if row["metric"] == "step")


def run_job(command: list[str], limit: float) -> str | None:
    """Run a command for at most `limit` seconds; None, or why it failed. Nothing that it started is left."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env={**OVERSUBSCRIBE, **os.environ}, start_new_session=True) as job:
        try:
            _, said = job.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"the job took more than {limit:g} s and was killed (--limit)"
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
    ours = [line for line in said.splitlines() if "hpclcae" in line] or said.splitlines()
    return None if job.returncode == 0 else ours[0] if ours else f"mpiexec ended with exit code {job.returncode}"
