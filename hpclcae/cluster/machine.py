"""What a machine can do: the numbers that predictions rest on, as a TOML file.

`hpclcae bench machine` measures them and writes the file; `hpclcae plan --machine` and `hpclcae
simulate` read it. Without a file there is DEFAULT: a guess at "a core of today", with one rate for
all products, no cost of anything small, and no jitter.
"""
import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae.utils.errors import InputError, one_line, shown
from hpclcae.utils.files import replace_text
from hpclcae.utils.reading import reading

FORMAT = 1
#: What one row of tiles is put through (model/layers/local_filter.py), and how many passes over its
#: weights that takes.
PASSES = {"encode": 1, "forward": 2, "backward": 3, "backward dx": 4}
#: What is done to every number of an array, by name; seconds a number.
#: pooling and its gradient (of z, windows of 5), contrast normalisation and its gradient (of h,
#: windows of 5, 8 maps), the norm of a filter (a weight), an update (a weight), images' means and
#: deviations (a pixel), a whitening kernel (a pixel and tap), a plain pass over memory, a copy of a
#: rectangle into a buffer or back.
ELEMENTS = ("pooling", "pooling back", "contrast", "contrast back", "norm", "sgd", "momentum",
            "adagrad", "adam", "prepare", "whiten", "pass", "pack")


@dataclass(frozen=True)
class Kernel:
    """Rates of products, as the stages make them.

    inputs, units, images : tuple of int
        Sizes that were measured: of a tile's window, of its filters, of a minibatch.
    rates : dict of str to nested tuple (input, unit, image)
        FLOP a second of each of PASSES, those that tiles add counted.
    row : dict of str to float
        Seconds that a row of tiles costs whatever is in it.
    """
    inputs: tuple[int, ...]
    units: tuple[int, ...]
    images: tuple[int, ...]
    rates: Mapping[str, Any]
    row: Mapping[str, float]

    def rate(self, kind: str, inputs: int, units: int, images: int) -> float:
        """FLOP a second at any size.

        Between what was measured the logarithm of the rate is linear in those of the sizes; beyond,
        the outermost rate holds.
        """
        found = np.log(np.array(self.rates[kind], float))
        for sizes, size in ((self.inputs, inputs), (self.units, units), (self.images, images)):
            found = _between(found, sizes, size)
        return float(np.exp(found))


def _between(table: np.ndarray, sizes: Sequence[int], size: int) -> np.ndarray:
    """Drop the first axis of a table, at a size between those that it is for."""
    places = np.log(np.array(sizes, float))
    place = float(np.clip(math.log(max(size, 1)), places[0], places[-1]))
    above = int(np.clip(np.searchsorted(places, place), 1, max(1, len(places) - 1)))
    if len(places) == 1:
        return table[0]
    share = (place - places[above - 1]) / (places[above] - places[above - 1])
    return table[above - 1] * (1 - share) + table[above] * share


@dataclass(frozen=True)
class Link:
    """How ranks reach each other.

    where : str
        "node" or "network": on one node, or each on a node of its own.
    ranks : int
        Of the node, or of the network, while it was measured.
    latency : float
        Seconds of an exchange with one neighbour, however short.
    message : float
        Seconds that each further message of an exchange adds.
    bandwidth : float
        Bytes a second that a rank sends while it receives as much (network: of a node).
    total : float
        Seconds of a sum over all ranks.
    stream : float
        Bytes a second of a stream of long messages to one rank that only receives.
    slowdown : float
        Of computing while all ranks compute, over one rank alone.
    """
    where: str
    ranks: int
    latency: float
    message: float
    bandwidth: float
    total: float
    stream: float
    slowdown: float


