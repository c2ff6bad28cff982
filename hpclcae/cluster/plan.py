"""Which grid, how many replicas and servers, for the nodes of a cluster.

Everything is an estimate from the geometry with the rates below, made to choose between plans;
`hpclcae bench halo` and `bench scaling` measure. The rule: one rank a core; the ranks share one
network as long as its blocks spend at least `EFFICIENT` of their time computing, since replicas
cost staleness and a copy of the parameters each; then replicas, with servers that can take their
traffic.
"""
import math
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpclcae.cluster.ranks import MOST_RANKS, grid_for
from hpclcae.config import Config
from hpclcae.geometry import parameters as learned, training_flop
from hpclcae.model.layout import Layout
from hpclcae.model.optimizers import SLOTS
from hpclcae.model.preprocess import PORTION
from hpclcae.parameter_server.chunks import CHUNK_BYTES
from hpclcae.parameter_server.roles import Role, roles
from hpclcae.parameter_server.store import compensates, owned_slots
from hpclcae.partition.blocks import Grid
from hpclcae.partition.cost import busiest_block
from hpclcae.utils.errors import InputError

#: FLOP a core computes in a second (notes/performance.md); bytes a server can send and add in a
#: second (RMA over TCP between two ranks of one machine: 1.2 to 1.5 GB/s).
CORE_RATE, SERVER_RATE = 50e9, 1e9
EFFICIENT = 0.6
#: Of a node's memory; the system and its file cache keep the rest.
USABLE = 0.9
#: Bytes of a rank without arrays: Python, libraries, MPI (tests/system/test_plan_memory.py
#: measures).
BARE_RANK = 130e6
#: Arrays of the size of a minibatch's scores that are there at the same time.
SCORES = 6
#: At most one rank in so many is a server (the paper: 256 partitions for 845 workers).
WORKERS_PER_SERVER = 3


@dataclass(frozen=True)
class ClusterPlan:
    """A proposal."""
    layout: Layout      # of every replica
    replicas: int
    servers: int
    nodes: int          # that have ranks
    per_node: int       # ranks at the most on a node
    placement: str      # parallel.placement
    every: int          # steps between fetches and pushes that the servers can keep up with
    worker: float       # bytes of a rank with a block
    server: float       # bytes of a server
    step: float         # seconds of a step of the busiest block
    computing: float    # of them, those without halos and imbalance

    @property
    def grid(self) -> Grid:
        """Blocks of every replica."""
        return self.layout.grid

    @property
    def ranks(self) -> int:
        """All processes."""
        return self.servers + self.replicas * self.grid.size

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
           servers: int | None = None) -> ClusterPlan:
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
    least = math.inf

    def fitting(per_node: int, count: int) -> ClusterPlan | None:
        """A plan; None if the ranks are too few, or the memory."""
        nonlocal least
        plan = _plan(config, nodes, per_node, count, servers)
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
    raise InputError(f"the network needs {least / 1e9:.3g} GB on the fullest node, "
                     f"{USABLE * memory / 1e9:.3g} of {memory / 1e9:g} GB can be used: take more "
                     "nodes, a smaller train.batch, or update.rule = 'sgd'")


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


