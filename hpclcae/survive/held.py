"""A shard as one server process holds it: the first holder, or the copy.

What changes a shard, in order, are its *entries*: parameters, pushes, replicas that join and leave,
barriers. The holder gives each to the copy first and applies it when the copy says that it has it;
the two are the same machine fed with the same entries, so they agree bit for bit, and the holder
never shows what the copy does not have. An entry is acknowledged when it is applied.
"""
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from hpclcae.parameter_server.header import BARRIER, INITIALISE, PUSH, Header
from hpclcae.parameter_server.store import compensates
from hpclcae.survive.wire import CHUNK, JOIN, LEAVE, RELEASE, SNAPSHOT, VERSIONS, Lost, Peer
from hpclcae.training.serving import Serving


class Entry(NamedTuple):
    """One change of a shard.

    header : Header
        `pushes` names the replica, `final` of a barrier the block (twice) and whether for ever.
    content : ndarray of uint8 (n,)
    applied : callable
        Called when it has been applied.
    """
    header: Header
    content: np.ndarray
    applied: Callable[[], None] = lambda: None


class Waiting(NamedTuple):
    """A fetch that waits for its answer: it comes after the first `after` entries."""
    peer: Peer
    replica: int
    header: Header
    have: np.ndarray
    after: int


class HeldShard:
    """One shard at one server.

    Parameters
    ----------
    serving : Serving
    is_holder : bool
        It answers workers; else it is the copy.
    part : int
        How many servers have been given the shard before.

    Attributes
    ----------
    copy_part : int
        The same of its copy.
    """

    def __init__(self, serving: Serving, is_holder: bool, part: int = 0) -> None:
        self.serving, self.store, self.is_holder = serving, serving.store, is_holder
        self.part, self.copy_part = part, -1
        self.copy: Peer | None = None      # where entries go first
        self.source: Peer | None = None    # of the copy: where they come from
        self._is_alone = True  # no copy has to have entries first
        self._entries: deque[Entry] = deque()  # the copy has not confirmed them
        self._submitted = self._applied = 0
        self._fetches: list[Waiting] = []

    # ---- entries ---------------------------------------------------------------------------------

    def submit(self, entry: Entry) -> None:
        """Let an entry happen, first at the copy."""
        self._submitted += 1
        if self._is_alone:
            self._apply(entry)
            return
        self._entries.append(entry)
        if self.copy:
            with suppress(Lost):  # the loop will see it, too
                self.copy.send(entry.header, entry.content, keep=True)

    def confirmed(self) -> None:
        """The copy has the oldest entry."""
        self._apply(self._entries.popleft())

    def lose_copy(self) -> None:
        """The copy has gone. Nothing happens until it is said that this is still the holder: the
        copy may have been told to take over."""
        self.copy = None

    def go_alone(self) -> None:
        """This is the holder, and there is no copy: what it may not have had happens here."""
        self.copy, self._is_alone = None, True
        while self._entries:
            self._apply(self._entries.popleft())

    def _apply(self, entry: Entry) -> None:
        self._applied += 1
        self.change(entry.header, entry.content)
        entry.applied()
        self.answer()

    def change(self, header: Header, content: np.ndarray) -> None:
        """Do what an entry says, at the holder or at the copy."""
        store, replica = self.store, header.pushes
        if header.kind == PUSH:
            gradient, *then = np.split(content.view(store.dtype), 1 + compensates(store.config))
            store.push(header.chunk, replica, header.clock, header.base, header.learning_rate,
                       gradient, *then)
        elif header.kind == INITIALISE:
            if header.chunk in store.missing:
                store.initialise(header.chunk, content.view(store.dtype))
        elif header.kind == BARRIER:
            block, final = divmod(header.final, 2)
            store.pause(replica, block, header.clock)
            if final:
                store.close(replica, block)
        elif header.kind == JOIN:
            store.join(replica, header.clock, header.base)
        elif header.kind == LEAVE:
            store.leave(replica, header.clock, header.base)
        elif header.kind == RELEASE:
            store.all_paused()
        else:
            raise AssertionError(header)

    # ---- fetches ---------------------------------------------------------------------------------

    def fetch(self, peer: Peer, replica: int, header: Header, content: np.ndarray) -> None:
        """A worker asks for its chunks, after what it has pushed before."""
        self._fetches.append(Waiting(peer, replica, header, content.view(np.int64),
                                     self._submitted))
        self.answer()

    def forget(self, peer: Peer) -> None:
        """A worker has gone."""
        self._fetches = [fetch for fetch in self._fetches if fetch.peer is not peer]

    def answer(self) -> None:
        """Answer what may be answered now, the oldest first."""
        for fetch in list(self._fetches):
            header = fetch.header
            if fetch.after > self._applied or not self.store.try_fetch(
                    fetch.replica, header.pushes, header.chunk, np.zeros_like(fetch.have)):
                continue
            self._fetches.remove(fetch)
            with suppress(Lost):  # the loop will see it, too
                self._send(fetch)

    def _send(self, fetch: Waiting) -> None:
        store, header = self.store, fetch.header
        changed = store.take_changed(fetch.replica, header.clock, header.chunk, fetch.have,
                                     header.base if header.final else None)
        now = store.versions[header.chunk:header.chunk + len(fetch.have)]
        fetch.peer.send(Header(VERSIONS), np.array([store.newest, *now], np.int64))
        for number in (header.chunk + np.flatnonzero(changed)).tolist():
            fetch.peer.send(Header(CHUNK, number), store.values[number])

    # ---- copies ----------------------------------------------------------------------------------

    def begin_copy(self, copy: Peer) -> None:
        """Send all that there is; what changes from here on follows as entries.

        Raises
        ------
        Lost
            The other server has gone.
        """
        store = self.store
        for index, values in enumerate(store.values):
            parts = [values, *(pieces[index] for pieces in store.state.values())]
            known = index not in store.missing
            copy.send(Header(SNAPSHOT, index, base=int(store.versions[index]), final=int(known)),
                      np.concatenate(parts))
        whole = {"newest": store.newest, **store.membership(), "pushed": store.pushed.tolist()}
        copy.send(Header(SNAPSHOT, -1), np.frombuffer(json.dumps(whole).encode(), np.uint8))
        self.copy, self._is_alone = copy, False

    def take_snapshot(self, header: Header, content: np.ndarray) -> bool:
        """At the copy: take a part of what there is; whether it was the last."""
        store = self.store
        if header.chunk >= 0:
            values, *state = np.split(content.view(store.dtype), 1 + len(store.state))
            if header.final:
                store.initialise(header.chunk, values, dict(zip(store.state, state)), header.base)
            return False
        told = json.loads(content.tobytes())
        store.newest = told["newest"]
        store.pushed[:] = told["pushed"]
        store.adopt_membership(told)
        return True

    def promote(self) -> None:
        """The copy takes over: what its source had sent and it has not read counts for nothing, as
        nobody was told that it had been applied."""
        self.is_holder, self.source = True, None
