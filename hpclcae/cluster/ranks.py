"""How many ranks a job needs, and into which blocks they cut the network."""
from hpclcae.config import Config
from hpclcae.parameter_server.roles import blocks_of
from hpclcae.partition.blocks import Grid
from hpclcae.partition.cost import choose_grid, fitting_grids

MOST_RANKS = 100_000  # of a job


def grid_for(config: Config, ranks: int) -> Grid:
    """The grid of every replica in a job of `ranks` processes.

    Raises
    ------
    InputError
        Names the numbers of processes, or the grids, that fit.
    """
    parallel = config.parallel
    blocks = blocks_of(ranks, parallel.servers, parallel.replicas, _blocks_asked_for(config))
    return choose_grid(config, blocks, parallel.grid)


def ranks_for(config: Config, cores: int) -> int:
    """How many processes to start on a machine of `cores` cores.

    They are parallel.servers + parallel.replicas x blocks. With parallel.grid = "auto" the replicas
    share the cores; servers sleep most of the time and are not counted.
    """
    parallel = config.parallel
    blocks = _blocks_asked_for(config) or next(
        n for n in range(max(1, cores // parallel.replicas), 0, -1) if fitting_grids(config, n))
    return parallel.servers + parallel.replicas * blocks


def least_ranks(config: Config) -> int:
    """How many processes a job has at least.

    Raises
    ------
    InputError
        parallel.grid is not understood.
    """
    parallel = config.parallel
    return parallel.servers + parallel.replicas * (_blocks_asked_for(config) or 1)


def _blocks_asked_for(config: Config) -> int | None:
    """How many blocks parallel.grid names; None if it is to be chosen."""
    grid = config.parallel.grid
    return None if grid == "auto" else Grid.parse(grid).size
