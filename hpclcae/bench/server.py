"""The command ``hpclcae bench server``: what parameter servers cost, beside what the machine could do.

It starts ``mpiexec -n 4 hpclcae bench server`` and measures, each against the other within the same rounds:

* lines: pushing and fetching all parameters of a network, by one-sided sums and by messages; against the same chunks
  with MPI's accumulate calls alone (no versions, no lock), and against copying them in memory.
* step: a training step that fetches and pushes every time, against one that updates its own parameters; and the share
  of a core that the server takes meanwhile, and while nothing happens.
* slow: of three replicas one is stopped for 80 of every 100 ms (SIGSTOP, SIGCONT), so it is five times slower; the
  rate of the two others, against that with all three undisturbed. Here a replica does not compute, it sleeps
  in slices: on less than four cores, stopping a replica that computes would give its core to the others.
"""
import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae import config as configuration
from hpclcae.bench.cases import RATE
from hpclcae.bench.common import Report, Times, positive, ratio, refuse_more_threads, table
from hpclcae.bench.halo import PAPER_STAGE, configure_case
from hpclcae.bench.scaling import find_mpiexec, run_job
from hpclcae.config import Config
from hpclcae.errors import InputError
from hpclcae.network import Network, trained_stage
from hpclcae.served_updates import ServedUpdates
from hpclcae.topology import launched
from hpclcae.update_rules import UpdateRule

if TYPE_CHECKING:
    from hpclcae.parallel.halo import MpiMessenger
    from hpclcae.parallel.service import Place

PARTS = ("lines", "step", "slow")
RANKS = 4  # a server and three replicas
#: Of the part "slow": a step is so many slices of sleep; then the slow replica's seconds of running and of standing.
SLICES, SLICE, RUNS, STANDS = 20, 1e-3, 0.02, 0.08
#: How the replicas of part "slow" wait for each other.
MODES = {"asynchronous, one-sided": ['parallel.transport="rma"'],
         "asynchronous, messages": ['parallel.transport="messages"'],
         "bounded, 4 pushes": ['parallel.consistency="bounded"', "parallel.staleness=4"],
         "synchronous": ['parallel.consistency="synchronous"'],
         "synchronous, 1 backup": ['parallel.consistency="synchronous"', "parallel.backup=1"]}
