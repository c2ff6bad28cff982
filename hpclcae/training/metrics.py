"""What a run says while it trains: metrics to a file.

A bar on a terminal, or plain lines in a log.
"""
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hpclcae import config as configuration
from hpclcae.checkpoint.metrics_log import lines_of_metrics, metrics_path, read_content
from hpclcae.cluster.interval import Chosen
from hpclcae.config import Config
from hpclcae.geometry import training_flop
from hpclcae.model.classifier import ClassifierLoss
from hpclcae.model.phases import phase_of
from hpclcae.model.stage import StageLoss
from hpclcae.training.divergence import Loss
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replace_text, replacing
from hpclcae.utils.progress import SECONDS_BETWEEN_LINES
from hpclcae.utils.timers import Timers


def open_folder(run: Path, config: Config, step: int, replica: int = 0) -> None:
    """Make the run folder with its configuration.

    Metrics of steps after `step`, if any, are dropped, and so are damaged lines.

    Raises
    ------
    InputError
        It cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not replica:
            replace_text(run / "configuration.toml", configuration.dumps(config))
        metrics = metrics_path(run, replica)
        lines = _lines_until(step, metrics) if step else []
        with replacing(metrics) as partial:
            partial.write_text("".join(lines))
    except OSError as error:
        raise InputError(f"run folder {run} cannot be written ({error.strerror}); choose another "
                         "--out") from error


def _lines_until(step: int, metrics: Path) -> list[str]:
    content = read_content(metrics)
    found = lines_of_metrics(content)
    lost = len(content.splitlines()) - len(found)
    if lost:
        print(f"{metrics}: {lost} damaged line{'s are' if lost > 1 else ' is'} left out",
              file=sys.stderr)
    return [line for line, record in found if record["step"] <= step]


def metrics_to_save(metrics: Path) -> str:
    """What a checkpoint holds of a file of metrics: nothing of what HDF5 cannot store."""
    return read_content(metrics).decode(errors="replace").replace("\0", "")


class Metrics:
    """What one replica says while it trains.

    Parameters
    ----------
    first, last : int
        Steps that have been made, and the step to end with.
    path : Path or None
        File of metrics; None: another rank speaks for the replica.
    terminal : bool
        Also to standard error.
    """

    def __init__(self, config: Config, first: int, last: int, path: Path | None,
                 terminal: bool) -> None:
        self.config, self.last = config, last
        self._file = path.open("a") if path else None
        self._clock, self._clock_step = time.monotonic(), first
        self._printed = self._clock
        self._before: dict[str, dict[str, float]] = {}
        self._terminal = terminal and path is not None
        bar = self._terminal and sys.stderr.isatty()
        self._bar = tqdm(total=last, initial=first, desc="train", unit="step") if bar else None

    def step(self, step: int, losses: Sequence[Loss | None], learning_rate: float,
             seconds: float, timers: Timers, meanwhile: Timers) -> None:
        """Called after every step.

        Parameters
        ----------
        timers, meanwhile : Timers
            Of the loop, and of what is done beside it: a line says what they took since the last.
        """
        if not self._file:
            return
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if step % self.config.train.log_every and step != self.last:
            return
        now = time.monotonic()
        phase = phase_of(self.config, step - 1)
        images = (step - self._clock_step) * phase.batch / max(now - self._clock, 1e-9)
        flop = training_flop(self.config, phase.stage, self.config.train.cache != "none")
        self._clock, self._clock_step = now, step
        row = {"step": step, "seconds": round(seconds, 3),
               "objective": sum(t.objective for t in losses if t),
               "stages": [t and {"reconstruction": t.reconstruction, "sparsity": t.sparsity,
                                 "response": t.response} for t in losses
                          if not isinstance(t, ClassifierLoss)],
               **{"classifier": {"data": t.data, "penalty": t.penalty, "right": t.right}
                  for t in losses if isinstance(t, ClassifierLoss)},
               "images_per_second": images, "gflop_per_second": images * flop / 1e9,
               "rate": learning_rate,
               "timers": self._since("timers", timers),
               "meanwhile": self._since("meanwhile", meanwhile)}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if not self._terminal:
            return
        parts = "  ".join(_part(i, t) for i, t in enumerate(losses) if t)
        speed = f"{images:.0f} images/s  {row['gflop_per_second']:.1f} GFLOP/s"
        if self._bar is not None:
            self._bar.set_postfix_str(f"objective {row['objective']:.5g}  {speed}")
        elif now - self._printed >= SECONDS_BETWEEN_LINES or step == self.last:
            self._printed = now
            print(f"step {step}/{self.config.train.steps}  objective {row['objective']:.5g}  "
                  f"{parts}  {speed}", file=sys.stderr, flush=True)

    def validation(self, step: int, found: dict[str, float], seconds: float) -> None:
        """What the validation images say after `step` steps."""
        if self._file:
            row = {"step": step, "seconds": round(seconds, 3), "validation": found}
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        if self._terminal:
            tqdm.write(f"step {step}/{self.config.train.steps}  validation: "
                       f"{100 * found['top1']:.1f} % right, objective {found['objective']:.5g}",
                       file=sys.stderr)

    def interval(self, step: int, chosen: Chosen, seconds: float) -> None:
        """Checkpoints are taken more or less often from here on."""
        if self._file:
            row = {"step": step, "seconds": round(seconds, 3), "interval": chosen._asdict()}
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        if self._terminal:
            tqdm.write(f"step {step}/{self.config.train.steps}  checkpoints {chosen}",
                       file=sys.stderr)

    def ended(self, step: int, seconds: float) -> None:
        """Training ends early, as it gets no better."""
        if self._file:
            row = {"step": step, "seconds": round(seconds, 3), "ended": True}
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def _since(self, name: str, timers: Timers) -> dict[str, float]:
        """Seconds by part since the last line."""
        now = dict(timers.seconds)
        before, self._before[name] = self._before.get(name, {}), now
        return {part: round(s - before.get(part, 0.0), 4) for part, s in now.items()}

    def close(self) -> None:
        """Close the file and the bar."""
        if self._file:
            self._file.close()
        if self._bar is not None:
            self._bar.close()


def _part(index: int, loss: Loss) -> str:
    """One part of the objective, for a log."""
    if isinstance(loss, ClassifierLoss):
        return f"classifier: {loss.data:.4g} + {loss.penalty:.4g}, {100 * loss.right:.1f} % right"
    assert isinstance(loss, StageLoss)
    return f"stage {index + 1}: {loss.reconstruction:.4g} + {loss.sparsity:.4g}"
