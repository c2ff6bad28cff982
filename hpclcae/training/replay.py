"""The command ``hpclcae replay``: an asynchronous run again, in one process, bit for bit.

With `parallel.log_events = true` every server writes down who fetched and who pushed which version
of which chunk (event_log.py). From that, the configuration and the images follow all numbers of the
run: each replica computes its steps with the versions that it had, and pushes are applied in the
order in which they were. The result is compared with the run's checkpoint; where numbers stop being
finite or the objective explodes, replica, step and chunk are named.

The bits are those of the run on the same kind of processor with the same libraries.
"""
import argparse
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint import ChunkState
from hpclcae.checkpoint.event_log import first_checkpoint, logs, read_log
from hpclcae.config import Config
from hpclcae.data.minibatches import MinibatchStream
from hpclcae.model.network import Network, trained_stage
from hpclcae.model.stage import StageActivations
from hpclcae.parameter_server.chunks import Chunk, Shards
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.parameter_server.store import FETCHED, PAUSED, PUSHED, ROUND_CLOSED
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator
from hpclcae.partition.threads import run_blocks
from hpclcae.training.replay_server import (ReplayConnection, ReplayServer, describe,
                                            events_of_chunks)
from hpclcae.training.resume import fit_preprocessing, open_dataset
from hpclcae.training.trainer import DIVERGED
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress
from hpclcae.utils.tables import table

MOST_LINES = 20  # about chunks that differ


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path,
                        help="run folder, of a run with parallel.log_events = true")
    parser.add_argument("--from", type=int, metavar="STEP", dest="start",
                        help="replay the job that began with this step (default: the newest)")
    parser.add_argument("--images", metavar="FILE", help="where the training images are now")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    began = time.monotonic()
    found = logs(args.run)
    if not found:
        raise InputError(f"{args.run} has no events: train with parallel.servers = 1 or more and "
                         "--set parallel.log_events=true")
    start = max(found) if args.start is None else args.start
    if start not in found:
        raise InputError(f"--from {start}: {args.run} has logs of jobs that began with step "
                         f"{', '.join(map(str, found))}")
    config, events = read_log(found[start])
    if args.images:
        config = dataclasses.replace(config,
                                     data=dataclasses.replace(config.data, train=args.images))
    first, goal = first_checkpoint(found[start]), _made(args.run, found, start)
    if start and not first:
        raise InputError(f"{found[start]} lacks the checkpoint of step {start}, with which the job "
                         "began: bring it back")
    grid, parallel = Grid.parse(config.parallel.grid), config.parallel
    print(f"{found[start]}: {parallel.replicas} replicas of {grid} blocks, {parallel.servers} "
          f"servers, {parallel.consistency}, {config.update.rule}, {config.train.dtype}")
    tapes = replay(config, events, first, goal)
    print(_summary(tapes, Plan(events, config), time.monotonic() - began))
    _verdict(tapes, goal)
    return 0


def _made(run: Path, found: Mapping[int, Path], start: int) -> Path | None:
    """The newest checkpoint that the job made which began with step `start`, and that is still
    there."""
    following = min((step for step in found if step > start), default=None)
    if following is not None:
        return first_checkpoint(found[following])
    made = [path for path in checkpoint.saved(run / "checkpoints")
            if checkpoint.step_of(path) > start]
    return made[-1] if made else None


class Plan:
    """What the logs of all servers tell of every replica.

    Attributes
    ----------
    steps : list of list of int
        The steps that each replica began.
    left_out : set of (int, int)
        Replica and step for which it only fetched: backup replicas leave out what the others have
        made.
    stands : set of (int, int)
        Replica and step before which it stood.

    Raises
    ------
    InputError
        The events are not of this configuration, or do not tell which steps there were.
    """

    def __init__(self, logs: Sequence[np.ndarray], config: Config) -> None:
        parallel, events = config.parallel, np.concatenate(logs)
        events = events[events["kind"] != ROUND_CLOSED]  # a server's own doing
        if events.size and not (0 <= events["replica"].min() <= events["replica"].max()
                                < parallel.replicas
                                and set(np.unique(events["kind"])) <= {FETCHED, PUSHED, PAUSED}):
            raise InputError("the log is damaged: it names replicas that there were not, or events "
                             "of another version")
        if parallel.backup and parallel.push_every > 1:
            raise InputError(f"parallel.push_every = {parallel.push_every} with backup replicas "
                             "cannot be replayed: a replica leaves out steps between two pushes, "
                             "which servers do not see")
        clocks = [
            np.unique(events["clock"][(events["replica"] == replica) & (events["kind"] != PAUSED)])
            for replica in range(parallel.replicas)]
        self.steps = [c.tolist() if parallel.backup or not c.size
                      else list(range(int(c[0]), int(c[-1]) + 1)) for c in clocks]
        self.stands = _told(events, PAUSED)
        self.left_out = _told(events, FETCHED) - _told(events, PUSHED) if parallel.backup else set()


