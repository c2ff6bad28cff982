"""What happened to a surviving job, read from its log: who was away, when, and for how long."""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.utils.reading import whole_objects

LOG = "survival.jsonl"  # in the run folder
AWAY = ("replica", "leave", "lost")  # kinds of events after which a replica does not train


@dataclass(frozen=True)
class Absence:
    """A replica that did not train.

    Attributes
    ----------
    who : str
        As in "replica 1".
    kind : str
        Of the event that began it (AWAY).
    begin, end : float
        Seconds of the job; end is infinite where it did not come back.
    """
    who: str
    kind: str
    begin: float
    end: float


def events(run: Path) -> list[dict[str, Any]]:
    """What has happened to a surviving job, in order; nothing in other runs.

    Lines that a crash cut short or that are damaged are passed over.
    """
    path = run / LOG
    rows = [row for _, row in whole_objects(path.read_bytes())] if path.exists() else []
    return [row for row in rows if all(isinstance(row.get(key), str) for key in ("kind", "who"))
            and all(isinstance(row.get(key, 0.0), (int, float)) for key in ("seconds", "silent"))
            and "seconds" in row]


def absences(rows: Sequence[dict[str, Any]]) -> list[Absence]:
    """When replicas did not train.

    One that stood still was away since it was last heard of.

    >>> rows = [{"seconds": 9.0, "kind": "replica", "who": "replica 1", "silent": 1.5},
    ...         {"seconds": 10.0, "kind": "join", "who": "replica 1", "took": 0.8}]
    >>> absences(rows)
    [Absence(who='replica 1', kind='replica', begin=7.5, end=10.0)]
    """
    found: list[Absence] = []
    away: dict[str, Absence] = {}
    for row in rows:
        who, at = row["who"], row["seconds"]
        if row["kind"] in AWAY and who not in away:
            away[who] = Absence(who, row["kind"], at - row.get("silent", 0.0), math.inf)
        elif row["kind"] == "join" and "took" in row and who in away:
            gone = away.pop(who)
            found.append(Absence(who, gone.kind, gone.begin, at))
    return sorted([*found, *away.values()], key=lambda absence: absence.begin)


def trained_share(found: Sequence[Absence], replicas: int, seconds: float) -> float:
    """The share of the replicas' time in which they trained.

    A replica that left on purpose is no loss.

    Parameters
    ----------
    seconds : float
        Of the whole job.
    """
    lost = sum(min(absence.end, seconds) - min(absence.begin, seconds)
               for absence in found if absence.kind != "leave")
    return 1 - lost / (replicas * seconds) if seconds else 1.0


def describe(rows: Sequence[dict[str, Any]], replicas: int, seconds: float) -> str:
    """What the job got over, in a sentence; for the parameters see `trained_share`."""
    found = absences(rows)
    deaths, servers = (sum(row["kind"] in kinds for row in rows)
                       for kinds in (("replica", "lost"), ("server",)))
    back = [absence.end - absence.begin for absence in found
            if absence.kind == "replica" and math.isfinite(absence.end)]
    again = f", to train again after {np.median(back):.1f} s (median)" if back else ""
    return (f"failures of replicas: {deaths}{again}, of servers: {servers}; replicas trained "
            f"{100 * trained_share(found, replicas, seconds):.1f} % of the time")
