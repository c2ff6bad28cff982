"""Who computes, fetches and pushes when, on machines that are simulated.

A replica is a process of simulated time: it fetches, computes, posts its gradients and goes on. How
long each takes is predicted (cluster/prediction.py); what is fetched and applied is what the real
`ParameterClient` and `Store` make of it (arithmetic.py). What is assumed:

* A replica's step takes what its slowest machine takes; halos and sums as predicted. Machines
  differ by a factor that is theirs for ever (`slow`) and by one of every step (`spread`).
* Servers work first come, first served, a replica's parameters at a time, all servers alike; at
  most `GROUPS` queues stand for them. A push is applied when all of it has arrived.
* Machines fail independently, at a constant rate. Who survives goes on when the failed machine has
  been replaced (`recover`), and has lost the step it was in. Otherwise, and if a server fails, all
  go back to the last checkpoint and begin again after `restart`. Checkpoints take no time.
"""
import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpclcae.cluster.machine import Machine
from hpclcae.cluster.prediction import ServerCosts, predict, server_costs
from hpclcae.model.layout import Layout
from hpclcae.simulation.arithmetic import Arithmetic, Mail, PostedConnection, Saved
from hpclcae.utils.errors import require

GROUPS = 16  # queues that stand for all servers
Events = Generator[Any, Any, None]


@dataclass(frozen=True)
class Times:
    """Seconds of what a replica does.

    compute : float
        A step without waiting for anybody.
    exchange : float
        Halos and sums in it.
    blocks, machines : int
        Ranks of a replica, and nodes that they are on.
    server_machines : int
        Nodes of servers alone.
    """
    compute: float
    exchange: float
    costs: ServerCosts
    blocks: int
    machines: int
    servers: int
    server_machines: int

    @classmethod
    def predicted(cls, layout: Layout, machine: Machine, per_node: int) -> "Times":
        """Of a layout whose configuration says how many replicas and servers there are."""
        parallel = layout.config.parallel
        step = predict(layout, machine, per_node, parallel.replicas, parallel.servers)
        return cls(step.products + step.rest + step.prepare, step.halo + step.sums,
                   server_costs(layout, machine, per_node, parallel.replicas, parallel.servers),
                   layout.grid.size, math.ceil(layout.grid.size / per_node), parallel.servers,
                   math.ceil(parallel.servers / per_node))


@dataclass(frozen=True)
class Scenario:
    """What happens.

    minibatches : int
        Of all replicas together.
    slow, factor : float
        Share of machines that are slow for ever, and how many times.
    spread : float
        Standard deviation of the logarithm of what a rank's step takes.
    mtbf : float
        Seconds between failures of a machine, on average; infinite: none.
    survive : bool
    recover, restart : float
        Seconds until a machine is replaced, until a job has begun again.
    checkpoint_every : int
        Steps of the first replica.
    looks : int
        How often the objective is computed.
    """
    minibatches: int
    slow: float = 0.0
    factor: float = 1.0
    spread: float = 0.0
    mtbf: float = math.inf
    survive: bool = False
    recover: float = 60.0
    restart: float = 300.0
    checkpoint_every: int = 100
    looks: int = 20
    seed: int = 0


@dataclass
class Outcome:
    """What came of it; seconds are simulated.

    made : int
        Minibatches that count; `lost` were made and taken back, or cut off.
    curve : list of (minibatches, seconds, objective)
    spent : dict of str to float
        Seconds of all replicas: computing, waiting for slow machines, exchanging, fetching, down.
    busy : float
        Share of the time that servers work.
    staleness : ndarray
        Gradients that missed 0, 1, 2, ... updates.
    """
    seconds: float = 0.0
    made: int = 0
    lost: int = 0
    failures: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(
        ("computing", "slow machines", "exchanging", "fetching", "down"), 0.0))
    busy: float = 0.0
    steps: list[int] = field(default_factory=list)
    staleness: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def rate(self) -> float:
        """Minibatches a second."""
        return self.made / self.seconds if self.seconds else 0.0

    @property
    def mean_staleness(self) -> float:
        """Updates that a gradient missed."""
        total = self.staleness.sum()
        return float(self.staleness @ np.arange(self.staleness.size) / total) if total else 0.0


