"""How the ranks of a job become servers, replicas and a grid of blocks."""
from hpclcae.config import Config
from hpclcae.parameter_server.roles import blocks_of
from hpclcae.partition.blocks import Grid
from hpclcae.partition.cost import choose_grid


def grid_for(config: Config, ranks: int) -> Grid:
    """The grid of every replica in a job of so many ranks.

    Raises
    ------
    InputError
        The number does not fit the configuration: names those that do.
    """
    parallel = config.parallel
    fixed = None if parallel.grid == "auto" else Grid.parse(parallel.grid).size
    blocks = blocks_of(ranks, parallel.servers, parallel.replicas, fixed)
    return choose_grid(config, blocks, parallel.grid)
