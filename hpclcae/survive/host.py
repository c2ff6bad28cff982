"""A server process of a surviving job: the shards that it holds, and a loop over its sockets.

The supervisor says which shards it holds, which it is the copy of, which life of a replica counts,
and when a checkpoint is due.
"""
import contextlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpclcae.config import Config
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.chunks import Shards
from hpclcae.parameter_server.header import BARRIER, FETCH, INITIALISE, PUSH, Header
from hpclcae.partition.blocks import Grid
from hpclcae.survive.held import Entry, HeldShard
from hpclcae.survive.loop import Loop
from hpclcae.survive.part import Part
from hpclcae.survive.wire import (ACKNOWLEDGED, CONFIRMED, JOIN, LEAVE, RELEASE, SNAPSHOT, Lost,
                                  Peer, text_in)
from hpclcae.training.serving import Serving
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import requests

HERE_SECONDS = 1.0  # between two words to the supervisor: its host is to acknowledge something
LOOK_SECONDS = 0.2  # between two looks at what goes on in the background


class _Worker(NamedTuple):
    """Who is at the other end: a block of a life of a replica, for one shard."""
    shard: int
    replica: int
    block: int
    life: int


class Host(Loop):
    """One server process.

    Parameters
    ----------
    config : Config
        With the grid of every replica.
    run : Path
        Run folder.
    """

    def __init__(self, part: Part, config: Config, run: Path) -> None:
        self._part, self._run = part, run
        self._shards = Shards(Layout(config, Grid.parse(config.parallel.grid)),
                              config.parallel.servers)
        self._held: dict[int, HeldShard] = {}
        supervisor = Peer.to(part.address)
        # By the address that leads from here to the supervisor others come here, too.
        super().__init__(part.token, supervisor.socket.getsockname()[0])
        self._supervisor = self.keep(supervisor)
        supervisor.about = "supervisor"
        supervisor.say(token=part.token, role="server", number=part.number, life=part.life,
                       pid=os.getpid(), node=os.uname().nodename, address=self.address)
        self._over = False

    def run(self) -> None:
        """Serve until the supervisor says that all is over, or has gone, or its host is silent."""
        told = 0.0
        while not (self._over or self._supervisor.silent > self._part.silence):
            self.turn(LOOK_SECONDS)
            if time.monotonic() - told > HERE_SECONDS and not self._over:
                told = time.monotonic()
                self._tell(kind="here")
            for held in self._held.values():
                held.serving.check()

    def drop(self, peer: Peer) -> None:
        """A peer has gone, or is to be heard no more."""
        if peer not in self.peers:
            return
        super().drop(peer)
        for number, held in self._held.items():
            held.forget(peer)
            if held.copy is peer:
                held.lose_copy()
                self._tell(kind="alone", shard=number, part=held.copy_part)

    def _tell(self, **content: Any) -> None:
        """Tell the supervisor; that it has gone is seen by the loop."""
        with contextlib.suppress(Lost, OSError):
            self._supervisor.say(**content)

    def tell_of(self, error: BaseException) -> None:
        """Say why this process ends."""
        self._supervisor.socket.setblocking(True)
        self._tell(kind="error", text=str(error))

    def lose(self, peer: Peer) -> None:
        self._over = self._over or peer is self._supervisor
        self.drop(peer)

    def take(self, peer: Peer, header: Header, rest: np.ndarray) -> None:
        if peer is self._supervisor:
            self._obey(text_in(rest))
        elif isinstance(peer.about, _Worker):
            self._take_of_worker(peer, peer.about, header, rest)
        else:
            self._take_of_server(peer, self._held[peer.about], header, rest)

    def greet(self, peer: Peer, told: dict[str, Any]) -> None:
        held = self._held.get(told["shard"])
        if held is None:
            return
        if told["role"] == "server":
            if held.is_holder or held.part != told["part"]:
                return  # it was told long ago to have its copy here
            peer.about = told["shard"]
            held.source = peer
        else:
            peer.about = _Worker(told["shard"], told["replica"], told["block"], told["life"])

    # ---- workers ---------------------------------------------------------------------------------

    def _take_of_worker(self, peer: Peer, who: _Worker, header: Header, rest: np.ndarray) -> None:
        held = self._held[who.shard]
        if not (held.is_holder and held.store.is_current(who.replica, who.life)):
            self.drop(peer)  # one that has woken up: nothing that it says counts
            return
        if header.kind == FETCH:
            held.fetch(peer, who.replica, header, rest)
            return
        assert header.kind in (PUSH, INITIALISE, BARRIER), header
        final = 2 * who.block + header.final if header.kind == BARRIER else 0
        entry = header._replace(pushes=who.replica, final=final)

        def applied() -> None:
            with contextlib.suppress(Lost, OSError):  # then nobody waits for it
                peer.send(Header(ACKNOWLEDGED, header.chunk, header.clock, base=header.kind))
        held.submit(Entry(entry, rest, applied))

    # ---- copies ----------------------------------------------------------------------------------

    def _take_of_server(self, peer: Peer, held: HeldShard, header: Header,
                        rest: np.ndarray) -> None:
        if held.copy is peer:
            assert header.kind == CONFIRMED, header
            if header.final:
                self._tell(kind="copied", shard=peer.about, part=held.copy_part)
            else:
                held.confirmed()
        elif held.source is not peer:
            self.drop(peer)  # it was the holder once
        elif header.kind == SNAPSHOT:
            if held.take_snapshot(header, rest):
                peer.send(Header(CONFIRMED, final=1))
        else:
            held.change(header, rest)
            peer.send(Header(CONFIRMED))

    # ---- the supervisor --------------------------------------------------------------------------

    def _obey(self, told: dict[str, Any]) -> None:
        kind, shard = told["kind"], told.get("shard", -1)
        held = self._held.get(shard)
        if kind == "serve":
            start = Path(told["start"]) if told["start"] else None
            self._held[shard] = HeldShard(Serving(self._shards, shard, self._run, start,
                                                  part=told["part"], is_copy=not told["holds"]),
                                          told["holds"], told["part"])
            self._tell(kind="serves", shard=shard, part=told["part"])
        elif kind == "ping":
            self._tell(kind="pong")
        elif kind == "over":
            self._end()
        elif held is None:
            raise AssertionError(told)
        elif kind == "copy":
            self._begin_copy(shard, held, (told["address"][0], told["address"][1]), told["part"])
        elif kind == "alone":
            self._go_alone(held)
        elif kind == "promote":
            if held.source:
                self.drop(held.source)
            held.promote()
            self._tell(kind="serves", shard=shard, part=held.part)
        else:
            entry = {"join": JOIN, "leave": LEAVE, "checkpoint": RELEASE}[kind]
            content = np.array(told.get("clocks", ()), np.int64)

            def applied() -> None:
                if kind == "checkpoint":
                    held.serving.checkpoint(content)
                self._tell(kind="done", what=kind, shard=shard, number=told["number"])
            held.submit(Entry(Header(entry, clock=told.get("clock", 0), base=told.get("life", 0),
                                     pushes=told.get("replica", 0)), content.view(np.uint8),
                              applied))

    def _go_alone(self, held: HeldShard) -> None:
        """The supervisor knows no copy of this shard: the one there was does not count."""
        copy = held.copy
        held.go_alone()
        if copy:
            self.drop(copy)

    def _begin_copy(self, shard: int, held: HeldShard, address: tuple[str, int],
                    part: int) -> None:
        self._go_alone(held)
        held.copy_part = part
        try:
            copy = self.keep(Peer.towards(address))
            copy.bound_silence(self._part.silence)
            copy.about = shard
            copy.say(token=self._part.token, role="server", shard=shard, part=part)
            held.begin_copy(copy)
        except Lost:
            self._tell(kind="alone", shard=shard, part=part)

    def _end(self) -> None:
        reports = []
        for held in self._held.values():
            report = held.serving.close()
            if held.is_holder:
                reports.append(vars(report) | {"server": held.serving.number})
        self._tell(kind="report", reports=reports)
        self._supervisor.socket.setblocking(True)
        self._supervisor.flush()
        self._over = True
        self.drop(self._supervisor)


def serve(part: Part, config: Config, run: Path) -> None:
    """Be a server of a surviving job, to its end.

    Raises
    ------
    InputError
        What it holds cannot be saved, and the supervisor has been told; or there is none.
    """
    with requests():  # a first TERM is the replicas' affair
        try:
            host = Host(part, config, run)
        except Lost as lost:
            raise InputError(f"the supervisor of this job cannot be reached: {lost}") from lost
        try:
            host.run()
        except (InputError, OSError, MemoryError) as error:
            host.tell_of(error)
            raise
