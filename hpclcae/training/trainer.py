"""The training loop of a worker: one block of one replica."""
import dataclasses
from pathlib import Path

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint import BlockState
from hpclcae.config import Config
from hpclcae.data.fitting import check_fitting
from hpclcae.data.minibatches import read_shown
from hpclcae.model.network import Network
from hpclcae.model.phases import phase_of
from hpclcae.model.schedule import Schedule
from hpclcae.training.divergence import Divergence
from hpclcae.training.evaluation import Evaluation, Patience
from hpclcae.training.inputs import Inputs
from hpclcae.training.resume import (check_agreement, check_warm_start, class_split, deal_of,
                                     fit_preprocessing, minibatches, open_dataset, weights_of)
from hpclcae.training.session import Session
from hpclcae.training.step import all_losses, train_step
from hpclcae.training.updates import open_updates
from hpclcae.training.worker import WorkerContext, WorkerReport
from hpclcae.utils.signals import Requests
from hpclcae.utils.timers import Timers


class Trainer:
    """One block of one replica: from a configuration, or from a checkpoint.

    Parameters
    ----------
    run : Path
        Run folder.
    start : Path or None
        Checkpoint to go on from (resume.starting_point).
    worker : WorkerContext, optional
        Where this worker stands in its job; without it the process trains alone.
    asked : Requests, optional
        In place of the signals to this process.

    Raises
    ------
    InputError
        The dataset does not fit the configuration, or the grid does not fit the ranks.
    """

    def __init__(self, config: Config, run: Path, start: Path | None = None,
                 worker: WorkerContext | None = None, asked: Requests | None = None) -> None:
        self.config, self.worker = config, worker or WorkerContext.unserved(config)
        check_warm_start(config)
        role, communicator = self.worker.role, self.worker.communicator
        self.network = Network(self.worker.layout, communicator)
        self.dataset = open_dataset(config)
        images = f"{self.dataset.created} {self.dataset.count}"
        check_agreement(self.worker.peers, {"training images": images})
        check_fitting(config, self.dataset)
        self.timers, self.divergence = Timers(), Divergence(config)
        self._is_new = start is None
        known = checkpoint.load_state(start).categories if start else ()
        self.split = split = class_split(config, self.dataset, known)
        self.network.weigh(split.labels[split.train] if split else None)
        state = self._load(start) if start else self._new()
        self.state = dataclasses.replace(state, deal=deal_of(config, state, self.dataset, split))
        if self.worker.joined:
            self.state = dataclasses.replace(self.state, seconds=self.worker.joined.seconds)
        self.batches = minibatches(config, self.dataset, split, role.replica, self.state.deal)
        self.batches.check_order(self.state.order)
        self.prepare = self.state.preprocessing.preprocessor(
            config.data.size, self.network.dtype, self.network.block.plan.stages[0].x, communicator)
        self.inputs = Inputs(self.network, self.batches, self.prepare, self.state.conditioners,
                             run / "cache", self.worker.is_leader, self.timers,
                             split.labels if split else None, ahead=True)
        self.patience = Patience.after(config, self.state.metrics, self.state.step)
        schedule = Schedule(config, self.batches.passes)
        self.updates = open_updates(self.worker, run, self.state, schedule, is_new=self._is_new,
                                    verify=self._verify)
        self._run, self._asked = run, asked
        #: step, prepared images and their classes
        self._last: tuple[int, np.ndarray, np.ndarray | None] | None = None

    def train(self, stop_at: int | None = None) -> WorkerReport:
        """Train to the last step (or `stop_at`), with metrics and checkpoints.

        Who takes part: every worker in each line. `steps` fetches from servers, `train_step` sums
        over the blocks of a replica and pushes, `finished` meets all workers when a checkpoint is
        taken (coordination.py).
        """
        last = min(self.config.train.steps, stop_at or self.config.train.steps)
        if self.patience.is_over:
            last = self._cursor()
        with (self._session(last) as session,      # the run folder, signals, the last checkpoint
              self.inputs):        # reads images for coming steps
            if self._is_new:  # all replicas from the same numbers, whoever makes the first step
                self.inputs.begin(0, self.state.parameters)
            for step in session.steps():           # brings parameters; ends when the leader says so
                self.inputs.begin(step, self.updates.parameters)  # conditioners, where due
                x = self.inputs.read(step, self.updates.parameters)
                labels = self.inputs.labels(step)
                self._last = step, x, labels
                losses = train_step(self.network, self.updates, step, x, self.divergence,
                                    self.timers, self.inputs.is_given(step), labels)
                self._validate(session, step + 1)  # first replica: does it do better, or end
                session.finished(step, losses)     # metrics, a checkpoint if due
        self.inputs.close(for_good=session.step >= self.config.train.steps)
        return session.report()

    def _session(self, last: int) -> Session:
        return Session(self.config, self._run, self.worker, self.state, self._cursor(), last,
                       self.network, self.updates, self.inputs.conditioners, self.timers,
                       self.inputs.meanwhile, self.patience, self._asked)

    def _validate(self, session: Session, step: int) -> None:
        """With every checkpoint, the first replica looks at the validation images."""
        train = self.config.train
        if not (self.split and self.split.validation.size and self.worker.role.replica == 0):
            return
        assert train.checkpoint_every != "auto"  # config/checks.py
        if step % train.checkpoint_every and step != train.steps:
            return
        with self.timers("validate"):
            found = Evaluation.of(self.config.classifier, self._scores, self.split.validation,
                                  self.split.labels)
        session.validated(step, found.summary())

    def _scores(self, indices: np.ndarray) -> np.ndarray:
        images = read_shown(self.dataset, indices, np.zeros(len(indices), bool),
                            self.prepare.pixels)
        return self.network.scores(self.updates.parameters, self.prepare(images))

    def _verify(self) -> None:
        """What is saved is known to give a finite objective on the last images."""
        if self._last:
            (step, x, labels), only = self._last, phase_of(self.config, self._last[0]).stage
            with np.errstate(over="ignore", invalid="ignore"):
                states = self.network.forward(self.updates.parameters, x, only,
                                              self.inputs.is_given(step), labels)
            self.divergence.check(all_losses(self.network, states, only), step)

    # ---- where a run begins ----------------------------------------------------------------------

    def _new(self) -> BlockState:
        """A new run: fit the preprocessing, draw the weights; or take those of another run."""
        categories = tuple(self.split.names) if self.split else ()
        if self.config.train.weights:
            return dataclasses.replace(weights_of(self.config, self.network),
                                       categories=categories)
        return BlockState(config=self.config, step=0, categories=categories,
                          preprocessing=fit_preprocessing(self.config, self.dataset),
                          parameters=self.network.parameters(self.config.train.seed))

    def _load(self, start: Path) -> BlockState:
        """What a checkpoint holds of this block; with servers, they load the parameters."""
        if self.worker.served:
            return BlockState(**vars(checkpoint.load_state(start)),
                              parameters=self.network.block.parameters())
        return checkpoint.load_block(start, self.network.block)

    def _cursor(self) -> int:
        """The step that this replica goes on with."""
        if self.worker.joined:
            return self.worker.joined.step
        cursors = self.state.cursors
        if len(cursors) != self.config.parallel.replicas:
            return self.state.step
        if self.config.parallel.lockstep:
            return min(cursors)
        return cursors[self.worker.role.replica]
