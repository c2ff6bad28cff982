"""What every benchmark needs: rows, paired timing, the sgemm reference, what machine it is.

An absolute time says little on another machine, or on the same one an hour later. So rates are also
given as a fraction of sgemm, timed in the same process and in turn with what is measured, and
ratios are formed within rounds.
"""
import argparse
import datetime
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.commands.arguments import output, whole
from hpclcae.model.blas import blas
from hpclcae.utils.cores import cores
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_json

#: Side of the square matrices of the reference product: large enough for full speed, about 0.05 s.
SGEMM_SIDE = 1500
SGEMM = "sgemm"
MOST_TIMES = 100_000  # rounds or steps that a benchmark takes
#: A process that got less than this share of its core was measured beside other work.
QUIET = 0.97

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Times = dict[str, list[float]]


def configure(parser: argparse.ArgumentParser, repeat: int) -> None:
    """Declare the arguments that all benchmarks share."""
    parser.add_argument("--repeat", type=whole(1, MOST_TIMES), default=repeat, metavar="N",
                        help="rounds of measurement after a warm-up; their median counts (default "
                        f"{repeat})")
    parser.add_argument("--clock", choices=CLOCKS, default="wall",
                        help="what times are read from; cpu: this process's own time, for a "
                        "machine that is busy with other work too (default wall)")
    configure_json(parser)


def configure_json(parser: argparse.ArgumentParser) -> None:
    """Declare where rows go."""
    parser.add_argument("--json", type=output, metavar="FILE",
                        help="append one JSON object a row to this file")


def configure_limit(parser: argparse.ArgumentParser, seconds: int) -> None:
    """Declare how long a job that a benchmark starts may take."""
    parser.add_argument("--limit", type=whole(1, 10 ** 6), default=seconds, metavar="SECONDS",
                        help=f"a job that takes longer is killed (default {seconds})")


def configure_job(parser: argparse.ArgumentParser, seconds: int) -> None:
    """Declare what benchmarks of whole jobs share: how long one may take, and where rows go.

    Times of jobs are those of the clock on the wall.
    """
    configure_limit(parser, seconds)
    configure_json(parser)
    parser.set_defaults(clock="wall")


class Report:
    """Measurements of one benchmark: times them, and appends them as rows to a JSON-lines file.

    Parameters
    ----------
    bench : str
        Name of the benchmark.
    args : argparse.Namespace
        With what `configure` declares.
    libraries : sequence of str
        Distributions whose versions matter, beside the package's own dependencies.
    """

    def __init__(self, bench: str, args: argparse.Namespace, libraries: Sequence[str] = ()) -> None:
        self.bench, self.path = bench, args.json
        self.repeat, self.clock = args.repeat, args.clock
        self.rows: list[dict[str, Any]] = []
        self.core_share = 1.0  # of the core's time, that this process had in the latest measurement
        self._least_share = 1.0
        self._where = {"machine": machine(), "versions": versions(libraries), "clock": self.clock}
        if self.path is not None:
            check_output(self.path, lambda path: is_json(path, "bench"), "a list of measurements")
            # a name that cannot be written is refused before the work, not after it
            self.path.open("a").close()

    def paired(self, functions: Mapping[str, Callable[[], object]],
               limit: float = math.inf) -> Times:
        """Seconds of every function in each round, after one warm-up round.

        Under "sgemm" are those of the reference. All functions run in turn in each round, so a
        machine that becomes slower does so for all of them. The reference runs before each of them,
        and so it is the reference, not the next function, that pays for what the one before left
        behind (memory to give back, cold caches). No round begins after `limit` seconds, but one is
        always measured.
        """
        clock, sgemm = CLOCKS[self.clock], Sgemm()
        sgemm()
        for function in functions.values():
            function()
        times: Times = {SGEMM: [], **{name: [] for name in functions}}
        began, worked = time.perf_counter(), time.process_time()
        for done in range(self.repeat):
            if done and time.perf_counter() - began > limit:
                break
            for name, function in functions.items():
                start = clock()
                sgemm()
                middle = clock()
                function()
                times[SGEMM].append(middle - start)
                times[name].append(clock() - middle)
        self.core_share = (time.process_time() - worked) / (time.perf_counter() - began)
        self._least_share = min(self._least_share, self.core_share)
        return times

    def add(self, case: str, metric: str, value: float, unit: str) -> None:
        """Keep a row and append it to the file."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        row = {"bench": self.bench, "case": case, "metric": metric, "value": value, "unit": unit,
               **self._where, "core_share": round(self.core_share, 3), "date": now}
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def heading(self) -> str:
        """One line on where the numbers come from."""
        here, software = self._where["machine"], self._where["versions"]
        blas = here["blas"]
        threads = f"{blas['threads'] or 'unknown'} thread" + "s" * (blas["threads"] != 1)
        return (f"{here['cpu']}, {here['cores']} cores; {blas['name']} {blas['version']} "
                f"{blas['kernels']}, {threads}; "
                + ", ".join(f"{name} {version}" for name, version in software.items()))

    def warn_if_busy(self) -> None:
        """One line on stderr if other work took a part of the core while something was timed."""
        if self._least_share < QUIET:
            suffers = ("rates are too low" if self.clock == "wall"
                       else "caches and memory were shared with it")
            print(f"beware: other work had up to {100 * (1 - self._least_share):.0f} % of the "
                  f"core; {suffers}", file=sys.stderr)


class Sgemm:
    """The reference: a square product in float32, as fast as this process's BLAS can multiply."""
    flop = 2.0 * SGEMM_SIDE ** 3

    def __init__(self) -> None:
        a = np.random.default_rng(0).standard_normal((3, SGEMM_SIDE, SGEMM_SIDE), dtype=np.float32)
        self._operands = a[0], a[1], a[2]

    def __call__(self) -> None:
        left, right, out = self._operands
        np.matmul(left, right, out=out)

    @classmethod
    def rate(cls, seconds: float) -> float:
        """GFLOP/s of one call."""
        return cls.flop / seconds / 1e9


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times longer `slow` takes: the median of the ratios of the rounds."""
    return statistics.median(s / f for s, f in zip(slow, fast))


def forget(paths: Iterable[Path]) -> None:
    """Let the system drop what it keeps of files in memory, where it can be told so."""
    for path in paths:
        with FileIO(path) as file:
            os.fsync(file.fileno())  # what is not on the disk yet stays
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- where ---------------------------------------------------------------------------------------


def refuse_more_threads() -> None:
    """Benchmarks are of one core.

    Raises
    ------
    InputError
        BLAS runs with more than one thread.
    """
    threads = blas()["threads"]
    if threads is not None and threads > 1:
        raise InputError(f"BLAS runs with {threads} threads, the benchmarks are of one core: set "
                         "OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1 and MKL_NUM_THREADS=1, or "
                         "unset them")


def machine() -> dict[str, Any]:
    """What the numbers depend on; no name of a host."""
    return {"cpu": _cpu(), "cores": cores(), "system": f"{platform.system()} {platform.machine()}",
            "blas": blas()}


def versions(libraries: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python and of the libraries that do the work."""
    found = {"python": platform.python_version()}
    for name in ("hpclcae", "numpy", "scipy", *libraries):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        names = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(),
                           re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"
