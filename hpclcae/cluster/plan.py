"""Which grid, how many replicas and servers, for the nodes of a cluster.

Times are predicted (prediction.py) from a machine description (machine.py); bytes follow from the
geometry (memory.py). The rule: one rank a core; the ranks share one network as long as its blocks
spend at least `EFFICIENT` of their time computing, since replicas cost staleness and a copy of the
parameters each; then replicas, with servers that can take their traffic.
"""
import math
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from hpclcae.cluster.machine import DEFAULT, Machine
from hpclcae.cluster.memory import (USABLE, activation_bytes, parameter_bytes, server_bytes,
                                    worker_bytes)
from hpclcae.cluster.prediction import StepTime, checkpoint_bytes, parts, predict
from hpclcae.cluster.ranks import MOST_RANKS
from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.roles import Role, roles
from hpclcae.partition.blocks import Grid
from hpclcae.partition.cost import busiest_block
from hpclcae.utils.errors import InputError

EFFICIENT = 0.6
#: At most one rank in so many is a server (the paper: 256 partitions for 845 workers).
WORKERS_PER_SERVER = 3
NEVER = 10 ** 9  # steps between fetches, or pushes, where the other of the two is asked about


@dataclass(frozen=True)
class ClusterPlan:
    """A proposal."""
    layout: Layout      # of every replica
    machine: Machine
    replicas: int
    servers: int
    nodes: int          # that have ranks
    per_node: int       # ranks at the most on a node
    placement: str      # parallel.placement
    fetch_every: int    # steps between fetches and
    push_every: int     # pushes that the servers can keep up with
    worker: float       # bytes of a rank with a block
    server: float       # bytes of a server

    @property
    def grid(self) -> Grid:
        """Blocks of every replica."""
        return self.layout.grid

    @property
    def ranks(self) -> int:
        """All processes."""
        return self.servers + self.replicas * self.grid.size

    @cached_property
    def time(self) -> StepTime:
        """Of a step of every replica."""
        return self.predicted(self.machine)

    def predicted(self, machine: Machine) -> StepTime:
        """The same on another machine."""
        return predict(self.layout, machine, self.per_node, self.replicas, self.servers,
                       self.fetch_every, self.push_every)

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.time.seconds

    @property
    def computing(self) -> float:
        """Of them, those that evenly cut work takes by itself."""
        return self.time.even

    @property
    def images(self) -> float:
        """A second, of all replicas."""
        return self.layout.config.train.batch * self.replicas / self.step

    @property
    def fullest_node(self) -> float:
        """Bytes on the node with the most."""
        names = [str(rank // self.per_node) for rank in range(self.ranks)]
        used: Counter[str] = Counter()
        for name, role in zip(names, roles(names, self.servers, self.replicas, self.grid.size,
                                           self.placement)):
            used[name] += round(self._bytes(role))
        return max(used.values())

    def _bytes(self, role: Role) -> float:
        return self.worker if role.server is None else self.server


def choose(config: Config, nodes: int, cores: int, memory: float, replicas: int | None = None,
           servers: int | None = None, machine: Machine = DEFAULT) -> ClusterPlan:
    """The plan for `nodes` nodes of `cores` cores and `memory` bytes.

    Replicas and servers are chosen unless they are given.

    Raises
    ------
    InputError
        The network does not fit, or the numbers that are given do not.
    """
    if nodes * cores > MOST_RANKS:
        raise InputError(f"{nodes:,} nodes of {cores:,} cores are {nodes * cores:,} ranks: a plan "
                         f"is made for at most {MOST_RANKS:,}; take fewer nodes, or cores")
    least, machine = math.inf, machine.resized(cores, memory)

    def fitting(per_node: int, count: int) -> ClusterPlan | None:
        """A plan; None if the ranks are too few, or the memory."""
        nonlocal least
        plan = _plan(config, nodes, per_node, count, servers, machine)
        if plan is not None:
            needed = plan.fullest_node
            least = min(least, needed)
            if needed <= USABLE * memory:
                return plan
        return None
    first = replicas or 1
    # A node needs the least memory with one rank: if that is too much, no other number is tried.
    tried = range(cores, 0, -1) if fitting(1, first) or math.isinf(least) else ()
    for per_node in tried:
        if found := fitting(per_node, first):
            return found if replicas else _more_replicas(
                found, lambda count: fitting(per_node, count))
    if math.isinf(least):
        raise InputError(f"{nodes * cores} ranks are too few for {servers or 'the'} servers and "
                         f"{replicas} replicas: take more nodes, or fewer of them")
    raise InputError(f"the network needs {least / 1e9:.3g} GB on the fullest node (with a copy "
                     f"while it is saved), {USABLE * memory / 1e9:.3g} of {memory / 1e9:g} GB can "
                     "be used: take more nodes, a smaller train.batch, or update.rule = 'sgd'")


def _more_replicas(found: ClusterPlan,
                   fitting: Callable[[int], ClusterPlan | None]) -> ClusterPlan:
    """More replicas while their blocks are inefficient and there is room for them.

    The number is doubled as long as that is so, and then found by bisection.
    """
    low, high = found, math.inf
    while low.computing < EFFICIENT * low.step and low.replicas + 1 < high:
        count = 2 * low.replicas if math.isinf(high) else (low.replicas + int(high)) // 2
        plan = fitting(count)
        if plan and plan.computing < EFFICIENT * plan.step:
            low = plan
        else:
            high, found = count, plan or found
    return found if found.replicas > low.replicas else low


def _plan(config: Config, nodes: int, per_node: int, replicas: int, servers: int | None,
          machine: Machine) -> ClusterPlan | None:
    """The plan with the best grid for that many replicas; None if there are not enough ranks."""
    ranks, placement = nodes * per_node, config.parallel.placement
    # workers fill their nodes where servers have their own
    multiple = per_node if placement == "apart" else 1

    def best(count: int) -> Layout | None:
        grid = _best_grid(config, (ranks - count) // replicas, replicas, multiple)
        return None if grid is None else Layout(config, grid)

    def share(layout: Layout, count: int, fetch_every: int, push_every: int) -> float:
        return predict(layout, machine, per_node, replicas, count, fetch_every,
                       push_every).server_share

    def whole_nodes(count: int) -> int:
        return per_node * math.ceil(count / per_node) if placement == "apart" else count
    count = servers or 0
    if servers is None and replicas > 1:
        most = whole_nodes(max(1, ranks // (1 + WORKERS_PER_SERVER)))
        layout = best(most)
        if layout is None:
            return None
        # enough to send and take all parameters in every step, at most a share of all ranks
        wanted = math.ceil(most * share(layout, most, 1, 1))
        count = min(most, whole_nodes(max(1, wanted)))
    layout = best(count)
    if layout is None:
        return None
    fetch_every = push_every = 1
    if count:
        together = config.parallel.elastic or config.parallel.consistency == "synchronous"
        fetch_every, push_every = _how_often(share(layout, count, 1, NEVER),
                                             share(layout, count, NEVER, 1), bool(together))
    used = math.ceil((count + replicas * layout.grid.size) / per_node)
    return ClusterPlan(layout, machine, replicas, count, used, per_node, placement, fetch_every,
                       push_every, worker_bytes(layout, bool(count)),
                       server_bytes(layout, count, replicas))


def _how_often(fetches: float, pushes: float, together: bool) -> tuple[int, int]:
    """Steps between fetches and between pushes that servers can keep up with.

    Parameters
    ----------
    fetches, pushes : float
        Share of a step that a server works for each, if they come in every step.
    together : bool
        Both must be the same.
    """
    both = max(1, math.ceil(fetches + pushes))
    pairs = [(both, both)]
    if not together:  # one of the two more often, as staleness comes from both
        for often in range(1, both):
            if often > fetches:
                pairs.append((often, max(1, math.ceil(pushes / (1 - fetches / often)))))
            if often > pushes:
                pairs.append((max(1, math.ceil(fetches / (1 - pushes / often))), often))
    return min(pairs, key=lambda pair: (sum(pair), max(pair)))


def _best_grid(config: Config, blocks: int, replicas: int, multiple: int) -> Grid | None:
    """The fastest grid of at most that many blocks whose workers are a multiple of a number.

    None if there is none. Images are square, so grids more than about four times as long as wide
    are not tried.
    """
    side, root = config.data.size, math.isqrt(max(blocks, 0))
    grids = [Grid(rows, cols)
             for rows in range(max(1, root // 2), min(side, 2 * root + 1, blocks) + 1)
             for cols in {min(side, blocks // rows),
                          min(side, blocks // rows // multiple * multiple)}
             if cols and rows * cols * replicas % multiple == 0]
    return min(grids, key=lambda grid: (busiest_block(config, grid), grid.size), default=None)


# ---- what is printed -----------------------------------------------------------------------------

def describe(plan: ClusterPlan) -> str:
    """The proposal and what it rests on."""
    config, time = plan.layout.config, plan.time
    grid, first = plan.grid, parameter_bytes(plan.layout, 0)
    plural = "s" if plan.replicas > 1 else ""
    server = f", {plan.server / 1e9:.2f} GB a server" if plan.servers else ""
    saved = checkpoint_bytes(plan.layout, plan.servers)
    writers = plan.servers or plan.grid.size
    lines = [f"layout   {plan.replicas} replica{plural} of {grid} blocks + {plan.servers} "
             f"servers = {plan.ranks} ranks, up to {plan.per_node} on each of {plan.nodes} "
             "nodes",
             f"block    {first / 1e6:,.1f} MB of parameters, "
             f"{activation_bytes(plan.layout, 0) / 1e6:,.1f} MB of activations "
             f"({config.train.batch} images), {time.flop / 1e9:,.3g} GFLOP a step",
             f"memory   {plan.worker / 1e9:.2f} GB a worker{server}, "
             f"{plan.fullest_node / 1e9:.1f} GB on the fullest node",
             f"halo     {time.halo_bytes / 1e6:,.3g} MB in {time.messages:,.0f} messages to a "
             "block in a step",
             f"a step   {plan.step:.3g} s, {100 * plan.computing / plan.step:.0f} % of it "
             f"without halos and imbalance; {plan.images:,.0f} images/s in all",
             "of it    " + ", ".join(f"{_WORDS[name]} {100 * seconds / plan.step:.0f} %"
                                     for name, seconds in parts(time))
             + f"; what limits: {time.limit}",
             f"saved    {saved / 1e9:.3g} GB in a checkpoint, by {writers} ranks; "
             f"{saved / min(writers, plan.nodes) / plan.machine.disk:.3g} s if every node writes "
             f"{plan.machine.disk / 1e9:.3g} GB/s"]
    if plan.layout.parts:
        lines.append(_classes(plan))
    if plan.servers:
        where = "on nodes of their own" if plan.placement == "apart" else "beside the workers"
        often = " and ".join(f"{what} {f'every {every} steps' if every > 1 else 'every step'}"
                             for what, every in (("fetches", plan.fetch_every),
                                                 ("pushes", plan.push_every)))
        lines.append(f"servers  {where}; {time.server_bytes / 1e6:,.3g} MB in and out of each in a "
                     f"step; they keep up with {often} (busy "
                     f"{100 * min(1.0, time.server_share):.0f} %)")
    lines.append(f"machine  {plan.machine.name}" + (
        "; its network was not measured: halos are counted as within a node"
        if plan.nodes > 1 and plan.machine.name != DEFAULT.name and not plan.machine.knows_network
        else ""))
    return "\n".join(lines)


_WORDS = {"products": "filters", "rest": "other arithmetic", "prepare": "preparing images",
          "halo": "halos", "sums": "sums over blocks", "waiting": "waiting for late blocks",
          "servers": "servers"}


def _classes(plan: ClusterPlan) -> str:
    """What a classifier is to a block, and what its blocks send each other in a step."""
    layout, config = plan.layout, plan.layout.config
    block, item = layout.block(0), layout.dtype.itemsize
    shapes = [block.filters[part.weights].shape for part in layout.parts]
    rows, cols, maps, classes = max(shapes, key=math.prod)
    scores = config.classifier.classes * config.train.batch * item
    parts = f" ({len(layout.parts)} parts)" if len(layout.parts) > 1 else ""
    features, held = math.prod(layout.geometry[-1].output), sum(map(math.prod, shapes)) * item
    return (f"classes  {config.classifier.classes:,}{parts} x {features:,} features; the first "
            f"block {classes:,} x {rows * cols * maps:,} = {held / 1e6:,.1f} MB; a sum of "
            f"{scores / 1e6:,.2f} MB of scores over the blocks in every step")


def sbatch_line(plan: ClusterPlan, file: str, out: str, changes: list[str]) -> str:
    """The command that submits a plan.

    Parameters
    ----------
    file : str
        The configuration.
    out : str
        Run folder.
    changes : list of str
        Settings that were changed for the plan, KEY=VALUE.
    """
    settings = [*changes, f"parallel.grid={plan.grid}"]
    if plan.servers:
        settings += [f"parallel.servers={plan.servers}", f"parallel.replicas={plan.replicas}"]
        settings += [f"parallel.{name}={every}" for name, every in (
            ("fetch_every", plan.fetch_every), ("push_every", plan.push_every)) if every > 1]
    memory = math.ceil(plan.fullest_node / USABLE / 1e6)
    words = ["sbatch", f"--nodes={plan.nodes}", f"--ntasks={plan.ranks}",
             f"--ntasks-per-node={plan.per_node}", f"--mem={memory}M",
             "slurm/train.sbatch", file, out]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words)
