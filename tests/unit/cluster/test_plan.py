"""Plans for a cluster: they fit it, and use it as well as they can."""
import pytest

from hpclcae import config as configuration
from hpclcae.cluster import memory, plan
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.parameter_server.roles import blocks_of, roles
from hpclcae.parameter_server.chunks import CHUNK_BYTES
from hpclcae.partition.blocks import Grid
from tests.support.processes import RUN

PAPER = configuration.load(RUN / "paper.toml")
DESK = configuration.load(RUN / "desk.toml")


@pytest.mark.parametrize("config", [PAPER, DESK], ids=["paper", "desk"])
@pytest.mark.parametrize("nodes, cores, replicas, servers",
                         [(1, 8, None, None), (4, 16, None, None), (5, 7, None, None),
                          (16, 8, 2, None), (16, 8, 3, 5), (3, 4, 1, 2)])
@pytest.mark.parametrize("placement", ["beside", "apart"])
def test_a_plan_fits_the_nodes_it_was_made_for(config, nodes, cores, replicas, servers, placement):
    config = configuration.loads(configuration.dumps(config), [f"parallel.placement={placement}"])
    if placement == "apart" and servers:
        servers = 2 * cores if replicas else servers  # whole nodes
    found = plan.choose(config, nodes, cores, 256e9, replicas, servers)
    assert found.nodes <= nodes and found.per_node <= cores
    assert found.ranks <= found.nodes * found.per_node
    assert found.replicas == (replicas or found.replicas)
    assert found.servers == (found.servers if servers is None else servers)
    assert found.servers or found.replicas == 1
    blocks = found.grid.size
    assert blocks_of(found.ranks, found.servers, found.replicas, blocks) == blocks
    names = [str(rank // found.per_node) for rank in range(found.ranks)]
    # it raises if servers do not fit
    roles(names, found.servers, found.replicas, blocks, found.placement)
    assert found.fullest_node <= memory.USABLE * 256e9 and 0 < found.computing <= found.step


def test_more_cores_are_never_slower():
    plans = [plan.choose(PAPER, nodes, 16, 256e9) for nodes in (1, 2, 4, 8, 16, 64)]
    rates = [found.replicas / found.step for found in plans]
    assert rates == sorted(rates) and rates[-1] > 10 * rates[0]


def test_one_replica_as_long_as_its_blocks_are_efficient_then_more():
    assert plan.choose(PAPER, 4, 16, 256e9).replicas == 1
    many = plan.choose(PAPER, 64, 48, 256e9)
    assert many.replicas > 1 and many.servers > 0
    assert many.computing >= plan.EFFICIENT * many.step


def test_parameters_of_a_block_are_those_that_the_network_allocates():
    for grid in (Grid(1, 1), Grid(2, 3)):
        for block in range(grid.size):
            allocated = Network(Layout(DESK, grid),
                                Peer(block, grid.size)).parameters().vector.nbytes
            assert memory.parameter_bytes(Layout(DESK, grid), block) == allocated


class Peer:
    """A communicator that nothing is sent with."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def channel(self, tag, sends, receives):
        raise AssertionError("nothing is exchanged")


def test_servers_share_what_they_hold():
    def held(servers, replicas=1):
        return memory.server_bytes(Layout(PAPER, Grid(4, 4)), servers, replicas) - memory.BARE_RANK
    assert held(1) == pytest.approx(4 * held(4), rel=0.01)
    assert memory.server_bytes(Layout(PAPER, Grid(4, 4)), 0, 1) == 0
    parameters = sum(memory.parameter_bytes(Layout(PAPER, Grid(4, 4)), block)
                     for block in range(16))
    # Momentum: parameters and velocity, twice while they are saved; and slots of each replica.
    assert held(1) == pytest.approx(4 * parameters, rel=0.1)
    slots = PAPER.parallel.slots * CHUNK_BYTES
    assert held(1, 3) - held(1) == pytest.approx(2 * slots)
