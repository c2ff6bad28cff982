"""The command ``hpclcae bench server``: what parameter servers cost.

It starts ``mpiexec -n 4 hpclcae bench server`` and measures, each against the other within the same
rounds:

* connections: pushing all parameters of a network until each rule has applied them, and fetching
  them, one-sided and by messages; against the same chunks with MPI's calls alone (Rput and Rget, or
  messages that go where they belong; nobody applies anything), and against copying them in memory.
* step: a training step that fetches and pushes every time, against one that updates its own
  parameters; and the share of a core that the server takes meanwhile, and while nothing happens.
* slow: of three replicas one is slowed down five times; the rate of the two others, against that
  with all three undisturbed (slow_replica.py says how).
"""
import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpclcae import config as configuration
from hpclcae.bench import slow_replica
from hpclcae.bench.cases import RATE, minibatches
from hpclcae.bench.common import (MOST_TIMES, Report, Times, configure_job, ratio,
                                  refuse_more_threads)
from hpclcae.bench.halo import PAPER_STAGE, configure_case
from hpclcae.bench.raw_messages import RawMessages
from hpclcae.bench.scaling import run_job
from hpclcae.cluster.launcher import launched
from hpclcae.cluster.mpiexec import find_mpiexec
from hpclcae.commands.arguments import whole
from hpclcae.config import Config
from hpclcae.model.network import Network
from hpclcae.model.optimizers import SLOTS, Optimizer
from hpclcae.model.schedule import Schedule
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.training.step import train_step
from hpclcae.training.worker import WorkerReport
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

if TYPE_CHECKING:
    from hpclcae.mpi.communicator import MpiCommunicator
    from hpclcae.mpi.raw_window import RawWindow
    from hpclcae.training.worker import Served, WorkerContext