@dataclass(frozen=True)
class Machine:
    """One node, and the way to others.

    Attributes
    ----------
    name : str
        Processor and MPI library, for people.
    cores : int
    memory : float
        Bytes of a node.
    disk : float
        Bytes a second that a checkpoint is written with.
    jitter : float
        Standard deviation of equal pieces of work, over their mean.
    stage : float
        Seconds of a stage in a step whatever is in it.
    position_row : float
        Seconds that a row of positions costs outside of the products.
    kernel : Kernel
    elements : dict of str to float
        Seconds a number, of each of ELEMENTS.
    links : tuple of Link
    """
    name: str
    cores: int
    memory: float
    disk: float
    jitter: float
    stage: float
    position_row: float
    kernel: Kernel
    elements: Mapping[str, float]
    links: tuple[Link, ...]
    format: int = field(default=FORMAT)

    def link(self, where: str, ranks: int) -> Link:
        """The link that was measured with the number of ranks that is nearest.

        The way within a node stands for a network that was not measured.
        """
        among = [link for link in self.links if link.where == where] or self.links
        return min(among, key=lambda link: (abs(math.log(link.ranks / max(1, ranks))), link.ranks))

    @property
    def knows_network(self) -> bool:
        """Whether ranks on different nodes were measured."""
        return any(link.where == "network" for link in self.links)

    def slowdown(self, ranks: int) -> float:
        """Of computing, with so many ranks on a node."""
        if ranks <= 1:
            return 1.0
        link = self.link("node", ranks)
        if link.where != "node" or link.ranks == 1:
            return max(1.0, ranks / self.cores)
        beyond = max(1.0, ranks / self.cores) / max(1.0, link.ranks / self.cores)
        return link.slowdown * beyond

    def resized(self, cores: int, memory: float) -> "Machine":
        """A node of other cores like these, and other memory.

        So many ranks a core are taken to disturb each other on it as much as they did here.
        """
        links = tuple(dataclasses.replace(link, ranks=max(1, round(
            link.ranks * cores / self.cores))) if link.where == "node" and link.ranks > 1 else link
            for link in self.links)
        return dataclasses.replace(self, cores=cores, memory=memory, links=links)

    def scaled(self, compute: float = 1.0, bandwidth: float = 1.0, latency: float = 1.0,
               jitter: float = 1.0) -> "Machine":
        """Cores and memory that are so many times as fast, links that carry so many times as much,
        answer in so much of the time; and so much of the jitter."""
        def faster(numbers: Mapping[str, float]) -> dict[str, float]:
            return {name: seconds / compute for name, seconds in numbers.items()}
        kernel = dataclasses.replace(
            self.kernel, row=faster(self.kernel.row),
            rates={kind: (np.array(rates) * compute).tolist()
                   for kind, rates in self.kernel.rates.items()})
        links = tuple(dataclasses.replace(
            link, latency=link.latency * latency, message=link.message * latency,
            total=link.total * latency, bandwidth=link.bandwidth * bandwidth,
            stream=link.stream * bandwidth) for link in self.links)
        return dataclasses.replace(
            self, kernel=kernel, elements=faster(self.elements), stage=self.stage / compute,
            position_row=self.position_row / compute, jitter=self.jitter * jitter, links=links)

    def with_link(self, link: Link) -> "Machine":
        """The same with a link measured anew."""
        others = [old for old in self.links if (old.where, old.ranks) != (link.where, link.ranks)]
        return dataclasses.replace(self, links=tuple(sorted(
            [*others, link], key=lambda one: (one.where, one.ranks))))


def _flat(rate: float) -> Kernel:
    return Kernel((1,), (1,), (1,), {kind: (((rate,),),) for kind in PASSES},
                  dict.fromkeys(PASSES, 0.0))


#: Where nothing was measured: 50 GFLOP/s a core (notes/performance.md), 2 GB/s between neighbours,
#: 1 GB/s into and out of a server (MPI over TCP between two ranks of one machine: 1.2 to 1.5), and
#: everything else free.
DEFAULT = Machine("no machine was measured: 50 GFLOP/s a core, 2 GB/s between neighbours, 1 GB/s a "
                  "server, all else free", cores=16, memory=64e9, disk=1e9, jitter=0.0, stage=0.0,
                  position_row=0.0, kernel=_flat(50e9), elements=dict.fromkeys(ELEMENTS, 0.0),
                  links=(Link("node", 1, 0.0, 0.0, 2e9, 0.0, 1e9, 1.0),))


# ---- files ---------------------------------------------------------------------------------------

