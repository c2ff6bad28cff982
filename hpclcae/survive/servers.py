"""The servers of a surviving job: their processes, and which of them hold what shard.

The supervisor tells what has happened to them, and hears what has become of the shards.
"""
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpclcae.survive.membership import Durations
from hpclcae.survive.processes import World
from hpclcae.survive.wire import Peer
from hpclcae.utils.errors import InputError

PING_SECONDS = 0.25
UNKNOWN_SECONDS = 60.0  # that something may take of which nobody knows yet how long it takes


class Restart(Exception):
    """A shard is lost: the job goes on from the last checkpoint."""


class Say(Protocol):
    """Tells a peer something, if it is still there."""

    def __call__(self, peer: Peer | None, **content: Any) -> None: ...


@dataclass
class ServerProcess:
    """One server process.

    world : World
    address : (str, int) or None
        Where others reach it, when it has said so.
    pid, node : int or None, str
        Its process and the machine of that, when it has said so.
    pinged, answered : float, bool
        When it was last asked whether it is there, and whether it has answered.
    """
    world: World
    began: float
    peer: Peer | None = None
    address: tuple[str, int] | None = None
    pid: int | None = None
    node: str = ""
    pinged: float = 0.0
    answered: bool = True


@dataclass
class ShardState:
    """Which servers hold a shard.

    holder, copy : int or None
        Numbers of servers.
    serves, is_copied : bool
        They have said so.
    parts, copy_part : int
        Servers that have had it; how many there were before the copy.
    """
    holder: int | None = None
    copy: int | None = None
    copy_part: int = -1
    serves: bool = False
    is_copied: bool = False
    parts: int = 0