def _plan(config: Config, nodes: int, per_node: int, replicas: int,
          servers: int | None) -> ClusterPlan | None:
    """The plan with the best grid for that many replicas; None if there are not enough ranks."""
    ranks, placement = nodes * per_node, config.parallel.placement
    # bytes that a replica fetches and pushes
    parameters = 2 * learned(config) * np.dtype(config.train.dtype).itemsize

    def servers_for(step: float) -> int:
        """Enough to send and take all parameters in every step, at most a share of all ranks."""
        if servers is not None:
            return servers
        if replicas == 1:
            return 0
        wanted = math.ceil(parameters * replicas / (step * SERVER_RATE))
        wanted = min(wanted, max(1, ranks // (1 + WORKERS_PER_SERVER)))
        return per_node * math.ceil(wanted / per_node) if placement == "apart" else wanted
    # workers fill their nodes where servers have their own
    multiple = per_node if placement == "apart" else 1
    count = servers_for(1e-9)
    grid = _best_grid(config, (ranks - count) // replicas, replicas, multiple)
    if grid is None:
        return None
    count = servers_for(busiest_block(config, grid) * config.train.batch / CORE_RATE)
    grid = _best_grid(config, (ranks - count) // replicas, replicas, multiple)
    assert grid is not None, "fewer servers leave more ranks to the workers"
    step = busiest_block(config, grid) * config.train.batch / CORE_RATE
    computing = training_flop(config) / grid.size * config.train.batch / CORE_RATE
    every = math.ceil(parameters * replicas / count / (step * SERVER_RATE)) if count else 1
    layout, used = Layout(config, grid), math.ceil((count + replicas * grid.size) / per_node)
    return ClusterPlan(layout, replicas, count, used, per_node, placement, every,
                       worker_bytes(layout, bool(count)), server_bytes(layout, count, replicas),
                       step, min(step, computing))


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


# ---- memory --------------------------------------------------------------------------------------

def parameter_bytes(layout: Layout, block: int) -> int:
    """Parameters of one block, in the kernel's tiles (which hold a few zeros)."""
    return layout.block(block).elements * layout.dtype.itemsize


def activation_bytes(layout: Layout, block: int) -> int:
    """Arrays of one block that live from the forward to the backward pass.

    And scratch as large as one stage, and the prepared images of coming steps (utils/ahead.py).
    """
    first = layout.block(block).plan.stages[0].x.held.size * layout.geometry[0].input[2]
    stages = [first * (4 if layout.grid.size > 1 else 1)]
    for plan, shape in zip(layout.block(block).plan.stages, layout.geometry):
        maps_in, maps = shape.input[2], shape.filtered[2]
        stages.append(2 * plan.x.held.size * maps_in
                      + (plan.z.held.size + plan.h.held.size + 2 * plan.g.held.size) * maps)
    numbers = sum(stages) + max(stages)
    if layout.parts:  # features and their gradient; scores, and what the objective makes of them
        features = layout.features(block).held.size * layout.geometry[-1].output[2]
        numbers += 3 * features + SCORES * layout.config.classifier.classes
    return numbers * layout.config.train.batch * layout.dtype.itemsize


def worker_bytes(layout: Layout, served: bool) -> float:
    """The most that a rank with a block holds.

    That is while it trains, or when it fits the whitening at the start.
    """
    config, grid = layout.config, layout.grid
    # it has halos on all sides; the first block may own more
    centre = grid.cols * (grid.rows // 2) + grid.cols // 2
    slots = len(SLOTS[config.update.rule])
    # Without servers: parameters and the optimizer's slots, and a copy while they are saved. With
    # servers: the parameters, those of the next step that arrive, and gradients on their way.
    copies = 3 + slots * config.parallel.is_local if served else 2 * (1 + slots)
    training = max(copies * parameter_bytes(layout, block) + activation_bytes(layout, block)
                   for block in (0, centre))
    images = config.preprocess.whitening_images if config.preprocess.whitening else 0
    fitting = (images + 8 * PORTION) * config.data.size ** 2 * config.data.channels
    return BARE_RANK + max(training, fitting)


def server_bytes(layout: Layout, servers: int, replicas: int) -> float:
    """What a server holds.

    That is its share of the parameters with the update rule's vectors, a copy while it saves, and
    what is on its way from each replica. All blocks are counted like the first: about
    right, and much faster than one by one.
    """
    if not servers:
        return 0.0
    config = layout.config
    share = parameter_bytes(layout, 0) * layout.grid.size / servers
    # Gradients lie in slots of the mailbox; synchronous ones wait for those of the others.
    mail = min(share, config.parallel.slots * CHUNK_BYTES) * (1 + compensates(config))
    waiting = share * (config.parallel.consistency == "synchronous")
    return (BARE_RANK + 2 * share * (1 + len(owned_slots(config)))
            + replicas * (mail + waiting))


def job_bytes(config: Config, ranks: int) -> float:
    """What a job of so many processes holds, if all are on one node.

    Raises
    ------
    InputError
        That many do not fit the configuration.
    """
    parallel = config.parallel
    layout = Layout(config, grid_for(config, ranks))
    return ((ranks - parallel.servers) * worker_bytes(layout, bool(parallel.servers))
            + parallel.servers * server_bytes(layout, parallel.servers, parallel.replicas))


# ---- what is printed -----------------------------------------------------------------------------

def describe(plan: ClusterPlan) -> str:
    """The proposal and what it rests on."""
    config = plan.layout.config
    grid, first = plan.grid, parameter_bytes(plan.layout, 0)
    plural = "s" if plan.replicas > 1 else ""
    images = config.train.batch * plan.replicas / plan.step
    server = f", {plan.server / 1e9:.2f} GB a server" if plan.servers else ""
    lines = [f"layout   {plan.replicas} replica{plural} of {grid} blocks + {plan.servers} "
             f"servers = {plan.ranks} ranks, up to {plan.per_node} on each of {plan.nodes} "
             "nodes",
             f"block    {first / 1e6:,.1f} MB of parameters, "
             f"{activation_bytes(plan.layout, 0) / 1e6:,.1f} MB of activations "
             f"({config.train.batch} images)",
             f"memory   {plan.worker / 1e9:.2f} GB a worker{server}, "
             f"{plan.fullest_node / 1e9:.1f} GB on the fullest node",
             f"a step   {plan.step:.3g} s, {100 * plan.computing / plan.step:.0f} % of it "
             f"without halos and imbalance; {images:,.0f} images/s in all (estimated at "
             f"{CORE_RATE / 1e9:g} GFLOP/s a core)"]
    if plan.layout.parts:
        lines.append(_classes(plan))
    if plan.servers:
        where = "on nodes of their own" if plan.placement == "apart" else "beside the workers"
        often = f"{plan.every} steps" if plan.every > 1 else "step"
        lines.append(f"servers  {where}; at {SERVER_RATE / 1e9:g} GB/s each they keep up with "
                     f"fetches and pushes every {often}")
    return "\n".join(lines)


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
        if plan.every > 1:
            settings += [f"parallel.fetch_every={plan.every}", f"parallel.push_every={plan.every}"]
    memory = math.ceil(plan.fullest_node / USABLE / 1e6)
    words = ["sbatch", f"--nodes={plan.nodes}", f"--ntasks={plan.ranks}",
             f"--ntasks-per-node={plan.per_node}", f"--mem={memory}M",
             "slurm/train.sbatch", file, out]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words)
