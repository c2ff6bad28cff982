"""The command ``hpclcae bench peers``: the same step on the same arrays in PyTorch and in JAX.

Two steps: ``filter`` is encoding with its gradients dW and dX; ``autoencoder`` is encoding,
decoding and all gradients of 1/2 ||D z - x||^2 + <dz, z> with respect to W1, W2 and x (as input,
not as target). Values and gradients have to agree before anything is timed. Peers that would take
minutes run on a smaller patch, in a pairing of their own, where this package runs on the small
patch too.
"""
import argparse
import importlib
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from hpclcae.bench import common
from hpclcae.bench.common import SGEMM, Report, Sgemm, Times, ratio
from hpclcae.commands.arguments import real, whole
from hpclcae.model.layers.local_filter import LocalFilter
from hpclcae.model.layers.unit_norm import Filters
from hpclcae.model.workspace import Workspace
from hpclcae.utils.errors import InputError, MissingExtraError
from hpclcae.utils.tables import table

#: Largest difference that counts as agreement, relative to the array's largest magnitude: float32
#: sums of thousands of terms in another order.
TOLERANCE = 2e-5
STEPS = ("filter", "autoencoder")
#: Modules with the peers of each framework.
FRAMEWORKS = {"torch": "hpclcae.bench.peers_torch", "jax": "hpclcae.bench.peers_jax"}
OURS = "hpclcae"

Outputs = dict[str, np.ndarray]


class Problem:
    """The arrays that everybody works on, float32.

    x : (row, col, map in, image)
    encoder, decoder : (row, col, krow, kcol, map in, map)
    dz : (row, col, map, image)
    """

    def __init__(self, maps_in: int, positions: int, images: int, field: int = 18,
                 maps: int = 8) -> None:
        self.maps_in, self.maps = maps_in, maps
        self.positions, self.images, self.field = positions, images, field
        random, side = np.random.default_rng(0), positions + field - 1
        filters = positions, positions, field, field, maps_in, maps
        self.x = random.standard_normal((side, side, maps_in, images), dtype=np.float32)
        self.dz = random.standard_normal((positions, positions, maps, images), dtype=np.float32)
        self.encoder, self.decoder = (random.standard_normal(filters, dtype=np.float32)
                                      for _ in range(2))
        self.encoder /= np.sqrt(np.float32(field * field * maps_in))
        self.decoder /= np.sqrt(np.float32(field * field * maps))

    def flop(self, step: str, backward: bool) -> float:
        """Useful FLOP of a step's forward pass, or of forward and backward."""
        passes = {("filter", False): 1, ("filter", True): 3, ("autoencoder", False): 2,
                  ("autoencoder", True): 6}
        return 2.0 * self.encoder.size * self.images * passes[step, backward]


class Peer(Protocol):
    """One way to compute the steps; `slow` ones are timed on the small patch only."""
    name: str
    slow: bool

    def __init__(self, problem: Problem) -> None:
        """Bring the arrays into the layout that suits; this is not timed."""

    def forward(self, step: str) -> object:
        """The forward pass of a step."""

    def both(self, step: str) -> object:
        """Forward and backward."""

    def outputs(self, step: str) -> Outputs:
        """What `both` computes, in Problem's layouts.

        That is z, dx, d_encoder and, if decoded, residual, d_decoder.
        """


class Ours:
    """This package's kernel."""
    name, slow = OURS, False

    def __init__(self, problem: Problem) -> None:
        side = problem.positions + problem.field - 1
        self.problem, self.work = problem, Workspace()
        self.plan = plan = LocalFilter(side, side, problem.maps_in, problem.maps, problem.field)
        packed = []
        for filters in (problem.encoder, problem.decoder):
            weights = np.empty(plan.shape, np.float32)
            for j in range(plan.tile_rows):
                plan.pack_row(filters[j * plan.tile:(j + 1) * plan.tile], weights, j)
            packed.append(Filters(weights))
        self.encoder, self.decoder = packed
        self.z, self.dx, self.residual = (np.empty_like(a)
                                          for a in (problem.dz, problem.x, problem.x))
        self._gradients: dict[str, list[np.ndarray]] = {}
        self.unpack = False

    def forward(self, step: str) -> None:
        """Encode, or encode and decode."""
        if step == "filter":
            self.plan.encode(self.encoder, self.problem.x, self.z, self.work)
        else:
            np.negative(self.problem.x, out=self.residual)
            self.plan.encode_decode(self.encoder, self.decoder, self.problem.x, self.z,
                                    self.residual, self.work)

    def both(self, step: str) -> None:
        """Forward, then all gradients.

        Each row of dW is complete in memory when it is handed over.
        """
        self.forward(step)
        decoded = step == "autoencoder"
        self.dx[...] = 0
        self.plan.backward(self.encoder, self.decoder if decoded else None, self.problem.x, self.z,
                           self.residual if decoded else None, 1.0, self.problem.dz, self.dx,
                           self._receive, self.work)

    def _receive(self, name: str, row: int, gradient: np.ndarray) -> None:
        if self.unpack:
            whole = np.zeros(self.plan.shape, np.float32)
            whole[row] = gradient
            self._gradients.setdefault(f"d_{name}r", []).append(self.plan.unpack_row(whole, row))

    def outputs(self, step: str) -> Outputs:
        """Run the step once more with the gradients kept."""
        self._gradients, self.unpack = {}, True
        self.both(step)
        self.unpack = False
        found = {name: np.concatenate(rows) for name, rows in self._gradients.items()}
        found |= {"z": self.z, "dx": self.dx}
        return found | ({"residual": self.residual} if step == "autoencoder" else {})


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--maps-in", type=whole(1, 4096), nargs="+", default=[3, 8], metavar="N",
                        help="input maps (default 3 8)")
    parser.add_argument("--batch", type=whole(1, 65_536), default=100, metavar="N",
                        help="images (default 100)")
    parser.add_argument("--positions", type=whole(1, 4096), default=16, metavar="N",
                        help="side of the patch of output positions (default 16)")
    parser.add_argument("--small", type=whole(1, 4096), default=4, metavar="N",
                        help="the same for peers that would take minutes (default 4)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS),
                        help="what to compute (default both)")
    parser.add_argument("--limit", type=real(0, 1e6, above=True), default=5.0, metavar="SECONDS",
                        help="no further round of a pairing begins after this time (default 5)")
    common.configure(parser, repeat=3)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    common.refuse_more_threads()
    report = Report("peers", args, list(FRAMEWORKS))
    print(report.heading())
    # thread pools that ignore their settings stay on one core all the same
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peers = load()
    for maps_in in args.maps_in:
        for slow, positions in ((False, args.positions), (True, args.small)):
            chosen = [peer for peer in peers if peer.slow == slow]
            if chosen:
                compare(Problem(maps_in, positions, args.batch), chosen,
                        args.steps, args.limit, report)
    report.warn_if_busy()
    return 0