PARTS = ("connections", "step", "slow")
RANKS = 4  # a server and three replicas
#: Anything but the rule that would cost the server something.
PLAIN = ["update.staleness_scaled=false", "update.delay_compensation=0.0", "update.clip=0.0"]
ALONE, SERVED = "without servers", "with a server"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    configure_case(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS),
                        help="what to measure (default all)")
    parser.add_argument("--repeat", type=whole(1, MOST_TIMES), default=7, metavar="N",
                        help="rounds after a first one; their median counts (default 7)")
    parser.add_argument("--steps", type=whole(1, MOST_TIMES), default=10, metavar="N",
                        help="training steps of every stage, or of sleep, in each round (default "
                        "10)")
    configure_job(parser, 900)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises
    ------
    InputError
        The job could not be started, or failed.
    """
    refuse_more_threads()
    size = launched().size
    if size == 1:
        case = ["--stage", str(args.stage)] if args.stage else [str(args.configuration)]
        more = [word for change in args.changes for word in ("--set", change)]
        more += ["--json", str(args.json)] if args.json else []
        error = run_job([find_mpiexec(), "-n", str(RANKS), sys.executable, "-m", "hpclcae", "bench",
                         "server", *case, "--repeat", str(args.repeat), "--steps", str(args.steps),
                         *more, "--parts", *args.parts], args.limit, show=True)
        if error is not None:
            raise InputError(error)
        return 0
    if size != RANKS:
        raise InputError(f"{size} processes were launched; it needs {RANKS}, and starts them by "
                         "itself")
    return run_on_all_ranks("hpclcae bench server", lambda world: _on_a_rank(args, world))


def _on_a_rank(args: argparse.Namespace, world: "MpiCommunicator") -> None:
    """Measure all parts; the first rank prints."""
    def load(*changes: str) -> Config:
        changed = [*args.changes, f"update.rate={RATE}", "parallel.servers=1",
                   "parallel.replicas=1", *changes]
        if args.stage:
            return configuration.loads(PAPER_STAGE.format(side=args.stage), changed, "--stage")
        return configuration.load(args.configuration, changed)
    name = (f"stage of the paper's, {args.stage}x{args.stage} positions" if args.stage
            else str(args.configuration))
    case = " ".join([name, *args.changes])
    load()  # what is wrong with it is said before anything is measured
    report = Report("server", args, ["mpi4py"]) if world.rank == 0 else None
    if report:
        print(f"{report.heading()}\n\n{case}", flush=True)
    pair = world.split(world.rank < 2)  # a server and a worker; the others sleep
    if "connections" in args.parts and world.rank == 2:
        RawMessages(world, load(*PLAIN)).answer()
    if world.rank < 2:
        if "connections" in args.parts:
            _connections(args, pair, world, load, case, report)
        if "step" in args.parts:
            _step(args, pair, load, case, report)
    world.allreduce_sum(0)
    if "slow" in args.parts:
        _slow(args, world, load, case, report)
    pair.close()


def _job(world: "MpiCommunicator", config: Config,
         work: Callable[["WorkerContext"], dict]) -> list[dict[str, Any]]:
    """What work(worker) returns on every worker of a job with servers, replica by replica."""
    from hpclcae.mpi.job import run_job
    found: dict[str, Any] = {}

    def kept(worker: "WorkerContext") -> WorkerReport:
        found.update(work(worker), replica=worker.role.replica)
        return WorkerReport()
    with tempfile.TemporaryDirectory() as folder:
        run_job(world, config, Path(folder), None, kept)
    everyone = [json.loads(text) for text in world.gather_texts(json.dumps(found))]
    return sorted((one for one in everyone if one), key=lambda one: one["replica"])


def _fetch(served: "Served", into: np.ndarray, pushes: int = 0, *, have: bool = False) -> None:
    """Fetch all chunks, or none of them, once the server has applied so many pushes of each."""
    count = len(served.chunks)
    wanted = np.full(count, pushes)
    held = wanted if have else np.full(count, -1)
    served.connection.start_fetch(into, held, wanted, pushes, pushes)
    served.connection.finish_fetch()


# ---- connections ---------------------------------------------------------------------------------

def _connections(args: argparse.Namespace, pair: "MpiCommunicator", world: "MpiCommunicator",
                 load: Callable[..., Config], case: str, report: Report | None) -> None:
    """Push and fetch everything.

    Raises
    ------
    InputError
        The server and the worker are not on one node.
    """
    from hpclcae.mpi.raw_window import RawWindow
    if not pair.on_one_node():  # roles, and whose processor's time it is, are those of one node
        raise InputError("--parts connections measures within a node, and the first two ranks are "
                         "on two: leave it out (--parts step)")
    rows: list[tuple[str, str, float, float | None, float, float | None]] = []
    messages = RawMessages(world, load(*PLAIN)) if pair.rank == 0 else None
    server = int(pair.gather_texts(str(os.getpid()))[-1])
    for rule in SLOTS:
        for transport in ("rma", "messages"):
            config = load(f'parallel.transport="{transport}"', f'update.rule="{rule}"', *PLAIN)
            window = RawWindow(pair.comm, config)
            raw = window if transport == "rma" else messages
            [found] = _job(pair, config, lambda worker: _measure_connections(
                worker, raw, args.repeat, server))
            window.close()
            times, size, name = found["times"], found["bytes"], f"{transport}, {rule}"
            updates = found["chunks"] * args.repeat
            for what in ("push", "raw push", "fetch", "raw fetch", "copy"):
                share = (ratio(times[f"raw {what}"], times[what]) if what in ("push", "fetch")
                         else None)
                seconds = 1e6 * found["server seconds"] / updates if what == "push" else None
                rows.append((name, what, size / statistics.median(times[what]) / 1e9, share,
                             ratio(times["copy"], times[what]), seconds))
    if messages:
        messages.meet("")
    if report:
        print(f"\nconnections: {size / 1e6:.1f} MB in {found['chunks']} chunks")
        print(table([("", ""), ("", ""), ("GB/s", ".2f"), ("of MPI's calls alone", ""),
                     ("of a copy", ".2f"), ("server us an update", "")],
                    [(*row[:3], f"{row[3]:.2f}" if row[3] else "-", row[4],
                      f"{row[5]:.0f}" if row[5] else "-") for row in rows]), flush=True)
        for name, what, rate, share, copy, seconds in rows:
            report.add(case, f"{name}, {what}", rate, "GB/s")
            report.add(case, f"{name}, {what}: of a copy", copy, "ratio")
            if share:
                report.add(case, f"{name}, {what}: of MPI's calls alone", share, "ratio")
            if seconds:
                report.add(case, f"{name}: server's time of an update", seconds / 1e6, "s")


def _measure_connections(worker: "WorkerContext", raw: "RawMessages | RawWindow | None",
                         repeat: int, server: int) -> dict:
    """Seconds of everything in each round, and of the server's processor in all pushes."""
    served = worker.served
    assert served and raw
    connection, chunks = served.connection, served.chunks
    mine, other = np.zeros((2, chunks[-1].stop), worker.layout.dtype)
    connection.initialise(mine)
    _fetch(served, mine)
    # As in training, where a row of gradients is in the caches when it is written to its place.
    gradient = np.zeros(max(chunk.size for chunk in chunks), mine.dtype)
    pushes = 0

    def push() -> None:
        nonlocal pushes
        for index, chunk in enumerate(chunks):
            connection.buffer(index)[:] = gradient[:chunk.size]
            connection.push(index, pushes, pushes, 0.0)
        connection.flush()
        pushes += 1
        _fetch(served, mine, pushes, have=True)  # nothing but the word that all has been applied

    def copy() -> None:
        for chunk in chunks:
            other[chunk.start:chunk.stop] = mine[chunk.start:chunk.stop]
    functions: dict[str, Callable[[], None]] = {
        "push": push, "raw push": raw.push, "raw fetch": raw.fetch,
        "fetch": lambda: _fetch(served, mine), "copy": copy}
    times: Times = {name: [] for name in functions}
    order, used = np.random.default_rng(0), 0.0
    for round_ in range(1 + repeat):
        # what was used last is in the caches: in turn for each
        for name in order.permutation(list(functions)):
            raw.meet(name)
            before, began = _processor_seconds(server), time.perf_counter()
            functions[name]()
            times[name].append(time.perf_counter() - began)
            if name == "push" and round_:
                used += _processor_seconds(server) - before
    connection.close(pushes)
    return {"times": {name: found[1:] for name, found in times.items()}, "bytes": mine.nbytes,
            "chunks": len(chunks), "server seconds": used}


