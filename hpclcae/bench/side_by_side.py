"""The same work in several processes at once, over one alone (``hpclcae bench kernels``).

Each process has its own core. In every round each process first works alone while the others sleep,
then all work together, so a ratio is formed of times that lie seconds apart.
"""
import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from hpclcae.bench.cases import ALL_PASSES, STAGE_STEP, StageCase
from hpclcae.bench.common import SGEMM, Report, Sgemm, ratio
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

#: A process that waits this long for the others has lost them, seconds.
LOST = 600

#: By case and name: seconds alone and seconds together, of every round.
Pairs = dict[tuple[str, str], tuple[list[float], list[float]]]


def run(args: argparse.Namespace, report: Report) -> None:
    """Measure and print."""
    ranks = args.side_by_side
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("--side-by-side pins processes to cores, which this system does not offer")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < ranks:
        raise InputError(f"--side-by-side {ranks} needs {ranks} cores, this process may use "
                         f"{len(cores)}")
    lines = []
    found = _measure(args, cores[:ranks])
    for case, name in found[0]:
        for rank, pairs in enumerate(found):
            alone, together = pairs[case, name]
            kept = ratio(alone, together)
            lines.append((case, name, rank, statistics.median(alone) * 1e3,
                          statistics.median(together) * 1e3, kept))
            report.add(case, f"{name}: rank {rank} of {ranks} together over alone", kept, "ratio")
    print(f"\n{ranks} processes side by side, each on a core of its own")
    print(table([("", ""), ("", ""), ("rank", "d"), ("ms alone", ".1f"), ("ms together", ".1f"),
                 ("rate over alone", ".3f")], lines))


def _measure(args: argparse.Namespace, cores: list[int]) -> list[Pairs]:
    """One process a core; what each of them measured."""
    context = multiprocessing.get_context("spawn")  # not a copy of this process: BLAS starts afresh
    barrier = context.Barrier(len(cores))
    processes, ends = [], []
    for rank, core in enumerate(cores):
        here, there = context.Pipe(duplex=False)
        processes.append(context.Process(target=work, args=(args, rank, core, barrier, there),
                                         daemon=True))
        processes[-1].start()
        there.close()  # so that the end of the process is the end of the pipe
        ends.append(here)
    try:
        return [end.recv() for end in ends]
    except EOFError as error:
        raise InputError("a process of --side-by-side ended early; what it said is above (too "
                         "little memory?)") from error
    finally:
        barrier.abort()
        for process in processes:
            process.join(timeout=5)
            process.terminate()


def work(args: argparse.Namespace, rank: int, core: int, barrier: Barrier, end: Connection) -> None:
    """What one process does: time every piece alone, in its turn, then together with the others."""
    os.sched_setaffinity(0, {core})
    pairs: Pairs = {}
    for maps_in in args.maps_in:
        case = StageCase(maps_in, args.positions, args.batch[0], args.tile[0])
        pieces: dict[str, Callable[[], object]] = {SGEMM: Sgemm(),
                                                   ALL_PASSES: case.filters()[ALL_PASSES].run,
                                                   STAGE_STEP: case.steps()[STAGE_STEP].run}
        for name, piece in pieces.items():
            piece()
            alone, together = pairs[case.label, name] = [], []
            for _ in range(args.repeat):
                for turn in range(barrier.parties):
                    barrier.wait(LOST)
                    if turn == rank:
                        alone.append(_seconds(piece))
                barrier.wait(LOST)
                together.append(_seconds(piece))
    end.send(pairs)


def _seconds(piece: Callable[[], object]) -> float:
    start = time.perf_counter()
    piece()
    return time.perf_counter() - start
