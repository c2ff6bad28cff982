"""Who changes the parameters: this block itself, or servers. The trainer sees one interface."""
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from hpclcae.checkpoint import BlockState, ShardWriter, block_chunk_states
from hpclcae.config import Config
from hpclcae.model.layout import BlockLayout
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.schedule import Schedule
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.training.cache import spare_memory
from hpclcae.training.step import Gradients
from hpclcae.training.worker import Served, WorkerContext, WorkerReport


class Updates(Gradients, Protocol):
    """The parameters of one block in the course of training."""

    @property
    def learning_rate(self) -> float:
        """Of the current step."""

    def begin(self, step: int) -> bool:
        """Bring the parameters of a step.

        False, for all blocks of the replica: somebody whom the step waits for pauses or has ended;
        take part in the checkpoint first, then begin again.
        """

    def newest_step(self, step: int) -> int:
        """The step to go on with: a later one where others have made `step` without this one."""

    def checkpoint(self, step: int, final: bool,
                   meanwhile: Callable[[], None]) -> tuple[Sequence[int], bool]:
        """Hand over what belongs into the checkpoint after `step` steps.

        `final`: this block makes no more steps; `meanwhile` is called while it waits for others.
        Returns the next step of every replica, and whether no replica makes another one.
        """

    def settle(self) -> None:
        """All replicas are at the same step: go on from the same parameters."""

    def check(self) -> None:
        """Raise what went wrong in the background."""

    def give_up(self) -> None:
        """Training ends with an error here."""
        return

    def close(self, step: int) -> None:
        """End, and wait for what is under way."""

    def report(self) -> WorkerReport:
        """What there is to tell."""


def open_updates(worker: WorkerContext, run: Path, state: BlockState, schedule: Schedule,
                 is_new: bool, verify: Callable[[], None]) -> Updates:
    """The updates of a worker.

    Parameters
    ----------
    is_new : bool
        The run begins: servers have no parameters yet.
    verify : callable
        Raises if the parameters give no finite objective; called before they are saved.
    """
    config = worker.layout.config
    if worker.served is None:
        block = worker.layout.block(worker.role.block)
        writer = ShardWriter(run, block.rank, worker.layout, spare_memory)
        return LocalUpdates(block, state, schedule, writer, 0 if is_new else state.step, verify)
    if is_new and (worker.role.replica == 0 or worker.joined):
        worker.served.connection.initialise(state.parameters.vector)
    return ServedUpdates(config, worker, worker.served, state.parameters, schedule)


class LocalUpdates(Updates):
    """The block updates its own parameters, and writes its own shard of checkpoints.

    Parameters
    ----------
    saved : int
        The step of the last checkpoint.
    """

    def __init__(self, block: BlockLayout, state: BlockState, schedule: Schedule,
                 writer: ShardWriter, saved: int, verify: Callable[[], None]) -> None:
        self._block, self._schedule, self._writer = block, schedule, writer
        self._saved, self._verify = saved, verify
        config = block.layout.config
        self._optimizer = optimizer = Optimizer(config.update, state.parameters, block.fan_in)
        if optimizer.state.keys() <= state.update_state.keys():  # elastic averaging leaves none
            optimizer.state |= {slot: state.update_state[slot] for slot in optimizer.state}
            optimizer.counts |= state.counts

    @property
    def parameters(self) -> ParameterVector:
        return self._optimizer.parameters

    @property
    def learning_rate(self) -> float:
        return self._optimizer.learning_rate

    def begin(self, step: int) -> bool:
        self._optimizer.begin(self._schedule.learning_rate(step))
        return True

    def newest_step(self, step: int) -> int:
        return step

    def on_gradient(self, name: str, row: int, gradient: np.ndarray) -> None:
        self._optimizer.on_gradient(name, row, gradient)

    def end(self) -> None:
        self._optimizer.end()

    def checkpoint(self, step: int, final: bool,
                   meanwhile: Callable[[], None]) -> tuple[Sequence[int], bool]:
        if step != self._saved:
            self._verify()
            self._saved = step
            self._writer.start(step, block_chunk_states(
                self._block, self.parameters, self._optimizer.state, self._optimizer.counts))
        return [step], final

    def settle(self) -> None:
        """There is one replica."""

    def check(self) -> None:
        self._writer.check()

    def close(self, step: int) -> None:
        self._writer.wait()
        self._writer.close()

    def report(self) -> WorkerReport:
        return WorkerReport()


class ServedUpdates(Updates):
    """Servers hold the parameters: fetched before a step, and gradients pushed in it."""

    def __init__(self, config: Config, worker: WorkerContext, served: Served,
                 parameters: ParameterVector, schedule: Schedule) -> None:
        self._parallel, self._schedule = config.parallel, schedule
        self._communicator, self._connection = worker.communicator, served.connection
        self._client = ParameterClient(config, served.chunks, parameters, served.connection)

    @property
    def parameters(self) -> ParameterVector:
        return self._client.parameters

    @property
    def learning_rate(self) -> float:
        return self._client.learning_rate

    def begin(self, step: int) -> bool:
        begun = self._client.begin(step, self._schedule.learning_rate(step))
        if self._parallel.lockstep:  # a block that got its chunks pauses with those that did not
            return not self._communicator.allreduce_sum([not begun])[0]
        return begun

    def newest_step(self, step: int) -> int:
        if not self._parallel.backup:
            return step
        newest = self._connection.newest if self._communicator.rank == 0 else 0
        return max(step, int(self._communicator.allreduce_sum([newest])[0]))

    def on_gradient(self, name: str, row: int, gradient: np.ndarray) -> None:
        self._client.on_gradient(name, row, gradient)

    def end(self) -> None:
        self._client.end()

    def checkpoint(self, step: int, final: bool,
                   meanwhile: Callable[[], None]) -> tuple[Sequence[int], bool]:
        self._client.pause()
        clocks, over = self._connection.barrier(step, final, meanwhile)
        if self._parallel.lockstep:  # what some have computed ahead is in no round yet: once again
            clocks = np.full_like(clocks, clocks.min())
        return clocks.tolist(), over

    def settle(self) -> None:
        self._client.adopt()

    def check(self) -> None:
        """The servers write."""

    def give_up(self) -> None:
        self._connection.give_up()

    def close(self, step: int) -> None:
        self._connection.close(step)

    def report(self) -> WorkerReport:
        connection = self._connection
        return dataclasses.replace(
            WorkerReport(), fetched_bytes=connection.fetched_bytes,
            pushed_bytes=connection.pushed_bytes, wait_seconds=self._client.wait_seconds)
