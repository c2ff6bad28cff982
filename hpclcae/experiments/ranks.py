"""Who looks at which images and neurons, where several processes share an experiment.

Images, and other pieces of work, are spread over the processes. A network that is too large for one
of them is cut into the blocks of a grid; then as many processes as there are blocks share it, and
look at the same images.
"""
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeVar, cast

import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.cluster.launcher import launched
from hpclcae.experiments.single_neurons import Part
from hpclcae.model.layout import WHOLE
from hpclcae.mpi.runtime import run_on_all_ranks
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress

T = TypeVar("T")


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
    meeting : Communicator
        To all of them, apart from the work: whoever is there has come to its end.
    """
    world: Communicator = SerialCommunicator()
    network: Communicator = SerialCommunicator()
    grid: Grid = WHOLE
    meeting: Communicator = SerialCommunicator()

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

    def say(self, text: str) -> None:
        """Print, if this is the process that does."""
        if self.is_first:
            print(text, flush=True)

    def progress(self, items: Iterable[T], label: str, unit: str = "") -> Iterator[T]:
        """Yield from this process's items, with the progress of the one that prints."""
        return progress(items, label, unit=unit) if self.is_first else iter(items)

    def by_first(self, work: Callable[[], T]) -> T:
        """What the first process makes of some work, on all of them; every one calls it.

        Raises
        ------
        InputError
            The first one's, on all of them.
        """
        found: T | None = None
        failed: InputError | None = None
        if self.is_first:
            try:
                found = work()
            except InputError as error:
                failed = error
        found, failed = self.world.gather((found, failed))[0]
        if failed is not None:
            raise failed
        return cast(T, found)

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
        return cut(count, batch, groups)[group::groups]

    def mine(self, items: Iterable[T]) -> Iterator[T]:
        """Those of some pieces of work that are this process's, with its network, to do."""
        return itertools.islice(items, self.group, None, self.groups)

    def everyones(self, results: Iterable[T]) -> list[T]:
        """What all networks have made of theirs, in the order of the pieces; every process calls.

        Parameters
        ----------
        results : iterable
            One for each of `mine`; of a network that blocks share, all of them have the same.
        """
        lists = self.world.gather([] if self.network.rank else list(results))[::self.grid.size]
        return [lists[number % self.groups][number // self.groups]
                for number in range(sum(map(len, lists)))]

    def summed(self, part: Part, values: np.ndarray) -> np.ndarray:
        """Add up what processes found of their neurons with their images; all of them call.

        Parameters
        ----------
        part : Part
            The neurons of this process.
        values : float array (own neuron, ...)

        Returns
        -------
        float array (neuron, ...), of all neurons and images.
        """
        whole = values
        if part.own.size < prod(part.shape):
            whole = np.zeros((prod(part.shape), *values.shape[1:]), values.dtype)
            whole[part.own] = values
        self.world.sum_in_place(whole)
        return whole


def cut(count: int, batch: int, groups: int) -> list[slice]:
    """Batches of so many pieces; where there are few, smaller ones, so that no group has none."""
    edges = (range(0, count, batch) if -(-count // batch) >= groups
             else sorted({count * number // groups for number in range(groups)}))
    return [slice(*pair) for pair in itertools.pairwise([*edges, count]) if count]


def share(name: str, grid: str, program: Callable[[Ranks], int | None]) -> int:
    """Run a program in this process, or on all ranks under mpiexec; returns the exit code.

    That is what the program returns, which is the same on all ranks; None is 0.

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
        return program(Ranks()) or 0
    from hpclcae.mpi.communicator import MpiCommunicator

    codes: list[int] = []

    def on_each(world: MpiCommunicator) -> None:
        check_ranks(world.size, blocks)
        network, meeting = world.split(world.rank // blocks.size), world.split(0)
        codes.append(program(Ranks(world, network, blocks, meeting)) or 0)
        network.close()
        meeting.close()
    return run_on_all_ranks(name, on_each) or max(codes, default=1)  # none: it was ended


def check_ranks(ranks: int, grid: Grid) -> None:
    """Refuse a number of processes that a grid does not divide."""
    if ranks % grid.size:
        raise InputError(f"--grid {grid} has {grid.size} blocks, and {ranks} processes cannot be "
                         f"dealt out to such: start {grid.size} (mpiexec -n {grid.size}), or a "
                         "multiple of it")