# ---- step ----------------------------------------------------------------------------------------

def _step(args: argparse.Namespace, pair: "MpiCommunicator", load: Callable[..., Config], case: str,
          report: Report | None) -> None:
    """Training with and without a server."""
    rows = []
    server = int(pair.gather_texts(str(os.getpid()))[-1])
    own = load().update.rule
    for rule, transport in product(dict.fromkeys(("sgd", own)), ("rma", "messages")):
        config = load(f'parallel.transport="{transport}"', f'update.rule="{rule}"', *PLAIN)
        [found] = _job(pair, config, lambda worker: _measure_step(worker, config, args, server))
        times = found["times"]
        rows.append((f"{transport}, {rule}",
                     *(1e3 * statistics.median(times[name]) for name in (ALONE, SERVED)),
                     100 * (ratio(times[SERVED], times[ALONE]) - 1),
                     100 * (ratio(found["cpu"][SERVED], found["cpu"][ALONE]) - 1),
                     100 * found["training"], 100 * found["idle"]))
    if not report:
        return
    print("\nstep: fetched and pushed in every step; processor time is the worker's; server: share "
          "of a core")
    print(table([("", ""), (f"ms {ALONE}", ".2f"), (SERVED, ".2f"), ("% more", ".1f"),
                 ("% more processor time", ".1f"),
                 ("server training, %", ".1f"), ("idle, %", ".1f")], rows), flush=True)
    for name, alone, served, more, cpu, training, idle in rows:
        for metric, value, unit in (
                (f"step {ALONE}", alone / 1e3, "s"), (f"step {SERVED}", served / 1e3, "s"),
                ("more", more / 100, "1"), ("more processor time", cpu / 100, "1"),
                ("server's share of a core, training", training / 100, "1"),
                ("server's share of a core, idle", idle / 100, "1")):
            report.add(case, f"{name}: {metric}", value, unit)


