"""One worker's training from its run folder to its last checkpoint, around the steps themselves."""
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from hpclcae import checkpoint
from hpclcae.checkpoint import Committer, RunState
from hpclcae.checkpoint.writer import as_input_error
from hpclcae.cluster.interval import Interval
from hpclcae.cluster.pace import Lookout
from hpclcae.cluster.restarts import Progress
from hpclcae.config import Config
from hpclcae.model.conditioner import Conditioner
from hpclcae.model.network import Network
from hpclcae.model.phases import meetings
from hpclcae.parameter_server.roles import joint_step
from hpclcae.training.coordination import Command, Coordination
from hpclcae.training.divergence import Loss
from hpclcae.training.evaluation import Patience
from hpclcae.training.metrics import Metrics, metrics_path, metrics_to_save, open_folder
from hpclcae.training.updates import Updates
from hpclcae.training.worker import WorkerContext, WorkerReport
from hpclcae.utils.errors import InputError
from hpclcae.utils.signals import Requests, requests
from hpclcae.utils.timers import Timers


def _nobody_asks(step: int) -> None:
    """The leader alone says how far the run is."""


class Session:
    """What hangs on the training loop: signals, metrics, checkpoints, the other replicas.

    Used as ``with Session(...) as session: for step in session.steps(): ...``; leaving it
    takes the last checkpoint.

    Parameters
    ----------
    run : Path
        Run folder.
    state : RunState
        What the run begins with.
    step, last : int
        The step that this replica begins with, and the number of steps after which it ends.
    network : Network
        Its flags carry signals to the other blocks.
    conditioners : sequence of Conditioner or None
        What stands between the stages; it changes in the course of training.
    timers, meanwhile : Timers
        Of the loop, and of what is done beside it.
    patience : Patience
        When training ends early.
    asked : Requests, optional
        In place of the signals to this process.
    """

    def __init__(self, config: Config, run: Path, worker: WorkerContext, state: RunState, step: int,
                 last: int, network: Network, updates: Updates,
                 conditioners: Sequence[Conditioner | None], timers: Timers,
                 meanwhile: Timers, patience: Patience, asked: Requests | None = None) -> None:
        self.config, self.run, self.worker, self.state = config, run, worker, state
        self.network, self.updates = network, updates
        self.timers, self.meanwhile = timers, meanwhile
        self._conditioners, self.patience = conditioners, patience
        self._is_best = False
        self._progress: Callable[[int], None] = _nobody_asks
        self.first_step = self.step = step
        self.last = last
        self.seconds = state.seconds
        self._given, self._stack, self._over = asked, ExitStack(), False
        owners = config.parallel.servers or worker.layout.grid.size
        commits = worker.is_rank0 if worker.joined else worker.is_leader
        self._committer = Committer(run, owners) if commits else None
        is_auto = config.train.checkpoint_every == "auto" and worker.is_leader
        self._interval = Interval(config) if is_auto else None
        self._lookout = Lookout(run, config) if worker.is_leader else None

    def __enter__(self) -> "Session":
        worker, replica = self.worker, self.worker.role.replica
        if worker.is_rank0:
            open_folder(self.run, self.config, self.step, replica)
        if worker.is_leader and not worker.joined:
            checkpoint.clean(self.run)
            self._tell_of_other_replicas()
        with ExitStack() as stack:
            if worker.is_leader and self.step < self.last:
                self._progress = stack.enter_context(Progress(self.run))
            asked = self._given or stack.enter_context(requests())
            path = metrics_path(self.run, replica) if worker.is_rank0 else None
            self._metrics = stack.enter_context(closing(Metrics(
                self.config, self.step, self.last, path, terminal=worker.is_leader)))
            self._stack = stack.pop_all()
        self._coordination = Coordination(self.config, worker.role, worker.communicator,
                                          worker.control, asked)
        self._step_began = time.monotonic()
        self._began = self._step_began - self.seconds
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        with self._stack:
            try:
                if kind is None:
                    self._finish()
                elif issubclass(kind, InputError):  # a replay is to come to the same
                    self.updates.give_up()
            except KeyboardInterrupt:
                kind = KeyboardInterrupt
                raise
            finally:
                if kind is KeyboardInterrupt:
                    self._tell_of_interrupt()
        if kind is None and self._committer and self.worker.is_leader:
            nothing = self.first_step == self.step
            saved = "nothing left to do" if nothing else self._committer.committed
            beside = self.meanwhile.summary(of=self.timers)
            print(f"step {self.step} of {self.config.train.steps}: {saved}; "
                  f"{self.timers.summary()}" + f"; meanwhile {beside}" * bool(beside))

    # ---- the steps -------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """The steps to make, each with its parameters in place.

        Ends earlier if the leader says so. With backup replicas it leaves out the steps that the
        others have made.
        """
        self._coordination.release_replicas(self.step)
        self._over = self._coordination.await_warm_start(self._checkpoint)
        met = -1
        while not self._over and self.step < self.last:
            if self.step in meetings(self.config) and met != self.step:
                met = self.step
                if self._meet():
                    return
            with self.timers("fetch"):
                self._over = self._bring_parameters()
            if self._over or self.step >= self.last:
                return
            if self.step in meetings(self.config) and met != self.step:
                continue  # a backup replica has left out steps, up to where the others wait for it
            self.updates.check()
            if self._committer:
                self._committer.check()
            self.network.flags = self._coordination.flags()
            yield self.step

    def finished(self, step: int, losses: Sequence[Loss | None]) -> None:
        """A step has been made: metrics, and a checkpoint if one is due or asked for."""
        self.step = step + 1
        self._progress(self.step)
        self.seconds = time.monotonic() - self._began
        self._metrics.step(self.step, losses, self.updates.learning_rate, self.seconds,
                           self.timers, self.meanwhile)
        self._tell_of_slow_replicas()
        self._watch_interval()
        coordination, said = self._coordination, self.network.any_flags
        coordination.release_replicas(self.step)
        if self.step == self.last:
            return
        if self.step in meetings(self.config):
            coordination.meeting_follows(said)
            return
        if self.patience.is_over:
            self._metrics.ended(self.step, self.seconds)
        if said.end or self.patience.is_over:
            coordination.end()
            self._over = True
            return
        for _ in range(coordination.checkpoints_after(self.step, said)):
            self._checkpoint()

    def _tell_of_slow_replicas(self) -> None:
        """The leader does, now and then."""
        with suppress(InputError):  # metrics that cannot be read are no reason to end
            for line in self._lookout.news() if self._lookout else ():
                tqdm.write(f"step {self.step}/{self.config.train.steps}  {line}", file=sys.stderr)

    def _watch_interval(self) -> None:
        """Ask for a checkpoint when it pays; the leader does, at a step's end."""
        interval, now = self._interval, time.monotonic()
        if not (interval and self._committer):
            return
        interval.made_step(now - self._step_began, self._committer.busy)
        self._step_began = now
        if interval.news:
            self._metrics.interval(self.step, interval.news, self.seconds)
            interval.news = None
        if interval.is_due:
            self._coordination.asked.checkpoint = True

    def validated(self, step: int, found: dict[str, float]) -> None:
        """What the validation images say after `step` steps, which `finished` is about to end."""
        self._is_best = self.patience.look(step, found["top1"])
        self._metrics.validation(step, found, time.monotonic() - self._began)

    def report(self) -> WorkerReport:
        """What this worker has done in this session."""
        return dataclasses.replace(self.updates.report(), steps=self.step - self.first_step,
                                   training_seconds=self.seconds - self.state.seconds)

    def _meet(self) -> bool:
        """Wait, with a checkpoint, until all replicas have come to the end of a phase.

        What they build on from here is the same for all. Returns whether training is over.
        """
        while True:
            with self.timers("checkpoint"):
                cursors, _ = self.updates.checkpoint(self.step, False, self._look_out)
                self._commit(cursors)
            if min(cursors) >= self.step:
                self._over = self._coordination.settle(self.worker.peers)
                self.updates.settle()
                return self._over
            if self._coordination.is_ended():
                self._over = True
                return True

    def _bring_parameters(self) -> bool:
        """Begin the next step; returns whether training is over before it.

        With backup replicas the next step may be a later one. In lockstep the parameters may not be
        there before the leader has paused.
        """
        begun = -1
        while begun < self.step < self.config.train.steps:
            begun = self.step
            while not self.updates.begin(begun):
                if self._coordination.await_command() == Command.END:
                    return True
                self._checkpoint()
            self.step = self.updates.newest_step(begun)
        return False

    # ---- checkpoints -----------------------------------------------------------------------------

    def _checkpoint(self, final: bool = False) -> bool:
        """Take part in a checkpoint; returns whether no replica makes another step."""
        began = time.monotonic()
        with self.timers("checkpoint"):
            cursors, over = self.updates.checkpoint(
                self.step, final, self._look_out if final else lambda: None)
            self._commit(cursors)
        if self._interval:
            self._step_began = time.monotonic()
            self._interval.took_checkpoint(self._step_began - began)
        return over

    def _commit(self, cursors: Sequence[int]) -> None:
        """Let the committer wait for the shards of this checkpoint (only the leader has one)."""
        joined = self.worker.joined
        if self._committer and joined and joined.abandons():
            self._committer.close()
            self._committer = Committer(self.run, self._committer.shards)
        if self._committer and (not joined or joined.commits()):
            step, path = joint_step(cursors), metrics_path(self.run)
            with as_input_error(self.run, step, path):
                metrics = metrics_to_save(path)
            self._committer.start(RunState(
                config=self.config, step=step, preprocessing=self.state.preprocessing,
                conditioners=tuple(self._conditioners), categories=self.state.categories,
                seconds=self.seconds, cursors=tuple(cursors), deal=self.state.deal,
                metrics=metrics), self._is_best)
            self._is_best = False

    def _look_out(self) -> None:
        """While the others make their last steps."""
        self._coordination.pass_on_signals()
        if self._committer:
            self._committer.check()

    def _finish(self) -> None:
        """The last checkpoint, when all replicas have come to their end; wait until it is there."""
        self._coordination.release_replicas(self.step)
        while not self._checkpoint(final=True):
            pass
        with self.timers("checkpoint"):
            self.updates.close(self.step)
            if self._committer:
                self._committer.wait()
                self._committer.close()

    # ---- what is said ----------------------------------------------------------------------------

    def _tell_of_other_replicas(self) -> None:
        """Say what a checkpoint of another number of replicas means for the images."""
        before, now = len(self.state.cursors), self.config.parallel.replicas
        if before not in (0, now):
            print(f"the checkpoint is of {before} replicas; {now} go on, all from step {self.step}:"
                  f" they share the {self.state.deal.left:,} images that are left of the epoch",
                  file=sys.stderr)

    def _tell_of_interrupt(self) -> None:
        """Say where a run that was interrupted goes on."""
        newest = checkpoint.saved(self.run / "checkpoints")
        where = f"--resume goes on from {newest[-1]}" if newest else "no checkpoint is complete yet"
        print(f"interrupted after step {self.step}; {where}", file=sys.stderr)
