"""Accuracy against receptive field and against number of maps (paper: only slight sensitivity).

Every combination is a training run of its own, small, in a folder ``fieldF-mapsM``: started here
one after the other, or by slurm/sweep.sbatch as a job array. What is complete is not repeated, what
is not goes on where it stopped; then the top stage of each is tested like any other network.
"""
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpclcae import checkpoint
from hpclcae.checkpoint.trained import Model
from hpclcae.config import Config
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import probing
from hpclcae.experiments.labelled_images import interval
from hpclcae.experiments.neurons import Examination, Settings, concept_of, labelled_images
from hpclcae.experiments.record import Record
from hpclcae.experiments.single_neurons import Population
from hpclcae.utils.errors import InputError, one_line
from hpclcae.utils.text import drawable, entitle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARE = 0.25  # of the steps of the run
#: Told apart by all colour-blind people, and by their marks.
STYLES = (("#0072b2", "o-"), ("#d55e00", "s--"), ("#009e73", "^:"), ("#000000", "D-."))


@dataclass(frozen=True)
class Variant:
    """One combination."""
    field: int
    maps: int

    @property
    def name(self) -> str:
        """Of its folder, as slurm/sweep.sbatch has it."""
        return f"field{self.field}-maps{self.maps}"

    def changes(self, stages: Sequence[int]) -> list[str]:
        """What it changes in a configuration, in those stages (from 0)."""
        return [f"stages.{stage}.{key}={value}" for stage in stages
                for key, value in (("receptive_field", self.field), ("maps", self.maps))]


@dataclass(frozen=True)
class Tested:
    """How a combination came out; the reason, where there is nothing."""
    variant: Variant
    population: Population | None = None  # the top stage
    steps: int = 0
    weights: int = 0
    why_not: str = ""


