"""The command ``hpclcae experiment all``: every experiment, in order, as far as it is not done.

An experiment gets those of the options below that its own command has. It is passed over if the
run has its result: of the same weights and images, by the same command line.

Under mpiexec the ranks share the experiments that can be shared, those whose modules have ``work``;
the first rank makes the others, while the others wait.
"""
import argparse
import importlib
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import Parser
from hpclcae.commands.experiment import arguments
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import record
from hpclcae.experiments.neurons import open_fitting
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.rates import measure
from hpclcae.utils.errors import InputError, MissingExtraError, one_line
from hpclcae.utils.files import check_output, is_hdf5

#: Options of this command that are handed on to experiments which have them.
SHARED = ("--test", "--frames", "--sources", "--train", "--without-lcn", "--without", "--batch",
          "--bootstrap", "--seed", "--development", "--final", "--beside", "--out")
#: Seconds on one core for run/desk.toml and its 3,000 test images, where nothing better is known;
#: other networks are as much slower as their images a second.
SECONDS = {"concepts": 30.0, "autoencoders": 120.0, "kmeans": 60.0}
OTHERWISE = 30.0
DESK_RATE = 3000.0  # images a second there
#: What fails does so on all ranks, where a file is missing or an argument wrong: then the next
#: experiment is tried. Where others do not fail within this time, they wait for the one that did.
PATIENCE = 60.0


@dataclass(frozen=True)
class Task:
    """One experiment that is to be run, or why it is not."""
    name: str
    words: list[str]
    why_not: str = ""
    run: Callable[[Ranks], object] = bool


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help="folder of a training run")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[],
                        help=f"these alone, of: {', '.join(record.ORDER)}")
    parser.add_argument("--again", action="store_true", help="repeat what is done already")
    parser.add_argument("--test", metavar="SET", action="append",
                        help="labelled dataset, once for every concept (default: of the run)")
    parser.add_argument("--frames", metavar="SET",
                        help="labelled dataset of larger frames, concept in the middle")
    parser.add_argument("--sources", metavar="FOLDER", help="what hpclcae data fetch has brought")
    parser.add_argument("--train", metavar="DATASET", help="training images (default: of the run)")
    parser.add_argument("--without-lcn", metavar="RUN",
                        help="run of the same network without contrast normalisation")
    parser.add_argument("--without", metavar="RUN",
                        help="run of the same network, trained without faces")
    parser.add_argument("--batch", type=int, help="images at a time")
    parser.add_argument("--bootstrap", type=int, help="replicates")
    parser.add_argument("--seed", type=int, help="of everything that is drawn")
    parser.add_argument("--development", action="store_true",
                        help="look at development halves alone: for trials")
    parser.add_argument("--final", action="store_true",
                        help="look at final halves where the default is development")
    parser.add_argument("--beside", metavar="RUN", nargs="+",
                        help="fine-tuned runs to compare this one with")
    arguments.add(parser, "grid", "out")