def simulate(times: Times, arithmetic: Arithmetic, scenario: Scenario) -> Outcome:
    """Let all replicas make their minibatches.

    Raises
    ------
    MissingExtraError
        There is no simpy.
    """
    return _Simulation(times, arithmetic, scenario).run()


class _Simulation:
    """One run."""

    def __init__(self, times: Times, arithmetic: Arithmetic, scenario: Scenario) -> None:
        self._simpy = simpy = require("simpy", "simulate", "a simulation")
        self.times, self.arithmetic, self.scenario = times, arithmetic, scenario
        self.env = simpy.Environment()
        self.outcome = Outcome()
        self.replicas = arithmetic.config.parallel.replicas
        self._random = [np.random.default_rng([scenario.seed, replica])
                        for replica in range(self.replicas)]
        # of machines, that of servers last
        chance = np.random.default_rng([scenario.seed, 1 << 20])
        slow = chance.random((self.replicas, times.machines)) < scenario.slow
        self._factors = np.where(slow, scenario.factor, 1.0)
        queues = max(1, min(GROUPS, times.servers))
        self._queues = [simpy.Resource(self.env) for _ in range(queues)]
        self._queue_factors = np.where(chance.random(queues) < scenario.slow, scenario.factor, 1.0)
        self._worked = 0.0
        self._changed = self.env.event()
        self._begun, self._cursors = 0, [0] * self.replicas
        self._in_step = [False] * self.replicas
        self._arrived = [0] * self.replicas  # steps whose gradients are with the servers
        self._pending: list[Any] = [None] * self.replicas
        self._life = 0  # of the job: what was sent in an earlier one does not arrive
        self._saved: tuple[Saved, list[int], int] = (arithmetic.save(), list(self._arrived), 0)
        self._processes: list[Any] = []

    def run(self) -> Outcome:
        """All events."""
        self._look()
        self._processes = [self.env.process(self._replica(r)) for r in range(self.replicas)]
        everyone = self.env.all_of(self._processes)
        if math.isfinite(self.scenario.mtbf):
            for replica in range(self.replicas):
                self.env.process(self._failing(self.times.machines, replica))
            if self.times.servers:
                self.env.process(self._failing(self.times.server_machines, None))
        self.env.run(until=everyone)
        outcome = self.outcome
        outcome.seconds, outcome.steps = self.env.now, self._cursors
        outcome.staleness = self.arithmetic.staleness
        outcome.busy = self._worked / len(self._queues) / max(outcome.seconds, 1e-30)
        if outcome.curve[-1][0] != outcome.made:
            self._look()
        return outcome

    # ---- replicas --------------------------------------------------------------------------------

    def _replica(self, replica: int) -> Events:
        while True:
            try:
                yield from self._steps(replica)
                self.arithmetic.close(replica)
                self._notify()
                return
            except self._simpy.Interrupt as failed:
                seconds = failed.cause
            while True:  # a replacement may fail, too
                began = self.env.now
                try:
                    yield self.env.timeout(seconds)
                    self.outcome.spent["down"] += self.env.now - began
                    break
                except self._simpy.Interrupt as failed:
                    self.outcome.spent["down"] += self.env.now - began
                    seconds = failed.cause

    def _steps(self, replica: int) -> Events:
        env, arithmetic, spent = self.env, self.arithmetic, self.outcome.spent
        while self._begun < self.scenario.minibatches:
            self._begun, self._in_step[replica] = self._begun + 1, True
            step, began = self._cursors[replica], env.now
            if arithmetic.request(replica, step):
                yield from self._fetch(replica)
            elif self._pending[replica] is not None:
                yield self._pending[replica]
            self._pending[replica] = None
            while not arithmetic.may_begin(replica, step):
                yield self._changed
            spent["fetching"] += env.now - began
            there, fetches = arithmetic.begin(replica, step)
            if not there:  # in lockstep, when another replica has ended
                return
            if fetches:
                self._pending[replica] = env.process(self._fetch(replica))
            computing = self._slowest(replica) * self.times.compute + 2 * self.times.costs.copy
            yield env.timeout(computing + self.times.exchange)
            spent["computing"] += self.times.compute
            spent["slow machines"] += computing - self.times.compute
            spent["exchanging"] += self.times.exchange
            connection, mail = arithmetic.compute(replica, step)
            self._cursors[replica] = step + 1
            self._in_step[replica] = False
            if mail:
                env.process(self._post(replica, connection, mail, self._life))
            self._made()

    def _slowest(self, replica: int) -> float:
        """How many times as long as usual the slowest machine takes for a step."""
        factors, spread = self._factors[replica], self.scenario.spread
        if not spread:
            return float(factors.max())
        each = -(-self.times.blocks // self.times.machines)
        ranks = np.repeat(factors, each)[:self.times.blocks]
        # of mean 1
        drawn = self._random[replica].lognormal(-spread ** 2 / 2, spread, ranks.size)
        return float((ranks * drawn).max())

    def _made(self) -> None:
        self.outcome.made += 1
        every = max(1, self.scenario.minibatches // max(1, self.scenario.looks))
        if self.outcome.made % every == 0:
            self._look()

    def _look(self) -> None:
        self.outcome.curve.append((self.outcome.made, self.env.now, self.arithmetic.objective()))

    # ---- servers ---------------------------------------------------------------------------------

    def _post(self, replica: int, connection: PostedConnection, mail: list[Mail],
              life: int) -> Events:
        """Gradients on their way to the servers."""
        made = self._cursors[replica]
        yield from self._transfer(self.times.costs.push)
        if life != self._life:
            return
        connection.arrive(mail)
        self._arrived[replica] = made
        if replica == 0 and made % self.scenario.checkpoint_every == 0:
            self._saved = self.arithmetic.save(), list(self._arrived), sum(self._arrived)
        self._notify()

    def _fetch(self, replica: int) -> Events:
        """Parameters on their way from the servers, behind what the replica has pushed."""
        connection = self.arithmetic.connections[replica]
        while connection.is_behind:
            yield self._changed
        yield from self._transfer(self.times.costs.fetch)

    def _transfer(self, seconds: float) -> Events:
        """All parameters of a replica, one way: every server works for so many seconds."""
        began = self.env.now
        if self.times.servers and seconds:
            yield self.env.all_of([self.env.process(self._work(number, seconds))
                                   for number in range(len(self._queues))])
        left = self.times.costs.wire - (self.env.now - began)
        yield self.env.timeout(max(0.0, left))

    def _work(self, number: int, seconds: float) -> Events:
        with self._queues[number].request() as turn:
            yield turn
            seconds *= float(self._queue_factors[number])
            yield self.env.timeout(seconds)
            self._worked += seconds

    def _notify(self) -> None:
        """Whoever waits for the servers looks again."""
        changed, self._changed = self._changed, self.env.event()
        changed.succeed()

    # ---- failures --------------------------------------------------------------------------------

    def _failing(self, machines: int, replica: int | None) -> Events:
        """Machines of a replica, or of servers, fail again and again."""
        number = self.replicas if replica is None else replica
        chance = np.random.default_rng([self.scenario.seed, 2, number])
        while True:
            yield self.env.timeout(chance.exponential(self.scenario.mtbf / machines))
            self.outcome.failures += 1
            if replica is not None and self.scenario.survive:
                self._fail_replica(replica)
            else:
                self._fail_job()

    def _fail_replica(self, replica: int) -> None:
        """It loses the step that it is in."""
        process = self._processes[replica]
        if process.is_alive:
            if self._in_step[replica]:
                self._begun, self._in_step[replica] = self._begun - 1, False
                self.outcome.lost += 1
            self._pending[replica] = None
            self.arithmetic.replace(replica)
            process.interrupt(self.scenario.recover)

    def _fail_job(self) -> None:
        """All go back to the last checkpoint."""
        saved, cursors, made = self._saved
        alive = [process for process in self._processes if process.is_alive]
        if not alive:
            return
        self._life += 1
        self.outcome.lost += self.outcome.made - made
        self.outcome.made = self._begun = made
        self.outcome.curve = [look for look in self.outcome.curve if look[0] <= made]
        self._cursors[:] = self._arrived[:] = cursors
        self._in_step = [False] * self.replicas
        self._pending = [None] * self.replicas
        self.arithmetic.restore(saved)
        for process in alive:
            process.interrupt(self.scenario.restart)
