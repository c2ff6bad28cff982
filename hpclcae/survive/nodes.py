"""Where worlds run: this machine, the nodes of a SLURM allocation, or named hosts.

A `Launcher` is all that differs: the command that starts a program on given nodes. Which nodes a
world gets is decided here, by what runs on them and whether they can be trusted.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpclcae.cluster.mpiexec import find_mpiexec, settings_of
from hpclcae.survive.part import Part
from hpclcae.survive.processes import LINGER_SECONDS, World
from hpclcae.utils.cores import cores
from hpclcae.utils.errors import InputError

#: Seconds for which a node is the last choice after a world on it fell silent or did not start.
DOUBT_SECONDS = 60.0
#: Seconds within which a launcher hears that what it has started has ended, if its nodes are there.
PROMPT_SECONDS = 1.0
#: Seconds of silence that a network between nodes may cause: a link that is cut for two, and what
#: TCP waits after that before it sends again.
NETWORK_SECONDS = 5.0
LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 30


class Launcher(Protocol):
    """Starts programs on nodes.

    is_here : bool
        All processes are on this machine.
    last_word : Signals
        Sent to the command, it ends what the command has started.
    """
    is_here: bool
    last_word: signal.Signals

    def command(self, nodes: Sequence["Node"], ranks: int,
                program: list[str]) -> tuple[list[str], dict[str, str]]:
        """What to type, and variables of the environment that are set for it."""


@dataclass
class Node:
    """A machine.

    address : str
        By which others reach it.
    slots : int
        Ranks that have a core there.
    doubted : float
        Until when it is the last choice (time.monotonic).
    """
    name: str
    address: str
    slots: int
    doubted: float = 0.0


class Nodes:
    """The machines of a job, and the worlds on them.

    Attributes
    ----------
    is_here : bool
        There is only this machine.
    address : str
        By which worlds reach it.
    patience : float
        Seconds of silence for which nobody is given up.
    """

    def __init__(self, nodes: list[Node], launcher: Launcher) -> None:
        self.all, self._launcher, self.is_here = nodes, launcher, launcher.is_here
        self.address = LOOPBACK if self.is_here else own_address([n.address for n in nodes])
        self.patience = 0.0 if self.is_here else NETWORK_SECONDS
        self._worlds: list[World] = []
        self._before: dict[tuple[str, int], World] = {}  # the newest, by kind and number

    @property
    def slots(self) -> int:
        """Ranks that have a core."""
        return sum(node.slots for node in self.all)

    def where(self, world: World) -> str:
        """The nodes of a world, to be said after what it does; "" where there is only one."""
        return "" if self.is_here else f" on {', '.join(world.nodes)}"

    def start(self, part: Part, ranks: int, program: list[str]) -> World:
        """Start a world, whose processes run `program`, where there is most room for it."""
        nodes = self._place(part, ranks)
        command, settings = self._launcher.command(nodes, ranks, program)
        world = World(part, command, settings, tuple(node.name for node in nodes), ranks,
                      self._launcher.is_here, self._launcher.last_word)
        self._worlds.append(world)
        self._before[part.kind, part.number] = world
        return world

    def _place(self, part: Part, ranks: int) -> list[Node]:
        """As few nodes as have room for a world: servers apart from each other, as each may have
        the copy of another; and not where the life before was, if others have room, too."""
        before = self._before.get((part.kind, part.number))
        if before and not before.ends_within(PROMPT_SECONDS):
            self.doubt(before)  # its launcher hears nothing of it
        self.see_off()
        now = time.monotonic()
        there = [node for node in self.all if node.doubted <= now] or self.all

        def alike(node: Node) -> int:
            return part.kind == "server" and sum(
                world.part.kind == part.kind and node.name in world.nodes
                for world in self._worlds)
        rooms: list[Callable[[Node], float]] = [self._free, lambda node: node.slots]
        for room in rooms:  # if there is none, cores are shared
            chosen, left = [], float(ranks)
            for node in sorted(there, key=lambda one: (
                    alike(one), bool(before and one.name in before.nodes), -room(one),
                    -self._free(one))):
                if left > 0 and room(node) > 0:
                    chosen.append(node)
                    left -= room(node)
            if left <= 0:
                return chosen
        return there

    def _free(self, node: Node) -> float:
        return node.slots - sum(world.ranks / len(world.nodes) for world in self._worlds
                                if node.name in world.nodes)

    def doubt(self, world: World) -> None:
        """A world fell silent or did not start, and its nodes may be the reason."""
        for node in self.all:
            if node.name in world.nodes:
                node.doubted = time.monotonic() + DOUBT_SECONDS

    def see_off(self) -> None:
        """Forget worlds that have ended; see that those which were killed do."""
        now = time.monotonic()
        self._worlds = [world for world in self._worlds if not world.see_off(now)]

    def close(self) -> None:
        """End all worlds, and wait for that."""
        for world in self._worlds:
            world.kill()
        end = time.monotonic() + 2 * LINGER_SECONDS
        while self._worlds and time.monotonic() < end:
            self.see_off()
            time.sleep(0.01)


# ---- this machine --------------------------------------------------------------------------------

class Here(Launcher):
    """This machine: a process, or mpiexec."""
    is_here, last_word = True, signal.SIGKILL

    def command(self, nodes: Sequence[Node], ranks: int,
                program: list[str]) -> tuple[list[str], dict[str, str]]:
        if ranks == 1:
            return program, {}
        mpiexec = find_mpiexec()
        return [mpiexec, "-n", str(ranks), *program], settings_of(mpiexec)


def here() -> Nodes:
    """Only this machine."""
    return Nodes([Node(os.uname().nodename, LOOPBACK, cores())], Here())


# ---- SLURM ---------------------------------------------------------------------------------------

class Srun(Launcher):
    """A step of the allocation for every world."""
    is_here, last_word = False, signal.SIGTERM  # srun then kills the step

    def command(self, nodes: Sequence[Node], ranks: int,
                program: list[str]) -> tuple[list[str], dict[str, str]]:
        mpi = os.environ.get("HPCLCAE_SRUN_MPI", "pmi2") if ranks > 1 else "none"
        # Steps share what the allocation has: who comes back must not wait for one that is ending.
        return ["srun", "--overlap", "--overcommit", "--mem=0", "--export=ALL",
                f"--nodes={len(nodes)}", f"--ntasks={ranks}", "--ntasks-per-node="
                f"{-(-ranks // len(nodes))}", "--nodelist=" + ",".join(n.name for n in nodes),
                f"--mpi={mpi}", "--kill-on-bad-exit=1", "--quiet", *program], {}


def allocated(environment: Mapping[str, str] = os.environ) -> Nodes | None:
    """The nodes of the SLURM job that this process is in; None: there are not several.

    Raises
    ------
    InputError
        SLURM does not say which they are.
    """
    names = environment.get("SLURM_JOB_NODELIST", "")
    if "SLURM_JOB_ID" not in environment or environment.get("SLURM_JOB_NUM_NODES", "1") == "1":
        return None
    said = _ask("scontrol", "--oneliner", "show", "node", names)
    found = re.findall(r"^NodeName=(\S+).*?\bNodeAddr=(\S+)", said, re.MULTILINE)
    if not found:
        raise InputError(f"scontrol show node {names} names no nodes: {said.strip()[:200]}")
    slots = counts(environment.get("SLURM_TASKS_PER_NODE", "1"))
    return Nodes([Node(name, address, slots[min(number, len(slots) - 1)])
                  for number, (name, address) in enumerate(found)], Srun())


def counts(text: str) -> list[int]:
    """SLURM's short form of numbers by node.

    >>> counts("2(x3),1")
    [2, 2, 2, 1]
    """
    return [int(count) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
            for _ in range(int(times or 1))]


def _ask(*command: str) -> str:
    if not shutil.which(command[0]):
        raise InputError(f"there is no {command[0]} here, which knows the nodes of this SLURM job")
    return subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS).stdout


# ---- named hosts ---------------------------------------------------------------------------------

class Hydra(Launcher):
    """The mpiexec of MPICH or Intel MPI, which goes to other hosts by ssh.

    Parameters
    ----------
    mpiexec, address : str
        And by which address other hosts reach this one.
    """
    is_here, last_word = False, signal.SIGTERM

    def __init__(self, mpiexec: str, address: str) -> None:
        self._mpiexec, self._address = mpiexec, address

    def command(self, nodes: Sequence[Node], ranks: int,
                program: list[str]) -> tuple[list[str], dict[str, str]]:
        share = -(-ranks // len(nodes))
        return [self._mpiexec, "-launcher", os.environ.get("HYDRA_LAUNCHER", "ssh"), "-rmk", "user",
                "-localhost", self._address, "-hosts",
                ",".join(f"{node.name}:{share}" for node in nodes), "-n", str(ranks), *program], {}


def named(text: str) -> Nodes:
    """Hosts that are named as in "one:4,two:4"; without numbers they have as many cores as here.

    Raises
    ------
    InputError
        One is not known, or there is no mpiexec that reaches them.
    """
    mpiexec = find_mpiexec()
    if "HYDRA" not in _ask(mpiexec, "--version"):
        raise InputError(f"--hosts: {mpiexec} is neither MPICH's nor Intel MPI's, which start "
                         "processes on hosts that are named: pip install 'hpclcae[mpich]', or use "
                         "slurm/survive.sbatch")
    nodes = []
    for word in text.split(","):
        name, _, slots = word.partition(":")
        if not name or slots and not (slots.isdecimal() and int(slots)):
            raise InputError(f"--hosts: {word!r} is no host with its slots, as in node1:4,node2:4")
        try:
            address = socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0]
        except OSError as error:
            raise InputError(f"--hosts: {name} has no address: {error}") from error
        nodes.append(Node(name, str(address), int(slots) if slots else cores()))
    if len({node.name for node in nodes}) < len(nodes):
        raise InputError(f"--hosts: {text} names a host twice")
    return Nodes(nodes, Hydra(mpiexec, own_address([node.address for node in nodes])))


def own_address(others: Sequence[str]) -> str:
    """The address by which others reach this machine: that from which it goes to them.

    Raises
    ------
    InputError
        There is no way to any of them.
    """
    found = []
    for other in others:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect((other, 9))  # nothing is sent
                found.append(str(asking.getsockname()[0]))
            except OSError:
                continue
    if not found:
        raise InputError(f"there is no way from this machine to {', '.join(others)}")
    return min(found, key=lambda address: address.startswith("127."))
