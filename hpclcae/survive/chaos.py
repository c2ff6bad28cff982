"""Failures on purpose: processes of a surviving job are killed, stopped and slowed at random times.

Every failure is an *episode*; what became of it is seen from outside, by asking the supervisor.
Afterwards it is checked what must hold, whatever happened (`verify`).
"""
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint.event_log import first_checkpoint, logs, read_log
from hpclcae.parameter_server.chunks import Shards
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.store import PUSHED
from hpclcae.partition.blocks import Grid
from hpclcae.survive.history import events
from hpclcae.survive.supervisor import CONTACT
from hpclcae.survive.tool import ask
from hpclcae.utils.errors import InputError

KINDS = ("kill", "stop", "slow", "server")
LOST_ALL = "from the last checkpoint"  # what the supervisor says then
RECORD = "chaos.jsonl"  # in the run folder: the episodes
LOOK_SECONDS = 0.1
IN_A_ROW, STARTING_SECONDS = 0.3, 4.0  # share of failures that the next one follows so soon
SLOW_SECONDS = 1.0  # a rank that is slow stands still for so long
PATIENCE_SECONDS = 180.0  # within which a job must have got over a failure


@dataclass
class Episode:
    """One failure and what became of it.

    during : str
        What the job was doing: "training", "starting" or "recovery".
    outcome : str
        "went on": all that trained before train again; "replaced": by another life; "restarted":
        from the last checkpoint; "ended": the job did.
    detected, recovered : float or None
        Seconds after the failure; None: it was not noticed, as it was over soon.
    """
    kind: str
    target: str
    time: float
    during: str
    outcome: str = ""
    detected: float | None = None
    recovered: float | None = None

    def __str__(self) -> str:
        took = f", recovered after {self.recovered:.1f} s" if self.recovered is not None else ""
        return f"{self.kind} of {self.target} while {self.during}: {self.outcome}{took}"


def episodes(run: Path, mtbf: float, kinds: Sequence[str], seed: int, most: int,
             told: Callable[[str], None]) -> list[Episode]:
    """Let things fail until the job ends, or `most` times.

    Parameters
    ----------
    mtbf : float
        Mean of the exponential from which the seconds between failures are drawn.
    told : callable
        Hears a line for every episode.

    Raises
    ------
    InputError
        No surviving job runs there, or it has not got over a failure.
    """
    rng, found = random.Random(seed), list[Episode]()
    ask(run, kind="who")
    with contextlib.suppress(_Over):
        while len(found) < most:
            _wait(run, rng.expovariate(1 / mtbf))
            struck = [_strike(run, rng.choice(list(kinds)), rng)]
            while rng.random() < IN_A_ROW:  # before the job has got over the one before
                _wait(run, rng.uniform(0, STARTING_SECONDS))
                struck.append(_strike(run, rng.choice(list(kinds)), rng))
            for episode in filter(None, struck):
                found.append(episode)
                try:
                    _follow(run, episode)
                finally:
                    told(f"{len(found)}: {episode}")
                    with (run / RECORD).open("a") as file:
                        file.write(json.dumps(asdict(episode)) + "\n")
    return found


class _Over(Exception):
    """The job has ended."""


def _who(run: Path) -> dict[str, Any]:
    """Who is there; waits while the job begins again."""
    missing = 0.0
    while True:
        try:
            return ask(run, kind="who")
        except InputError:
            if missing > 3.0:
                raise _Over from None
            time.sleep(LOOK_SECONDS)
            missing += LOOK_SECONDS


def _wait(run: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(LOOK_SECONDS, max(0.0, end - time.monotonic())))
        if not (run / CONTACT).exists():
            _who(run)


def _strike(run: Path, kind: str, rng: random.Random) -> Episode | None:
    """Let something fail; None: there is nothing of that kind just now."""
    who, me = _who(run), os.uname().nodename
    states = {seat["state"] for seat in who["seats"]}
    during = "training" if states <= {"training", "done", "left", "lost"} else (
        "recovery" if any(seat["life"] > 1 for seat in who["seats"]) else "starting")
    servers = [server for server in who["servers"] if server["node"] == me]
    if kind == "server" and servers:
        server = rng.choice(servers)
        pids, target = [server["pid"]], f"server {server['server']}"
    else:
        ranks = [(seat, block) for seat in who["seats"] for block, node in sorted(
            seat["nodes"].items()) if node == me]
        if not ranks:
            return None
        seat, block = rng.choice(ranks)
        pids, target = [seat["pids"][block]], f"replica {seat['replica']} block {block}"
    now = time.time()
    with contextlib.suppress(ProcessLookupError):
        for pid in pids:
            os.kill(pid, signal.SIGKILL if kind in ("kill", "server") else signal.SIGSTOP)
        if kind == "slow":
            time.sleep(SLOW_SECONDS)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    return Episode(kind, target, now, during)