def load() -> list[type[Peer]]:
    """The peers whose framework is installed; one line about each that is not.

    Raises
    ------
    InputError
        There is none.
    """
    peers: list[type[Peer]] = []
    for framework, module in FRAMEWORKS.items():
        try:
            peers += importlib.import_module(module).PEERS
        except MissingExtraError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not peers:
        raise InputError("there is no peer to compare with: pip install 'hpclcae[bench]'")
    return peers


def compare(problem: Problem, peers: Sequence[type[Peer]], steps: Sequence[str], limit: float,
            report: Report) -> None:
    """Check that all agree, time them in turn, print and report the ratios."""
    ours, others = Ours(problem), [peer(problem) for peer in peers]
    case = (f"{problem.maps_in} maps in, {problem.positions}x{problem.positions} positions, "
            f"batch {problem.images}")
    for step in steps:
        gap = check(ours, others, step)
        functions: dict[str, Callable[[], object]] = {}
        for one in (ours, *others):
            functions[f"{one.name}, forward"] = partial(one.forward, step)
            functions[f"{one.name}, both"] = partial(one.both, step)
        times = report.paired(functions, limit)
        peak = Sgemm.rate(min(times[SGEMM]))
        report.add(f"{step}, {case}", SGEMM, peak, "GFLOP/s")
        report.add(f"{step}, {case}", "largest difference", gap, "of the largest magnitude")
        lines = []
        for name in [one.name for one in (ours, *others)]:
            rates, ratios = _rates(problem, step, times, name), _ratios(times, name)
            lines.append((name, *rates.values(), *ratios.values()))
            for found, unit in ((rates, "GFLOP/s"), (ratios, f"times the time of {OURS}")):
                for metric, value in found.items():
                    report.add(f"{step}, {case}, {name}", metric, value, unit)
        rounds = len(times[f"{OURS}, both"])
        print(f"\n{step} step, {case}; {rounds} round{'s' * (rounds > 1)}; NumPy's sgemm "
              f"{peak:.1f} GFLOP/s; all agree within {gap:.1e} (allowed {TOLERANCE:.0e})")
        print(table([("", ""), ("forward GFLOP/s", ".2f"), ("both GFLOP/s", ".2f"),
                     ("time forward", ".2f"), ("backward", ".2f"), ("both", ".2f")], lines))


def _rates(problem: Problem, step: str, times: Times, name: str) -> dict[str, float]:
    """Useful GFLOP/s of a peer."""
    return {part: problem.flop(step, part == "both") / statistics.median(times[f"{name}, {part}"])
            / 1e9 for part in ("forward", "both")}


def _ratios(times: Times, name: str) -> dict[str, float]:
    """How many times as long as ours a peer takes."""
    def seconds(who: str) -> tuple[list[float], list[float], list[float]]:
        forward, both = times[f"{who}, forward"], times[f"{who}, both"]
        return forward, [b - f for f, b in zip(forward, both)], both
    parts = zip(("forward", "backward", "both"), seconds(name), seconds(OURS))
    return {part: ratio(theirs, mine) for part, theirs, mine in parts}


def check(ours: Peer, others: Sequence[Peer], step: str) -> float:
    """The largest relative difference between any output of ours and of the others.

    Raises
    ------
    InputError
        It is beyond TOLERANCE.
    """
    ours.both(step)
    mine, largest = ours.outputs(step), 0.0
    for other in others:
        other.both(step)
        theirs = other.outputs(step)
        for name, value in mine.items():
            gap = float(np.abs(theirs[name] - value).max() / np.abs(value).max())
            if not gap <= TOLERANCE:
                raise InputError(f"{other.name} and {OURS} disagree on {name} of the {step} step "
                                 f"by {gap:.2g} of its largest magnitude ({TOLERANCE:.0e} is "
                                 "allowed): one of them is wrong")
            largest = max(largest, gap)
    return largest
