"""Simulated runs as tables and JSON. Every figure is called simulated."""
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpclcae.simulation.cluster import Outcome, Scenario, Times
from hpclcae.simulation.failures import Endured, LongJob
from hpclcae.utils.tables import table


@dataclass(frozen=True)
class Simulated:
    """One layout and what came of it."""
    replicas: int
    grid: str
    servers: int
    batch: int
    times: Times
    outcome: Outcome

    @property
    def machines(self) -> int:
        """Nodes of all replicas, and of servers."""
        return self.replicas * self.times.machines + self.times.server_machines


def describe(found: Sequence[Simulated], learns: bool) -> str:
    """A table, a line a layout; speed is over the first."""
    lines = []
    for one in found:
        outcome = one.outcome
        everything = sum(outcome.spent.values()) or 1.0
        shares = {name: 100 * seconds / everything for name, seconds in outcome.spent.items()}
        lines.append((one.replicas, one.grid, one.servers, one.machines, outcome.seconds,
                      outcome.rate * one.batch, outcome.rate / (found[0].outcome.rate or 1.0),
                      outcome.mean_staleness, percentile(outcome.staleness, 0.95),
                      100 * outcome.busy, *shares.values(), outcome.failures, outcome.lost,
                      outcome.curve[-1][2]))
    columns = [("replicas", "d"), ("grid", ">"), ("servers", "d"), ("machines", "d"),
               ("simulated s", ",.4g"), ("images/s", ",.0f"), ("speed", ".2f"),
               ("staleness", ".1f"), ("95 %", "d"), ("servers busy, %", ".0f"),
               ("computing, %", ".0f"), ("slow", ".0f"), ("exchange", ".0f"), ("fetch", ".0f"),
               ("down", ".0f"), ("failures", "d"), ("lost", "d"), ("objective", ".4g")]
    keep = range(len(columns) - (not learns))
    return table([columns[n] for n in keep], [[line[n] for n in keep] for line in lines])


def percentile(counts: np.ndarray, share: float) -> int:
    """The smallest number that so large a share of what is counted does not exceed."""
    total = int(counts.sum())
    return int(np.searchsorted(np.cumsum(counts), share * total)) if total else 0


def as_json(found: Sequence[Simulated], scenario: Scenario, words: str, machine: str,
            network: str) -> dict[str, Any]:
    """All of it, for a file; what is infinite or no number is null."""
    return _finite({
        "simulated": True, "command": words, "machine": machine, "learns": network,
        "scenario": dataclasses.asdict(scenario),
        "layouts": [{
            "replicas": one.replicas, "grid": one.grid, "servers": one.servers,
            "machines": one.machines, "batch": one.batch, "times": dataclasses.asdict(one.times),
            "outcome": {**dataclasses.asdict(one.outcome),
                        "staleness": one.outcome.staleness.tolist()}} for one in found]})


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def describe_endured(found: Sequence[tuple[str, LongJob, Endured]]) -> str:
    """Jobs of days, a line each: simulated."""
    lines = [(name, job.mtbf, "survives" if job.survive else "ends", endured.failures,
              endured.restarts, 100 * endured.goodput, endured.lost / 3600,
              endured.longest / 3600) for name, job, endured in found]
    return table([("rate of failures", ""), ("hours, a machine", ",.0f"), ("a replica", ""),
                  ("failures", ",d"), ("restarts", ",d"), ("goodput, %", ".1f"),
                  ("lost, replica-hours", ",.1f"), ("longest without, h", ".1f")], lines)
