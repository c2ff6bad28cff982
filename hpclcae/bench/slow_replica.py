"""Of three replicas one is slowed down (``hpclcae bench server``): what the two others lose.

The slow one is stopped for 80 of every 100 ms (SIGSTOP, SIGCONT). A replica does not compute here,
it sleeps in slices and fetches and pushes what a training step would: where there are fewer cores
than replicas, stopping one that computes would give its core to the others, and they would become
faster. A sleep of many slices stands still with its process, except for the one slice that is
running.
"""
import argparse
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae.config import Config
from hpclcae.model.network import Network
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.phases import phase_of
from hpclcae.parameter_server.client import ParameterClient

if TYPE_CHECKING:
    from hpclcae.training.worker import WorkerContext

#: How the replicas wait for each other.
MODES = {"asynchronous, one-sided": ['parallel.transport="rma"'],
         "asynchronous, messages": ['parallel.transport="messages"'],
         "bounded, 4 pushes": ['parallel.consistency="bounded"', "parallel.staleness=4"],
         "synchronous": ['parallel.consistency="synchronous"'],
         "synchronous, 1 backup": ['parallel.consistency="synchronous"', "parallel.backup=1"]}
TURNS = ("together", "disturbed")
#: Slices of sleep in a step, seconds of a slice; then how long the slow replica runs and stands.
SLICES, SLICE, RUNS, STANDS = 20, 1e-3, 0.02, 0.08
PATTERN = (f"steps of {SLICES} sleeps of {1e3 * SLICE:g} ms; one of three replicas stands for "
           f"{1e3 * STANDS:g} of every {1e3 * (RUNS + STANDS):g} ms")

Rows = list[tuple[str, int, np.ndarray]]  # name and row of a parameter, gradient


def measure(worker: "WorkerContext", config: Config, args: argparse.Namespace, victim: int,
            marks: Path) -> dict:
    """Seconds of a step in each round, by name of TURNS: all undisturbed, and the last one slow.

    Parameters
    ----------
    victim : int
        Process of the last replica.
    marks : Path
        Folder that all replicas see, empty.
    """
    network = Network(worker.layout, worker.communicator)
    network.condition_unfitted()
    parameters, replica = network.parameters(config.train.seed), worker.role.replica
    assert worker.served
    connection = worker.served.connection
    if replica == 0:
        connection.initialise(parameters.vector)
    client = ParameterClient(config, worker.served.chunks, parameters, connection)
    all_wait = config.parallel.consistency == "synchronous" and not config.parallel.backup
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(2 * (1 + args.repeat)):
        name, step, end = TURNS[turn % 2], turn * args.steps, (turn + 1) * args.steps
        others = [marks / f"{turn}-{fast}" for fast in (0, 1)]
        rows = _rows(config, network, parameters, step)
        worker.peers.allreduce_sum(0)
        with _slowed(victim) if name == "disturbed" and replica == 0 else nullcontext():
            made, began = 0, time.perf_counter()
            # The slow one goes on until the others have come to their end, if they do not wait for
            # it anyway.
            leads = all_wait or replica < 2
            while step < end if leads else not all(mark.exists() for mark in others):
                _sleep_a_step(client, rows, step)
                newest = connection.newest if config.parallel.backup else 0
                step, made = max(step + 1, newest), made + 1
            times[name].append((time.perf_counter() - began) / max(1, made))
            client.pause()  # bounded: it may wait here for the slow one, which still goes on
            if replica < 2:
                others[replica].touch()
            while not all(mark.exists() for mark in others):
                time.sleep(SLICE)
    connection.close(step)
    return {name: found[1:] for name, found in times.items()}


def _rows(config: Config, network: Network, parameters: ParameterVector, step: int) -> Rows:
    """The rows of gradients that a step pushes; zero, so nothing moves."""
    only = phase_of(config, step).stage
    stages = network.stages if only is None else [network.stages[only]]
    views = {name: parameters[name] for stage in stages for name in stage.parameter_shapes()}
    return [(name, row, np.zeros_like(view[row])) for name, view in views.items()
            for row in range(len(view))]


def _sleep_a_step(client: ParameterClient, rows: Rows, step: int) -> None:
    """A step that sleeps where it would compute: a third forward, then row by row backward."""
    client.begin(step, client.config.update.rate)
    slept = 0
    for number, (name, row, gradient) in enumerate(rows):
        while slept < SLICES * (1 + 2 * number / len(rows)) / 3:
            time.sleep(SLICE)
            slept += 1
        client.on_gradient(name, row, gradient)
    while slept < SLICES:
        time.sleep(SLICE)
        slept += 1
    client.end()


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
