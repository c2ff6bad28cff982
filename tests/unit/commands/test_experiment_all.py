"""``hpclcae experiment all``: in order, resumed, with what is left out and why."""
import json
import math

import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.commands.experiment import all as everything
from hpclcae.experiments import record
from hpclcae.experiments.ranks import Ranks
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.utils.errors import InputError, MissingExtraError
from tests.support.tiny_run import write_images, write_run

QUICK = ["--bootstrap", "100", "--only", "concepts", "film"]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path)


def every(run, *words):
    return cli.main(["experiment", "all", str(run), *QUICK, *words])


def test_what_is_done_is_not_repeated_and_what_cannot_be_is_said(run, capsys):
    assert every(run) == 0
    said = capsys.readouterr().out
    assert "1 experiments, about " in said and "=== 1/1 hpclcae experiment concepts " in said
    assert "left out: film: it needs --film (a film that FFmpeg reads): call hpclcae" in said
    file = run / "experiments" / "concepts.json"
    first = file.read_text()
    assert every(run) == 0
    assert "concepts: done already" in capsys.readouterr().out and file.read_text() == first
    write_images(run.parent / "test.h5", 130, labels=True, seed=9)  # another test set
    assert every(run) == 0
    assert "done already" not in capsys.readouterr().out and file.read_text() != first
    found = json.loads(file.read_text())
    assert every(run, "--seed", "3") == 0  # another command line
    assert json.loads(file.read_text())["command"] != found["command"]
    assert every(run, "--seed", "3", "--again") == 0
    assert "=== 1/1" in capsys.readouterr().out


def test_results_of_other_weights_are_made_again(run, capsys):
    assert every(run) == 0
    file = run / "experiments" / "concepts.json"
    file.write_text(file.read_text().replace('"weights_fingerprint": "', '"weights_fingerprint": "0'
                                             ))
    capsys.readouterr()
    assert every(run) == 0
    assert "=== 1/1" in capsys.readouterr().out


def test_one_that_fails_does_not_keep_the_others_from_their_work(run, capsys):
    assert every(run, "--only", "concepts", "histograms") == 1
    said = capsys.readouterr()
    assert "=== 2/2 hpclcae experiment histograms" in said.out
    assert "left out: histograms: there is no " in said.out  # neurons.h5, with the remedy
    assert (run / "experiments" / "concepts.json").exists()


def test_a_missing_extra_is_left_out_and_no_failure(run, capsys, monkeypatch):
    def needs(args, ranks):
        raise MissingExtraError("drawing needs x: pip install 'hpclcae[x]'")
    monkeypatch.setattr("hpclcae.commands.experiment.concepts.work", needs)
    assert every(run) == 0
    assert "left out: concepts: drawing needs x: pip install" in capsys.readouterr().out


class Gathering(SerialCommunicator):
    """The ranks of a job of which the others fail alike, or wait for this one."""

    def __init__(self, others_fail):
        self.others_fail = others_fail

    def gather(self, value, patience=math.inf):
        if value is not None and not self.others_fail:
            assert patience < math.inf
            raise TimeoutError
        return [value, value]


def test_an_error_of_all_ranks_is_that_of_the_experiment_and_one_of_a_few_ends_the_job():
    def fail(ranks):
        raise InputError("no such file: name another")
    task = everything.Task("map", [], run=fail)
    found = everything.attempt(task, Ranks(meeting=Gathering(True)))
    assert str(found) == "no such file: name another"
    with pytest.raises(InputError, match="^map: no such file: name another$"):
        everything.attempt(task, Ranks(meeting=Gathering(False)))
    done = everything.Task("map", [], run=lambda ranks: None)
    assert everything.attempt(done, Ranks(meeting=Gathering(False))) is None


def test_bad_input_is_one_line(run, capsys):
    assert cli.main(["experiment", "all", str(run), "--only", "nothing"]) == 1
    assert "--only nothing: experiments are concepts, " in capsys.readouterr().err
    assert cli.main(["experiment", "all", str(run / "gone")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_estimate_knows_how_long_it_took_before(run):
    folder = run / "experiments"
    folder.mkdir()
    (folder / "concepts.json").write_text('{"seconds": 77}')
    task = everything.Task("concepts", [])
    assert everything.expected([task], folder, None, None) == [77]
    assert everything.duration(77) == "1 min 17 s" and everything.duration(3.2) == "3 s"


def test_every_experiment_can_be_asked_for_with_a_run_alone(run):
    import argparse
    parser = argparse.ArgumentParser()
    everything.configure(parser)
    args, model = parser.parse_args([str(run)]), Model.load(run)
    for name in record.ORDER:
        task = everything.task_of(name, args, model)
        assert task.why_not or task.words[3:] == [str(run)]
