"""hpclcae plan: the line to submit a plan with, and what is refused."""
import argparse
import shlex

import pytest

from hpclcae import config as configuration
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
     r"needs [\d.]+ GB on the fullest node, 14.4 of 16 GB can be used"),
    ("--nodes 1 --cores 2 --memory 999 --replicas 9", "2 ranks are too few for the servers and 9"),
    ("--nodes 1 --cores 2 --memory 0", "--memory 0"),
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