def load(path: Path) -> Machine:
    """Read a description.

    Raises
    ------
    InputError
        It cannot be read, lacks a number, or has one that cannot be.
    """
    with reading(path, "a machine description", "measure it with 'hpclcae bench machine --out "
                 f"{path}'"):
        tree = tomllib.loads(path.read_bytes().decode())
        if not isinstance(tree.get("machine"), dict):
            raise InputError(f"{path} is no machine description, it has no [machine]: measure one "
                             f"with 'hpclcae bench machine --out {path}'")
        if tree["machine"].get("format") != FORMAT:
            raise InputError(f"{path} has format = {shown(tree['machine'].get('format'))}, this "
                             f"version reads {FORMAT}: measure it again with 'hpclcae bench "
                             "machine'")
        top = {key: tree["machine"][key] for key in _TOP}
        kernel = tree["kernel"]
        machine = Machine(
            **top, elements={name: tree["elements"][name] for name in ELEMENTS},
            kernel=Kernel(tuple(kernel["inputs"]), tuple(kernel["units"]), tuple(kernel["images"]),
                          {kind: kernel["rates"][kind] for kind in PASSES},
                          {kind: kernel["row"][kind] for kind in PASSES}),
            links=tuple(Link(**link) for link in tree["links"]))
        _check(machine, path)
    return machine


_TOP = "name", "cores", "memory", "disk", "jitter", "stage", "position_row"
_AXES = "inputs", "units", "images"


def _check(machine: Machine, path: Path) -> None:
    """Refuse numbers that would make nonsense of every prediction."""
    def refuse(key: str, value: object, allowed: str) -> InputError:
        return InputError(f"{path}: {key} = {shown(value)}: it must be {allowed}; mend it, or "
                          "measure the machine again with 'hpclcae bench machine'")
    shape = tuple(len(getattr(machine.kernel, axis)) for axis in _AXES)
    for key, value, least in (
            ("machine.cores", machine.cores, 1), ("machine.memory", machine.memory, 1),
            ("machine.disk", machine.disk, 1), ("machine.jitter", machine.jitter, 0),
            ("machine.stage", machine.stage, 0), ("machine.position_row", machine.position_row, 0),
            *((f"elements.{name}", value, 0) for name, value in machine.elements.items()),
            *((f"kernel.row.{kind}", value, 0) for kind, value in machine.kernel.row.items()),
            *((f"links.{key}", getattr(link, key), least) for link in machine.links
              for key, least in (("ranks", 1), ("latency", 0), ("message", 0), ("bandwidth", 1),
                                 ("total", 0), ("stream", 1), ("slowdown", 1e-3)))):
        if isinstance(value, bool) or not isinstance(value, int | float) \
                or not least <= value < math.inf:
            raise refuse(key, value, f"a number of at least {least:g}")
    for axis in _AXES:
        sizes = getattr(machine.kernel, axis)
        if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)):
            raise refuse(f"kernel.{axis}", list(sizes), "whole numbers, each above the one before")
    for kind, rates in machine.kernel.rates.items():
        table = np.array(rates, float)
        if table.shape != shape or not (table > 0).all() or not np.isfinite(table).all():
            raise refuse(f"kernel.rates.{kind!r}", table.shape,
                         f"a table of {' x '.join(map(str, shape))} rates above 0")
    if not machine.links or {link.where for link in machine.links} - {"node", "network"}:
        raise refuse("links", [link.where for link in machine.links],
                     "at least one, each with where = 'node' or 'network'")


def save(machine: Machine, path: Path, heading: Sequence[str] = ()) -> None:
    """Write a description; `heading` are lines of comment above it."""
    lines = [f"# {one_line(line)}" for line in heading]
    lines += ["# Seconds, bytes and FLOP; hpclcae/cluster/machine.py says what each number is.", "",
              "[machine]", f"format = {FORMAT}"]
    lines += [f"{key} = {_toml(getattr(machine, key))}" for key in _TOP]
    lines += ["", "[kernel]", *(f"{axis} = {_toml(list(getattr(machine.kernel, axis)))}"
                                for axis in _AXES)]
    for name, numbers in (("rates", machine.kernel.rates), ("row", machine.kernel.row)):
        lines += ["", f"[kernel.{name}]", *(f'"{kind}" = {_toml(value)}'
                                            for kind, value in numbers.items())]
    lines += ["", "[elements]", *(f'"{name}" = {_toml(value)}'
                                  for name, value in machine.elements.items())]
    for link in machine.links:
        lines += ["", "[[links]]", *(f"{key} = {_toml(value)}"
                                     for key, value in dataclasses.asdict(link).items())]
    replace_text(path, "\n".join(lines) + "\n")


def is_description(path: Path) -> bool:
    """Whether a file is one of ours, which may be written again."""
    return "\n[machine]\nformat = " in "\n" + path.read_text(encoding="utf-8", errors="replace")


def _toml(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}" if any(c in f"{value:.4g}" for c in ".en") else f"{value:.4g}.0"
    return str(value)
