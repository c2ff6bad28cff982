"""Event logs of a job in which replicas and servers died (survive/), made ready to be replayed.

A replica that died and began again has several *lives*. Each is replayed as a replica of its own:
it begins with a step and the servers' parameters, and ends with the last step of which anything was
pushed; what it had begun after that nobody has seen.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpclcae.parameter_server.store import FETCHED, FETCHED_AGAIN, JOINED, LEFT, PUSHED


class Life(NamedTuple):
    """One life of a replica; `number` counts from 1, 0: the only one."""
    replica: int
    number: int


def numbered(events: np.ndarray) -> np.ndarray:
    """The life (n,) that each of the events (n,) of one server belongs to."""
    lives = np.zeros(len(events), np.int64)
    for joined in np.flatnonzero(events["kind"] == JOINED).tolist():
        after = np.arange(len(events)) >= joined
        lives[after & (events["replica"] == events["replica"][joined])] = events["version"][joined]
    return lives


def by_life(logs: Sequence[np.ndarray], replicas: int) -> tuple[list[np.ndarray], list[Life]]:
    """Events whose `replica` is the number of a life, and the lives in order.

    Without replicas that joined, a life is a replica.
    """
    if not any((log["kind"] == JOINED).any() for log in logs):
        return list(logs), [Life(replica, 0) for replica in range(replicas)]
    numbers = [numbered(log) for log in logs]
    found = sorted({Life(int(replica), int(number)) for log, mine in zip(logs, numbers)
                    for replica, number in zip(log["replica"], mine)
                    if 0 <= replica < replicas and number})
    index = {life: number for number, life in enumerate(found)}
    result = []
    for log, mine in zip(logs, numbers):
        keep = ~np.isin(log["kind"], [JOINED, LEFT])
        log, mine = log[keep].copy(), mine[keep]
        log["replica"] = [index.get(Life(int(replica), int(number)), -1)
                          for replica, number in zip(log["replica"], mine)]
        result.append(_once(log))
    last = [max((int(log["clock"][(log["replica"] == life) & (log["kind"] == PUSHED)].max(
        initial=-1)) for log in result), default=-1) for life in range(len(found))]
    return [_without_the_end(log, np.array(last)) for log in result], found


def _once(events: np.ndarray) -> np.ndarray:
    """Without what a life has pushed or fetched twice, as a server died before it had answered."""
    keep, pushed = np.ones(len(events), bool), set()
    fetches: dict[tuple[int, int], list[int]] = {}
    for number, event in enumerate(events.tolist()):
        kind, life, _, chunk, clock, _ = event
        if kind == PUSHED:
            keep[number] = (life, chunk, clock) not in pushed
            pushed.add((life, chunk, clock))
        elif kind in (FETCHED, FETCHED_AGAIN):
            mine = fetches.setdefault((life, chunk), [])
            if kind == FETCHED_AGAIN and len(mine) > event[2]:
                keep[mine.pop()] = False
            mine.append(number)
    blocks = dict(zip(events["chunk"].tolist(), events["block"].tolist()))
    blocks |= {int(event["chunk"]): int(event["block"]) for event in events
               if event["kind"] == PUSHED}
    events = events.copy()
    for number in np.flatnonzero(events["kind"] == FETCHED_AGAIN).tolist():
        events["kind"][number] = FETCHED
        events["block"][number] = blocks[int(events["chunk"][number])]
    return events[keep]


def _without_the_end(events: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Without fetches after the last step of which a life has pushed anything."""
    late = (events["kind"] == FETCHED) & (events["clock"] > last[events["replica"]])
    return events[~late]
