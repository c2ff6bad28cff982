"""Who does what in a job with servers."""
from collections import Counter

import pytest

from hpclcae.parameter_server.roles import Role, blocks_of, joint_step, roles
from hpclcae.utils.errors import InputError

BLOCKWISE = ["a"] * 4 + ["b"] * 4 + ["c"] * 4   # as srun deals ranks out
CYCLIC = ["a", "b", "c"] * 4                    # as mpiexec -hosts does
UNEVEN = ["a"] * 6 + ["b"] * 1 + ["c"] * 5


def check(found, servers, replicas, blocks):
    """Every role is taken once."""
    assert Counter(found) == Counter([*(Role(server=s) for s in range(servers)),
                                      *(Role(replica=r, block=b) for r in range(replicas)
                                        for b in range(blocks))])


@pytest.mark.parametrize("nodes", [["a"] * 12, BLOCKWISE, CYCLIC, UNEVEN],
                         ids=["one", "blockwise", "cyclic", "uneven"])
@pytest.mark.parametrize("servers, replicas, blocks",
                         [(1, 11, 1), (2, 5, 2), (3, 3, 3), (4, 2, 4), (11, 1, 1)])
def test_servers_beside_workers(nodes, servers, replicas, blocks):
    found = roles(nodes, servers, replicas, blocks)
    check(found, servers, replicas, blocks)
    held = Counter(node for node, role in zip(nodes, found) if role.server is not None)
    sizes = Counter(nodes)
    for node in sizes:  # spread evenly, as far as a node has ranks
        for other in sizes:
            assert held[node] <= held[other] + 1 or held[other] == sizes[other]
    order = [role for node in dict.fromkeys(nodes) for where, role in zip(nodes, found)
             if where == node and role.server is None]
    # node by node: neighbours stay together
    assert order == sorted(order, key=lambda role: (role.replica, role.block))


def test_one_node_has_its_servers_last():
    assert list(map(str, roles(["a"] * 5, 1, 2, 2))) == ["replica 0 block 0", "replica 0 block 1",
                                                         "replica 1 block 0", "replica 1 block 1",
                                                         "server 0"]


def test_blocks_of_a_replica_share_a_node_where_ranks_are_dealt_out_in_turn():
    found = roles(["a", "b", "a", "b", "a", "b"], 2, 2, 2)
    assert list(map(str, found)) == ["replica 0 block 0", "replica 1 block 0", "replica 0 block 1",
                                     "replica 1 block 1", "server 0", "server 1"]


@pytest.mark.parametrize("nodes, servers, replicas, blocks, serving", [
    (BLOCKWISE, 4, 2, 4, {"c"}), (CYCLIC, 4, 4, 2, {"c"}), (BLOCKWISE, 8, 1, 4, {"b", "c"}),
    (UNEVEN, 5, 7, 1, {"c"}), (["a", "b"], 1, 1, 1, {"b"})])
def test_servers_apart_have_whole_nodes(nodes, servers, replicas, blocks, serving):
    found = roles(nodes, servers, replicas, blocks, "apart")
    check(found, servers, replicas, blocks)
    assert {node for node, role in zip(nodes, found) if role.server is not None} == serving
    assert {node for node, role in zip(nodes, found) if role.server is None} == set(nodes) - serving


@pytest.mark.parametrize("nodes, servers, replicas, blocks, shared", [
    (["a"] * 3, 1, 2, 1, "a"), (BLOCKWISE, 3, 9, 1, "c"), (CYCLIC, 6, 3, 2, "b")])
def test_a_node_with_servers_and_workers_is_not_apart(nodes, servers, replicas, blocks, shared):
    with pytest.raises(InputError, match=f"'apart': node {shared} would have servers and workers; "
                       ".*'beside'") as error:
        roles(nodes, servers, replicas, blocks, "apart")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ranks, servers, replicas, blocks, found", [
    (2, 1, 1, None, 1), (5, 1, 2, None, 2), (5, 1, 2, 2, 2), (3 + 169, 3, 1, None, 169),
    (256 + 169, 256, 1, 169, 169), (12, 4, 2, 4, 4)])
def test_blocks_are_what_the_ranks_leave(ranks, servers, replicas, blocks, found):
    assert blocks_of(ranks, servers, replicas, blocks) == found


@pytest.mark.parametrize("ranks, servers, replicas, blocks, sizes",
                         [(4, 1, 2, None, "3, 5, 7, 9, ..."), (2, 2, 1, None, "3, 4, 5, 6, ..."),
                          (1, 1, 1, None, "2, 3, 4, 5, ..."), (3, 1, 2, 2, "5:"),
                          (12, 1, 2, 2, "5:"), (2, 5, 3, None, "8, 11, 14, 17, ...")])
def test_a_size_that_does_not_fit_is_told_those_that_do(ranks, servers, replicas, blocks, sizes):
    with pytest.raises(InputError) as error:
        blocks_of(ranks, servers, replicas, blocks)
    said = str(error.value)
    assert said.startswith(f"{ranks} processes were "
                           "launched; ") and f"need {sizes}" in said and "\n" not in said
    with pytest.raises(InputError, match=f"{ranks} processes were launched"):
        roles(["a"] * ranks, servers, replicas, blocks or 1)


def test_the_joint_step_grows_with_every_replica_and_ends_with_the_last():
    assert joint_step([7]) == 7 and joint_step([10, 10, 10]) == 10 and joint_step([10, 10, 9]) == 9
    assert joint_step([3, 4]) <= joint_step([4, 4]) <= joint_step([4, 6])
