"""The command ``hpclcae bench plan``: predicted steps beside measured ones.

In every round it measures the machine (``hpclcae bench machine``) and then a step of every case
(``hpclcae bench halo`` under mpiexec), so that prediction and measurement see the same machine;
ratios are formed within rounds. None of the cases is used for the description.
"""
import argparse
import dataclasses
import math
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpclcae import config as configuration
from hpclcae.bench.common import (MOST_TIMES, Report, configure_job,
                                  refuse_more_threads)
from hpclcae.bench.halo import PAPER_STAGE, step_in
from hpclcae.bench.scaling import run_job
from hpclcae.cluster.machine import Machine, load
from hpclcae.cluster.mpiexec import find_mpiexec
from hpclcae.cluster.prediction import StepTime, predict
from hpclcae.commands.arguments import whole
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.partition.cost import choose_grid
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

#: What turns shared memory between ranks off: MPICH's word for it, Open MPI's.
WITHOUT_SHARED_MEMORY = {"MPIR_CVAR_NOLOCAL": "1", "OMPI_MCA_btl": "self,tcp",
                         "OMPI_MCA_pml": "ob1"}
WITHIN = 0.2  # of the measured step, that a prediction may be off


@dataclass(frozen=True)
class Case:
    """A network on so many ranks: a file of run/, or a stage of the paper's of that side."""
    name: str
    ranks: int
    changes: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The configuration."""
        if self.name.isdecimal():
            return configuration.loads(PAPER_STAGE.format(side=self.name), self.changes)
        return configuration.load(self.name, self.changes)

    @property
    def words(self) -> list[str]:
        """For hpclcae bench halo."""
        case = ["--stage", self.name] if self.name.isdecimal() else [self.name]
        return [*case, *(word for change in self.changes for word in ("--set", change))]

    def __str__(self) -> str:
        name = (f"a paper's stage, {self.name}x{self.name}" if self.name.isdecimal()
                else self.name)
        return " ".join([name, *self.changes])

    def predicted(self, machine: Machine, per_node: int) -> StepTime:
        """Of a step, so many ranks on a node."""
        config = self.config  # bench halo keeps no responses
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, cache="none"))
        layout = Layout(config, choose_grid(config, self.ranks, "auto"))
        return predict(layout, machine, per_node)


#: Small and large networks, joint and greedy, sparse and dense communication.
CASES = (("run/plain.toml", ()), ("run/desk.toml", ()), ("run/tiny.toml", ("train.batch=100",)),
         ("run/paper.toml", ("data.size=90", "train.batch=50")), ("48", ()),
         ("48", ("train.batch=20",)))


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--ranks", type=whole(1, 10 ** 6), nargs="+", default=[1, 2], metavar="N",
                        help="numbers of ranks of every network (default 1 2)")
    parser.add_argument("--repeat", type=whole(1, MOST_TIMES), default=3, metavar="N",
                        help="rounds, each of which measures the machine and every case (default "
                        "3)")
    parser.add_argument("--steps", type=whole(1, MOST_TIMES), default=7, metavar="N",
                        help="training steps of every stage in each job; their median counts "
                        "(default 7)")
    parser.add_argument("--no-shared-memory", action="store_true",
                        help="ranks of this machine reach each other over TCP")
    configure_job(parser, 300)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises
    ------
    InputError
        A job failed or took too long; the message ends with what it said.
    """
    refuse_more_threads()
    report = Report("plan", args, ["mpi4py"])
    if args.no_shared_memory:
        os.environ |= {name: value for name, value in WITHOUT_SHARED_MEMORY.items()
                       if name not in os.environ}
    cases = [Case(name, ranks, changes) for ranks in args.ranks for name, changes in CASES]
    rounds: list[list[tuple[StepTime, float]]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeat):
            machine = _measured(Path(folder) / "machine.toml", args)
            for case, found in zip(cases, rounds):
                found.append((case.predicted(machine, case.ranks),
                              _seconds(case, Path(folder), args)))
    print(report.heading())
    way = "without shared memory" if args.no_shared_memory else "with shared memory"
    print(f"\npredicted and measured steps, {way}; the median of {args.repeat} rounds")
    lines = [_line(case, found) for case, found in zip(cases, rounds)]
    print(table([("", ""), ("ranks", "d"), ("measured, ms", ",.2f"), ("predicted", ",.2f"),
                 ("predicted / measured", ".2f"), ("least", ".2f"), ("most", ".2f"),
                 ("mostly", "")], lines))
    right = sum(abs(line[4] - 1) <= WITHIN for line in lines)
    print(f"\n{right} of {len(lines)} within {100 * WITHIN:.0f} %; off by "
          f"{100 * (math.exp(statistics.mean(abs(math.log(line[4])) for line in lines)) - 1):.0f} "
          "% on average")
    for case, line in zip(cases, lines):
        for metric, value, unit in (("measured", line[2] / 1e3, "s"),
                                    ("predicted", line[3] / 1e3, "s"),
                                    ("predicted over measured", line[4], "ratio")):
            report.add(f"{case}, {case.ranks} ranks, {way}", metric, value, unit)
    return 0


def _line(case: Case, found: list[tuple[StepTime, float]]
          ) -> tuple[str, int, float, float, float, float, float, str]:
    ratios = sorted(step.seconds / seconds for step, seconds in found)
    middle = found[len(found) // 2][0]
    largest = max(StepTime.PARTS, key=lambda part: getattr(middle, part))
    return (str(case), case.ranks, 1e3 * statistics.median(seconds for _, seconds in found),
            1e3 * statistics.median(step.seconds for step, _ in found), statistics.median(ratios),
            ratios[0], ratios[-1],
            f"{largest} {100 * getattr(middle, largest) / middle.seconds:.0f} %")


def _hpclcae(ranks: int, words: list[str], limit: float) -> None:
    launcher = [find_mpiexec(), "-n", str(ranks)] if ranks > 1 else []
    error = run_job([*launcher, sys.executable, "-m", "hpclcae", *words], limit)
    if error is not None:
        raise InputError(f"{ranks} ranks: {error}")


def _measured(path: Path, args: argparse.Namespace) -> Machine:
    several = [str(ranks) for ranks in args.ranks if ranks > 1]
    _hpclcae(1, ["bench", "machine", "--out", str(path), "--repeat", "3", "--ranks", *several],
             2 * args.limit)
    return load(path)


def _seconds(case: Case, folder: Path, args: argparse.Namespace) -> float:
    """Of a step."""
    rows = folder / "rows.jsonl"
    rows.unlink(missing_ok=True)
    _hpclcae(case.ranks, ["bench", "halo", *case.words, "--steps", str(args.steps), "--json",
                          str(rows)], args.limit)
    return step_in(rows)
