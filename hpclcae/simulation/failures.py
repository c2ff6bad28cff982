"""A job of days through failures of machines, at the rates that others have reported.

Steps are not simulated one by one here: a replica works, or is down. What is assumed: machines fail
independently at a constant rate; a lost replica comes back after `recover`; where nothing survives,
or a server is lost, the work since the last checkpoint is lost and everything begins again after
`restart`.
"""
import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpclcae.utils.errors import require

DAY, HOUR = 86400.0, 3600.0
#: Li et al. 2014: share of jobs that fail within so many machine-hours. They are of different jobs:
#: no single rate fits all three.
REPORTED = {100: 0.078, 1000: 0.137, 10000: 0.247}


def mean_time(machine_hours: float, share: float) -> float:
    """Hours between failures of a machine, from the share of jobs that fail within machine-hours.

    Of a constant rate: share = 1 - exp(-machine_hours / mean).
    """
    return -machine_hours / math.log(1 - share)


@dataclass(frozen=True)
class LongJob:
    """A job of replicas and servers.

    machines, server_machines : int
        Of every replica, and of all servers.
    mtbf : float
        Hours.
    checkpoint : float
        Seconds between checkpoints.
    """
    replicas: int
    machines: int
    server_machines: int
    days: float
    mtbf: float
    survive: bool
    recover: float = 60.0
    restart: float = 300.0
    checkpoint: float = 600.0
    seed: int = 0


@dataclass
class Endured:
    """What became of it.

    goodput : float
        Work that counts, over that of a job without failures.
    lost : float
        Seconds of work of one replica that were done in vain.
    longest : float
        Seconds without a failure, at most.
    """
    goodput: float = 0.0
    failures: int = 0
    restarts: int = 0
    lost: float = 0.0
    longest: float = 0.0


def endure(job: LongJob) -> Endured:
    """Simulate it.

    Raises
    ------
    MissingExtraError
        There is no simpy.
    """
    simpy = require("simpy", "simulate", "a simulation")
    env, found = simpy.Environment(), Endured()
    end = job.days * DAY
    up_since = np.zeros(job.replicas)  # in the future while a replica is down
    kept = np.zeros(job.replicas)      # seconds of work that a checkpoint holds
    fresh = np.zeros(job.replicas)     # since then
    last = [0.0]

    def work(now: float) -> None:
        """What was done since the last look."""
        fresh[:] += np.maximum(0.0, now - np.maximum(up_since, last[0]))
        last[0] = now

    def checkpoints() -> Generator[Any, Any, None]:
        while True:
            yield env.timeout(job.checkpoint)
            work(env.now)
            kept[:] += fresh
            fresh[:] = 0

    def failing(machines: int, replica: int | None) -> Generator[Any, Any, None]:
        number = job.replicas if replica is None else replica
        chance, before = np.random.default_rng([job.seed, number]), 0.0
        while machines:
            yield env.timeout(chance.exponential(job.mtbf * HOUR / machines))
            found.longest = max(found.longest, env.now - before)
            before = env.now
            found.failures += 1
            work(env.now)
            if replica is not None and job.survive:
                up_since[replica] = max(up_since[replica], env.now + job.recover)
            else:
                found.restarts += 1
                found.lost += float(fresh.sum())
                fresh[:] = 0
                up_since[:] = env.now + job.restart
    env.process(checkpoints())
    for replica in range(job.replicas):
        env.process(failing(job.machines, replica))
    env.process(failing(job.server_machines, None))
    env.run(until=end)
    work(end)
    found.goodput = float((kept + fresh).sum()) / (end * job.replicas)
    return found