def _told(events: np.ndarray, kind: int) -> set[tuple[int, int]]:
    """Replica and step of all events of a kind."""
    found = events[events["kind"] == kind]
    return set(zip(found["replica"].tolist(), found["clock"].tolist()))


def replay(config: Config, events: Sequence[np.ndarray], start: Path | None,
           goal: Path | None) -> list[ReplayServer]:
    """Replay a job; returns the tape of every block, played as far as the log goes.

    Parameters
    ----------
    events : sequence of ndarray (n,)
        Of every server.
    start, goal : Path or None
        The checkpoint that the job began with, and one that it made, to compare with.

    Raises
    ------
    InputError
        The log does not fit, or the numbers go wrong: names replica, step and chunk.
    """
    grid = Grid.parse(config.parallel.grid)
    shards, plan = Shards(config, grid, config.parallel.servers), Plan(events, config)

    def block(communicator: Communicator) -> ReplayServer:
        network, chunks = Network(config, grid, communicator), shards.chunks[communicator.rank]
        tape = ReplayServer(chunks, config, events_of_chunks(events, shards, communicator.rank),
                            checkpoint.load_chunk_states(start, config, grid, chunks) if start
                            else seeds(network, chunks),
                            checkpoint.load_chunk_states(goal, config, grid, chunks) if goal
                            else ())
        with open_dataset(config) as dataset:
            fitted = checkpoint.load_state(start).preprocessing if start else fit_preprocessing(
                config, dataset)
            prepare = fitted.preprocessor(config.data.size, network.dtype, network.plan.stages[0].x,
                                          communicator)
            streams = [MinibatchStream(dataset, config.train.batch, config.train.seed, replica,
                                       config.parallel.replicas, mirror=config.data.mirror)
                       for replica in range(config.parallel.replicas)]
            replay_block(network, tape, plan, lambda replica,
                         step: prepare(streams[replica].images(step, prepare.pixels)))
        return tape
    return run_blocks(grid.size, block)


def seeds(network: Network, chunks: Sequence[Chunk]) -> list[ChunkState]:
    """What servers hold at the beginning of a new run."""
    vector = network.parameters(network.config.train.seed).vector
    return [ChunkState(chunk, vector[chunk.start:chunk.stop]) for chunk in chunks]


def replay_block(network: Network, tape: ReplayServer, plan: Plan,
                 images: Callable[[int, int], np.ndarray]) -> None:
    """Let all replicas make their steps of one block, as far as the tape goes.

    Parameters
    ----------
    images : callable
        images(replica, step): the block's part of the prepared images (row, col, channel, image).
    """
    config, communicator = network.config, network.communicator
    replicas = [_Replica(network, tape, number) for number in range(config.parallel.replicas)]
    turns = _turns(replicas, tape, plan, communicator)
    if communicator.rank == 0:
        turns = progress(turns, "replaying", sum(map(len, plan.steps)) - len(plan.left_out),
                         "steps")
    for number, step in turns:
        replicas[number].step(step, images(number, step))


class _Replica:
    """One replica of one block."""

    def __init__(self, network: Network, tape: ReplayServer, number: int) -> None:
        self.network, self.number = network, number
        self.line = ReplayConnection(tape, number)
        self.updates = ParameterClient(network.config, tape.chunks, network.parameters(), self.line)
        self._begun = -1
        self._first_objective: dict[int, float] = {}

    def begins(self, step: int, stands: set[tuple[int, int]]) -> bool:
        """Begin a step if what it needs is there, and ask for that; whether it has begun.

        Blocks of a replica begin by themselves: the others may wait for what this one asks for
        next. A stand that has been made is removed from `stands`.
        """
        if self._begun == step:
            return True
        if not self.line.missing:
            if (self.number, step) in stands:
                self.updates.stand()
                stands.remove((self.number, step))
            self.updates.ask(step)
        if self.line.missing:
            return False
        self.updates.begin(step, trained_stage(self.network.config, step)[1])
        self._begun = step
        return True

    def step(self, step: int, x: np.ndarray) -> None:
        """Compute and push (train.Trainer)."""
        with np.errstate(over="ignore", invalid="ignore"):
            states = self.network.forward(self.updates.parameters, x,
                                          trained_stage(self.network.config, step)[0])
            self._check(states, step)
            self.network.backward(states, self.updates)
            self.updates.end()

    def _check(self, states: Sequence[StageActivations], step: int) -> None:
        """Stop at the step with which a run ends that diverges."""
        for index, losses in enumerate(state.loss for state in states):
            if not losses:
                continue
            first = self._first_objective.setdefault(index, losses.objective)
            if math.isfinite(losses.objective) and losses.objective <= DIVERGED * first:
                continue
            vector = self.updates.parameters.vector
            largest = [np.abs(vector[chunk.start:chunk.stop]).max()
                       for chunk in self.updates.chunks]
            worst = int(np.argmax(largest))
            raise InputError(f"replica {self.number}, step {step + 1}: the objective of stage "
                             f"{index + 1} is {losses.objective:g}, at first it was {first:g}; the "
                             f"largest weight, {largest[worst]:g}, is in version "
                             f"{self.updates.base[worst]} of "
                             f"{describe(self.updates.chunks[worst])}")