class Servers:
    """All of them, and the shards.

    Parameters
    ----------
    count : int
        Servers, and shards.
    has_copies : bool
        Every shard has a copy at another server, where there is one.
    start : Path or None
        The checkpoint that shards begin with.
    begin : callable
        begin(number, life) starts a process.
    say : Say
    deviations : float
        An answer takes too long when it takes so many standard deviations more than the median.
    tries : int
        Times that a server is started in a row to no avail.

    Attributes
    ----------
    processes : dict of int to ServerProcess
    shards : list of ShardState
    """

    def __init__(self, count: int, has_copies: bool, start: Path | None,
                 begin: Callable[[int, int], World], say: Say, deviations: float,
                 tries: int) -> None:
        self.processes: dict[int, ServerProcess] = {}
        self.shards = [ShardState() for _ in range(count)]
        self._has_copies, self._start, self._begin, self._say = has_copies, start, begin, say
        self._lives, self._in_vain, self._tries = [0] * count, [0] * count, tries
        self._answers = Durations(deviations)

    def start(self, number: int) -> None:
        """Start the process of a server, for the first time or anew.

        Raises
        ------
        InputError
            It has ended so many times in a row before it was there.
        """
        self._lives[number] += 1
        self._in_vain[number] += 1
        if self._in_vain[number] > self._tries:
            raise InputError(f"server {number} does not start: its process ended {self._tries} "
                             "times before it was there; see what it said")
        self.processes[number] = ServerProcess(self._begin(number, self._lives[number]),
                                               time.monotonic())

    def greet(self, peer: Peer, told: dict[str, Any]) -> bool:
        """A server says that it is there; returns whether it is one that is waited for (then comes
        `assign`)."""
        server = self.processes.get(told["number"])
        if server is None or server.world.part.life != told["life"]:
            return False
        server.peer, server.pid, server.node = peer, told["pid"], told["node"]
        server.address = (told["address"][0], told["address"][1])
        self._in_vain[told["number"]] = 0
        return True

    # ---- how they are ----------------------------------------------------------------------------

    def dead(self, now: float, replacing: float) -> Iterator[tuple[int, str, dict[str, float]]]:
        """Those that have died or hang: number, why, and what else is to be noted.

        Asks the others whether they are there.

        Parameters
        ----------
        replacing : float
            Seconds that it takes to start a process anew: waiting so long costs no more.
        """
        limit = max(self._answers.limit or 0.0, replacing)
        for number, server in list(self.processes.items()):
            if server.world.code is not None:
                yield number, f"its process ended with code {server.world.code}", {}
            elif server.peer is None:
                if now - server.began > max(replacing, UNKNOWN_SECONDS):
                    yield number, "it does not start", {}
            elif server.answered and now - server.pinged > PING_SECONDS:
                server.pinged, server.answered = now, False
                self._say(server.peer, kind="ping")
            elif not server.answered and now - server.pinged > limit:
                yield (number, f"it has said nothing for {now - server.pinged:.1f} s (limit "
                       f"{limit:.1f} s)", {"silent": now - server.pinged})

    def all_answer(self, now: float) -> bool:
        """Whether all shards are served, by servers that have answered lately."""
        return self.serves_all and not any(
            not server.answered and now - server.pinged > 4 * PING_SECONDS
            for server in self.processes.values())

    @property
    def serves_all(self) -> bool:
        """Whether every shard is served."""
        return all(shard.serves for shard in self.shards)

    @property
    def have_ended(self) -> bool:
        """Whether all processes have."""
        return all(server.world.code is not None for server in self.processes.values())

    @property
    def addresses(self) -> list[tuple[str, int] | None]:
        """Where each shard is served; None: nowhere just now."""
        return [self.processes[shard.holder].address
                if shard.serves and shard.holder is not None else None for shard in self.shards]

    def as_json(self) -> list[dict[str, Any]]:
        """Who is there and holds what, for tools."""
        return [{"server": number, "there": server.peer is not None,
                 "pid": server.pid or server.world.pid, "node": server.node,
                 "life": server.world.part.life,
                 "holds": [i for i, s in enumerate(self.shards) if s.holder == number and s.serves],
                 "copies": [i for i, s in enumerate(self.shards)
                            if s.copy == number and s.is_copied]}
                for number, server in self.processes.items()]

    # ---- shards ----------------------------------------------------------------------------------

    def tell_holder(self, index: int, **content: Any) -> None:
        """Tell the server that serves a shard something about it; nobody, if none does."""
        shard = self.shards[index]
        if shard.serves and shard.holder is not None:
            self._say(self.processes[shard.holder].peer, shard=index, **content)

    def take(self, number: int, told: dict[str, Any]) -> bool:
        """What a server says of itself and its shards; returns whether one is served anew."""
        kind, server = told["kind"], self.processes[number]
        if kind == "here":
            return False
        if kind == "pong":
            server.answered = True
            self._answers.note(time.monotonic() - server.pinged)
            return False
        shard = self.shards[told["shard"]]
        if kind == "serves" and shard.holder == number:
            shard.serves = True
            return True
        if told["part"] != shard.copy_part:
            return False  # of a copy that is none any more
        if kind == "serves" and shard.copy == number and shard.holder is not None:
            self._say(self.processes[shard.holder].peer, kind="copy", shard=told["shard"],
                      address=server.address, part=told["part"])
        elif kind == "copied" and shard.holder == number:
            shard.is_copied = True
        elif kind == "alone" and shard.holder == number:
            self._lose_copy(told["shard"])
            self.assign()
        return False

    def _lose_copy(self, index: int) -> None:
        """The copy of a shard is gone: its holder, which waits for that word, goes on alone."""
        shard = self.shards[index]
        shard.copy, shard.copy_part, shard.is_copied = None, -1, False
        self.tell_holder(index, kind="alone")

    def assign(self) -> None:
        """Give shards that nobody holds, or that have no copy, to servers that are there."""
        there = [n for n, server in sorted(self.processes.items()) if server.peer is not None]
        for index, shard in enumerate(self.shards):
            if shard.holder is None and index in there:
                shard.holder = index
                self._hand(shard, index, index, holds=True)
            elif (self._has_copies and shard.serves and shard.copy is None
                  and shard.holder is not None):
                others = [n for n in there if n != shard.holder]
                if others:
                    beside = self.processes[shard.holder].world.nodes
                    shard.copy = min(others, key=lambda n: (
                        self.processes[n].world.nodes == beside,
                        sum(n in (s.holder, s.copy) for s in self.shards), (n - index) % 97))
                    shard.copy_part = shard.parts
                    self._hand(shard, index, shard.copy, holds=False)

    def _hand(self, shard: ShardState, index: int, number: int, holds: bool) -> None:
        self._say(self.processes[number].peer, kind="serve", shard=index, holds=holds,
                  part=shard.parts, start=str(self._start or ""))
        shard.parts += 1

    def remove(self, number: int) -> Peer | None:
        """End what is left of a server; returns who it was to us. `take_over` comes next."""
        server = self.processes.pop(number)
        server.world.kill()
        return server.peer

    def take_over(self, number: int, in_use: bool) -> list[str]:
        """Copies take over the shards of a server that is gone; says which, in words.

        Parameters
        ----------
        in_use : bool
            Replicas train, so what a shard was without a copy is lost.

        Raises
        ------
        Restart
            It is; the message names the shard.
        """
        taken = []
        for index, shard in enumerate(self.shards):
            if shard.copy == number:
                self._lose_copy(index)
            if shard.holder != number:
                continue
            if not shard.is_copied or shard.copy is None:
                if in_use or shard.serves:
                    raise Restart(f"no other server has a copy of shard {index} now: the job goes "
                                  "on from the last checkpoint")
                shard.holder, shard.serves = None, False
                continue
            shard.holder, shard.copy, shard.copy_part = shard.copy, None, -1
            shard.serves = shard.is_copied = False
            taken.append(f"server {shard.holder} takes over shard {index}")
            self._say(self.processes[shard.holder].peer, kind="promote", shard=index)
        return taken

    def end(self) -> None:
        """Tell all that the job is over."""
        for server in self.processes.values():
            self._say(server.peer, kind="over")
