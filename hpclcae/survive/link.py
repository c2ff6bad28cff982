"""A rank of a replica and whom it talks to: the supervisor, and the server of every shard.

One thread receives, sends what did not go at once, and tells the supervisor that the rank is there.
It keeps what servers have not acknowledged; when a server dies, all of that goes to the one that
has taken over its shard.
"""
import os
import selectors
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from hpclcae.parameter_server.header import Header
from hpclcae.survive.part import Part
from hpclcae.survive.wire import ACKNOWLEDGED, CHUNK, VERSIONS, Lost, Peer, text_in
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import Progress

HEARTBEAT = 0.2  # seconds


class Fetch:
    """What is asked of one shard.

    Attributes
    ----------
    versions : ndarray of int64 or None
        Newest step, then the version of every chunk, when they have come.
    missing : int
        Chunks that are still to come.
    """

    def __init__(self, header: Header, have: np.ndarray,
                 place: Callable[[int], np.ndarray]) -> None:
        self.header, self.have, self.place = header, have, place
        self.versions: np.ndarray | None = None
        self.missing = 0

    @property
    def is_done(self) -> bool:
        """Whether all has come."""
        return self.versions is not None and not self.missing

    def again(self) -> None:
        """Nothing that has come of it counts: a chunk may be half there."""
        self.header = self.header._replace(final=1)
        self.have = np.full_like(self.have, -1)
        self.versions, self.missing = None, 0


class Shard:
    """One shard, as a rank sees it.

    Attributes
    ----------
    sent : OrderedDict
        (kind, chunk, step) of what is not acknowledged, with header and content.
    """

    def __init__(self) -> None:
        self.peer: Peer | None = None
        self.address: tuple[str, int] | None = None
        self.sent: OrderedDict[tuple[int, int, int], tuple[Header, np.ndarray]] = OrderedDict()
        self.fetch: Fetch | None = None

    def place(self, header: Header) -> np.ndarray | None:
        """Chunks go where they belong."""
        if header.kind == CHUNK and self.fetch:
            return self.fetch.place(header.chunk).view(np.uint8)
        return None


