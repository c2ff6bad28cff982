"""What a plan could be instead: other numbers of replicas, and what would halve its step."""
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from hpclcae.cluster.machine import Machine
from hpclcae.cluster.plan import ClusterPlan, choose
from hpclcae.cluster.prediction import StepTime, predict
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

MOST = 1000.0  # times that something may become better
CLOSE = 1.01   # a factor is found up to this


@dataclass(frozen=True)
class Lever:
    """Something that could be better.

    twice : float
        Seconds of a step if it is twice as good.
    most : float
        The same, if it is a thousand times as good.
    halves : float
        How many times as good it must be to halve the step; infinite: that is not enough.
    """
    what: str
    twice: float
    most: float
    halves: float


def levers(plan: ClusterPlan) -> list[Lever]:
    """What would make a step of this plan shorter, the strongest first."""
    found = [_lever(plan, what, scaled) for what, scaled in (
        ("faster cores and memory", lambda f: plan.predicted(plan.machine.scaled(compute=f))),
        ("faster products alone", lambda f: plan.predicted(_products(plan.machine, f))),
        ("more bandwidth", lambda f: plan.predicted(plan.machine.scaled(bandwidth=f))),
        ("less latency", lambda f: plan.predicted(plan.machine.scaled(latency=1 / f))),
        ("bandwidth and latency", lambda f: plan.predicted(
            plan.machine.scaled(bandwidth=f, latency=1 / f))),
        ("cores, memory and network", lambda f: plan.predicted(
            plan.machine.scaled(compute=f, bandwidth=f, latency=1 / f))),
        *([("fewer fetches and pushes", lambda f: dataclasses.replace(
            plan, fetch_every=round(plan.fetch_every * f),
            push_every=round(plan.push_every * f)).time)] if plan.servers else []),
        ("less jitter", lambda f: plan.predicted(plan.machine.scaled(jitter=1 / f))),
        *([("more servers", lambda f: dataclasses.replace(
            plan, servers=round(plan.servers * f)).time)] if plan.servers else []),
        ("smaller minibatches", lambda f: _with_batch(plan, f)))]
    return sorted(found, key=lambda lever: (lever.halves, lever.twice))


def _lever(plan: ClusterPlan, what: str, at: Callable[[float], StepTime]) -> Lever:
    def seconds(factor: float) -> float:
        return at(factor).seconds
    goal, low, high = plan.step / 2, 1.0, MOST
    most = seconds(MOST)
    if most > goal:
        return Lever(what, seconds(2.0), most, math.inf)
    while high / low > CLOSE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if seconds(middle) <= goal else (middle, high)
    return Lever(what, seconds(2.0), most, high)


def _products(machine: Machine, factor: float) -> Machine:
    return dataclasses.replace(machine, kernel=machine.scaled(compute=factor).kernel)


def _with_batch(plan: ClusterPlan, factor: float) -> StepTime:
    config = plan.layout.config
    smaller = dataclasses.replace(config, train=dataclasses.replace(
        config.train, batch=max(1, round(config.train.batch / factor))))
    return predict(Layout(smaller, plan.grid), plan.machine, plan.per_node, plan.replicas,
                   plan.servers, plan.fetch_every, plan.push_every)


def describe_levers(plan: ClusterPlan) -> str:
    """A table of what would halve the step."""
    found = levers(plan)
    lines = [(lever.what, lever.twice, lever.twice / plan.step, _factor(lever.halves),
              lever.most) for lever in found]
    named = [lever for lever in found if math.isfinite(lever.halves)]
    answer = (f"{named[0].what}, {named[0].halves:.2g} times" if named
              else "nothing of this alone")
    return (f"what would halve the step of {plan.step:.3g} s: {answer}\n"
            + table([("", ""), ("twice: s a step", ".3g"), ("of today's", ".2f"),
                     ("halved by", ">"), ("1,000 times: s a step", ".3g")], lines))


def _factor(value: float) -> str:
    return f"{value:.2f} times" if math.isfinite(value) else "not alone"


# ---- other layouts -------------------------------------------------------------------------------

def alternatives(config: Config, nodes: int, cores: int, memory: float, machine: Machine,
                 servers: int | None = None) -> list[ClusterPlan]:
    """The best plan of 1, 2, 4, 8, ... replicas, as far as there is room."""
    found, replicas = [], 1
    while True:
        try:
            found.append(choose(config, nodes, cores, memory, replicas,
                                servers if replicas > 1 else None, machine))
        except InputError:
            if found:
                return found
            raise
        replicas *= 2


def describe_alternatives(plans: list[ClusterPlan]) -> str:
    """A table, one line a plan."""
    lines = [(plan.replicas, str(plan.grid), plan.servers, plan.ranks, plan.fetch_every,
              plan.push_every, 1e3 * plan.step, plan.images, plan.images / plans[0].images,
              plan.computing / plan.step, plan.fullest_node / 1e9, plan.time.limit)
             for plan in plans]
    return table([("replicas", "d"), ("grid", ">"), ("servers", "d"), ("ranks", "d"),
                  ("G", "d"), ("P", "d"), ("ms a step", ",.1f"), ("images/s", ",.0f"),
                  ("over one", ".2f"), ("computing", ".2f"), ("GB a node", ".1f"),
                  ("limit", "")], lines)
