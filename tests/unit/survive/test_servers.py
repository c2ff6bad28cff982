"""Which server has what shard, and when a holder may go on without its copy."""
import types
from pathlib import Path

import pytest

from hpclcae.survive.servers import Restart, Servers
from hpclcae.utils.errors import InputError


class Cluster:
    """Servers on nodes; what they are told is kept."""

    def __init__(self, *nodes):
        self.nodes, self.told = nodes, []
        self.servers = Servers(len(nodes), True, Path("step-7"), self.begin, self.say, 20.0,
                               tries=3)
        self.starts = set()
        for number in range(len(nodes)):
            self.start(number)
        for number in range(len(nodes)):
            self.hear(number, "serves", number)

    def begin(self, number, life):
        return types.SimpleNamespace(part=types.SimpleNamespace(life=life), pid=number, code=None,
                                     nodes=(self.nodes[number],), kill=lambda: None)

    def say(self, peer, **content):
        self.told.append((peer, content["kind"], content.get("shard")))
        if content["kind"] == "serve":
            self.starts.add((content["holds"], content["start"]))

    def start(self, number):
        self.servers.start(number)
        assert self.servers.greet(number, {
            "number": number, "life": self.servers.processes[number].world.part.life, "pid": 1,
            "node": "", "address": ["here", number]})
        self.servers.assign()

    def hear(self, number, kind, shard, part=None):
        """A server says something of the shard that it has."""
        state = self.servers.shards[shard]
        if self.servers.take(number, {"kind": kind, "shard": shard, "part": (
                state.copy_part if part is None else part)}):
            self.servers.assign()

    def copied(self, shard):
        state = self.servers.shards[shard]
        self.hear(state.copy, "serves", shard)
        self.hear(state.holder, "copied", shard)


def test_a_copy_is_on_another_node_where_there_is_one():
    assert Cluster("a", "a", "b").servers.shards[0].copy == 2
    cluster = Cluster("a", "a")
    assert cluster.servers.shards[0].copy == 1
    assert cluster.starts == {(True, "step-7"), (False, "step-7")}


def test_the_holder_is_told_that_its_copy_is_gone_whoever_notices_it_first():
    cluster = Cluster("a", "b", "c")
    for shard in range(3):
        cluster.copied(shard)
    copy, part, cluster.told = (cluster.servers.shards[0].copy, cluster.servers.shards[0].copy_part,
                                [])
    cluster.servers.remove(copy)
    cluster.servers.take_over(copy, True)
    assert (0, "alone", 0) in cluster.told
    cluster.start(copy)
    assert cluster.servers.shards[0].copy is not None
    newer = cluster.servers.shards[0].copy_part
    cluster.hear(0, "alone", 0, part)  # late, and of the copy before
    cluster.hear(0, "copied", 0, part)
    shard = cluster.servers.shards[0]
    assert shard.copy_part == newer > part and not shard.is_copied


def test_a_holder_that_says_so_goes_alone_and_gets_another_copy():
    cluster = Cluster("a", "b")
    cluster.copied(0)
    part, cluster.told = cluster.servers.shards[0].copy_part, []
    cluster.hear(0, "alone", 0, part)
    assert cluster.told[0] == (0, "alone", 0)
    assert cluster.servers.shards[0].copy == 1 and cluster.servers.shards[0].copy_part > part
    cluster.hear(1, "alone", 0)  # it is not the holder
    assert cluster.servers.shards[0].copy == 1


def test_a_copy_that_has_not_all_does_not_take_over():
    cluster = Cluster("a", "b")
    cluster.servers.remove(0)
    with pytest.raises(Restart, match="shard 0"):
        cluster.servers.take_over(0, True)


def test_a_server_that_never_comes_is_not_started_for_ever():
    cluster = Cluster("a")
    for _ in range(3):
        cluster.servers.start(0)
    with pytest.raises(InputError, match="server 0 does not start"):
        cluster.servers.start(0)
