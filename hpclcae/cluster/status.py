"""Where runs stand, and how to go on, from their folders alone."""
import contextlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hpclcae import checkpoint, config as configuration
from hpclcae.checkpoint.metrics_log import metrics_path, read_content, records
from hpclcae.cluster.interval import Chosen
from hpclcae.cluster import pace
from hpclcae.cluster.pace import Pace, paces
from hpclcae.cluster.ranks import least_ranks
from hpclcae.cluster.restarts import STARTING, failures
from hpclcae.utils.errors import InputError
from hpclcae.utils.reading import reading

COMPLETE, BROKEN, INCOMPLETE = 0, 1, 3  # exit codes of hpclcae status
#: What the jobs in slurm/ leave in a run folder: the log of a sweep's run.
LOG = "train.log"


@dataclass
class RunStatus:
    """Where a run stands.

    step, steps : int
        Of the newest checkpoint, and of the whole training.
    ranks : int
        Processes that it needs at least.
    trouble : str
        Why the run cannot simply go on, or the last words of one that failed; "" if nothing is
        known.
    """
    folder: Path
    step: int = 0
    steps: int = 0
    ranks: int = 1
    newest: Path | None = None
    objective: float | None = None
    seconds: float = 0.0
    interval: str = ""
    paces: list[Pace] = field(default_factory=list)
    trouble: str = ""
    broken: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The exit code that says it."""
        if self.broken:
            return BROKEN
        return COMPLETE if self.newest and self.step >= self.steps else INCOMPLETE

    @property
    def word(self) -> str:
        """The same as a word."""
        return {COMPLETE: "complete", INCOMPLETE: "not complete", BROKEN: "broken"}[self.code]

    @property
    def saved(self) -> str:
        """When the newest checkpoint was written."""
        if self.newest is None:
            return ""
        return datetime.fromtimestamp(self.newest.stat().st_mtime).isoformat(" ", "minutes")


def newest_step(folder: Path) -> int:
    """Step of the newest checkpoint of a run; 0 if it has none."""
    found = checkpoint.saved(folder / "checkpoints")
    return checkpoint.step_of(found[-1]) if found else 0


def run_status(folder: Path) -> RunStatus:
    """Look at a run folder.

    Raises
    ------
    InputError
        There is no such folder, or it is not that of a run.
    """
    result = RunStatus(folder)
    if not (folder / "configuration.toml").is_file():
        result.trouble = _last_words(folder)
        if not result.trouble:
            raise InputError(f"{folder} is not the folder of a run (it has no configuration.toml): "
                             "start one with hpclcae train CONFIGURATION --out "
                             f"{shlex.quote(str(folder))}")
        result.broken = True
        return result
    try:
        config = configuration.load(folder / "configuration.toml")
        result.ranks = least_ranks(config)
    except InputError as error:
        result.broken, result.trouble = True, str(error)
        return result
    result.settings, result.steps = dict(configuration.flatten(config)), config.train.steps
    found = checkpoint.saved(folder / "checkpoints")
    if found:
        result.newest, result.step = found[-1], checkpoint.step_of(found[-1])
        result.broken, result.trouble = _damage(found)
    _read_metrics(result)
    with contextlib.suppress(InputError):
        result.paces = paces(folder, config)
    if result.code == INCOMPLETE:
        result.trouble = _last_words(folder)
    return result


def _damage(found: Sequence[Path]) -> tuple[bool, str]:
    """Whether the newest checkpoint lacks something, and what to do if it does."""
    newest = found[-1]
    try:
        if newest.is_dir():
            checkpoint.check(newest)
        else:
            checkpoint.load_state(newest)
    except InputError as error:
        older = (f"; without {newest.name} the run goes on from {found[-2]}"
                 if len(found) > 1 else "")
        return True, f"{error}{older}"
    return False, ""


def _read_metrics(result: RunStatus) -> None:
    """The last line of the metrics that is whole."""
    with contextlib.suppress(InputError):
        content = read_content(metrics_path(result.folder))
        found = records(content, "objective", "seconds")
        if result.step in (record["step"] for record in records(content, "ended")):
            result.steps = result.step  # the validation images ended it
        chosen = records(content, "interval")
        if chosen and result.settings["train.checkpoint_every"] == "auto":
            result.interval = _interval(chosen[-1]["interval"])
        if found:
            result.objective, result.seconds = found[-1]["objective"], found[-1]["seconds"]


def _interval(record: dict[str, float]) -> str:
    """What a line of metrics says of the interval between checkpoints."""
    if record.keys() != {*Chosen._fields}:
        return ""
    steps, *seconds = (record[key] for key in Chosen._fields)
    return str(Chosen(int(steps), *seconds))


def _last_words(folder: Path) -> str:
    """The last error in the log that a job left in the run folder, or else the log's last line.

    It is "" if there is no log.
    """
    path = folder / LOG
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = [line.strip() for line in text.splitlines()]
    errors = [line for line in lines if re.search(r"\bhpclcae \w+: ", line)]
    return (errors or [line for line in lines if line] or [""])[-1]


def describe(s: RunStatus) -> str:
    """One run, in a few lines that end with what to do."""
    lines = []
    if s.steps:
        share = f" ({100 * s.step / s.steps:.0f} %)"
        lines.append(f"{s.folder}: {s.word}, step {s.step} of {s.steps}{share}, "
                     f"{s.seconds / 60:.1f} min of training")
        lines.append(f"newest checkpoint  {s.newest}, {s.saved}" if s.newest
                     else "newest checkpoint  none")
        if s.objective is not None:
            lines.append(f"last objective     {s.objective:.5g}")
    else:
        lines.append(f"{s.folder}: {s.word}")
    if s.interval:
        lines.append(f"checkpoints        {s.interval}")
    lines += _failures(s.folder)
    if s.trouble:
        lines.append(f"trouble            {s.trouble}")
    run, resolved = str(s.folder), str(s.folder / "configuration.toml")
    several = s.ranks > 1
    if s.code == COMPLETE:
        lines.append(f"look at it         {shlex.join(['hpclcae', 'neurons', run])}")
    elif s.code == INCOMPLETE:
        train = ["hpclcae", "launch" if several else "train", resolved, "--out", run, "--resume"]
        submit = ["sbatch", *[f"--ntasks={s.ranks}"] * several, "slurm/train.sbatch", resolved, run]
        lines.append(f"go on              {shlex.join(train)}")
        lines.append(f"or in a cluster    {shlex.join(submit)}")
    if s.paces:
        lines.append(pace.describe(s.paces))
    return "\n".join(lines)


def _failures(folder: Path) -> list[str]:
    """A line about failures, if there were any."""
    found = failures(folder)
    if not found:
        return []
    last = found[-1]
    where = "before a first step" if last["step"] == STARTING else f"after step {last['step']}"
    return [f"failures           {len(found)}, the last {where}: {last['what']}; "
            f"{'started again' if last['again'] else 'not started again'}"]


def compare(found: Sequence[RunStatus]) -> list[dict[str, str]]:
    """A row for each run, by column.

    Its state, its best neuron where it was asked for, and the settings in which the runs differ.
    """
    known = [s.settings for s in found if s.settings]
    keys = [key for key in (known[0] if known else {})
            if len({str(settings.get(key)) for settings in known}) > 1]
    rows = []
    for s in found:
        row = {"run": s.folder.name, "state": s.word,
               "step": f"{s.step}/{s.steps}" if s.steps else "",
               "objective": "" if s.objective is None else f"{s.objective:.5g}", "saved": s.saved,
               "best neuron": _accuracy(s.folder)}
        rows.append(row | {key: str(s.settings.get(key, "")) for key in keys})
    return rows


def _accuracy(folder: Path) -> str:
    """Accuracy of the network's best neuron, "" if `hpclcae neurons` has not been called."""
    file = folder / "neurons.json"
    with contextlib.suppress(InputError), reading(file, "results of neurons", "make them again"):
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        return f"{max(row['accuracy'] for row in rows if row['name'].startswith('trained')):.3f}"
    return ""
