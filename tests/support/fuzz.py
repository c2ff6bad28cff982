"""Damage at random in every file that we write, and every command that reads it.

    python -m tests.support.fuzz --seconds 600 --seed 1     # many cases
    python -m tests.support.fuzz --seed 1 --case 17         # one of them again

A command may do its work, or say on one line what is wrong: no traceback, no second line, no signal
from libhdf5, no endless loop, no gigabytes. Each case runs in a process of its own.
"""
import argparse
import contextlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

from matplotlib.figure import Figure

from hpclcae import config as configuration
from hpclcae.cli import COMMANDS, main
from hpclcae.cluster.restarts import judge
from hpclcae.data import catalogue
from hpclcae.training.local_job import run_local_job
from tests.support.images import structured_images, write_dataset
from tests.support.processes import RUN
from tests.support.saving import made, old_file
from tests.support.tiny_run import write_parallel

TIME, MEMORY = 60, 2 << 30  # seconds and bytes (more than the parent has) of a case
RUN_1 = "run/checkpoints/step-00000004"
RUN_2 = "run/checkpoints/step-00000006"

#: Files, and the commands that read them.
OF_RUN = ["status run", "status run served", "checkpoint list run", "checkpoint info run",
          "checkpoint verify run", "checkpoint query run rms(stage1.encode)",
          "checkpoint query run --list", "checkpoint diff run",
          "checkpoint export run --out new.npz", "checkpoint reshard run --shards 2 --out new",
          "train tiny.toml --out run --resume", "checkpoint info run --metrics",
          "neurons run --test test.h5 --filters 0 --bootstrap 100"]
OF_SET = ["data info set.h5", "data info set.h5 --manifest new.jsonl", "data check set.h5",
          "train tiny.toml --out new --set data.train=set.h5"]
AGAIN = [f"data ingest --manifest set.h5 --workers 1 {to}"
         for to in ("--out new.h5", "--out set.h5 --shard 1")]
INGEST = "data ingest sources --size 24 --channels grey --contrast 0 --min-side 1 --workers 1"
GO_ON, GO_ON_EARLY = (f"{INGEST} --dedupe near --out {name}" for name in ("left.h5", "early.h5"))
OF_FIGURES = ["figures served", "convergence served"]
READERS: dict[str, list[str]] = {
    "train.h5": ["data check train.h5", "train tiny.toml --out new",
                 "train tiny.toml --out run --resume", "check tiny.toml"],
    "test.h5": ["data info test.h5", "data check test.h5",
                "neurons run --test test.h5 --filters 0 --bootstrap 100"],
    "tiny.toml": ["show tiny.toml", "train tiny.toml --out new",
                  "plan tiny.toml --nodes 2 --cores 2 --memory 8"],
    f"{RUN_2}/model.h5": OF_RUN, f"{RUN_2}/shard-0000.h5": OF_RUN, f"{RUN_1}/model.h5": OF_RUN,
    f"{RUN_2}/manifest.json": OF_RUN, "run/checkpoints/run-id": OF_RUN,
    "run/metrics.jsonl": [*OF_RUN, "figures run"],
    "run/configuration.toml": OF_RUN,
    "run/progress": ["status run --failed it"],
    "run/failures.jsonl": ["status run", "status run --failed it"],
    "run/neurons.json": ["status run served", "neurons run --filters 0 --bootstrap 100",
                         "report run --neurons 0"],
    "run/neurons.h5": ["checkpoint query run/neurons.h5 stage1.accuracy", "figures run",
                       "checkpoint query run/neurons.h5 stage3.auc --where stage3.auc>0.5"],
    "run/experiments/histograms.json": ["report run --neurons 0",
                                        "experiment all run --only histograms"],
    "result.h5": ["checkpoint query run abs(stage1.encode) --out result.h5"],
    "old/checkpoints/step-00000007.h5": [
        "checkpoint info old", "checkpoint query old rms(stage1.encode)", "status old",
        "checkpoint verify old"],
    "served/parallel.json": OF_FIGURES,
    "served/metrics-replica1.jsonl": [*OF_FIGURES, "status served"],
    "served/events/from-00000000/server-0.bin": ["replay served"],
    "served/events/from-00000000/configuration.toml": ["replay served"],
    "sources/catalogue.json": ["catalogue"],
    "set.h5": [*OF_SET, *AGAIN], "set.shards/*-0001.h5": [*OF_SET, *AGAIN],
    "set.jsonl": ["data ingest --manifest set.jsonl --out new.h5 --workers 1"],
    "left.h5.work/plan.json": [GO_ON], "left.h5.work/ledger": [GO_ON],
    "left.h5.work/units/00000/000": [GO_ON], "early.h5.work/units/00000/000": [GO_ON_EARLY]}


