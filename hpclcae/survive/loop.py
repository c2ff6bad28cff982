"""One loop over the sockets of a process: whoever connects, speaks, takes, or goes."""
import secrets
import selectors
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from hpclcae.parameter_server.header import Header
from hpclcae.survive.wire import GREETING, LARGEST, TEXT, Lost, Peer, listener, text_in


class Loop(ABC):
    """Listens, and keeps its peers; a subclass says what becomes of frames and of losses.

    Whoever connects is a stranger until its first frame has the token of the job.

    Parameters
    ----------
    token : str
    host : str
        Address of this machine that others reach it by.

    Attributes
    ----------
    address : (str, int)
        Where it listens.
    peers : dict of Peer to int
        Those that are connected, and what is waited for on each.
    """

    def __init__(self, token: str, host: str = "127.0.0.1") -> None:
        self.token, self._listener = token, listener(host)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.peers: dict[Peer, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    @abstractmethod
    def greet(self, peer: Peer, told: dict[str, Any]) -> None:
        """One that knows the token says who it is; `peer.about` stays None: it may go again."""

    @abstractmethod
    def take(self, peer: Peer, header: Header, rest: np.ndarray) -> None:
        """A frame has come."""

    @abstractmethod
    def lose(self, peer: Peer) -> None:
        """A peer has gone."""

    def keep(self, peer: Peer) -> Peer:
        """Listen to a peer."""
        self._selector.register(peer.socket, selectors.EVENT_READ, peer)
        self.peers[peer] = selectors.EVENT_READ
        return peer

    def drop(self, peer: Peer) -> None:
        """Hear a peer no more."""
        if peer in self.peers:
            del self.peers[peer]
            self._selector.unregister(peer.socket)
            peer.close()

    def turn(self, seconds: float) -> None:
        """Send what waits, and take what has come, within so many seconds."""
        for peer, mask in self.peers.items():
            wanted = selectors.EVENT_READ | selectors.EVENT_WRITE * peer.is_sending
            if wanted != mask:
                self._selector.modify(peer.socket, wanted, peer)
                self.peers[peer] = wanted
        for key, mask in self._selector.select(seconds):
            if key.data is None:
                self._accept()
            elif key.data in self.peers:
                self._serve(key.data, mask)

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        self.keep(Peer(connected, largest=GREETING))

    def _admit(self, peer: Peer, header: Header, rest: np.ndarray) -> None:
        """The first frame of a connection."""
        try:
            told = text_in(rest) if header.kind == TEXT else {}
            knows = secrets.compare_digest(str(told.get("token")).encode(), self.token.encode())
        except (ValueError, AttributeError):
            knows = False
        if knows:
            peer.largest = LARGEST
            self.greet(peer, told)
        if peer.about is None:
            self.drop(peer)

    def _serve(self, peer: Peer, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                peer.flush()
            if mask & selectors.EVENT_READ:
                for header, rest in peer.receive():
                    if peer.about is None:
                        self._admit(peer, header, rest)
                    else:
                        self.take(peer, header, rest)
                    if peer not in self.peers:
                        return
        except Lost:
            self.lose(peer)

    def close(self) -> None:
        """Let go of all."""
        for peer in list(self.peers):
            self.drop(peer)
        self._listener.close()
        self._selector.close()
