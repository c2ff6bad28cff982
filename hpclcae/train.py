"""The command ``hpclcae train``: minibatches in, checkpoints and metrics out."""
import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hpclcae import checkpoint, config as configuration, preprocess
from hpclcae.checkpoint import Checkpoint
from hpclcae.config import Config
from hpclcae.dataset import Dataset
from hpclcae.errors import InputError
from hpclcae.exchange import Alone, Messenger
from hpclcae.files import replacing
from hpclcae.geometry import training_flop
from hpclcae.minibatch import MinibatchStream
from hpclcae.network import Network, trained_stage
from hpclcae.partition import choose_grid
from hpclcae.progress import SECONDS_BETWEEN_LINES
from hpclcae.signals import Requests, requests
from hpclcae.stage import StageState, Terms
from hpclcae.timers import Timers
from hpclcae.topology import launched
from hpclcae.update_rules import UpdateRule

#: An objective this many times larger than at first has diverged, though it may still be finite.
DIVERGED = 1000.0
#: Settings that may change when a run is resumed; more train.steps train longer, and the schedule follows.
_MAY_CHANGE = {"train.steps", "train.checkpoint_every", "train.keep", "train.keep_every", "train.log_every",
               "data.train", "data.test", "parallel.grid"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", help="TOML file, for instance run/desk.toml")
    parser.add_argument("--out", required=True, type=Path, help="run folder: checkpoints, metrics, configuration")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set train.steps=500 --set stages.0.maps=8")
    parser.add_argument("--resume", action="store_true",
                        help="go on from the newest checkpoint in the run folder (from the start if there is none)")
    parser.add_argument("--stop-at", type=int, metavar="STEP",
                        help="end after this step with a checkpoint; the schedule is still that of train.steps")
    parser.add_argument("--grid", metavar="ROWSxCOLUMNS",
                        help="blocks of ranks that share the network under mpiexec or srun, for instance 2x1; auto "
                        "(default): the one whose busiest block has the least to do")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.stop_at is not None and args.stop_at < 1:
        raise InputError(f"--stop-at {args.stop_at}: it must be at least 1")
    size, _ = launched()
    if size == 1:
        _train(args, Alone())
        return 0
    from hpclcae.parallel.runtime import run_on_all_ranks  # starts MPI
    return run_on_all_ranks("hpclcae train", lambda messenger: _train(args, messenger))


def _train(args: argparse.Namespace, messenger: Messenger) -> None:
    grid = [f'parallel.grid="{args.grid}"'] if args.grid else []
    config = configuration.load(args.configuration, args.changes + grid)
    Trainer(config, args.out, args.resume, messenger).train(args.stop_at)


class Trainer:
    """One run: from a configuration, or from the newest checkpoint of its folder.

    With a messenger of several blocks, every rank has a Trainer of its block; the first one writes.

    Raises
    ------
    InputError
        The folder holds another run, the dataset does not fit the configuration, the grid does not fit the ranks,
        or the ranks do not agree on what to do.
    """

    def __init__(self, config: Config, folder: Path, resume: bool = False, messenger: Messenger | None = None) -> None:
        self.config, self.folder = config, folder
        self.messenger = messenger = messenger or Alone()
        self.writes = messenger.rank == 0
        self.grid = choose_grid(config, messenger.size, config.parallel.grid)
        self.network = Network(config, self.grid, messenger)
        self.dataset = _open_dataset(config)
        self.stream = MinibatchStream(self.dataset, config.train.batch, config.train.seed, mirror=config.data.mirror)
        self.timers = Timers()
        self._first_objective: dict[int, float] = {}
        found = checkpoint.saved(folder / "checkpoints")
        _check_agreement(messenger, {"configuration": configuration.dumps(config),
                                     "training images": f"{self.dataset.created} {self.dataset.count}",
                                     "checkpoints in the run folder": found[-1].name if found else "none"})
        if found and not resume:
            raise InputError(f"{folder} already holds a run, up to {found[-1].name}: go on with --resume, "
                             "or choose another --out")
        self.state = self._load(found[-1]) if found else self._start()
        self.parameters = self.state.parameters
        fan_in = {name: s.filter.fan_in for s in self.network.stages for name in s.parameter_shapes()}
        self.rule = UpdateRule(config.update, self.parameters, fan_in)
        if found:
            self.rule.state, self.rule.counts = self.state.update_state, self.state.counts
        self.prepare = self.state.preprocessing.preparer(config.data.size, self.network.dtype,
                                                         self.network.plan.stages[0].x, messenger)

    def _start(self) -> Checkpoint:
        """A new run: fit the preprocessing, draw the weights."""
        count = min(self.config.preprocess.whitening_images, self.dataset.count)
        chosen = np.random.default_rng(self.config.train.seed).permutation(self.dataset.count)[:count]
        fitted = preprocess.fit(self.config.preprocess, self.dataset.read(np.sort(chosen)))
        return Checkpoint(self.config, 0, self.network.parameters(self.config.train.seed), fitted)

    def _load(self, path: Path) -> Checkpoint:
        state, _ = checkpoint.load(path, self.grid, self.messenger)
        old, new = configuration.flatten(state.config), configuration.flatten(self.config)
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and key not in _MAY_CHANGE:
                raise InputError(f"{path} was written with {key} = {old.get(key)!r}, the configuration now says "
                                 f"{new.get(key)!r}: change it back, or start a new run with another --out")
        return Checkpoint(self.config, state.step, state.parameters, state.preprocessing, state.update_state,
                          state.counts, state.seconds)

    def train(self, stop_at: int | None = None) -> None:
        """Train to the last step (or `stop_at`), with metrics and checkpoints on the way.

        USR1 asks for a checkpoint after the current step, TERM for one and the end (signals.py).
        """
        settings = self.config.train
        last = min(settings.steps, stop_at or settings.steps)
        if self.writes:
            self._open_folder()
        began = time.monotonic() - self.state.seconds
        saved = None
        try:
            with requests() as asked, closing(_Report(self.config, self.state.step, last,
                                                      self.folder / "metrics.jsonl", self.writes)) as report:
                for step in range(self.state.step, last):
                    with self.timers("read"):
                        images = self.stream.images(step, self.prepare.pixels)
                    with self.timers("prepare"):
                        x = self.prepare(images)
                    terms = self.step(step, x)
                    self.state.step, self.state.seconds = step + 1, time.monotonic() - began
                    report.step(self.state.step, terms, self.rule.rate, self.state.seconds)
                    wanted, end = self._agree(asked)
                    if wanted or self.state.step % settings.checkpoint_every == 0 or self.state.step == last:
                        with self.timers("checkpoint"):
                            self._forward(step, x)  # what is saved is known to give a finite objective
                            saved = self.save()
                    if end:
                        break
        except KeyboardInterrupt:
            newest = checkpoint.saved(self.folder / "checkpoints")
            where = f"--resume goes on from {newest[-1]}" if newest else "no checkpoint was due yet"
            print(f"interrupted after step {self.state.step}; {where}", file=sys.stderr)
            raise
        if self.writes:
            print(f"step {self.state.step} of {settings.steps}: {saved or 'nothing left to do'}; "
                  f"{self.timers.summary()}")

    def _agree(self, asked: Requests) -> tuple[bool, bool]:
        """Whether to save now, and whether to end: a signal reaches the ranks in different steps, they decide together.

        A checkpoint is asked for on every rank, and the first one counts, so that it is written once.
        """
        mine = [asked.checkpoint and self.messenger.rank == 0, asked.end]
        save, end = self.messenger.allreduce_sum(mine) > 0
        if save:
            asked.checkpoint = False
        return bool(save or end), bool(end)

    def step(self, step: int, x: np.ndarray) -> list[Terms | None]:
        """One training step on prepared images (row, col, channel, image); the terms of every stage."""
        self.rule.begin(trained_stage(self.config, step)[1])
        with self.timers("forward"):
            states = self._forward(step, x)
        terms = [state.terms for state in states]
        with self.timers("backward and update"), np.errstate(over="ignore", invalid="ignore"):
            self.network.backward(states, self.rule)
        return terms + [None] * (len(self.network.stages) - len(terms))

    def _forward(self, step: int, x: np.ndarray) -> list[StageState]:
        with np.errstate(over="ignore", invalid="ignore"):  # what follows is checked as a whole
            states = self.network.forward(self.parameters, x, trained_stage(self.config, step)[0])
        self._check([state.terms for state in states], step)
        return states

    def _check(self, terms: Sequence[Terms | None], step: int) -> None:
        """Stop before a broken gradient reaches the parameters, or broken parameters a checkpoint.

        Raises
        ------
        InputError
            Names the step, the stage and the likely cause.
        """
        for index, term in enumerate(terms):
            if not term:
                continue
            first = self._first_objective.setdefault(index, term.objective)
            if math.isfinite(term.objective) and term.objective <= DIVERGED * first:
                continue
            times = term.objective / first
            how = f"{times:.2g} times its first value" if math.isfinite(times) else "not finite"
            update = self.config.update
            raise InputError(f"the objective of stage {index + 1} is {how} in step {step + 1}: update.rate = "
                             f"{update.rate:g} is likely too large for rule {update.rule!r} (or the weights of an "
                             "earlier checkpoint are damaged); the last checkpoint is untouched")

    def save(self) -> Path:
        """Write a checkpoint and remove those that are not to be kept."""
        self.state.update_state, self.state.counts = self.rule.state, self.rule.counts
        folder = self.folder / "checkpoints"
        path = checkpoint.path_of(folder, self.state.step)
        checkpoint.save(path, self.state, self.network)
        if not self.writes:
            return path
        for old in checkpoint.saved(folder)[:-self.config.train.keep]:
            old.unlink()
        return path

    def _open_folder(self) -> None:
        """Make the run folder; metrics of steps after the checkpoint, if any, are dropped."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / "configuration.toml") as partial:
                partial.write_text(configuration.dumps(self.config))
            metrics = self.folder / "metrics.jsonl"
            lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() and self.state.step else []
            lines = [line for line in lines if line.endswith("\n")]  # a crash may have cut the last one short
            with replacing(metrics) as partial:
                partial.write_text("".join(line for line in lines if json.loads(line)["step"] <= self.state.step))
        except OSError as error:
            raise InputError(f"run folder {self.folder} cannot be written ({error.strerror}); choose another --out") \
                from error


class _Report:
    """Metrics to a file, and to the terminal as a bar or to a log as lines; only by the rank that writes."""

    def __init__(self, config: Config, first: int, last: int, path: Path, writes: bool) -> None:
        self.config, self.flop = config, training_flop(config)
        self.writes = writes
        self.bar = None
        if not writes:
            return
        self.file = path.open("a")
        self.clock, self.clock_step, self.last = time.monotonic(), first, last
        self.printed = self.clock
        self.bar = tqdm(total=last, initial=first, desc="train", unit="step") if sys.stderr.isatty() else None

    def step(self, step: int, terms: Sequence[Terms | None], rate: float, seconds: float) -> None:
        """Called after every step."""
        if not self.writes:
            return
        if self.bar is not None:
            self.bar.update()
        if step % self.config.train.log_every and step != self.last:
            return
        now = time.monotonic()
        images = (step - self.clock_step) * self.config.train.batch / max(now - self.clock, 1e-9)
        self.clock, self.clock_step = now, step
        row = {"step": step, "seconds": round(seconds, 3), "objective": sum(t.objective for t in terms if t),
               "stages": [t and {"reconstruction": t.reconstruction, "sparsity": t.sparsity, "response": t.response}
                          for t in terms],
               "images_per_second": images, "gflop_per_second": images * self.flop / 1e9, "rate": rate}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        parts = "  ".join(f"stage {i + 1}: {t.reconstruction:.4g} + {t.sparsity:.4g}"
                          for i, t in enumerate(terms) if t)
        speed = f"{images:.0f} images/s  {row['gflop_per_second']:.1f} GFLOP/s"
        if self.bar is not None:
            self.bar.set_postfix_str(f"objective {row['objective']:.5g}  {speed}")
        elif now - self.printed >= SECONDS_BETWEEN_LINES or step == self.last:
            self.printed = now
            print(f"step {step}/{self.config.train.steps}  objective {row['objective']:.5g}  {parts}  {speed}",
                  file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the file and the bar."""
        if self.writes:
            self.file.close()
        if self.bar is not None:
            self.bar.close()


def _check_agreement(messenger: Messenger, facts: dict[str, str]) -> None:
    """Refuse to start when the ranks were given different things: they would compute one network from two.

    Raises
    ------
    InputError
        Names what differs, and the ranks that differ from the first.
    """
    digests = np.zeros((len(facts), messenger.size))
    digests[:, messenger.rank] = [int.from_bytes(hashlib.sha256(fact.encode()).digest()[:6], "big")
                                  for fact in facts.values()]
    for name, row in zip(facts, messenger.allreduce_sum(digests)):
        others = np.flatnonzero(row != row[0])
        if others.size:
            raise InputError(f"the {name} of rank {', '.join(map(str, others))} is not that of rank 0: start all ranks "
                             "with the same files and arguments")


def _open_dataset(config: Config) -> Dataset:
    dataset = Dataset(config.data.train)
    if (dataset.rows, dataset.cols, dataset.channels) != (config.data.size, config.data.size, config.data.channels):
        raise InputError(f"{config.data.train} holds images of {dataset.rows} x {dataset.cols} x {dataset.channels}, "
                         f"the configuration says data.size = {config.data.size}, data.channels = "
                         f"{config.data.channels}: change the configuration or make the dataset again")
    return dataset