def make(place: Path) -> None:
    """Every file that we write, small."""
    write_dataset(place / "train.h5", structured_images(60))
    images = structured_images(60, seed=1)
    images[::3, 8:16, 8:16] = 230
    write_dataset(place / "test.h5", images, [int(i % 3 == 0) for i in range(60)])
    config = configuration.load(RUN / "tiny.toml", [
        "data.train=train.h5", "data.test=test.h5", "train.steps=6", "train.batch=5",
        "train.checkpoint_every=4", "train.log_every=1", "stages.0.standardise=true"])
    (place / "tiny.toml").write_text(configuration.dumps(config))
    for words in (["train", "tiny.toml", "--out", "run"],
                  ["neurons", "run", "--filters", "0", "--bootstrap", "100"],
                  ["experiment", "histograms", "run"],
                  ["checkpoint", "query", "run", "abs(stage1.encode)", "--out", "result.h5"]):
        assert main(words) == 0, words
    judge(place / "run", "", "a rank failed", 5)
    served = configuration.loads(configuration.dumps(config), [
        "train.steps=12", "parallel.servers=1", "parallel.replicas=2", "parallel.log_events=true"])
    run_local_job(served, place / "served")
    write_parallel(place / "served", workers=((0, 0), (1, 0)), servers=1)
    old_file(place / "old/checkpoints/step-00000007.h5", made(config))
    (place / "old/configuration.toml").write_text(configuration.dumps(config))
    (place / "sources").mkdir()
    for number, name in enumerate(("a.pgm", "b.pgm")):
        (place / "sources" / name).write_bytes(b"P5 1 1 255 %d" % number)
    for number, image in enumerate(structured_images(30, 24)):
        (place / "sources" / f"{number}.pgm").write_bytes(b"P5 24 24 255 " + image.tobytes())
    ingests(place)
    catalogue.save(place / "sources", [catalogue.Item(name, "face", name, "made", "none")
                                       for name in ("a.pgm", "b.pgm")])


def ingests(place: Path) -> None:
    """A dataset in several files, its manifest, and what interrupted ingests leave."""
    with mock.patch("hpclcae.data.ingest.units.FILES", 16):  # a file has whole units
        for words in (f"{INGEST} --shard-size 9e-6 --out set.h5",
                      "data info set.h5 --manifest set.jsonl"):
            assert main(words.split()) == 0, words
    with mock.patch("hpclcae.data.ingest.build._write", side_effect=OSError("interrupted")):
        for words in (GO_ON, GO_ON_EARLY):
            assert main(words.split()) == 1, words
    (place / "early.h5.work/plan.json").unlink()


# ---- damage --------------------------------------------------------------------------------------

def damaged(content: bytes, name: str, chance: random.Random) -> bytes:
    """The content with one thing changed: bytes, or a value in a text."""
    if Path(name).suffix in (".json", ".jsonl", ".toml") and chance.random() < 0.5:
        return _other_value(content.decode(), chance).encode()
    changed, size = bytearray(content), len(content)
    at, count = chance.randrange(size), chance.choice([1, 2, 8, 64, 512, 4096])
    match chance.randrange(9):
        case 0:
            changed[at] ^= 1 << chance.randrange(8)
        case 1:
            changed[at] = chance.randrange(256)
        case 2:
            changed[at:at + count] = bytes(len(changed[at:at + count]))
        case 3:
            changed[at:at + count] = b"\xff" * len(changed[at:at + count])
        case 4:
            changed[at:at + count] = chance.randbytes(len(changed[at:at + count]))
        case 5:
            del changed[at:]
        case 6:
            del changed[at:at + count]
        case 7:
            changed[at:at] = changed[at:at + count]
        case 8:
            other = chance.randrange(size)
            changed[at:at + count] = changed[other:other + len(changed[at:at + count])]
    return bytes(changed)


