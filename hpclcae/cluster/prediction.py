"""How long a training step takes, from a layout and a machine description.

The step is gone through as `model/network.py` goes through it, once for every phase of training
(greedy training: the mean over its stages): products by their sizes, everything else by the number
of numbers that it touches, exchanges by their messages and bytes, sums over blocks, what blocks
wait for each other, and what servers can take. Nothing is fitted to measured steps; `hpclcae bench
plan` compares (notes/scale.md).
"""
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from hpclcae.cluster.machine import ELEMENTS, PASSES, Link, Machine
from hpclcae.geometry import parameters
from hpclcae.model.layers.local_filter import LocalFilter
from hpclcae.model.layout import WHOLE, BlockLayout, Layout
from hpclcae.model.optimizers import SLOTS
from hpclcae.model.phases import Phase, phases
from hpclcae.parameter_server.store import owned_slots
from hpclcae.partition.blocks import ExchangePlan

#: Of larger grids the first block, which owns most, and one in the middle, with halos all round,
#: stand for all: working out every block of a 50x60 grid would take seconds.
ALL_BLOCKS = 16
#: Windows that the costs of ELEMENTS were measured with, and maps (bench/machine.py).
POOLING, LCN, MAPS = 5, 5, 8


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step by what they are spent on, and what it moves.

    products, rest : float
        Matrix products of the filters; all other arithmetic of the busiest block.
    prepare : float
        Means, deviations and whitening of the images.
    halo, sums : float
        Exchanges with other blocks; sums over all blocks.
    waiting : float
        For blocks that are late by chance (jitter).
    servers : float
        For parameters: what copying them takes, and what servers are slower than workers.
    flop : float
        Of the products of the busiest block, zeros that tiles add not counted.
    even : float
        Seconds of all arithmetic if the work of one block were spread with no loss: no uneven
        blocks, no tiles that stand over, nothing done twice.
    halo_bytes, messages : float
        That a block receives in a step, at most.
    server_bytes : float
        That a server gets and sends in a step of every replica.
    server_share : float
        Of the step, which a server has to work for; above 1: the step waits for it.
    """
    products: float = 0.0
    rest: float = 0.0
    prepare: float = 0.0
    halo: float = 0.0
    sums: float = 0.0
    waiting: float = 0.0
    servers: float = 0.0
    flop: float = 0.0
    even: float = 0.0
    halo_bytes: float = 0.0
    messages: float = 0.0
    server_bytes: float = 0.0
    server_share: float = 0.0

    #: The parts that add up to the step.
    PARTS = "products", "rest", "prepare", "halo", "sums", "waiting", "servers"

    @property
    def seconds(self) -> float:
        """Of the step."""
        return sum(getattr(self, part) for part in self.PARTS)

    @property
    def limit(self) -> str:
        """What the step would gain most from: the largest of its parts that are no work."""
        costs = {"uneven blocks": self.products + self.rest + self.prepare - self.even,
                 "halo": self.halo + self.sums, "stragglers": self.waiting,
                 "servers": self.servers, "compute": self.even}
        return max(costs, key=lambda name: costs[name])


@dataclass(frozen=True)
class ServerCosts:
    """What one replica's parameters cost every time.

    push, fetch : float
        Seconds that every server works.
    wire : float
        Seconds that they take on the network, one way.
    bytes : float
        Of one server, one way.
    copy : float
        Seconds that a worker copies, one way.
    """
    push: float
    fetch: float
    wire: float
    bytes: float
    copy: float


def server_costs(layout: Layout, machine: Machine, per_node: int, replicas: int,
                 servers: int) -> ServerCosts:
    """The mean over all phases."""
    job = _Job(layout, machine, per_node, replicas, servers, 1, 1)
    found = []
    for phase in phases(layout.config):
        blocks = [_Block(job, layout.block(number), phase) for number in _representatives(layout)]
        for block in blocks:
            block.run()
        found.append(job.server_costs(max(block.pushed for block in blocks) * job.item))
    return ServerCosts(*(float(np.mean([getattr(costs, field.name) for costs in found]))
                         for field in fields(ServerCosts)))


def predict(layout: Layout, machine: Machine, per_node: int = 1, replicas: int = 1,
            servers: int = 0, fetch_every: int = 1, push_every: int = 1) -> StepTime:
    """A step of one of `replicas` replicas of a layout, `per_node` ranks on each node."""
    job = _Job(layout, machine, per_node, replicas, servers, fetch_every, push_every)
    found = [job.step(phase) for phase in phases(layout.config)]
    return StepTime(*(float(np.mean([getattr(step, field.name) for step in found]))
                      for field in fields(StepTime)))


def checkpoint_bytes(layout: Layout, servers: int) -> float:
    """What a checkpoint holds: the parameters, and the update rule's vectors."""
    config = layout.config
    slots = owned_slots(config) if servers else SLOTS[config.update.rule]
    return float(parameters(config)) * layout.dtype.itemsize * (1 + len(slots))