def _turns(replicas: Sequence[_Replica], tape: ReplayServer, plan: Plan,
           communicator: Communicator) -> Iterator[tuple[int, int]]:
    """Who makes which step next, the same for all blocks: of those who can, one that is furthest
    behind."""
    todo, stands = [deque(steps) for steps in plan.steps], set(plan.stands)
    while True:
        mine, left = [False], -1
        while left != tape.left:  # what one asks for may be what another one waits for
            left = tape.left
            mine = [bool(steps) and replica.begins(steps[0], stands) for replica,
                    steps in zip(replicas, todo)]
        begun = communicator.allreduce_sum(mine)  # how many blocks of each replica
        able = [(todo[n][0], n) for n in np.flatnonzero(begun == communicator.size).tolist()]
        if not able:
            return
        _, number = min(able)
        step = todo[number].popleft()
        if (number, step) not in plan.left_out:
            yield number, step


# ---- what there is to say ------------------------------------------------------------------------

def _summary(tapes: Sequence[ReplayServer], plan: Plan, seconds: float) -> str:
    """Who did what, and whose gradients came late."""
    rows: list[tuple[object, ...]] = []
    means = []
    for replica, begun in enumerate(plan.steps):
        steps = [step for step in begun if (replica, step) not in plan.left_out]
        tallies = [tape.tallies[replica] for tape in tapes]
        pushes, dropped = sum(t.pushes for t in tallies), sum(t.dropped for t in tallies)
        means.append(sum(t.staleness for t in tallies) / max(1, pushes - dropped))
        rows.append((f"replica {replica}", len(steps), steps[-1] + 1 if steps else 0, pushes,
                     dropped, round(means[-1], 2), max(t.largest for t in tallies)))
    lines = [table(("", "steps", "last step", "pushes", "dropped", "mean staleness", "largest"),
                   rows)]
    if max(means) > min(means):
        lines.append(f"slowest: replica {int(np.argmax(means))}, whose gradients missed the most "
                     "updates of others")
    pushes = sum(row[3] for row in rows)  # type: ignore[misc]
    lines.append(f"{pushes} pushes to {sum(len(tape.chunks) for tape in tapes)} chunks, replayed "
                 f"in {seconds:.1f} s")
    return "\n".join(lines)


def _verdict(tapes: Sequence[ReplayServer], goal: Path | None) -> None:
    """Say whether the replay came to the run's checkpoint.

    Raises
    ------
    InputError
        It did not.
    """
    left = sum(tape.left for tape in tapes)
    if left:
        print(f"{left} events were not reached: what they wait for is not in the log, as when a "
              "job is killed")
    if goal is None:
        print("the job has left no checkpoint to compare with")
        return
    chunks = [(tape.chunks[index], tape.gaps.get(index), tape.store.versions[index],
               tape.goal[index].version) for tape in tapes for index in range(len(tape.chunks))]
    wrong = [row for row in chunks if row[1] != 0]
    for chunk, gap, version, wanted in wrong[:MOST_LINES]:
        print(f"{describe(chunk)}: "
              + (f"version {wanted} differs by up to {gap:.3g}" if gap is not None
                 else f"the log leads to version {version}, the checkpoint has {wanted}"))
    if wrong:
        raise InputError(f"{len(wrong)} of {len(chunks)} chunks are not those of {goal}: the log "
                         "or the checkpoint was changed, or this is another processor or other "
                         "libraries, or other images (--images)")
    print(f"{goal}: all {len(chunks)} chunks are the same, bit for bit")