VALUES = ["null", "true", "[]", "{}", '""', '"x"', "-1", "0", "1e400", "-1e308", "nan", "NaN",
          "9" * 400, "9" * 5000, "1.5", "[[1]]", "[" * 3000, '{"a": 1}', '"\\u0000"', "2" * 18]


def _other_value(text: str, chance: random.Random) -> str:
    """A number, a text or a word of the text replaced."""
    found = list(re.finditer(r'"[^"\n]*"|-?\d[\d.e+-]*|\b(?:true|false|null)\b', text))
    if not found:
        return text
    place = chance.choice(found)
    return text[:place.start()] + chance.choice(VALUES) + text[place.end():]


# ---- a case --------------------------------------------------------------------------------------

def run_case(whole: Path, place: Path, seed: int, number: int) -> tuple[str, str, str]:
    """Damage a file of a copy, run a command; what was done, what became of it, what was said."""
    chance = random.Random(f"{seed} {number}")
    name = chance.choice(list(READERS))
    command = chance.choice(READERS[name])
    shutil.copytree(whole, place)
    file, = place.glob(name)
    content = file.read_bytes()
    file.write_bytes(damaged(content, name, chance))
    try:
        outcome, said = in_child(place, command)
    finally:
        shutil.rmtree(place)
    return f"{name}: {command}", outcome, said


def in_child(place: Path, command: str) -> tuple[str, str]:
    """What becomes of a command in a process of its own."""
    log = place / "said"
    child = os.fork()
    if not child:
        code = 99
        try:
            signal.alarm(TIME)
            limit = memory() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with open(os.open(os.devnull, os.O_WRONLY), "w") as out, log.open("w") as err:
                os.dup2(err.fileno(), 2)
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    os.chdir(place)
                    code = execute(command)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    said = log.read_text(errors="replace")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"FAILED: {'endless' if number == signal.SIGALRM else f'signal {number}'}", said
    return judged(os.WEXITSTATUS(status), said), said


def execute(command: str) -> int:
    """Run a command; a traceback is code 98."""
    warnings.simplefilter("ignore")  # of numbers that came out of damage
    try:
        if command == "catalogue":
            from hpclcae.utils.errors import InputError
            try:
                catalogue.load("sources")
            except InputError as error:
                print(f"hpclcae: {error}", file=sys.stderr)
                return 1
            return 0
        return main(command.split())
    except BaseException:
        traceback.print_exc()
        return 98


def judged(code: int, said: str) -> str:
    """What became of a command, in words."""
    lines = [line for line in said.splitlines() if line.startswith("hpclcae ")
             or line.startswith("hpclcae: ")]
    if "Traceback" in said or code not in (0, 1, 2, 3):
        return "FAILED: traceback"
    if "not enough memory" in said:
        return "FAILED: memory"
    if len(lines) > 1 or any(len(line) > 3100 for line in lines):
        return "FAILED: more than a line"
    return {0: "accepted"}.get(code, "refused")


def memory() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run(seconds: float, seed: int, case: int | None) -> int:
    """Cases for so many seconds, or one; returns how many failed."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        os.chdir(whole)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make(whole)
        for module, _, _ in COMMANDS.values():  # once, not in every case
            if ".bench." not in module:
                importlib.import_module(module)
        Figure().savefig(io.BytesIO())
        for name, commands in READERS.items():  # undamaged, all is well
            for command in commands if case is None and seconds > 60 else ():
                copy = Path(folder) / "copy"
                shutil.copytree(whole, copy)
                outcome, said = in_child(copy, command)
                shutil.rmtree(copy)
                assert outcome == "accepted" or command.startswith("status"), (command, said)
        began, number = time.monotonic(), case or 0
        while case == number or case is None and time.monotonic() - began < seconds:
            what, outcome, said = run_case(whole, Path(folder) / "case", seed, number)
            outcomes[outcome] += 1
            if outcome.startswith("FAILED") or case is not None:
                print(f"case {number} of seed {seed}: {what}: {outcome}\n{said[-1500:]}\n",
                      flush=True)
            number += 1
        os.chdir("/")
    print(json.dumps({"cases": sum(outcomes.values()), **dict(sorted(outcomes.items()))}))
    return sum(count for outcome, count in outcomes.items() if outcome.startswith("FAILED"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int)
    arguments = parser.parse_args()
    sys.exit(1 if run(arguments.seconds, arguments.seed, arguments.case) else 0)