def _follow(run: Path, episode: Episode) -> None:
    """See what becomes of a failure."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    number = int(episode.target.split()[1])
    name = " ".join(episode.target.split()[:2])
    episode.outcome = "hangs"
    while time.monotonic() < deadline:
        try:
            who = _who(run)
        except _Over:
            episode.outcome = "ended"
            raise
        rows = [row for row in events(run) if row["time"] >= episode.time]
        noticed = [row for row in rows if LOST_ALL in row["text"] or row["who"] == name
                   and row["kind"] in ("replica", "server", "lost", "leave")]
        settled = all(seat["state"] in ("training", "done", "left", "lost")
                      for seat in who["seats"])
        if noticed and episode.detected is None:
            episode.detected = noticed[0]["time"] - episode.time
        if episode.kind == "slow" and not noticed:
            episode.outcome = "went on"
            return
        if noticed and settled:
            restarted = any(LOST_ALL in row["text"] for row in noticed)
            there = {server["server"] for server in who["servers"] if server["there"]}
            if episode.kind == "server" and number not in there:
                time.sleep(LOOK_SECONDS)
                continue
            episode.outcome = "restarted" if restarted else (
                "given up" if noticed[-1]["kind"] == "lost" else "replaced")
            episode.recovered = time.time() - episode.time
            return
        time.sleep(LOOK_SECONDS)
    raise InputError(f"{episode.kind} of {episode.target}: the job has not got over it within "
                     f"{PATIENCE_SECONDS:.0f} s")


# ---- what must hold afterwards -------------------------------------------------------------------

def verify(run: Path, token: str = "") -> Iterator[str]:
    """Check a run that has ended, one line for everything that holds.

    Parameters
    ----------
    token : str
        Of the supervisors: no process may be left that has it.

    Raises
    ------
    InputError
        Something does not hold.
    """
    left = [path.name for path in run.iterdir() if path.name == CONTACT
            or path.name.endswith((".partial", ".tmp"))]
    if left:
        raise InputError(f"{run}: {', '.join(left)} is left over")
    found = checkpoint.saved(run / "checkpoints")
    for path in found:
        checkpoint.verify(path)
    yield f"{len(found)} checkpoints are whole, nothing is left over"
    orphans = [pid for pid in _with(token)] if token else []
    if orphans:
        raise InputError(f"processes {', '.join(map(str, orphans))} are left over")
    if token:
        yield "no process is left over"
    for folder in logs(run).values():
        yield _exactly_once(run, folder)


def _with(token: str) -> list[int]:
    """Processes whose environment has a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def _exactly_once(run: Path, folder: Path) -> str:
    """Every step of every replica is in every chunk exactly once, as far as the replica came.

    Raises
    ------
    InputError
        Names the replica, the chunk and the step.
    """
    config, events = read_log(folder)
    begun = first_checkpoint(folder)
    cursors = checkpoint.load_state(begun).cursors if begun else ()
    if len(cursors) != config.parallel.replicas:
        cursors = (0,) * config.parallel.replicas
    shards = Shards(Layout(config, Grid.parse(config.parallel.grid)), config.parallel.servers)
    counted = again = 0
    for server, log in enumerate(events):
        pushed = log[log["kind"] == PUSHED]
        for index in range(len(shards.held_by(server))):
            mine = pushed[pushed["chunk"] == index]
            again += int((mine["version"] < 0).sum())
            applied = mine[mine["version"] >= 0]
            for replica, first in enumerate(cursors):
                steps = np.sort(applied["clock"][applied["replica"] == replica])
                every = config.parallel.push_every
                wanted = np.arange(first + (every - 1 - first) % every, steps.max(initial=-1) + 1,
                                   every)
                if not np.array_equal(steps, wanted):
                    wrong = np.setxor1d(steps, wanted)
                    what = f"step {wrong[0]}" if wrong.size else "a step"
                    raise InputError(f"{folder}: {what} of replica {replica} is not exactly once "
                                     f"in chunk {index} of server {server}")
                counted += len(steps)
    return (f"{folder.name}: {counted} updates are counted exactly once, {again} that came again "
            "were dropped")
