"""One loop over the sockets of a process: whoever connects, speaks, takes, or goes."""
import selectors
from abc import ABC, abstractmethod

import numpy as np

from hpclcae.parameter_server.header import Header
from hpclcae.survive.wire import Lost, Peer, listener


class Loop(ABC):
    """Listens, and keeps its peers; a subclass says what becomes of frames and of losses.

    Attributes
    ----------
    address : (str, int)
        Where it listens.
    peers : dict of Peer to int
        Those that are connected, and what is waited for on each.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._listener = listener(host)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.peers: dict[Peer, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

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
        self.keep(Peer(connected))

    def _serve(self, peer: Peer, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                peer.flush()
            if mask & selectors.EVENT_READ:
                for header, rest in peer.receive():
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
