"""Where worlds run: on nodes with room, servers apart, none where one has just failed."""
import contextlib
import itertools
import signal

import pytest

from hpclcae.survive import nodes as where
from hpclcae.survive.nodes import Launcher, Node, Nodes, Srun, allocated, counts, named, own_address
from hpclcae.survive.part import Part
from hpclcae.utils.errors import InputError


class Sleep(Launcher):
    """Starts what does nothing, here."""
    is_here, last_word = False, signal.SIGKILL

    def command(self, nodes, ranks, program):
        return program, {}


@pytest.fixture
def cluster():
    """Makes nodes with so many slots each; returns what starts a world and says where."""
    with contextlib.ExitStack() as stack:
        def make(*slots):
            nodes = stack.enter_context(contextlib.closing(Nodes(
                [Node(f"n{number}", "127.0.0.1", count) for number, count in enumerate(slots)],
                Sleep())))

            numbers = itertools.count()

            def start(kind, ranks=1, number=None):
                part = Part((nodes.address, 1), "token", kind,
                            next(numbers) if number is None else number, 1)
                return nodes.start(part, ranks, ["sleep", "100"])
            return nodes, start
        yield make


def names(world):
    return " ".join(world.nodes)


def test_worlds_are_dealt_to_nodes_with_room_and_come_back_to_them(cluster):
    nodes, start = cluster(2, 2, 1)
    servers = [start("server") for _ in range(2)]
    assert [*map(names, servers)] == ["n0", "n1"]
    replicas = [start("replica") for _ in range(3)]
    assert [*map(names, replicas)] == ["n0", "n1", "n2"]
    replicas[1].kill()
    while not replicas[1].see_off(0.0):
        pass
    assert names(start("replica")) == "n1"


def test_what_has_died_goes_elsewhere_if_there_is_room_and_back_if_there_is_not(cluster):
    """Its node may be gone; if it is not, its cores are free."""
    _, start = cluster(1, 1, 1)
    first, _ = start("replica", number=7), start("server")
    for expected in ("n2", "n0"):
        first.kill()
        while not first.see_off(0.0):
            pass
        assert names(first := start("replica", number=7)) == expected
    other = start("replica")
    assert names(other) == "n2"
    first.kill()
    while not first.see_off(0.0):
        pass
    assert names(start("replica", number=7)) == "n0"


def test_a_world_gets_as_few_nodes_as_have_room_for_its_ranks(cluster):
    _, start = cluster(1, 2, 2, 1)
    assert names(start("replica", 2)) == "n1"
    assert names(start("replica", 3)) == "n2 n0"


def test_servers_are_apart_and_share_cores_where_there_is_no_room(cluster):
    _, start = cluster(4, 1)
    assert names(start("replica")) == names(start("replica")) == "n0"
    assert {names(start("server")), names(start("server"))} == {"n0", "n1"}
    assert names(start("replica")) == "n0"
    assert names(start("replica", 2)) == "n0"  # four slots, all taken
    assert names(start("replica", 5)) == "n0 n1"


def test_a_node_where_one_failed_is_the_last_choice_for_a_while(cluster, monkeypatch):
    nodes, start = cluster(2, 2)
    assert names(first := start("replica")) == "n0"
    nodes.doubt(first)
    assert [names(start("replica")) for _ in range(3)] == ["n1"] * 3
    monkeypatch.setattr(where, "DOUBT_SECONDS", -1.0)
    nodes.doubt(first)
    assert names(start("replica")) == "n0"
    monkeypatch.undo()
    for world in (first, start("replica", 2), start("server")):
        nodes.doubt(world)
    assert all(node.doubted for node in nodes.all) and start("replica", 4).nodes  # all: then any


def test_what_slurm_says():
    assert counts("2(x3),1") == [2, 2, 2, 1] and counts("4") == [4]
    assert allocated({}) is None
    assert allocated({"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1"}) is None


def test_the_nodes_of_an_allocation_and_the_line_that_starts_a_world_there(monkeypatch):
    said = ("NodeName=a Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName=h State=IDLE\n"
            "NodeName=b Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName=h State=DOWN*\n")
    monkeypatch.setattr(where, "_ask", lambda *words: said)
    nodes = allocated({"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2",
                       "SLURM_JOB_NODELIST": "[a-b]", "SLURM_TASKS_PER_NODE": "3,1"})
    assert [(node.name, node.slots) for node in nodes.all] == [("a", 3), ("b", 1)]
    assert nodes.slots == 4 and not nodes.is_here and nodes.address == "127.0.0.1"
    words, _ = Srun().command(nodes.all, 3, ["program", "word"])
    assert words[0] == "srun" and words[-2:] == ["program", "word"]
    assert {"--nodelist=a,b", "--nodes=2", "--ntasks=3", "--overlap"} < {*words}
    monkeypatch.setattr(where, "_ask", lambda *words: "Node x not found")
    with pytest.raises(InputError, match="Node x not found"):
        allocated({"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "x"})


def test_hosts_by_name(monkeypatch):
    monkeypatch.setattr(where, "find_mpiexec", lambda: "mpiexec")
    monkeypatch.setattr(where, "_ask", lambda *words: "HYDRA build details")
    nodes = named("127.0.0.1:3,localhost")
    assert [(n.name, n.address) for n in nodes.all] == [("127.0.0.1", "127.0.0.1"),
                                                        ("localhost", "127.0.0.1")]
    assert nodes.all[0].slots == 3 and nodes.all[1].slots >= 1
    for text, wrong in (("localhost:0", "localhost:0"), ("a b:1", "a b"), (",", "''"),
                        ("localhost,localhost", "twice")):
        with pytest.raises(InputError, match=wrong):
            named(text)
    monkeypatch.setattr(where, "_ask", lambda *words: "mpirun (Open MPI) 5.0")
    with pytest.raises(InputError, match="neither MPICH"):
        named("localhost")


def test_an_address_that_leads_nowhere_else_is_the_last_choice():
    assert own_address(["127.0.0.1"]) == "127.0.0.1"
    with pytest.raises(InputError, match="no way"):
        own_address([])
