"""Frames over a socket: what servers, replicas and the supervisor of a surviving job say.

A frame is the header of 64 bytes that messages and mail have (parameter_server/header.py), then
what belongs to it. A peer that is dead closes its socket, so it is known at once, whatever was
under way; no frame is ever half applied.
"""
import errno
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hpclcae.parameter_server.header import HEADER, Header

#: Kinds of frames that only sockets carry, beside those of messages.
TEXT, VERSIONS, CHUNK, ACKNOWLEDGED, SNAPSHOT, JOIN, LEAVE, RELEASE, CONFIRMED = range(16, 25)
_BUFFER = 4 << 20  # bytes that the system may hold of what was sent or has arrived
_LAST_ACK = 56  # offset of tcpi_last_ack_recv, milliseconds, in <linux/tcp.h>'s tcp_info
_FRAMES = 64  # that are taken of one peer in a row
LARGEST = 1 << 40  # bytes of a frame: more is no frame of ours
#: Bytes of the first frame of a connection: it says who connects, who is a stranger until then.
GREETING = 4096

Place = Callable[[Header], np.ndarray | None]


class Lost(Exception):
    """The peer has gone."""


class Peer:
    """One end of a connection; nothing waits in it.

    Parameters
    ----------
    connected : socket
    place : callable, optional
        place(header) says where what follows a header goes, as uint8 (n,); None: into new memory.
    largest : int
        Bytes that a frame of the peer may have.

    Attributes
    ----------
    about : object
        Who it is, for whoever keeps it.
    """

    def __init__(self, connected: socket.socket, place: Place = lambda header: None,
                 largest: int = LARGEST) -> None:
        self.socket, self._place, self.largest = connected, place, largest
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connected.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._out: deque[memoryview] = deque()
        self._head, self._got = np.empty(HEADER, np.uint8), 0
        self._header: Header | None = None
        self._rest = np.empty(0, np.uint8)
        self.about: Any = None

    @classmethod
    def to(cls, address: tuple[str, int], place: Place = lambda header: None) -> "Peer":
        """Connect to a listener; waits for it, for at most 10 s.

        Raises
        ------
        Lost
            Nobody listens.
        """
        try:
            return cls(socket.create_connection(address, timeout=10), place)
        except OSError as error:
            raise Lost(str(error)) from error

    @classmethod
    def towards(cls, address: tuple[str, int], place: Place = lambda header: None) -> "Peer":
        """Begin to connect, without waiting: its host may be silent. What is sent meanwhile goes
        when the connection is there; that it has failed shows when the peer is read.

        Raises
        ------
        Lost
            There is no way there.
        """
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        code = made.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            made.close()
            raise Lost(os.strerror(code))
        return cls(made, place)

    @property
    def silent(self) -> float:
        """Seconds since the system of the other host has last acknowledged what was sent; 0 where
        there is no Linux.

        For who sends something all the time. Not the program acknowledges: one that is busy or
        stopped is not silent.
        """
        if not hasattr(socket, "TCP_INFO"):
            return 0.0
        told = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK + 4)
        return int.from_bytes(told[_LAST_ACK:_LAST_ACK + 4], sys.byteorder) / 1000

    def bound_silence(self, seconds: float) -> None:
        """Let the system give up the connection when nothing is acknowledged for so long (Linux).

        For who sends now and then. Where this host's own link is gone, so that nothing can be sent,
        the system may take much longer: then see `silent`.
        """
        if not hasattr(socket, "TCP_USER_TIMEOUT"):
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        every = max(1, int(seconds / 4))
        for option, value in ((socket.TCP_KEEPIDLE, every), (socket.TCP_KEEPINTVL, every),
                              (socket.TCP_USER_TIMEOUT, int(1000 * seconds))):
            self.socket.setsockopt(socket.IPPROTO_TCP, option, value)

    # ---- sending ---------------------------------------------------------------------------------

    def send(self, header: Header, content: np.ndarray | None = None, keep: bool = False) -> None:
        """Send a frame, or what of it does not go at once later (`flush`).

        keep : bool
            The content stays as it is until it has left; else it is copied if need be.

        Raises
        ------
        Lost
            The peer has gone.
        """
        head = np.empty(HEADER, np.uint8)
        content = np.empty(0, np.uint8) if content is None else content.reshape(-1).view(np.uint8)
        header.write(head, content.size)
        self._out.append(head.data)
        if content.size:
            self._out.append(content.data)
        waiting = len(self._out)
        self.flush()
        if self._out and content.size and not keep:
            if len(self._out) <= waiting:
                self._out[-1] = memoryview(bytes(self._out[-1]))

    def say(self, **content: Any) -> None:
        """Send a text frame."""
        self.send(Header(TEXT), np.frombuffer(json.dumps(content).encode(), np.uint8), keep=True)

    @property
    def is_sending(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    def flush(self) -> None:
        """Send what goes without waiting.

        Raises
        ------
        Lost
            The peer has gone.
        """
        try:
            while self._out:
                sent = self.socket.send(self._out[0])
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                    return
                self._out.popleft()
        except BlockingIOError:
            return
        except OSError as error:
            raise Lost(str(error)) from error

    # ---- receiving -------------------------------------------------------------------------------

    def receive(self) -> Iterator[tuple[Header, np.ndarray]]:
        """The frames that have arrived whole: header, and what follows as uint8 (n,).

        Raises
        ------
        Lost
            The peer has gone; what it sent before has been returned.
        """
        for _ in range(_FRAMES):
            if self._header is None:
                if not self._fill(self._head):
                    return
                self._header = Header.read(self._head)[0]
                size = int(self._head[56:HEADER].view(np.int64)[0])
                if not 0 <= size <= self.largest:
                    raise Lost("what arrived is no frame")
                into = self._place(self._header)
                self._rest = np.empty(size, np.uint8) if into is None else into
                assert self._rest.size == size, (self._header, size)
            if not self._fill(self._rest):
                return
            header, self._header = self._header, None
            yield header, self._rest

    def _fill(self, into: np.ndarray) -> bool:
        """Receive into what is left of an array; whether it is full."""
        try:
            while self._got < into.size:
                got = self.socket.recv_into(into.data[self._got:])
                if not got:
                    raise Lost("it closed the connection")
                self._got += got
        except BlockingIOError:
            return False
        except OSError as error:
            raise Lost(str(error)) from error
        self._got = 0
        return True

    def close(self) -> None:
        """Let go of it."""
        self._out.clear()
        self.socket.close()


def text_in(rest: np.ndarray) -> dict[str, Any]:
    """What a text frame says."""
    found: dict[str, Any] = json.loads(rest.tobytes())
    return found


def listener(host: str = "127.0.0.1") -> socket.socket:
    """A socket that others connect to, at a free port."""
    made = socket.create_server((host, 0), backlog=1024)
    made.setblocking(False)
    return made