def _representatives(layout: Layout) -> list[int]:
    """Blocks that stand for all."""
    grid = layout.grid
    if grid.size <= ALL_BLOCKS:
        return list(range(grid.size))
    return [0, grid.cols * (grid.rows // 2) + grid.cols // 2]


class _Job:
    """What does not change from phase to phase."""

    def __init__(self, layout: Layout, machine: Machine, per_node: int, replicas: int, servers: int,
                 fetch_every: int, push_every: int) -> None:
        self.layout, self.machine, self.config = layout, machine, layout.config
        self.replicas, self.servers = replicas, servers
        self.fetch_every, self.push_every = fetch_every, push_every
        self.item, self.grid = layout.dtype.itemsize, layout.grid
        ranks = servers + replicas * self.grid.size
        self.per_node, self.nodes = per_node, math.ceil(ranks / per_node)
        workers = min(per_node, ranks) * (ranks - servers) / ranks
        self.whole = layout if layout.grid == WHOLE else Layout(layout.config)
        self.slowdown = machine.slowdown(round(workers))
        if self.nodes > 1 and machine.knows_network:  # hosts that share a machine slow each other
            self.slowdown *= max(1.0, machine.link("network", self.nodes).slowdown)
        near = "node" if self.grid.size <= per_node else "network"
        self.link = machine.link(near, min(self.grid.size, per_node) if near == "node"
                                 else self.nodes)
        self.to_servers = machine.link("node" if self.nodes == 1 else "network",
                                       2 if self.nodes == 1 else self.nodes)

    def step(self, phase: Phase) -> StepTime:
        """A step of one phase."""
        blocks = [_Block(self, self.layout.block(number), phase)
                  for number in _representatives(self.layout)]
        for block in blocks:
            block.run()
        products, rest, prepare, halo = (
            max(getattr(block, part) for block in blocks)
            for part in ("products", "rest", "prepare", "halo"))
        flop = max(block.flop for block in blocks)
        work = products + rest + prepare
        whole = _Block(self, self.whole.block(0), phase)
        whole.run()
        even = min(work, (whole.products + whole.rest + whole.prepare) / self.grid.size)
        sums = blocks[0].sums * self.link.total if self.grid.size > 1 else 0.0
        waiting = work * self.machine.jitter * math.sqrt(2 * math.log(self.grid.size))
        step = work + halo + sums + waiting
        moved = max(block.pushed for block in blocks) * self.item
        copies, served, share = self._serve(moved, step) if self.servers else (0.0, 0.0, 0.0)
        return StepTime(products, rest, prepare, halo, sums, waiting,
                        copies, flop, even, max(block.halo_bytes for block in blocks),
                        max(block.messages for block in blocks), served, share)

    def server_costs(self, moved: float) -> "ServerCosts":
        """What a replica costs servers.

        moved : float
            Bytes that a block has to push, and to fetch.
        """
        machine, link = self.machine, self.to_servers
        each = moved * self.grid.size / self.servers
        update = machine.elements[self.config.update.rule] * self.slowdown / self.item
        wire = 0.0
        if self.nodes > 1:  # what all ranks of a node send goes through one wire
            here = moved * min(self.per_node, self.grid.size)
            there = each * math.ceil(self.servers / self.nodes)
            wire = max(here, there) / link.bandwidth
        # where memory is shared a worker reads by itself, and servers do nothing for a fetch
        shared = self.nodes == 1 and self.config.parallel.transport != "messages"
        fetch = 0.0 if shared else each / link.stream
        return ServerCosts(each / link.stream + each * update, fetch, wire, each,
                           moved / link.stream if self.nodes == 1 else 0.0)

    def _serve(self, moved: float, step: float) -> tuple[float, float, float]:
        """Seconds that servers add to a step, bytes of one server, and its share of the step."""
        costs = self.server_costs(moved)
        often = 1 / self.push_every + 1 / self.fetch_every
        copies = costs.copy * often
        busy = max(self.replicas * (costs.push / self.push_every + costs.fetch / self.fetch_every),
                   costs.wire * often)
        step += copies
        return (copies + max(0.0, busy - step), costs.bytes * often * self.replicas,
                busy / max(step, 1e-30))


class _Block:
    """One block in a step of one phase: adds up what it does."""

    def __init__(self, job: _Job, block: BlockLayout, phase: Phase) -> None:
        self.job, self.block, self.batch, self.phase = job, block, phase.batch, phase
        self.products = self.rest = self.prepare = self.halo = self.flop = 0.0
        self.halo_bytes = self.messages = self.pushed = 0.0
        self.sums = 1  # of the losses

    def run(self) -> None:
        """Everything."""
        config, stages = self.job.config, self.job.config.stages
        given = config.train.cache != "none"
        only = self.phase.stage
        joint = config.train.gradient == "joint"
        first = only if given and only is not None and only < len(stages) else 0
        if only == len(stages) and given:
            first = only
        if not first:  # kept responses need no images
            self._prepare()
        for index in range(first, len(stages) if only is None else min(only + 1, len(stages))):
            trained = not config.is_supervised and only in (None, index)
            through = joint and (index < len(stages) - 1 or config.is_supervised) and only is None
            self._stage(index, trained, through, learns=only in (None, index),
                        passes_on=only is None or index < only, is_given=index == first and given)
        if config.is_supervised:
            self._classifier(learns_below=only is None)

    def _add(self, what: str, numbers: float) -> None:
        self.rest += self.job.machine.elements[what] * numbers * self.job.slowdown

    def _prepare(self) -> None:
        """The images: as Preprocessor does, of what the block holds and half a kernel around it."""
        job, config = self.job, self.job.config
        side, channels, size = config.preprocess.whitening, config.data.channels, config.data.size
        held = self.block.plan.stages[0].x.held
        pixels = held.grown(side // 2, size, size).size * channels * self.batch
        cost = job.machine.elements
        seconds = cost["prepare"] * pixels
        if side:
            seconds += cost["whiten"] * held.size * channels * self.batch * side ** 2 * channels
        self.prepare = seconds * job.slowdown
        self.sums += 2 * config.preprocess.contrast + config.preprocess.rescale

    def _filters(self, kind: str, index: int, kernel: LocalFilter) -> None:
        """One sweep over the rows of tiles."""
        machine, passes = self.job.machine, PASSES[kind]
        inputs, units = kernel.inputs, kernel.units
        tiles = kernel.tile_rows * kernel.tile_cols
        flop = 2.0 * inputs * units * self.batch * passes
        seconds = (kernel.tile_rows * machine.kernel.row[kind]
                   + tiles * flop / machine.kernel.rate(kind, inputs, units, self.batch))
        self.products += seconds * self.job.slowdown
        self.flop += (2.0 * kernel.out_rows * kernel.out_cols * kernel.maps * kernel.fan_in
                      * self.batch * passes)

    def _stage(self, index: int, trained: bool, through: bool, learns: bool, passes_on: bool,
               is_given: bool) -> None:
        """One stage.

        Parameters
        ----------
        trained : bool
            It has a term of its own: it decodes.
        through : bool
            A gradient comes from above, through what it passes on.
        learns : bool
            Its weights change.
        """
        job, config = self.job, self.job.config
        stage, plan = config.stages[index], self.block.plan.stages[index]
        kernel, maps_in = self.block.stage_filters[index], job.layout.geometry[index].input[2]
        x, z, h = (plan.x.held.size * maps_in * self.batch,
                   plan.z.held.size * stage.maps * self.batch,
                   plan.h.owned.size * stage.maps * self.batch)
        weights = math.prod(kernel.shape)
        needs_dx = (config.train.gradient == "joint" and index > 0 and self.phase.stage is None)
        backwards = learns and (trained or through)
        share = 1.0 if backwards else 0.5
        self.rest += job.machine.stage * share * job.slowdown
        self.rest += job.machine.position_row * share * job.slowdown * plan.z.owned.shape[0]
        if index and not is_given:
            self._exchange(plan.x, maps_in)
        self._filters("forward" if trained else "encode", index, kernel)
        self._add("norm", weights * ((stage.encoder_norm == "unit")
                                     + (trained and stage.weights == "untied"
                                        and stage.decoder_norm == "unit")))
        pooling = (2 * math.log2(stage.pooling) + stage.pooling + 3 if stage.pooling > 1 else 3) / (
            2 * math.log2(POOLING) + POOLING + 3)
        self._exchange(plan.z, stage.maps)
        self._add("pooling", z * pooling)
        if trained:
            self._add("pass", 3 * x + z + h)
            self._exchange(plan.x, maps_in)
            self._exchange(plan.x, maps_in)
        if passes_on:
            self._pass_on(index, h, through)
        if not backwards:
            return
        self._add("pooling back", z * pooling)
        self._exchange(plan.z, stage.maps)
        self._filters("backward dx" if needs_dx else "backward", index, kernel)
        if needs_dx:
            self._add("pass", 2 * x)
            self._exchange(plan.x, maps_in)
        learned = weights * (2 if stage.weights == "untied" and trained else 1)
        self.pushed += learned
        if not job.servers:
            self._add(config.update.rule, learned)
        else:
            self._add("pass", learned)

    def _pass_on(self, index: int, h: float, through: bool) -> None:
        """From the pooled to what the stage above gets, and the gradient back."""
        stage, plan = self.job.config.stages[index], self.block.plan.stages[index]
        times = 2 if through else 1
        if stage.lcn:
            fields = (6 + 8 * stage.lcn / stage.maps) / (6 + 8 * LCN / MAPS)
            self._add("contrast", h * fields)
            if through:
                self._add("contrast back", h * fields)
            for _ in range(times):
                self._exchange(plan.h, 2 if stage.lcn_border == "centre" else 1)
                self._exchange(plan.g, 1)
        if stage.log or stage.standardise:
            self._add("pass", 4 * h * times)
        if stage.whiten:
            units = h / self.batch * (stage.window ** 2 or 1)
            if units and not stage.window:
                rate = self.job.machine.kernel.rate("encode", round(units), stage.whiten,
                                                    self.batch)
                self.rest += 4 * units * stage.whiten * self.batch * times / rate \
                    * self.job.slowdown
                self.sums += times * (1 + stage.contrast)
            self._add("pass", (2 + 4 * stage.contrast) * h * times)
            if stage.window:
                for _ in range(times):
                    self._exchange(plan.y, stage.maps)

    def _classifier(self, learns_below: bool) -> None:
        """Scores, their sum, gradients of the weights and of the features."""
        job, layout = self.job, self.job.layout
        passes = 3 if learns_below else 2
        for part in layout.parts:
            rows, cols, inputs, units = self.block.filters[part.weights].shape
            count = rows * cols * inputs * units
            rate = job.machine.kernel.rate("encode", rows * cols * inputs, units, self.batch)
            self.products += 2.0 * count * self.batch * passes / rate * job.slowdown
            self.flop += 2.0 * count * self.batch * passes
            self.pushed += count
            self._add("pass" if job.servers else job.config.update.rule, count)
        scores = job.config.classifier.classes * self.batch
        self._add("pass", 6 * scores)
        if self.job.grid.size > 1:
            self.halo += job.link.latency + 2 * scores * job.item / _bandwidth(job, job.link)

    def _exchange(self, plan: ExchangePlan, maps: int) -> None:
        """A fill or a fold; what goes out in one comes in in the other."""
        peers = max(len(plan.send), len(plan.recv))
        if not peers:
            return
        job, numbers = self.job, maps * self.batch
        out, into = (sum(part.positions.size for part in parts) * numbers * job.item
                     for parts in (plan.send, plan.recv))
        link = job.link
        self.halo += (link.latency + (peers - 1) * link.message
                      + max(out, into) / _bandwidth(job, link)
                      + job.machine.elements["pack"] * (out + into) / job.item * job.slowdown)
        self.halo_bytes += into
        self.messages += peers


def _bandwidth(job: _Job, link: Link) -> float:
    """Bytes a second of one rank: those of a node share its wire."""
    return link.bandwidth / (min(job.per_node, job.grid.size) if link.where == "network" else 1)


def parts(step: StepTime) -> Iterator[tuple[str, float]]:
    """Names and seconds of the parts of a step that take any time."""
    return ((name, getattr(step, name)) for name in StepTime.PARTS if getattr(step, name))


assert set(SLOTS) <= set(ELEMENTS), "every update rule is measured"
