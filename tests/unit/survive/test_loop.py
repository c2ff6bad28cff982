"""Whoever connects is a stranger until its first frame has the token of the job."""
import contextlib
import socket

import numpy as np
import pytest

from hpclcae.parameter_server.header import HEADER, PUSH, Header
from hpclcae.survive.loop import Loop
from hpclcae.survive.wire import GREETING, TEXT, Lost, Peer


class Door(Loop):
    """Lets in whoever is wanted, and remembers what came."""

    def __init__(self):
        super().__init__("secret")
        self.told, self.lost, self.wanted = [], 0, True

    def greet(self, peer, told):
        if self.wanted:
            peer.about = told["role"]

    def take(self, peer, header, rest):
        self.told.append((peer.about, header.kind, rest.size))

    def lose(self, peer):
        self.lost += 1
        self.drop(peer)


@pytest.fixture
def door():
    with contextlib.closing(Door()) as door:
        yield door


def visit(door, *frames):
    """Connect and send; whether the door has closed the connection."""
    with contextlib.closing(Peer.to(door.address)) as visitor:
        with contextlib.suppress(Lost):
            for frame in frames:
                frame(visitor)
        for _ in range(20):
            door.turn(0.01)
        try:
            list(visitor.receive())
        except Lost:
            return True
        return False


def test_one_that_knows_the_token_is_heard(door):
    assert not visit(door, lambda peer: peer.say(token="secret", role="tool"),
                     lambda peer: peer.send(Header(PUSH), np.zeros(10 * GREETING, np.uint8)))
    assert door.told == [("tool", PUSH, 10 * GREETING)]


@pytest.mark.parametrize("frame", [
    lambda peer: peer.say(token="guess", role="tool"),
    lambda peer: peer.say(token=None),
    lambda peer: peer.say(role="tool"),
    lambda peer: peer.send(Header(TEXT), np.frombuffer(b"not json", np.uint8)),
    lambda peer: peer.send(Header(TEXT), np.frombuffer(b"\xff\xfe", np.uint8)),
    lambda peer: peer.send(Header(TEXT), np.frombuffer(b"[1]", np.uint8)),
    lambda peer: peer.send(Header(PUSH), np.zeros(8)),
    lambda peer: peer.say(token="secret", role="tool", more="x" * GREETING),
    lambda peer: peer.socket.send(b"GET / HTTP/1.1\r\n\r\n" + b"x" * HEADER)])
def test_strangers_are_let_go_and_nothing_that_they_say_is_taken(door, frame):
    assert visit(door, frame, lambda peer: peer.send(Header(PUSH), np.zeros(8)))
    assert not door.told and not door.peers


def test_one_that_is_not_wanted_any_more_is_let_go(door):
    door.wanted = False
    assert visit(door, lambda peer: peer.say(token="secret", role="server"))


def test_it_listens_where_it_is_told_to():
    with contextlib.closing(Door()) as door:
        assert door.address[0] == "127.0.0.1"
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", door.address[1]), timeout=1)
