"""hpclcae plan: the line to submit a plan with, and what is refused."""
import argparse
import shlex
import time

import pytest

from hpclcae import cli, config as configuration
from hpclcae.cluster.plan import choose
from hpclcae.commands import plan
from hpclcae.parameter_server.roles import blocks_of
from hpclcae.partition.blocks import Grid
from hpclcae.utils.errors import InputError
from tests.support.processes import RUN


def asked(*words):
    parser = argparse.ArgumentParser()
    plan.configure(parser)
    return plan.run(parser.parse_args(list(map(str, words))))


@pytest.mark.parametrize("options, message", [
    ("--nodes 1 --cores 2 --memory 16",
     r"needs [\d.]+ GB on the fullest node \(with a copy while it is saved\), 14.4 of 16 GB can"),
    ("--nodes 1 --cores 2 --memory 999 --replicas 9", "2 ranks are too few for the servers and 9"),
    ("--nodes 100000 --cores 128 --memory 64", "12,800,000 ranks: a plan is made for at most"),
    ("--nodes 9 --cores 2 --memory 64 --replicas 2 --servers 0", "replicas meet at parameter serv"),
    ("--nodes 1 --cores 2 --memory 64 --set data.sice=3", "unknown key 'data.sice'")])
def test_what_cannot_be_planned_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        asked(RUN / "paper.toml", *options.split())


def test_this_machine_is_planned_for_if_no_other_is_named(capsys, monkeypatch):
    monkeypatch.setattr(plan, "cores", lambda: 3)
    monkeypatch.setattr(plan, "memory", lambda: 7e9)
    asked(RUN / "tiny.toml")
    assert "on 1 nodes of 3 cores and 7 GB" in capsys.readouterr().out


@pytest.mark.parametrize("options", [
    "--memory 0", "--memory nan", "--memory inf", "--memory -1", "--memory 64 --nodes 0",
    f"--memory 64 --nodes {'9' * 400}", f"--memory 64 --cores {'9' * 5000}",
    "--memory 64 --servers -1", "--memory 1e400"])
def test_numbers_out_of_range_are_refused_on_one_line(options, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["plan", str(RUN / "desk.toml"), "--nodes", "1", "--cores", "2", *options.split()])
    line = capsys.readouterr().err
    assert caught.value.code == 2 and line.count("\n") == 1 and len(line) < 300
    assert options.split()[-2] in line


def test_many_ranks_are_planned_in_seconds():
    began = time.monotonic()
    found = choose(configuration.load(RUN / "desk.toml"), 500, 100, 64e9)
    assert found.replicas > 100 and time.monotonic() - began < 60


def test_the_line_gives_the_plan_back(capsys):
    """The settings on the sbatch line, applied to the configuration, need the ranks on the line."""
    asked(RUN / "paper.toml", "--nodes", 16, "--cores", 16, "--memory", 64, "--replicas", 2,
          "--set", "train.batch=50")
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    options = dict(word.removeprefix("--").split("=")
                   for word in words[1:words.index("slurm/train.sbatch")])
    ranks, nodes, per_node = (int(options[name])
                              for name in ("ntasks", "nodes", "ntasks-per-node"))
    assert words[0] == "sbatch" and ranks <= nodes * per_node
    changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    config = configuration.load(words[words.index("slurm/train.sbatch") + 1], changes)
    assert config.train.batch == 50 and config.parallel.replicas == 2
    blocks_of(ranks, config.parallel.servers, config.parallel.replicas,
              Grid.parse(config.parallel.grid).size)


def test_many_classes_are_spread_over_the_blocks(capsys):
    words = "--nodes 16 --cores 48 --memory 192 --set classifier.loss=logistic"
    asked(RUN / "paper.toml", *words.split(), "--set", "classifier.classes=22000")
    text = capsys.readouterr().out
    assert "22,000 x 125,000 features; the first block 22,000 x " in text
    assert "a sum of 8.80 MB of scores" in text