def _measure_step(worker: "WorkerContext", config: Config, args: argparse.Namespace,
                  server: int) -> dict:
    """Seconds of a step in each round, mean over the stages of greedy training; the server's use.
    """
    served = worker.served
    assert served
    network, schedule = Network(worker.layout, worker.communicator), Schedule(config)
    network.condition_unfitted()
    parameters = network.parameters(config.train.seed)
    served.connection.initialise(parameters.vector)
    client = ParameterClient(config, served.chunks, network.parameters(), served.connection)
    ways: dict[str, Optimizer | ParameterClient] = {
        ALONE: Optimizer(config.update, parameters, network.block.fan_in), SERVED: client}
    held = network.block.plan.stages[0].x.held
    batches = minibatches(config, (*held.shape, config.data.channels))
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    used = seconds = 0.0
    for _ in range(1 + args.repeat):
        for name, updates in ways.items():
            spent = np.zeros(2)
            for phase, x in batches:
                first = phase.first
                busy = _processor_seconds(server), time.perf_counter()
                for step in range(first, first + 1 + args.steps):
                    # from the second on, what is fetched has been under way for a step
                    if step == first + 1:
                        began = np.array([time.perf_counter(), time.process_time()])
                    if isinstance(updates, ParameterClient):
                        updates.begin(step, schedule.learning_rate(step))
                    else:
                        updates.begin(schedule.learning_rate(step))
                    train_step(network, updates, step, x)
                spent += np.array([time.perf_counter(), time.process_time()]) - began
                if isinstance(updates, ParameterClient):
                    used += _processor_seconds(server) - busy[0]
                    seconds += time.perf_counter() - busy[1]
                    updates.pause()
            for kept, value in zip((wall, cpu), spent / len(batches) / args.steps):
                kept[name].append(value)
    before = _processor_seconds(server)
    time.sleep(3)
    idle = (_processor_seconds(server) - before) / 3
    served.connection.close(config.train.steps)
    return {"times": {name: times[1:] for name, times in wall.items()}, "training": used / seconds,
            "idle": idle, "cpu": {name: times[1:] for name, times in cpu.items()}}


def _processor_seconds(process: int) -> float:
    """Processor time that a process of this machine has used (Linux)."""
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


# ---- slow ----------------------------------------------------------------------------------------

def _slow(args: argparse.Namespace, world: "MpiCommunicator", load: Callable[..., Config],
          case: str, report: Report | None) -> None:
    """Three replicas, one of which is slowed down."""
    rows = []
    victim = int(world.gather_texts(str(os.getpid()))[RANKS - 2])
    for mode, changes in slow_replica.MODES.items():
        config = load("parallel.replicas=3", 'update.rule="sgd"', *PLAIN, *changes)
        with tempfile.TemporaryDirectory() as folder:
            marks = Path(world.gather_texts(folder)[0])
            found = _job(world, config,
                         lambda worker: slow_replica.measure(worker, config, args, victim, marks))
        together, disturbed = ([statistics.median(one[name]) for one in found]
                               for name in slow_replica.TURNS)
        kept = statistics.median(ratio(*(one[name] for name in slow_replica.TURNS))
                                 for one in found[:2])
        rows.append((mode, 1e3 * statistics.mean(together[:2]),
                     1e3 * statistics.mean(disturbed[:2]), kept, 1e3 * disturbed[2]))
    if not report:
        return
    print(f"\nslow: {slow_replica.PATTERN}")
    print(
        table([("", ""), ("ms a step, undisturbed", ".1f"), ("the two others of a slow one", ".1f"),
               ("rate kept", ".3f"), ("the slow one", ".1f")], rows), flush=True)
    for mode, alone, disturbed_step, kept, slow in rows:
        for metric, value, unit in (("step, undisturbed", alone / 1e3, "s"),
                                    ("step beside a slow one",
                                     disturbed_step / 1e3, "s"), ("rate kept", kept, "ratio"),
                                    ("slow one", slow / 1e3, "s")):
            report.add(case, f"{mode}: {metric}", value, unit)
