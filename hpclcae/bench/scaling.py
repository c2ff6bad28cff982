"""The command ``hpclcae bench scaling``: how much faster several ranks train than one does.

It starts ``mpiexec -n N hpclcae bench halo`` (within a SLURM job: srun) for every number of ranks
in turn, round after round, so that ratios are formed of times that lie close together. On fewer
cores than ranks a step cannot get faster than on as many ranks as cores; efficiency is the speed-up
over what the cores allow.

Strong scaling: the same network on more ranks. Weak scaling (``--weak``): the image grows so that
every rank keeps about its number of positions; the speed-up is then that of FLOP per second.
"""
import argparse
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from hpclcae import config as configuration
from hpclcae.bench.common import (MOST_TIMES, Report, configure_job, machine, ratio,
                                  refuse_more_threads)
from hpclcae.bench.halo import PAPER_STAGE, configure_case, step_in
from hpclcae.cluster.mpiexec import OVERSUBSCRIBE, end_with_parent, find_mpiexec
from hpclcae.commands.arguments import output, whole
from hpclcae.config import Config
from hpclcae.geometry import training_flop
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import check_picture, save_figure
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    configure_case(parser)
    parser.add_argument("--ranks", type=whole(1, 10 ** 6), nargs="+", default=[1, 2], metavar="N",
                        help="numbers of ranks; the first one is what the others are compared with "
                        "(default 1 2)")
    parser.add_argument("--repeat", type=whole(1, MOST_TIMES), default=5, metavar="N",
                        help="rounds, each of which starts every number of ranks once (default 5)")
    parser.add_argument("--steps", type=whole(1, MOST_TIMES), default=10, metavar="N",
                        help="training steps of every stage in each job; their median counts "
                        "(default 10)")
    parser.add_argument("--weak", action="store_true", help="let the image grow with the ranks")
    parser.add_argument("--srun", type=whole(1, 10 ** 6), metavar="PER_NODE",
                        help="start with srun, so many ranks on a node, instead of mpiexec "
                        "(slurm/scaling.sbatch)")
    parser.add_argument("--srun-mpi", default="pmi2", metavar="TYPE",
                        help="srun's --mpi (default pmi2)")
    configure_job(parser, 600)
    parser.add_argument("--plot", type=output, metavar="PNG",
                        help="draw the speed-up (extra: figures)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    refuse_more_threads()
    if args.plot:
        require("matplotlib", "figures", "drawing")
        check_picture(args.plot, "--plot")
    report = Report("scaling", args, ["mpi4py"])
    seconds: dict[int, list[float]] = {ranks: [] for ranks in args.ranks}
    start = launcher(args)
    for _ in range(args.repeat):
        for ranks, times in seconds.items():
            times.append(seconds_of_step(start, ranks, args))
    name = (f"stage of the paper's, {args.stage}x{args.stage} positions" if args.stage
            else str(args.configuration))
    case = " ".join([name, *args.changes, *(["weak"] if args.weak else [])])
    cores, first, lines = machine()["cores"], args.ranks[0], []
    for ranks, times in seconds.items():
        speed_up = ratio(seconds[first], times) * work(args, ranks)
        share = first / ranks if args.srun else min(first, cores) / min(ranks, cores)
        efficiency = speed_up * share
        step = statistics.median(times)
        lines.append((ranks, 1e3 * step, min(times) * 1e3, max(times) * 1e3, speed_up, efficiency))
        for metric, value, unit in (("step", step, "s"), ("speed-up", speed_up, "ratio"),
                                    ("efficiency", efficiency, "ratio")):
            report.add(case, f"{ranks} ranks over {first}: {metric}" if unit == "ratio"
                       else f"{ranks} ranks: {metric}", value, unit)
    print(report.heading())
    print(f"\n{case}; efficiency is of "
          f"{f'{args.srun} ranks on a node' if args.srun else f'{cores} cores'}")
    print(table([("ranks", "d"), ("ms a step", ".2f"), ("least", ".2f"), ("most", ".2f"),
                 (f"speed-up over {first}", ".3f"), ("efficiency", ".3f")], lines))
    if args.plot:
        draw(args.plot, case, [line[0] for line in lines], [line[4] for line in lines])
        print(args.plot)
    return 0


def side(args: argparse.Namespace, ranks: int) -> int:
    """Side of the image (or of the paper's stage) on so many ranks."""
    before = args.stage or configuration.load(args.configuration, args.changes).data.size
    return round(before * math.sqrt(ranks / args.ranks[0])) if args.weak else before


def work(args: argparse.Namespace, ranks: int) -> float:
    """FLOP of a step over those of the first case."""
    if not args.weak:
        return 1.0

    def flop(number: int) -> int:
        changes = [*args.changes, f"data.size={side(args, number)}"]
        config: Config = (configuration.loads(PAPER_STAGE.format(side=args.stage), changes)
                          if args.stage else configuration.load(args.configuration, changes))
        return training_flop(config)
    return flop(ranks) / flop(args.ranks[0])


def launcher(args: argparse.Namespace) -> Callable[[int], list[str]]:
    """Words that start a number of ranks."""
    if not args.srun:
        mpiexec = find_mpiexec()
        return lambda ranks: [mpiexec, "-n", str(ranks)]
    # The step has a limit of its own: SLURM ends it even if srun is killed.
    return lambda ranks: ["srun", f"--nodes={math.ceil(ranks / args.srun)}", f"--ntasks={ranks}",
                          f"--ntasks-per-node={min(ranks, args.srun)}", f"--mpi={args.srun_mpi}",
                          "--kill-on-bad-exit=1", f"--time={math.ceil(args.limit / 60)}"]


def draw(path: Path, title: str, ranks: Sequence[int], speed_ups: Sequence[float]) -> None:
    """The speed-up over the number of ranks, beside the ideal one."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.loglog(ranks, [r / ranks[0] for r in ranks], "--", color="#b0b0b0", label="ideal")
    axes.loglog(ranks, speed_ups, "o-", color="#d95f02", label="measured")
    axes.set_xticks(ranks, list(map(str, ranks)))
    axes.minorticks_off()
    axes.set(xlabel="ranks", ylabel=f"speed-up over {ranks[0]}")
    axes.set_title(title, fontsize=9)
    axes.legend()
    save_figure(figure, path, 150)


def seconds_of_step(start: Callable[[int], list[str]], ranks: int,
                    args: argparse.Namespace) -> float:
    """Run one job.

    Raises
    ------
    InputError
        It failed or took too long; the message ends with what the job said.
    """
    case = ["--stage", str(side(args, ranks))] if args.stage else [str(args.configuration)]
    grown = [f"data.size={side(args, ranks)}"] if args.weak and not args.stage else []
    changes = [word for change in [*args.changes, *grown] for word in ("--set", change)]
    # the first rank may be on another node
    shared = args.json.parent if args.srun and args.json else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        rows = Path(folder) / "rows.jsonl"
        command = [*start(ranks), sys.executable, "-m", "hpclcae", "bench", "halo", *case, *changes,
                   "--steps", str(args.steps), "--json", str(rows)]
        error = run_job(command, args.limit)
        if error is not None:
            raise InputError(f"{ranks} ranks: {error}")
        return step_in(rows)


def run_job(command: list[str], limit: float, show: bool = False) -> str | None:
    """Run a command for at most `limit` seconds; None, or why it failed.

    Nothing that it started is left. What it prints is shown or thrown away.
    """
    with subprocess.Popen(command, stdout=None if show else subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True,
                          env={**OVERSUBSCRIBE, **os.environ}, start_new_session=True,
                          preexec_fn=end_with_parent) as job:
        try:
            _, said = job.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"the job took more than {limit:g} s and was killed (--limit)"
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
    ours = [line for line in said.splitlines() if re.match(r"(rank \d+ of \d+: )?hpclcae\b[^/]*: ",
                                                           line)] or said.splitlines()
    return (None if job.returncode == 0
            else ours[0] if ours else f"mpiexec ended with exit code {job.returncode}")
