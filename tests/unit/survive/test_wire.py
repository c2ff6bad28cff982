"""Frames over a socket: whole, in order, in one piece, or the peer is lost."""
import contextlib
import sys
import time

import numpy as np
import pytest

from hpclcae.parameter_server.header import FETCH, PUSH, Header
from hpclcae.survive.wire import CHUNK, Lost, Peer, listener, text_in


@pytest.fixture
def pair():
    """Makes two ends of a connection."""
    with contextlib.ExitStack() as stack:
        def make(**options):
            listening = stack.enter_context(contextlib.closing(listener()))
            one = stack.enter_context(contextlib.closing(Peer.to(listening.getsockname())))
            listening.setblocking(True)
            other = Peer(listening.accept()[0], **options)
            return one, stack.enter_context(contextlib.closing(other))
        yield make


def received(peer, sender=None, count=1):
    """The next `count` frames."""
    found = []
    while len(found) < count:
        if sender:
            sender.flush()
        found += [(header, rest.copy()) for header, rest in peer.receive()]
    return found


def test_frames_arrive_whole_and_in_order(pair):
    one, other = pair()
    one.say(kind="hello", number=3)
    one.send(Header(PUSH, 7, 5, learning_rate=0.5), np.arange(5.0))
    one.send(Header(FETCH, 1))
    (_, first), (push, gradient), (fetch, nothing) = received(other, count=3)
    assert text_in(first) == {"kind": "hello", "number": 3}
    assert push == Header(PUSH, 7, 5, learning_rate=0.5)
    assert gradient.view(np.float64).tolist() == [0, 1, 2, 3, 4]
    assert fetch.kind == FETCH and not nothing.size


def test_what_does_not_go_at_once_is_what_it_was_when_it_was_sent(pair):
    one, other = pair()
    values = np.ones(20_000_000)
    one.send(Header(CHUNK), values)
    assert one.is_sending
    values[:] = 2
    [(_, rest)] = received(other, one)
    assert not one.is_sending and (rest.view(np.float64) == 1).all()


def test_a_chunk_arrives_where_it_belongs(pair):
    into = np.zeros(4)
    one, other = pair(place=lambda header: into.view(np.uint8) if header.kind == CHUNK else None)
    one.send(Header(CHUNK), np.arange(4.0))
    received(other)
    assert into.tolist() == [0, 1, 2, 3]


def test_a_peer_that_ends_in_the_middle_of_a_frame_is_lost_and_the_frame_too(pair):
    one, other = pair()
    one.send(Header(PUSH), np.ones(20_000_000))
    one.close()
    with pytest.raises(Lost):
        while True:
            assert list(other.receive()) == []


def test_what_is_no_frame_is_refused(pair):
    one, other = pair()
    one.socket.send(b"GET / HTTP/1.1\r\n" * 8)
    with pytest.raises(Lost, match="no frame"):
        while True:
            assert list(other.receive()) == []


def test_a_way_to_a_host_that_does_not_answer_is_not_waited_for(pair):
    """What is sent goes when the connection is there; where nobody listens, reading tells."""
    with contextlib.closing(listener()) as listening:
        address = listening.getsockname()
        with contextlib.closing(Peer.towards(address)) as one:
            one.bound_silence(5)
            one.say(kind="hello")
            listening.setblocking(True)
            with contextlib.closing(Peer(listening.accept()[0])) as other:
                [(_, rest)] = received(other, one)
                assert text_in(rest) == {"kind": "hello"}
    with pytest.raises(Lost):
        with contextlib.closing(Peer.towards(address)) as one:
            while True:
                list(one.receive())
    with contextlib.suppress(Lost):  # no network at all
        with contextlib.closing(Peer.towards(("192.0.2.77", 9))) as silent:  # leads nowhere
            silent.say(kind="hello")
            assert silent.is_sending and list(silent.receive()) == []


def test_a_peer_whose_system_acknowledges_is_not_silent_whatever_its_program_does(pair):
    one, other = pair()
    time.sleep(0.3)
    quiet = one.silent
    one.say(kind="here")  # nobody reads it
    deadline = time.monotonic() + 10
    while sys.platform == "linux" and one.silent >= quiet:
        assert time.monotonic() < deadline
    assert 0 <= one.silent <= quiet + 10 and other.silent >= 0


def test_a_frame_that_is_longer_than_allowed_is_refused(pair):
    one, other = pair(largest=100)
    one.send(Header(PUSH), np.zeros(13))
    with pytest.raises(Lost, match="no frame"):
        while True:
            assert list(other.receive()) == []