SUMS = ['update.rule="sgd"', "update.staleness_scaled=false", "update.delay_compensation=0.0"]
ALONE, SERVED = "without servers", "with a server"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    configure_case(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default all)")
    parser.add_argument("--repeat", type=positive, default=7, metavar="N",
                        help="rounds after a first one; their median counts (default 7)")
    parser.add_argument("--steps", type=positive, default=10, metavar="N",
                        help="training steps of every stage, or of sleep, in each round (default 10)")
    parser.add_argument("--limit", type=positive, default=900, metavar="SECONDS",
                        help="if it takes longer, it is killed (default 900)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append one JSON object a row to this file")
    parser.set_defaults(clock="wall")


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises
    ------
    InputError
        The job could not be started, or failed.
    """
    refuse_more_threads()
    size, _ = launched()
    if size == 1:
        case = ["--stage", str(args.stage)] if args.stage else [str(args.configuration)]
        more = [word for change in args.changes for word in ("--set", change)]
        more += ["--json", str(args.json)] if args.json else []
        error = run_job([find_mpiexec(), "-n", str(RANKS), sys.executable, "-m", "hpclcae", "bench", "server", *case,
                         "--repeat", str(args.repeat), "--steps", str(args.steps), *more, "--parts", *args.parts],
                        args.limit, show=True)
        if error is not None:
            raise InputError(error)
        return 0
    if size != RANKS:
        raise InputError(f"{size} processes were launched; it needs {RANKS}, and starts them itself: hpclcae bench server")
    from hpclcae.parallel.runtime import run_on_all_ranks  # starts MPI
    return run_on_all_ranks("hpclcae bench server", lambda world: _on_a_rank(args, world))


def _on_a_rank(args: argparse.Namespace, world: "MpiMessenger") -> None:
    """Measure all parts; the first rank prints."""
    def load(*changes: str) -> Config:
        changed = [*args.changes, f"update.rate={RATE}", "parallel.servers=1", "parallel.replicas=1", *changes]
        if args.stage:
            return configuration.loads(PAPER_STAGE.format(side=args.stage), changed, "--stage")
        return configuration.load(args.configuration, changed)
    name = f"stage of the paper's, {args.stage}x{args.stage} positions" if args.stage else str(args.configuration)
    case = " ".join([name, *args.changes])
    load()  # what is wrong with it is said before anything is measured
    report = Report("server", args, ["mpi4py"]) if world.rank == 0 else None
    if report:
        print(f"{report.heading()}\n\n{case}", flush=True)
    pair = world.split(world.rank < 2)  # a server and a worker; the others sleep
    if world.rank < 2:
        if "lines" in args.parts:
            _lines(args, pair, load, case, report)
        if "step" in args.parts:
            _step(args, pair, load, case, report)
    world.allreduce_sum(0)
    if "slow" in args.parts:
        _slow(args, world, load, case, report)
    pair.close()


def _job(world: "MpiMessenger", config: Config, work: Callable[["Place"], dict]) -> list[dict[str, Any]]:
    """What work(place) returns on every worker of a job with servers, on every rank, replica by replica."""
    from hpclcae.parallel.service import take_part
    found: dict[str, Any] = {}

    def kept(place: "Place") -> dict:
        found.update(work(place), replica=place.role.replica)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        take_part(world, config, Path(folder), None, kept)
    everyone = [json.loads(text) for text in world.gather_texts(json.dumps(found))]
    return sorted((one for one in everyone if one), key=lambda one: one["replica"])


def _fetch(place: "Place", into: np.ndarray, pushes: int = 0, *, have: bool = False) -> None:
    """Fetch all chunks, or none of them, once the server has applied so many pushes of each."""
    count = len(place.chunks)
    wanted = np.full(count, pushes)
    place.line.start_fetch(into, wanted if have else np.full(count, -1), wanted, pushes, pushes)
    place.line.finish_fetch()


# ---- lines -----------------------------------------------------------------------------------------------------

def _lines(args: argparse.Namespace, pair: "MpiMessenger", load: Callable[..., Config], case: str,
           report: Report | None) -> None:
    """Push and fetch everything."""
    rows = []
    for transport in ("rma", "messages"):
        # With elastic averaging the server adds what it gets and nothing else.
        config = load("parallel.elastic=0.1", f'parallel.transport="{transport}"', *SUMS)
        [found] = _job(pair, config, lambda place: _measure_lines(place, args.repeat))
        times, size = found["times"], found["bytes"]
        for what in ("push", "fetch"):
            raw = ratio(times[f"raw {what}"], times[what]) if transport == "rma" else None
            rows.append((transport, what, size / statistics.median(times[what]) / 1e9,
                         f"{raw:.2f}" if raw else "-", ratio(times["copy"], times[what])))
        rows.append((transport, "copy", size / statistics.median(times["copy"]) / 1e9, "-", 1.0))
    if report:
        print(f"\nlines: {size / 1e6:.1f} MB in {found['chunks']} chunks")
        print(table([("", ""), ("", ""), ("GB/s", ".2f"), ("of MPI's calls alone", ""), ("of a copy", ".2f")], rows),
              flush=True)
        for transport, what, rate, raw, copy in rows:
            report.add(case, f"{transport}, {what}", rate, "GB/s")
            report.add(case, f"{transport}, {what}: of a copy", copy, "ratio")
            if raw != "-":
                report.add(case, f"{transport}, {what}: of MPI's calls alone", float(raw), "ratio")


def _measure_lines(place: "Place", repeat: int) -> dict:
    """Seconds of everything in each round."""
    from hpclcae.parallel.one_sided import OneSidedLine, hurry
    line, count = place.line, len(place.chunks)
    mine, other = np.zeros((2, place.chunks[-1].stop), line.buffers[0].dtype)
    line.seed(mine)
    _fetch(place, mine)
    for buffer in line.buffers:
        buffer[:] = 0
    pushes = 0

    def push() -> None:
        nonlocal pushes
        for index in range(count):
            line.reuse(index)
            line.push(index, pushes, pushes, 0.0)
        line.settle()
        pushes += 1
        if not isinstance(line, OneSidedLine):
            _fetch(place, mine, pushes, have=True)  # nothing but the word that all has been applied

    def copy() -> None:
        for chunk in place.chunks:
            other[chunk.start:chunk.stop] = mine[chunk.start:chunk.stop]

    def raw_push() -> None:
        assert isinstance(line, OneSidedLine)
        hurry([line.windows[0].add(index, line.buffers[index]) for index in range(count)])
        line.windows[0].win.Flush(0)

    def raw_fetch() -> None:
        assert isinstance(line, OneSidedLine)
        hurry([line.windows[0].read(index, mine[chunk.start:chunk.stop])
               for index, chunk in enumerate(place.chunks)])
    functions: dict[str, Callable[[], None]] = {"push": push, "fetch": lambda: _fetch(place, mine), "copy": copy}
    if isinstance(line, OneSidedLine):
        functions |= {"raw push": raw_push, "raw fetch": raw_fetch}
    times: Times = {name: [] for name in functions}
    order = np.random.default_rng(0)
    for _ in range(1 + repeat):
        for name in order.permutation(list(functions)):  # what was used last is in the caches: in turn for each
            began = time.perf_counter()
            functions[name]()
            times[name].append(time.perf_counter() - began)
    line.close()
    return {"times": {name: found[1:] for name, found in times.items()}, "bytes": mine.nbytes, "chunks": count}


# ---- step ------------------------------------------------------------------------------------------------------

def _step(args: argparse.Namespace, pair: "MpiMessenger", load: Callable[..., Config], case: str,
          report: Report | None) -> None:
    """Training with and without a server."""
    rows = []
    server = int(pair.gather_texts(str(os.getpid()))[-1])
    own = load().update.rule
    for transport, changes in {"rma": SUMS, "messages": SUMS, f"messages, {own}": [f'update.rule="{own}"']}.items():
        config = load(f'parallel.transport="{transport.split(",")[0]}"', *changes)
        [found] = _job(pair, config, lambda place: _measure_step(place, config, args, server))
        times = found["times"]
        rows.append((transport if "," in transport else f"{transport}, sgd", *(
            1e3 * statistics.median(times[name]) for name in (ALONE, SERVED)), 100 * (ratio(
                times[SERVED], times[ALONE]) - 1), 100 * (ratio(found["cpu"][SERVED], found["cpu"][ALONE]) - 1),
            100 * found["training"], 100 * found["idle"]))
    if not report:
        return
    print("\nstep: fetched and pushed in every step; processor time is the worker's; server: share of a core")
    print(table([("", ""), (f"ms {ALONE}", ".2f"), (SERVED, ".2f"), ("% more", ".1f"), ("% more processor time", ".1f"),
                 ("server training, %", ".1f"), ("idle, %", ".1f")], rows), flush=True)
    for name, alone, served, more, cpu, training, idle in rows:
        for metric, value, unit in ((f"step {ALONE}", alone / 1e3, "s"), (f"step {SERVED}", served / 1e3, "s"),
                                    ("more", more / 100, "1"), ("more processor time", cpu / 100, "1"),
                                    ("server's share of a core, training", training / 100, "1"),
                                    ("server's share of a core, idle", idle / 100, "1")):
            report.add(case, f"{name}: {metric}", value, unit)


def _measure_step(place: "Place", config: Config, args: argparse.Namespace, server: int) -> dict:
    """Seconds of a step in each round, mean over the stages of greedy training; and what the server uses."""
    network = Network(config, place.grid, place.messenger)
    parameters = network.parameters(config.train.seed)
    place.line.seed(parameters.vector)
    fan_in = {name: s.filter.fan_in for s in network.stages for name in s.parameter_shapes()}
    rule = UpdateRule(config.update, parameters, fan_in)
    ways = {ALONE: rule, SERVED: ServedUpdates(config, place.chunks, network.parameters(), place.line)}
    plan, size = network.plan.stages[0].x.held, config.train.batch
    x = np.random.default_rng(0).standard_normal((*plan.shape, config.data.channels, size)).astype(config.train.dtype)
    stages = len(config.stages) if config.train.gradient == "greedy" else 1
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    used = seconds = 0.0
    for _ in range(1 + args.repeat):
        for name, updates in ways.items():
            spent = np.zeros(2)
            for stage in range(stages):
                first = -(-stage * config.train.steps // stages)
                busy = _processor_seconds(server), time.perf_counter()
                for step in range(first, first + 1 + args.steps):
                    if step == first + 1:  # from the second on, what is fetched has been under way for a step
                        began = np.array([time.perf_counter(), time.process_time()])
                    only, progress = trained_stage(config, step)
                    updates.begin(step, progress)
                    network.backward(network.forward(updates.parameters, x, only), updates)
                    updates.end()
                spent += np.array([time.perf_counter(), time.process_time()]) - began
                if isinstance(updates, ServedUpdates):
                    used += _processor_seconds(server) - busy[0]
                    seconds += time.perf_counter() - busy[1]
                    updates.stand()
            for kept, value in zip((wall, cpu), spent / stages / args.steps):
                kept[name].append(value)
    before = _processor_seconds(server)
    time.sleep(3)
    idle = (_processor_seconds(server) - before) / 3
    place.line.close()
    return {"times": {name: times[1:] for name, times in wall.items()}, "training": used / seconds, "idle": idle,
            "cpu": {name: times[1:] for name, times in cpu.items()}}


def _processor_seconds(process: int) -> float:
    """Processor time that a process of this machine has used (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- slow ------------------------------------------------------------------------------------------------------

def _slow(args: argparse.Namespace, world: "MpiMessenger", load: Callable[..., Config], case: str,
          report: Report | None) -> None:
    """Three replicas, one of which is slowed down."""
    rows = []
    pids = [int(text) for text in world.gather_texts(str(os.getpid()))]
    for mode, changes in MODES.items():
        config = load("parallel.replicas=3", *SUMS, *changes)
        found = _job(world, config, lambda place: _measure_slow(place, config, args, world, pids))
        together, disturbed = ([statistics.median(one[name]) for one in found] for name in ("together", "disturbed"))
        kept = statistics.median(ratio(one["together"], one["disturbed"]) for one in found[:2])
        rows.append((mode, 1e3 * statistics.mean(together[:2]), 1e3 * statistics.mean(disturbed[:2]), kept,
                     1e3 * disturbed[2]))
    if not report:
        return
    print(f"\nslow: steps of {SLICES} sleeps of {1e3 * SLICE:g} ms; one of three replicas stands for {1e3 * STANDS:g} of "
          f"every {1e3 * (RUNS + STANDS):g} ms")
    print(table([("", ""), ("ms a step, undisturbed", ".1f"), ("the two others of a slow one", ".1f"),
                 ("rate kept", ".3f"), ("the slow one", ".1f")], rows), flush=True)
    for mode, alone, disturbed, kept, slow in rows:
        for metric, value, unit in (("step, undisturbed", alone / 1e3, "s"), ("step beside a slow one",
                                    disturbed / 1e3, "s"), ("rate kept", kept, "ratio"), ("slow one", slow / 1e3, "s")):
            report.add(case, f"{mode}: {metric}", value, unit)


def _measure_slow(place: "Place", config: Config, args: argparse.Namespace, world: "MpiMessenger", pids: list[int]) \
        -> dict:
    """Seconds of a step in each round, with all replicas undisturbed and with the last one slowed down."""
    network = Network(config, place.grid, place.messenger)
    parameters, line, replica = network.parameters(config.train.seed), place.line, place.role.replica
    if replica == 0:
        line.seed(parameters.vector)
    updates = ServedUpdates(config, place.chunks, parameters, line)
    rows = [(name, row, np.zeros(view.shape[1:], view.dtype)) for name, view in parameters.views.items()
            for row in range(len(view))]
    victim = int(place.peers.gather_texts(str(os.getpid()))[-1])
    times: dict[str, list[float]] = defaultdict(list)
    everyone_steps = config.parallel.consistency == "synchronous" and not config.parallel.backup
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(place.peers.gather_texts(folder)[0])
        clock = 0
        for turn in range(2 * (1 + args.repeat)):
            disturbed = turn % 2 == 1
            place.peers.allreduce_sum(0)
            first, clock = clock, clock + args.steps
            step, made, began = first, 0, time.perf_counter()
            with _slowed(victim) if disturbed and replica == 0 else _undisturbed():
                while step < clock if everyone_steps or replica < 2 else not all(
                        (marks / f"{turn}-{other}").exists() for other in (0, 1)):
                    _sleep_a_step(updates, rows, min(step, config.train.steps - 1))
                    step, made = max(step + 1, line.newest if config.parallel.backup else 0), made + 1
                times["disturbed" if disturbed else "together"].append((time.perf_counter() - began) / max(1, made))
                updates.stand()  # bounded: it may still wait for the slow one, which goes on until both have come here
                if replica < 2:
                    (marks / f"{turn}-{replica}").touch()
                    while not all((marks / f"{turn}-{other}").exists() for other in (0, 1)):
                        time.sleep(SLICE)
        place.peers.allreduce_sum(0)
    line.close()
    return {name: found[1:] for name, found in times.items()}


def _sleep_a_step(updates: ServedUpdates, rows: list[tuple[str, int, np.ndarray]], step: int) -> None:
    """A step that sleeps where it would compute: a third of it forward, then row by row backward."""
    updates.begin(step, 0.0)
    forward = SLICES // 3
    for _ in range(forward):
        time.sleep(SLICE)
    slept = 0
    for number, (name, row, gradient) in enumerate(rows, 1):
        while slept < (SLICES - forward) * number // len(rows):
            time.sleep(SLICE)
            slept += 1
        updates(name, row, gradient)
    updates.end()


@contextmanager
def _undisturbed() -> Iterator[None]:
    yield


@contextmanager
def _slowed(process: int) -> Iterator[None]:
    """Stop a process and let it go on, again and again."""
    over = threading.Event()

    def disturb() -> None:
        while not over.wait(RUNS):
            os.kill(process, signal.SIGSTOP)
            over.wait(STANDS)
            os.kill(process, signal.SIGCONT)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
