"""The loop of a worker: one block of one replica reads, computes, updates or pushes, and takes part
in checkpoints."""
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint import BlockState, Committer, RunState, ShardWriter
from hpclcae.checkpoint.writer import as_input_error
from hpclcae.config import Config
from hpclcae.data.minibatches import MinibatchStream
from hpclcae.model.network import Network, trained_stage
from hpclcae.model.optimizers import Optimizer
from hpclcae.model.stage import StageActivations, StageLoss
from hpclcae.parameter_server.client import ParameterClient
from hpclcae.parameter_server.roles import CHECKPOINT, END, GO, Role, joint_step
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.partition.cost import choose_grid
from hpclcae.training.metrics import Report, metrics_path, open_folder
from hpclcae.training.resume import check_agreement, fit_preprocessing, open_dataset
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import Requests, requests
from hpclcae.utils.timers import Timers

if TYPE_CHECKING:
    from hpclcae.mpi.job import WorkerContext

#: An objective this many times larger than at first has diverged, though it may still be finite.
DIVERGED = 1000.0
_END_NOTE = 1e6  # in Network.note; smaller ones are wishes for a checkpoint


class Trainer:
    """One block of one replica: from a configuration, or from a checkpoint.

    Without servers the block updates its own parameters; with them (`place`) it fetches and pushes.

    Parameters
    ----------
    run : Path
        Run folder.
    start : Path or None
        Checkpoint to go on from (`starting_point`).
    communicator : Communicator, optional
        To the other blocks of the replica.
    place : WorkerContext, optional
        Where this worker stands in a job with parameter servers.

    Raises
    ------
    InputError
        The dataset does not fit the configuration, or the grid does not fit the ranks.
    """

    def __init__(self, config: Config, run: Path, start: Path | None = None,
                 communicator: Communicator | None = None,
                 place: "WorkerContext | None" = None) -> None:
        self.config, self.run, self.place = config, run, place
        self.communicator = communicator = communicator or SerialCommunicator()
        self.role = place.role if place else Role(block=communicator.rank)
        self.leads = self.role == Role()
        self.grid = place.grid if place else choose_grid(config, communicator.size,
                                                         config.parallel.grid)
        self.network = Network(config, self.grid, communicator)
        self.dataset = open_dataset(config)
        check_agreement(place.peers if place else communicator,
                        {"training images": f"{self.dataset.created} {self.dataset.count}"})
        self.stream = MinibatchStream(self.dataset, config.train.batch, config.train.seed,
                                      self.role.replica,
                                      config.parallel.replicas, mirror=config.data.mirror)
        self.timers = Timers()
        self._first_objective: dict[int, float] = {}
        self._prepared: np.ndarray | None = None    # images of the last step
        self._holds, self._told_end = config.parallel.warm_start > 0, False
        self.state = self._load(start) if start else self._start()
        self.step_number, self.seconds = self._cursor(), self.state.seconds
        self._saved = self.step_number if start else 0  # step of the last checkpoint
        self.updates = self._updates(seed=not start)
        self.prepare = self.state.preprocessing.preprocessor(config.data.size, self.network.dtype,
                                                             self.network.plan.stages[0].x,
                                                             communicator)
        owners = config.parallel.servers or self.grid.size
        self.writer = None if place else ShardWriter(run, communicator.rank, config, self.grid)
        self.committer = Committer(run, owners) if self.leads else None

    def _start(self) -> BlockState:
        """A new run: fit the preprocessing, draw the weights."""
        return BlockState(config=self.config, step=0,
                          preprocessing=fit_preprocessing(self.config, self.dataset),
                          parameters=self.network.parameters(self.config.train.seed))

    def _load(self, start: Path) -> BlockState:
        if not self.place:
            return checkpoint.load(start, self.grid, self.communicator)[0]
        return BlockState(**vars(checkpoint.load_state(start)),
                          parameters=self.network.parameters())

    def _cursor(self) -> int:
        """The step that this replica goes on with."""
        cursors = self.state.cursors
        if len(cursors) != self.config.parallel.replicas:
            return self.state.step
        return min(cursors) if self.config.parallel.lockstep else cursors[self.role.replica]

    def _tell_of_other_replicas(self) -> None:
        """Say what a checkpoint of another number of replicas means for the images."""
        before, now = len(self.state.cursors), self.config.parallel.replicas
        if before not in (0, now):
            print(f"the checkpoint is of {before} replicas; {now} go on, all from step "
                  f"{self.step_number}, each on a new portion of the images: some are seen twice "
                  "in this epoch", file=sys.stderr)

    def _updates(self, seed: bool) -> Optimizer | ParameterClient:
        """What changes the parameters: this block, or servers."""
        if self.place:
            if seed and self.role.replica == 0:
                self.place.line.seed(self.state.parameters.vector)
            return ParameterClient(self.config, self.place.chunks, self.state.parameters,
                                   self.place.line)
        fan_in = {name: s.filter.fan_in for s in self.network.stages
                  for name in s.parameter_shapes()}
        rule = Optimizer(self.config.update, self.state.parameters, fan_in)
        if rule.state.keys() <= self.state.update_state.keys():  # elastic averaging leaves none
            rule.state |= {slot: self.state.update_state[slot] for slot in rule.state}
            rule.counts |= self.state.counts
        return rule

    # ---- the loop --------------------------------------------------------------------------------

    def train(self, stop_at: int | None = None) -> dict:
        """Train to the last step (or `stop_at`), with metrics and checkpoints.

        Returns what there is to tell.
        """
        last = min(self.config.train.steps, stop_at or self.config.train.steps)
        speaks = self.communicator.rank == 0
        if speaks:
            open_folder(self.run, self.config, self.step_number, self.role.replica)
        if self.leads:
            checkpoint.clean(self.run)
            self._tell_of_other_replicas()
        path = metrics_path(self.run, self.role.replica) if speaks else None
        first, began = self.step_number, time.monotonic() - self.seconds
        try:
            with requests() as asked, closing(Report(self.config, first, last, path,
                                                     self.leads)) as report:
                self._let_go()
                over = self._wait_for_go()
                while self.step_number < last and not over:
                    with self.timers("fetch"):
                        over = self._fetch()
                    if over or self.step_number >= last:
                        break
                    losses = self._one_step(asked)
                    self.seconds = time.monotonic() - began
                    report.step(self.step_number, losses, self.updates.rate, self.seconds)
                    over = self._after_step(asked, self.step_number == last)
                self._finish(asked)
        except KeyboardInterrupt:
            newest = checkpoint.saved(self.run / "checkpoints")
            where = f"--resume goes on from {newest[-1]}" if newest else "no checkpoint was due yet"
            print(f"interrupted after step {self.step_number}; {where}", file=sys.stderr)
            raise
        if self.leads:
            saved = "nothing left to do" if first == last else self.committer and self.committer.committed
            print(f"step {self.step_number} of {self.config.train.steps}: {saved}; "
                  f"{self.timers.summary()}")
        return self._account(first)

    def _one_step(self, asked: Requests) -> list[StageLoss | None]:
        """Read, compute, push or update."""
        for writer in (self.writer, self.committer):
            if writer:
                writer.check()
        step = self.step_number
        with self.timers("read"):
            images = self.stream.images(step, self.prepare.pixels)
        with self.timers("prepare"):
            x = self.prepare(images)
        self._prepared = x
        self.network.note = self._wish(asked)
        losses = self.step(step, x)
        self.step_number += 1
        return losses

    def step(self, step: int, x: np.ndarray) -> list[StageLoss | None]:
        """One training step on prepared images (row, col, channel, image).

        The losses of every stage.
        """
        with self.timers("forward"):
            states = self._forward(step, x)
        losses = [state.loss for state in states]
        with self.timers("backward and update"), np.errstate(over="ignore", invalid="ignore"):
            self.network.backward(states, self.updates)
            self.updates.end()
        return losses + [None] * (len(self.network.stages) - len(losses))

    def _forward(self, step: int, x: np.ndarray) -> list[StageActivations]:
        with np.errstate(over="ignore", invalid="ignore"):  # what follows is checked as a whole
            states = self.network.forward(self.updates.parameters, x,
                                          trained_stage(self.config, step)[0])
        self._check([state.loss for state in states], step)
        return states

    def _check(self, losses: Sequence[StageLoss | None], step: int) -> None:
        """Stop before a broken gradient reaches the parameters, or broken parameters a checkpoint.

        Raises
        ------
        InputError
            Names the step, the stage and the likely cause.
        """
        for index, loss in enumerate(losses):
            if not loss:
                continue
            first = self._first_objective.setdefault(index, loss.objective)
            if math.isfinite(loss.objective) and loss.objective <= DIVERGED * first:
                continue
            times = loss.objective / first
            how = f"{times:.2g} times its first value" if math.isfinite(times) else "not finite"
            update = self.config.update
            raise InputError(f"the objective of stage {index + 1} is {how} in step {step + 1}: "
                             f"update.rate = {update.rate:g} is likely too large for rule "
                             f"{update.rule!r} (or the weights of an earlier checkpoint are "
                             "damaged); the last checkpoint is untouched")

    def _fetch(self) -> bool:
        """Bring the parameters of the next step, if servers hold them; returns whether training is
        over before it.

        With backup replicas the next step may be a later one. In lockstep the parameters may not be
        there before the leader has stood.
        """
        fetched = -1
        while fetched < self.step_number < self.config.train.steps:
            fetched = self.step_number
            progress = trained_stage(self.config, fetched)[1]
            self.updates.begin(fetched, progress)
            while self._in_vain():
                if self._hear() == END:
                    return True
                self._stand(False)
                self.updates.begin(fetched, progress)
            self._catch_up()
        return False

    def _in_vain(self) -> bool:
        """Whether a block of this replica has fetched in vain, as the leader stands one step
        behind."""
        if not self.config.parallel.lockstep:
            return False
        assert isinstance(self.updates, ParameterClient)
        return bool(self.communicator.allreduce_sum([float(self.updates.in_vain)])[0])

    def _catch_up(self) -> None:
        """With backup replicas: leave out the steps that the others have made without this one."""
        if self.place and self.config.parallel.backup:
            newest = self.place.line.newest if self.communicator.rank == 0 else 0
            self.step_number = max(self.step_number,
                                   int(self.communicator.allreduce_sum([newest])[0]))

    # ---- standing between two steps: checkpoints, and the end ------------------------------------

    def _wish(self, asked: Requests) -> float:
        """What this block tells the others of its replica in its next step: it was asked for a
        checkpoint, or to end.

        The first replica listens to signals; the others to the first one.
        """
        if self.role.replica == 0:
            return asked.checkpoint + _END_NOTE * asked.end
        if self.place and self.communicator.rank == 0 and self.place.asks.heard():
            return _END_NOTE if self.place.asks.take() == END else 1.0
        return 0.0

    def _after_step(self, asked: Requests, at_the_end: bool) -> bool:
        """Take a checkpoint if one is due or asked for; returns whether training is over."""
        end, now = self.network.notes >= _END_NOTE, 0 < self.network.notes % _END_NOTE
        due = self.step_number % self.config.train.checkpoint_every == 0
        self._let_go()
        if at_the_end or end:  # the last checkpoint is `_finish`'s
            if end and not at_the_end:
                self._tell(END)
            return True
        lockstep = self.config.parallel.lockstep
        if now or due and self.role.replica == 0 and not lockstep:
            asked.checkpoint = False
            self._tell(CHECKPOINT)
            self.save()
        if due and lockstep:  # every replica knows by itself
            self.save()
        return False

    def _tell(self, what: int) -> None:
        """Ask the other replicas."""
        self._told_end = self._told_end or what == END
        if self.place and self.leads:
            self.place.asks.tell(what)

    def _let_go(self) -> None:
        """After the warm start, let the other replicas begin."""
        if self._holds and self.step_number >= self.config.parallel.warm_start:
            self._holds = False
            self._tell(GO)

    def _wait_for_go(self) -> bool:
        """The other replicas wait for the first one's warm start.

        Returns whether all is over before it begins.
        """
        if not self.place or not self.role.replica or not self._holds:
            return False
        while True:
            what = self._hear()
            if what in (GO, END):
                return what == END
            self._stand(False)

    def _hear(self) -> int:
        """What the leader asks for next, the same for all blocks of this replica; waits for it."""
        assert self.place
        heard = self.place.asks.take() if self.communicator.rank == 0 else 0
        return int(self.communicator.allreduce_sum([heard])[0])

    def save(self) -> None:
        """Begin to write a checkpoint; with servers, all replicas come to stand first."""
        if self.place:
            self._stand(False)
        elif self.step_number != self._saved:
            if self._prepared is not None:  # what is saved is known to give a finite objective
                self._forward(self.step_number - 1, self._prepared)
            self._saved = self.step_number
            assert self.writer and isinstance(self.updates, Optimizer)
            with self.timers("checkpoint"):
                self.writer.start(self.step_number, checkpoint.block_chunk_states(
                    self.config, self.grid, self.communicator.rank, self.updates.parameters,
                    self.updates.state, self.updates.counts))
                self._commit([self.step_number])

    def _stand(self, final: bool, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Stand until all workers do and the servers have taken a checkpoint.

        Returns whether nobody steps again.
        """
        assert self.place and isinstance(self.updates, ParameterClient)
        with self.timers("checkpoint"):
            self.updates.stand()
            clocks, over = self.place.line.mark(self.step_number, final, meanwhile)
            # what some have computed ahead is in no round yet: it is computed again
            if self.config.parallel.lockstep:
                clocks[:] = clocks.min()
            self._commit(clocks.tolist())
        return over

    def _commit(self, cursors: Sequence[int]) -> None:
        """Let the committer wait for the shards of this checkpoint (only the first rank has one).
        """
        if self.committer:
            state, step, path = self.state, joint_step(cursors), metrics_path(self.run)
            with as_input_error(self.run, step, path):
                metrics = path.read_text()
            self.committer.start(
                RunState(config=self.config, step=step, preprocessing=state.preprocessing,
                         seconds=self.seconds, cursors=tuple(cursors), metrics=metrics))

    def _finish(self, asked: Requests) -> None:
        """The last checkpoint, when all replicas have come to their end.

        Wait until it is committed.
        """
        if self.place:
            def look_out() -> None:
                if asked.end and not self._told_end:
                    self._tell(END)
                elif asked.checkpoint:
                    asked.checkpoint = False
                    self._tell(CHECKPOINT)
                if self.committer:
                    self.committer.check()
            self._let_go()
            while not self._stand(True, look_out):
                pass
            self.place.line.close(self.step_number)
        else:
            self.save()
        for writer in (self.writer, self.committer):
            if writer:
                with self.timers("checkpoint"):
                    writer.wait()
                writer.close()

    def _account(self, first: int) -> dict:
        """What this worker has to say of its part."""
        if not isinstance(self.updates, ParameterClient):
            return {}
        line = self.updates.line
        return {"steps": self.step_number - first, "fetched_bytes": line.fetched_bytes,
                "pushed_bytes": line.pushed_bytes, "wait_seconds": self.updates.wait_seconds,
                "training_seconds": self.seconds - self.state.seconds,
                "staleness": line.staleness.tolist()}