def small_changes(config: Config, share: float) -> list[str]:
    """What makes a configuration a small training in one process, with a share of its steps."""
    changes = ["parallel.servers=0", "parallel.replicas=1", "parallel.elastic=0",
               "parallel.outer_rate=0", "parallel.quorum=0", "parallel.grace=0",
               "parallel.fetch_every=1", "parallel.push_every=1"]
    steps = [math.ceil(stage.steps * share) if stage.steps else 0 for stage in config.stages]
    rest = math.ceil((config.train.steps - sum(stage.steps for stage in config.stages)) * share)
    changes += [f"stages.{number}.steps={count}" for number, count in enumerate(steps) if count]
    total = sum(steps) + rest
    every = config.train.checkpoint_every
    every = max(1, total // 4 if every == "auto" else min(every, total // 4))
    return [*changes, f"train.steps={total}", f"train.checkpoint_every={every}"]


def is_complete(folder: Path) -> bool:
    """Whether a run has come to its last step."""
    try:
        state, _ = checkpoint.load(checkpoint.find(folder))
    except InputError:
        return False
    return state.step >= state.config.train.steps


def train(configuration: Path, folder: Path, changes: Sequence[str]) -> str:
    """Train, or go on; returns why it failed, "" if it did not. Its output is in train.log."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "hpclcae", "train", str(configuration), "--out", str(folder),
             "--resume"]
    for change in changes:
        words += ["--set", change]
    with (folder / "train.log").open("a", encoding="utf-8") as log:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        text = (folder / "train.log").read_text(encoding="utf-8", errors="replace")
        last = [line for line in text.splitlines() if line.strip()]
        return one_line(last[-1].removeprefix("hpclcae train: ") if last else
                        f"exit code {done.returncode}", 200)
    return ""


def trained(variants: Sequence[Variant], configuration: Path, folder: Path, stages: Sequence[int],
            changes: Sequence[str], only_collect: bool) -> Iterator[tuple[Variant, str]]:
    """Train what is not complete; yield each combination with the reason why there is none."""
    for number, variant in enumerate(variants, start=1):
        run = folder / variant.name
        if is_complete(run):
            said, why_not = "trained already", ""
        elif only_collect:
            said = why_not = "not trained, or not to the end"
        else:
            print(f"{number}/{len(variants)} {variant.name}: training, {run}/train.log", flush=True)
            why_not = train(configuration, run, [*changes, *variant.changes(stages)])
            said = f"failed: {why_not}" if why_not else "trained"
        print(f"{number}/{len(variants)} {variant.name}: {said}", flush=True)
        yield variant, why_not


def test(variant: Variant, run: Path, images: Dataset, settings: Settings) -> Tested:
    """Test the top stage of a run."""
    model = Model.load(run)
    examination = Examination(images, labelled_images(images, settings), None, settings)
    top = examination.trained(variant.name, model)[-1]
    weights = sum(model.filters(stage).size for stage in range(len(model.config.stages)))
    return Tested(variant, top, model.step, weights)


def run(model: Model, configuration: Path, variants: Sequence[Variant], stages: Sequence[int],
        path: str | None, folder: Path, changes: Sequence[str], only_collect: bool,
        settings: Settings, record: Record) -> None:
    """Train and test every combination, print, and write what the record holds.

    Parameters
    ----------
    configuration : Path
        Of the run that is varied.
    stages : sequence of int
        Those that are changed, from 0.
    folder : Path
        Where the runs are.
    changes : sequence of str
        Further settings of all of them, as --set has them.
    only_collect : bool
        Train nothing.
    record : Record
        With the figure "accuracy".

    Raises
    ------
    InputError
        The test set does not fit, or has no labels; no combination is there.
    """
    with probing.open_test(model, path) as images:
        record.about(images)
        labelled = labelled_images(images, settings)
        concept = concept_of(images)
        found = [Tested(variant, why_not=why_not) if why_not
                 else test(variant, folder / variant.name, images, settings)
                 for variant, why_not in trained(variants, configuration, folder, stages, changes,
                                                 only_collect)]
    if not any(each.population for each in found):
        raise InputError(f"{folder}: no combination is trained: {found[0].variant.name}: "
                         f"{found[0].why_not}")
    named = "all stages" if len(stages) == len(model.config.stages) else "stage " + ", ".join(
        str(stage + 1) for stage in stages)
    record.table(
        f"Best neuron of the top stage, '{concept}', by receptive field and maps of {named}",
        ["field", "maps", "steps", "weights", "neurons", "best of 20, %", "final, %",
         "95 % interval", "AUC, %", "why not"], [_row(each) for each in found],
        ["Final: neuron and threshold chosen on the development half, judged on the final half; "
         f"intervals by {labelled.resampled}. 'best of 20': chosen on the images it is judged by, "
         "the paper's measure. One seed each: another changes a best neuron by some points."])
    record.figure(lambda: draw(found, concept, named), "accuracy",
                  f"Accuracy of the best top neuron for '{concept}' against the receptive field of "
                  f"{named}, for each number of maps, with 95 % intervals.",
                  "; ".join(f"field {each.variant.field}, maps {each.variant.maps}: "
                            f"{100 * _accuracy(each):.1f} %" for each in found if each.population))
    columns = ("field", "maps", "steps", "weights", "neurons", "best", "final", "interval", "auc",
               "why_not")
    record.values |= {"concept": concept, "stages": [stage + 1 for stage in stages],
                      "folder": str(folder), "settings": list(changes),
                      "runs": [dict(zip(columns, _row(each))) for each in found]}
    record.save()


def _accuracy(each: Tested) -> float:
    assert each.population is not None
    judged = each.population.chosen or each.population.best
    return judged.accuracy


def _row(each: Tested) -> list[str | int | float | None]:
    top = each.population
    begin: list[str | int | float | None] = [each.variant.field, each.variant.maps]
    if top is None:
        return [*begin, *[None] * 7, each.why_not]
    judged = top.chosen or top.best
    low, high = interval(judged.replicates[0])
    return [*begin, each.steps, each.weights, top.accuracy.size,
            round(100 * float(top.accuracy.max()), 1),
            None if top.chosen is None else round(100 * top.chosen.accuracy, 1),
            "" if math.isnan(low) else f"[{100 * low:.1f}, {100 * high:.1f}]",
            round(100 * judged.auc, 1), None]


def draw(found: Sequence[Tested], concept: str, named: str) -> "Figure":
    """Accuracy against the receptive field, a line for each number of maps; and the reverse."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    entitle(figure, f"best neuron of the top stage, '{drawable(concept)}'")
    done = [each for each in found if each.population]
    for axes, key, other in zip(figure.subplots(1, 2, sharey=True), ("field", "maps"),
                                ("maps", "field")):
        values = sorted({getattr(each.variant, other) for each in done})
        places = sorted({getattr(each.variant, key) for each in done})
        apart = 0.02 * (places[-1] - places[0])
        for (colour, style), value in zip(STYLES * len(values), values):
            line = sorted((each for each in done if getattr(each.variant, other) == value),
                          key=lambda each: getattr(each.variant, key))
            # beside each other, so that no interval hides another
            at = [getattr(each.variant, key) + apart * (values.index(value) - (len(values) - 1) / 2)
                  for each in line]
            middle = [100 * _accuracy(each) for each in line]
            ends = [interval(_judged(each)) for each in line]
            errors = [[max(0.0, y - 100 * low) for y, (low, _) in zip(middle, ends)],
                      [max(0.0, 100 * high - y) for y, (_, high) in zip(middle, ends)]]
            axes.errorbar(at, middle, errors, fmt=style, color=colour, capsize=3, markersize=5,
                          label=f"{value} maps" if other == "maps" else f"field {value}")
        axes.set_xticks(places)
        axes.set(xlabel=f"{'receptive field' if key == 'field' else 'maps'} of {named}",
                 ylabel="percent right" if key == "field" else "")
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5,
                    frameon=False)  # above: intervals fill the whole height
        axes.grid(alpha=0.3)
    return figure


def _judged(each: Tested) -> np.ndarray:
    assert each.population is not None
    return (each.population.chosen or each.population.best).replicates[0]
