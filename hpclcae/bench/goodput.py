"""The command ``hpclcae bench goodput``: the same training with and without failures, in two ways.

In every round ``hpclcae launch`` trains to the last step four times: as one MPI world that begins
again from its last checkpoint where a rank has died, and with ``--survive``; each undisturbed, and
with a rank killed (SIGKILL, any server or block with the same probability) after seconds that are
drawn from an exponential, the same in both ways. Goodput is the time of the undisturbed world over
the time that a way took: all of it, with starts, images and checkpoints. Beside it are what was
learned, as the objective on images that are the same for all, and the memory of all processes.
"""
import argparse
import contextlib
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from hpclcae import config as configuration
from hpclcae.bench.common import (MOST_TIMES, Report, configure_job, ratio,
                                  refuse_more_threads)
from hpclcae.cluster.mpiexec import arguments_of, descendants, end_with_parent
from hpclcae.commands.arguments import positive, real, whole
from hpclcae.experiments.convergence import held_out
from hpclcae.survive.job import check_survival
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

#: Name, whether it survives, whether ranks are killed; the first is the ideal.
WAYS = (("one world, undisturbed", False, False), ("one world, begins again", False, True),
        ("--survive, undisturbed", True, False), ("--survive, replicas come back", True, True))
TRAIN = ["-m", "hpclcae", "train"]  # what every rank runs
RESTARTS = "train.restarts=1000"    # as many as it takes
LOOK_SECONDS = 5.0                  # between looks at the memory, each of which takes 30 ms


class Ended(NamedTuple):
    """A training that has come to its last step.

    Attributes
    ----------
    seconds : float
        From the command to its end.
    kills : int
        Ranks that were killed.
    by_hand : int
        Times that the command had given up, and was given again with --resume.
    objective : float
        Of the last checkpoint, per image of data.train.
    memory : int
        Bytes of all processes at most, looked at now and then; what several share counts once.
    """
    seconds: float
    kills: int
    by_hand: int
    objective: float
    memory: int


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", nargs="?", type=Path, default=Path("run/plain.toml"),
                        help="TOML file (default run/plain.toml); its data is what is trained on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set train.steps=2000; two servers "
                        "with copies and two replicas where it does not say")
    parser.add_argument("--mtbf", type=real(0, 1e9, above=True), metavar="SECONDS", default=30.0,
                        help="mean time between failures of the job (default 30)")
    parser.add_argument("--episodes", type=positive, metavar="N", default=10 ** 6,
                        help="failures of a training, at most (default: until it ends)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the first round's failures")
    parser.add_argument("--repeat", type=whole(1, MOST_TIMES), default=1, metavar="N",
                        help="rounds, each with its own failures (default 1)")
    configure_job(parser, 3600)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises
    ------
    InputError
        The configuration cannot survive, or a training failed or took too long.
    """
    refuse_more_threads()
    if not configuration.load(args.configuration, args.changes).parallel.servers:
        args.changes = ["parallel.servers=2", "parallel.replicas=2", "parallel.copies=1",
                        *args.changes]
    config = configuration.load(args.configuration, args.changes)
    check_survival(config)
    report = Report("goodput", args, ["mpi4py"])
    found: dict[str, list[Ended]] = {name: [] for name, *_ in WAYS}
    for seed in range(args.seed, args.seed + args.repeat):
        for name, survives, is_disturbed in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(_trained(args, config.data.train, Path(folder), survives,
                                            random.Random(seed) if is_disturbed else None))
            print(f"{name}: {found[name][-1].seconds:.1f} s, {found[name][-1].kills} killed",
                  file=sys.stderr, flush=True)
    ideal, lines = [one.seconds for one in found[WAYS[0][0]]], []
    case = " ".join([str(args.configuration), *args.changes, f"--mtbf {args.mtbf:g}"])
    for name, ended in found.items():
        seconds = [one.seconds for one in ended]
        goodput = ratio(ideal, seconds)
        objective = statistics.mean(one.objective for one in ended)
        memory = max(one.memory for one in ended)
        lines.append((name, statistics.median(seconds), sum(one.kills for one in ended),
                      sum(one.by_hand for one in ended), goodput, objective, memory / 1e6))
        report.add(case, f"{name}: time", statistics.median(seconds), "s")
        report.add(case, f"{name}: goodput", goodput, "ratio")
        report.add(case, f"{name}: objective", objective, "per image")
        report.add(case, f"{name}: memory", memory, "bytes")
    print(report.heading())
    print(f"\n{config.train.steps} steps, a rank killed every {args.mtbf:g} s in the mean")
    print(table([("", ""), ("s to the last step", ".1f"), ("ranks killed", "d"),
                 ("started again by hand", "d"), ("goodput", ".3f"), ("objective", ".5g"),
                 ("MB at most", ",.0f")], lines))
    return 0


def _trained(args: argparse.Namespace, images: str, folder: Path, survives: bool,
             failures: random.Random | None) -> Ended:
    """Train to the last step, whatever it takes."""
    words = [*(word for change in [*args.changes, RESTARTS] for word in ("--set", change)),
             *(["--survive"] if survives else [])]
    command = [sys.executable, "-m", "hpclcae", "launch", str(args.configuration), "--out",
               str(folder / "run"), *words]
    began, kills, by_hand, killed_before, memory = time.monotonic(), 0, 0, 0, 0
    strike = began + (failures.expovariate(1 / args.mtbf) if failures else args.limit)
    with (folder / "said").open("w+") as said:
        while True:
            job = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                                   preexec_fn=end_with_parent)
            try:
                while job.poll() is None:
                    if (now := time.monotonic()) > began + args.limit:
                        raise InputError(f"{shlex.join(command)} took more than {args.limit} s "
                                         "(--limit)")
                    if failures and now >= strike:
                        kills += _kill_one(job.pid, failures.random())
                        strike += (failures.expovariate(1 / args.mtbf) if kills < args.episodes
                                   else args.limit)
                    memory = max(memory, _memory(job.pid))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        until = min(strike, began + args.limit, now + LOOK_SECONDS)
                        job.wait(max(0.0, until - time.monotonic()))
            finally:
                for pid in descendants(job.pid) if job.poll() is None else ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                job.wait()
            if job.returncode == 0:
                seconds = time.monotonic() - began
                objective = held_out(folder / "run", Path(images))
                return Ended(seconds, kills, by_hand, objective, memory)
            if kills == killed_before:
                said.seek(0)
                raise InputError(f"{shlex.join(command)}: {said.read().strip()[-2000:]}")
            by_hand, killed_before = by_hand + 1, kills
            command = [*command, *([] if "--resume" in command else ["--resume"])]


def _memory(job: int) -> int:
    """Bytes of a job's processes; a page that several have counts once in all (Pss)."""
    found = 0
    for pid in (job, *descendants(job)):
        with contextlib.suppress(OSError):  # it may have ended
            said = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found += int(said.partition("\nPss:")[2].split()[0]) * 1024
    return found


def _kill_one(job: int, which: float) -> bool:
    """SIGKILL to one of its ranks, the first at 0 and the last below 1; False: there is none."""
    ranks = [pid for pid in sorted(descendants(job)) if arguments_of(pid)[1:4] == TRAIN]
    if not ranks:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(ranks[int(which * len(ranks))], signal.SIGKILL)
    return True
