"""Who looks at which images and neurons, where several processes share an experiment.

Images are spread over the processes. A network that is too large for one of them is cut into the
blocks of a grid; then as many processes as there are blocks share it, and look at the same images.
"""
from collections.abc import Callable
from dataclasses import dataclass

from hpclcae.checkpoint.trained import Model
from hpclcae.cluster.launcher import launched
from hpclcae.experiments.single_neurons import Part
from hpclcae.model.layout import WHOLE
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.utils.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """One process of those that share an experiment; by default the only one.

    Attributes
    ----------
    world : Communicator
        To all of them.
    network : Communicator
        To those that share one network.
    grid : Grid
        Its blocks.
    """
    world: Communicator = SerialCommunicator()
    network: Communicator = SerialCommunicator()
    grid: Grid = WHOLE

    @property
    def is_first(self) -> bool:
        """Whether this one prints and writes."""
        return self.world.rank == 0

    @property
    def group(self) -> int:
        """Which of the networks this process has a part of."""
        return self.world.rank // self.grid.size

    @property
    def groups(self) -> int:
        """How many networks there are: each looks at a part of the images."""
        return self.world.size // self.grid.size

    def load(self, checkpoint: str) -> Model:
        """Load this process's block of a network; errors as `Model.load`."""
        return Model.load(checkpoint, self.grid, self.network)

    def parts(self, model: Model) -> list[Part]:
        """The neurons of every stage that this process has."""
        network = model.network
        return [Part.of(geometry.output, slice(*plan.y.owned.rows), slice(*plan.y.owned.cols))
                for geometry, plan in zip(network.layout.geometry, network.block.plan.stages)]

    def batches(self, count: int, batch: int, network: bool = True) -> list[slice]:
        """The batches of `count` images that are this process's to look at.

        Parameters
        ----------
        network : bool
            With its network; else (linear filters) every process has images of its own.

        Raises
        ------
        InputError
            There are fewer images than processes.
        """
        groups, group = ((self.groups, self.group) if network
                         else (self.world.size, self.world.rank))
        if count < groups:
            raise InputError(f"{count} images for {groups} processes: start fewer")
        if -(-count // batch) < groups:  # smaller ones, so that nobody has none
            edges = [count * number // groups for number in range(groups + 1)]
            parts = [slice(*pair) for pair in zip(edges, edges[1:])]
        else:
            parts = [slice(first, min(first + batch, count)) for first in range(0, count, batch)]
        return parts[group::groups]


def share(name: str, grid: str, program: Callable[[Ranks], None]) -> int:
    """Run a program in this process, or on all ranks under mpiexec; returns the exit code.

    Parameters
    ----------
    name : str
        The command, for messages.
    grid : str
        "2x1": the network is cut into 2 rows of 1 block.

    Raises
    ------
    InputError
        The number of ranks is no multiple of the grid's blocks; whatever the program raises.
    """
    blocks = Grid.parse(grid)
    if launched()[0] == 1:
        check_ranks(1, blocks)
        program(Ranks())
        return 0
    from hpclcae.mpi.communicator import MpiCommunicator

    def on_each(world: MpiCommunicator) -> None:
        check_ranks(world.size, blocks)
        network = world.split(world.rank // blocks.size)
        program(Ranks(world, network, blocks))
        network.close()
    return run_on_all_ranks(name, on_each)


def check_ranks(ranks: int, grid: Grid) -> None:
    """Refuse a number of processes that a grid does not divide."""
    if ranks % grid.size:
        raise InputError(f"--grid {grid} has {grid.size} blocks, and {ranks} processes cannot be "
                         f"dealt out to such: start {grid.size} (mpiexec -n {grid.size}), or a "
                         "multiple of it")