class Link:
    """Everything that this rank says and hears.

    Raises
    ------
    InputError
        No supervisor is there.

    Attributes
    ----------
    changed : Condition
        Who holds it may use the rest; notified when something has come.
    step, waits : int, bool
        What heartbeats say: steps made, and whether it waits for others now.
    told : dict
        The last word of the supervisor by kind: "welcome", "pause", "go", "end", "released".
    """

    def __init__(self, part: Part, block: int, shards: int) -> None:
        self.part, self.block = part, block
        self.changed = threading.Condition()
        self.shards = [Shard() for _ in range(shards)]
        self.step, self.waits, self.told = 0, False, dict[str, Any]()
        self.safe: Callable[[], int] = lambda: 0
        self._selector = selectors.DefaultSelector()
        self._ears, self._wake = os.pipe()
        os.set_blocking(self._ears, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._ears, selectors.EVENT_READ)
        self._registered: dict[Peer, int] = {}
        self._error: BaseException | None = None
        self._closing = False
        try:
            self._supervisor = Peer.to(part.address)
        except Lost as lost:
            raise InputError(f"the supervisor of this job cannot be reached: {lost}") from lost
        self._supervisor.say(token=part.token, role="worker", replica=part.number, block=block,
                             life=part.life, pid=os.getpid(), node=os.uname().nodename)
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._thread.start()

    # ---- for the training loop -------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until something holds, or for a time; the caller holds `changed`.

        Raises
        ------
        InputError
            The connection to the job is broken.
        """
        self.waits = True
        held = self.changed.wait_for(lambda: self._error is not None or condition(), timeout)
        self.waits = False
        if self._error is not None:
            raise InputError(f"the job has let go of this rank: {self._error}")
        return held

    def tell(self, **content: Any) -> None:
        """Tell the supervisor something."""
        with self.changed:
            self._attempt(self._supervisor, lambda: self._supervisor.say(**content))

    def push(self, shard: int, header: Header, content: np.ndarray) -> None:
        """Send what is to be acknowledged; the content stays untouched until then."""
        with self.changed:
            mine = self.shards[shard]
            mine.sent[header.kind, header.chunk, header.clock] = header, content
            if peer := mine.peer:
                self._attempt(peer, lambda: peer.send(header, content, keep=True))

    def fetch(self, shard: int, fetch: Fetch) -> None:
        """Ask for chunks."""
        with self.changed:
            mine = self.shards[shard]
            mine.fetch = fetch
            if peer := mine.peer:
                self._attempt(peer, lambda: peer.send(fetch.header, fetch.have))

    def progress(self, step: int) -> None:
        """A step has been made."""
        with self.changed:
            self.step = step
            self._beat()

    def close(self) -> None:
        """End the thread; what was said last has gone."""
        with self.changed:
            self.changed.wait_for(lambda: self._error is not None
                                  or not self._supervisor.is_sending, 10)
            self._closing = True
            self._call()
        self._thread.join(10)

    def _attempt(self, peer: Peer, send: Callable[[], None]) -> None:
        """Send; what goes wrong is found by the thread when it reads."""
        try:
            send()
        except Lost:
            pass
        if peer.is_sending:
            self._call()

    def _call(self) -> None:
        try:
            os.write(self._wake, b"!")
        except BlockingIOError:
            pass  # it is awake

    def _beat(self) -> None:
        self._attempt(self._supervisor, lambda: self._supervisor.say(
            kind="progress", step=self.step, safe=self.safe(), waits=self.waits,
            work=Progress.made))

    # ---- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        beaten = 0.0
        while not self._closing:
            with self.changed:
                self._watch()
            events = self._selector.select(HEARTBEAT)
            with self.changed:
                for key, mask in events:
                    if key.data is None:
                        os.read(self._ears, 4096)
                    else:
                        self._serve(key.data, mask)
                if time.monotonic() - beaten > HEARTBEAT and not self._closing:
                    beaten = time.monotonic()
                    self._beat()
                    if self._supervisor.silent > self.part.silence:
                        self._supervisor_is_gone()
                    for each in self.shards:  # the way there may be open again
                        if each.peer is None and each.address:
                            self._connect(each, each.address)
                self.changed.notify_all()

    def _watch(self) -> None:
        """Register what there is to wait for."""
        wanted = {self._supervisor, *(s.peer for s in self.shards if s.peer)}
        for peer in self._registered.keys() - wanted:
            self._selector.unregister(peer.socket)
            del self._registered[peer]
            peer.close()
        for peer in wanted:
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.is_sending else 0)
            if peer not in self._registered:
                self._selector.register(peer.socket, mask, peer)
            elif self._registered[peer] != mask:
                self._selector.modify(peer.socket, mask, peer)
            self._registered[peer] = mask

    def _serve(self, peer: Peer, mask: int) -> None:
        shard = next((s for s in self.shards if s.peer is peer), None)
        if shard is None and peer is not self._supervisor:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                peer.flush()
            if mask & selectors.EVENT_READ:
                for header, rest in peer.receive():
                    if shard is None:
                        self._hear(text_in(rest))
                    else:
                        self._take(shard, header, rest)
                    if shard is not None and shard.peer is not peer:
                        return
        except Lost:
            if shard is None:
                self._supervisor_is_gone()
            else:
                shard.peer = None  # until the supervisor says who has it now, or it is there again

    def _supervisor_is_gone(self) -> None:
        """Nobody is left to work for."""
        if not self._closing:
            os._exit(1)

    def _hear(self, told: dict[str, Any]) -> None:
        kind = told["kind"]
        self.told[kind] = told
        if kind == "routes":
            for shard, address in zip(self.shards, told["addresses"]):
                if address and (shard.peer is None or tuple(address) != shard.address):
                    self._connect(shard, (address[0], address[1]))

    def _connect(self, shard: Shard, address: tuple[str, int]) -> None:
        """Begin anew with whoever has the shard: what it did not acknowledge, what is wanted."""
        shard.peer, shard.address = None, address
        try:
            shard.peer = Peer.towards(address, shard.place)
            shard.peer.say(token=self.part.token, role="worker", shard=self.shards.index(shard),
                           replica=self.part.number, block=self.block, life=self.part.life)
            for header, content in shard.sent.values():
                shard.peer.send(header, content, keep=True)
            if shard.fetch and not shard.fetch.is_done:
                shard.fetch.again()
                shard.peer.send(shard.fetch.header, shard.fetch.have)
        except Lost:
            shard.peer = None

    def _take(self, shard: Shard, header: Header, rest: np.ndarray) -> None:
        """What a server says."""
        if header.kind == ACKNOWLEDGED:
            shard.sent.pop((header.base, header.chunk, header.clock), None)
        elif header.kind == VERSIONS and shard.fetch:
            shard.fetch.versions = rest.view(np.int64)
            shard.fetch.missing += int((shard.fetch.versions[1:] != shard.fetch.have).sum())
        elif header.kind == CHUNK and shard.fetch:
            shard.fetch.missing -= 1