def run(args: argparse.Namespace) -> int:
    """Run what is missing, in this process or on all ranks; 1 if anything failed."""
    return share("hpclcae experiment all", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> int:
    """Run what is missing; say what is left out, and why."""
    model = ranks.load(args.run)
    for name in args.only:
        if name not in record.ORDER:
            raise InputError(f"--only {name}: experiments are {', '.join(record.ORDER)}")
    names = [name for name in record.ORDER if not args.only or name in args.only]
    out = args.out or record.experiments_folder(args.run)
    check_output(out / f"{names[0]}.json", lambda path: True, "a result")
    tasks = [task_of(name, args, model) for name in names]
    done = ranks.by_first(lambda: [task.name for task in tasks if not args.again
                                   and not task.why_not and is_done(task, out, model)])
    todo = [task for task in tasks if task.name not in done and not task.why_not]
    for name in done:
        ranks.say(f"{name}: done already")
    seconds = expected(todo, out, model, args.test)
    if todo:
        ranks.say(f"{len(todo)} experiments, about {duration(sum(seconds))}: "
                  + ", ".join(f"{task.name} {duration(each)}"
                              for task, each in zip(todo, seconds)))
    left_out = [(task.name, task.why_not) for task in tasks if task.why_not]
    failed = 0
    for number, task in enumerate(todo, start=1):
        ranks.say(f"\n=== {number}/{len(todo)} {shlex.join(task.words)}")
        began = time.monotonic()
        error = attempt(task, ranks)
        if error is None:
            rest = sum(seconds[number:])
            ranks.say(f"{task.name}: {duration(time.monotonic() - began)}"
                      + (f"; about {duration(rest)} to go" if rest else ""))
            continue
        left_out.append((task.name, str(error)))
        if not isinstance(error, MissingExtraError):
            failed += 1
            if ranks.is_first:
                print(f"{task.name}: {one_line(str(error), 1000)}", file=sys.stderr, flush=True)
    for name, why in left_out:
        ranks.say(f"left out: {name}: {one_line(why, 1000)}")
    return int(failed > 0)


def attempt(task: Task, ranks: Ranks) -> InputError | None:
    """Run one experiment; returns why it has no result, the same on all ranks.

    Raises
    ------
    InputError
        It failed on this rank, and others wait for what it has not done.
    """
    failed: InputError | None = None
    try:
        task.run(ranks)
    except InputError as error:
        failed = error
    try:
        everyone = ranks.meeting.gather(failed, PATIENCE if failed else math.inf)
    except TimeoutError:
        raise InputError(f"{task.name}: {failed}") from failed
    return next(filter(None, everyone), None)


def task_of(name: str, args: argparse.Namespace, model: Model) -> Task:
    """What to type for an experiment, with those of the shared options that it has.

    The module of an experiment that says nothing of some networks has a function ``why_not``.
    """
    module = importlib.import_module(f"hpclcae.commands.experiment.{name.replace('-', '_')}")
    if why_not := getattr(module, "why_not", lambda model: "")(model):
        return Task(name, [], why_not)
    parser = Parser(f"experiment {name}", name, "")
    module.configure(parser)
    words = [args.run]
    for action in parser._actions:
        option = next((text for text in action.option_strings if text in SHARED), None)
        given = option and getattr(args, option[2:].replace("-", "_"))
        if option and given:
            words += option_words(action, option, given)
        elif action.required and action.option_strings:
            where = "name it" if action.option_strings[0] in SHARED else (
                f"call hpclcae experiment {name}")
            return Task(name, [], f"it needs {action.option_strings[0]} "
                                  f"({one_line(action.help or '', 200)}): {where}")
    parsed = parser.parse_intermixed_args(words)
    typed = ["hpclcae", "experiment", *name.split(), *words]
    parsed.command_line = shlex.join(typed)
    if hasattr(module, "work"):
        return Task(name, typed, run=partial(module.work, parsed))
    return Task(name, typed, run=lambda ranks: module.run(parsed) if ranks.is_first else None)


def option_words(action: argparse.Action, option: str, given: object) -> list[str]:
    """One option as it is typed; where several values are given and one is wanted, the first."""
    if given is True:
        return [option]
    values = [str(value) for value in given] if isinstance(given, list) else [str(given)]
    if action.nargs in ("+", "*"):
        return [option, *values]
    if not isinstance(action, argparse._AppendAction):
        values = values[:1]
    return [word for value in values for word in (option, value)]


def is_done(task: Task, out: Path, model: Model) -> bool:
    """Whether its result is there, by the same command, of the same weights and images."""
    try:
        found = record.read_file(out / f"{task.name}.json", task.name, model)
        if found["command"] != shlex.join(task.words):
            return False
        for each in found["sets"]:
            with Dataset(each["path"]) as dataset:
                if dataset.fingerprint != each["fingerprint"]:
                    return False
    except InputError:
        return False
    files = (part[key] for part in found["parts"] if part["type"] == "figure"
             for key in ("file", "svg"))
    arrays = out / f"{task.name}.h5"
    return (all((out / file).is_file() for file in files)
            and (not arrays.exists() or is_hdf5(arrays, record.KIND)))


def expected(tasks: Sequence[Task], out: Path, model: Model,
             tests: Sequence[str] | None) -> list[float]:
    """Seconds of each: those of its earlier result, else by the images a second of the network."""
    known = [record.seconds_of(out / f"{task.name}.json") for task in tasks]
    slower = 1.0
    if None in known:
        try:
            path = tests[0] if tests else model.config.data.test
            with open_fitting(path, model.config) as dataset:
                slower = DESK_RATE / measure(model, dataset, 100).forward
        except InputError:
            pass  # whoever needs it will say so
    return [SECONDS.get(task.name, OTHERWISE) * slower if seconds is None else seconds
            for task, seconds in zip(tasks, known)]


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
