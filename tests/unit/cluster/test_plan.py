"""hpclcae plan: layouts that fit, and the line to submit them with."""
import argparse
import shlex

import pytest

from hpclcae import config as configuration
from hpclcae.cluster import plan
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.parameter_server.roles import blocks_of, roles
from hpclcae.partition.blocks import Grid
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN

PAPER = configuration.load(RUN / "paper.toml")
DESK = configuration.load(RUN / "desk.toml")


@pytest.mark.parametrize("config", [PAPER, DESK], ids=["paper", "desk"])
@pytest.mark.parametrize("nodes, cores, replicas, servers",
                         [(1, 8, None, None), (4, 16, None, None), (5, 7, None, None),
                          (16, 8, 2, None), (16, 8, 3, 5), (3, 4, 1, 2)])
@pytest.mark.parametrize("placement", ["beside", "apart"])
def test_a_layout_fits_the_nodes_it_was_made_for(config, nodes, cores, replicas, servers,
                                                 placement):
    config = configuration.loads(configuration.dumps(config), [f"parallel.placement={placement}"])
    if placement == "apart" and servers:
        servers = 2 * cores if replicas else servers  # whole nodes
    layout = plan.choose(config, nodes, cores, 256e9, replicas, servers)
    assert layout.nodes <= nodes and layout.per_node <= cores and layout.ranks <= layout.nodes * layout.per_node
    assert layout.replicas == (replicas or layout.replicas) and layout.servers == (
        layout.servers if servers is None else servers)
    assert layout.servers or layout.replicas == 1
    assert blocks_of(layout.ranks, layout.servers, layout.replicas,
                     layout.grid.size) == layout.grid.size
    names = [str(rank // layout.per_node) for rank in range(layout.ranks)]
    # raises if servers do not fit
    roles(names, layout.servers, layout.replicas, layout.grid.size, placement)
    assert layout.fullest_node <= plan.USABLE * 256e9 and 0 < layout.computing <= layout.step


def test_more_cores_are_never_slower():
    rates = [layout.replicas / layout.step for nodes in (1, 2, 4, 8, 16, 64)
             for layout in [plan.choose(PAPER, nodes, 16, 256e9)]]
    assert rates == sorted(rates) and rates[-1] > 10 * rates[0]


def test_one_replica_as_long_as_its_blocks_are_efficient_then_more():
    assert plan.choose(PAPER, 4, 16, 256e9).replicas == 1
    many = plan.choose(PAPER, 64, 48, 256e9)
    assert many.replicas > 1 and many.servers > 0
    assert many.computing >= plan.EFFICIENT * many.step


def test_parameters_of_a_block_are_those_that_the_network_allocates():
    for grid in (Grid(1, 1), Grid(2, 3)):
        for block in range(grid.size):
            bytes_allocated = Network(Layout(DESK, grid), Peer(block, grid.size)).parameters().vector.nbytes
            assert plan.parameter_bytes(DESK, grid, block) == bytes_allocated


class Peer:
    """A communicator that nothing is sent with."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def channel(self, tag, sends, receives):
        raise AssertionError("nothing is exchanged")


def test_servers_share_what_they_hold():
    def held(servers, replicas=1):
        return plan.server_bytes(PAPER, Grid(4, 4), servers, replicas) - plan.BARE_RANK
    assert held(1) == pytest.approx(4 * held(4)) and plan.server_bytes(PAPER, Grid(4, 4), 0, 1) == 0
    parameters = sum(plan.parameter_bytes(PAPER, Grid(4, 4), block) for block in range(16))
    # Momentum: parameters and velocity, twice while they are saved; and what each replica is sent.
    assert held(1) == pytest.approx(5 * parameters, rel=0.1)
    assert held(1, 3) == pytest.approx(7 * parameters, rel=0.1)


@pytest.mark.parametrize("words, message",
                         [(["--nodes", 1, "--cores", 2, "--memory", 16],
                           r"needs [\d.]+ GB on the fullest node, 14.4 of 16 GB can be used"),
                          (["--nodes", 1, "--cores", 2, "--memory", 999, "--replicas", 9],
                           "2 ranks are too few for the servers and 9"),
                          (["--nodes", 1, "--cores", 2, "--memory", 0], "--memory 0"),
                          (["--nodes", 9, "--cores", 2, "--memory", 64, "--replicas", 2,
                            "--servers", 0], "replicas meet at parameter serv"),
                          (["--nodes", 1, "--cores", 2, "--memory", 64, "--set", "data.sice=3"],
                           "unknown key 'data.sice'"),])
def test_what_cannot_be_planned_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        asked(RUN / "paper.toml", *words)


def asked(*words):
    parser = argparse.ArgumentParser()
    plan.configure(parser)
    return plan.run(parser.parse_args(list(map(str, words))))


def test_the_line_gives_the_layout_back(capsys):
    """The settings on the sbatch line, applied to the configuration, need the ranks on the line."""
    asked(RUN / "paper.toml", "--nodes", 16, "--cores", 16, "--memory", 64, "--replicas", 2,
          "--set", "train.batch=50")
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    options = dict(word.removeprefix("--").split("=")
                   for word in words[1:words.index("slurm/train.sbatch")])
    assert words[0] == "sbatch" and int(options["ntasks"]) <= int(options["nodes"]) * int(
        options["ntasks-per-node"])
    changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    config = configuration.load(words[words.index("slurm/train.sbatch") + 1], changes)
    assert config.train.batch == 50 and config.parallel.replicas == 2
    blocks_of(int(options["ntasks"]), config.parallel.servers, config.parallel.replicas,
              Grid.parse(config.parallel.grid).size)
