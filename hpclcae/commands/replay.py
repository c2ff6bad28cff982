"""The command ``hpclcae replay``: an asynchronous run again, in one process, bit for bit."""
import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpclcae.checkpoint.event_log import first_checkpoint, logs, read_log
from hpclcae.commands.arguments import whole
from hpclcae.training.replay import ReplaySchedule, checkpoint_made, replay
from hpclcae.training.replay_server import ReplayServer, describe
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

MOST_LINES = 20  # about chunks that differ


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path,
                        help="run folder, of a run with parallel.log_events = true")
    parser.add_argument("--from", type=whole(0), metavar="STEP", dest="start",
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
    first, goal = first_checkpoint(found[start]), checkpoint_made(args.run, found, start)
    if start and not first:
        raise InputError(f"{found[start]} lacks the checkpoint of step {start}, with which the job "
                         "began: bring it back")
    parallel = config.parallel
    print(f"{found[start]}: {parallel.replicas} replicas of {parallel.grid} blocks, "
          f"{parallel.servers} servers, {parallel.consistency}, {config.update.rule}, "
          f"{config.train.dtype}")
    servers = replay(config, events, first, goal)
    print(_summary(servers, ReplaySchedule(events, config), time.monotonic() - began))
    _verdict(servers, goal)
    return 0


# ---- what there is to say ------------------------------------------------------------------------

def _summary(servers: Sequence[ReplayServer], schedule: ReplaySchedule, seconds: float) -> str:
    """Who did what, and whose gradients came late."""
    rows: list[tuple[object, ...]] = []
    means = []
    lives = {replica: [number for number, life in enumerate(schedule.lives)
                       if life.replica == replica]
             for replica in sorted({life.replica for life in schedule.lives})}
    for replica, mine in lives.items():
        steps = [step for number in mine for step in schedule.steps[number]
                 if (number, step) not in schedule.left_out]
        tallies = [server.tallies[number] for server in servers for number in mine]
        pushes, dropped = sum(t.pushes for t in tallies), sum(t.dropped for t in tallies)
        means.append(sum(t.staleness for t in tallies) / max(1, pushes - dropped))
        again = f", {len(mine)} lives" if len(mine) > 1 else ""
        rows.append((f"replica {replica}{again}", len(steps), steps[-1] + 1 if steps else 0, pushes,
                     dropped, round(means[-1], 2), max(t.largest for t in tallies)))
    lines = [table(("", "steps", "last step", "pushes", "dropped", "mean staleness", "largest"),
                   rows)]
    if max(means) > min(means):
        lines.append(f"slowest: replica {int(np.argmax(means))}, whose gradients missed the most "
                     "updates of others")
    pushes = sum(row[3] for row in rows)  # type: ignore[misc]
    lines.append(f"{pushes} pushes to {sum(len(server.chunks) for server in servers)} chunks, "
                 f"replayed in {seconds:.1f} s")
    return "\n".join(lines)


def _verdict(servers: Sequence[ReplayServer], goal: Path | None) -> None:
    """Say whether the replay came to the run's checkpoint.

    Raises
    ------
    InputError
        It did not.
    """
    left = sum(server.left for server in servers)
    if left:
        print(f"{left} events were not reached: what they wait for is not in the log, as when a "
              "job is killed")
    if goal is None:
        print("the job has left no checkpoint to compare with")
        return
    chunks = [(server.chunks[index], server.gaps.get(index), server.store.versions[index],
               server.goal[index].version) for server in servers
              for index in range(len(server.chunks))]
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
