"""hpclcae status: where runs stand, and the exit codes that batch jobs decide with."""
import argparse
import csv
import re
import shlex

import pytest

from hpclcae import checkpoint, cli
from hpclcae.commands import status
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_run


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint of step 20 and metrics of four lines."""
    folder = write_run(tmp_path)
    (folder / "configuration.toml").write_text(settings(20))
    return folder


def settings(steps, field=4):
    return (f"data.size = 12\ntrain.steps = {steps}\n"
            f"[[stages]]\nreceptive_field = {field}\nmaps = 3\n")


def asked(*words):
    parser = argparse.ArgumentParser()
    status.configure(parser)
    return status.run(parser.parse_args(list(map(str, words))))


def test_a_complete_run(run, capsys):
    assert asked(run) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{run}: complete, step 20 of 20 (100 %), 0.0 min of training"
    assert said[1].startswith(f"newest checkpoint  {checkpoint.find(run)}, 20")
    assert said[2:] == ["last objective     4.5", f"look at it         hpclcae neurons {run}"]


def test_a_run_that_is_not_complete_says_how_to_go_on(run, capsys):
    (run / "configuration.toml").write_text(settings(80))
    assert asked(run) == 3
    said = capsys.readouterr().out
    assert f"{run}: not complete, step 20 of 80 (25 %)" in said
    assert f"hpclcae train {run}/configuration.toml --out {run} --resume" in said


@pytest.mark.parametrize("parallel, command, submit", [
    ("", ["hpclcae", "train"], ["sbatch"]),
    ("parallel.grid = '1x1'\n", ["hpclcae", "train"], ["sbatch"]),
    ("parallel.grid = '2x2'\n", ["hpclcae", "launch"], ["sbatch", "--ntasks=4"]),
    ("parallel.servers = 2\nparallel.replicas = 3\n", ["hpclcae", "launch"],
     ["sbatch", "--ntasks=5"])])
def test_the_lines_to_go_on_with_can_be_pasted(run, capsys, parallel, command, submit):
    run = run.rename(run.with_name("it's a run"))
    (run / "configuration.toml").write_text(parallel + settings(80))
    assert asked(run) == 3
    said = dict(re.split("  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()
                if line.startswith(("go on ", "or in a cluster ")))
    resolved = str(run / "configuration.toml")
    assert shlex.split(said["go on"]) == [*command, resolved, "--out", str(run), "--resume"]
    assert shlex.split(said["or in a cluster"]) == [*submit, "slurm/train.sbatch", resolved,
                                                    str(run)]
    (run / "configuration.toml").write_text(settings(20))
    assert asked(run) == 0
    line = re.search("look at it +(.*)", capsys.readouterr().out)[1]
    assert shlex.split(line) == ["hpclcae", "neurons", str(run)]


def test_a_run_without_a_checkpoint_stands_at_zero(tmp_path, capsys):
    (tmp_path / "configuration.toml").write_text(settings(80))
    assert asked(tmp_path) == 3
    assert "step 0 of 80" in capsys.readouterr().out


@pytest.mark.parametrize("step", [True, False])
def test_no_run(tmp_path, capsys, step):
    if step:
        assert asked(tmp_path / "nothing", "--step") == 0 and capsys.readouterr().out == "0\n"
        return
    with pytest.raises(InputError, match=r"nothing is not the folder of a run .*hpclcae train CON"):
        asked(tmp_path / "nothing")


def test_the_newest_step_alone(run, capsys):
    assert asked(run, "--step") == 0 and capsys.readouterr().out == "20\n"


def damage_a_file(run):
    path = next(path for path in sorted(checkpoint.find(run).iterdir()) if path.suffix == ".h5")
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage, word", [
    (damage_a_file, "bytes instead of"),
    (lambda run: (run / "configuration.toml").write_text("steps = ="), "is not valid TOML")])
def test_a_broken_run_says_what_is_broken(run, capsys, damage, word):
    damage(run)
    assert asked(run) == 1
    said = capsys.readouterr().out
    assert f"{run}: broken" in said and word in said and "go on" not in said


@pytest.mark.parametrize("line", [b"no metrics\n", b"\xff\xfe\n", bytes(200) + b"\n", b"[1]\n",
                                  b'{"step": 1e400, "objective": 1, "seconds": 1}\n',
                                  b'{"step": 3, "objective": "x", "seconds": 1}\n'])
def test_a_damaged_line_of_metrics_is_left_out(run, capsys, line):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line)
    assert asked(run) == 0 and "last objective     4.5" in capsys.readouterr().out


def test_a_last_line_of_metrics_that_was_cut_short_is_left_out(run, capsys):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "obj')
    assert asked(run) == 0 and "last objective     4.5" in capsys.readouterr().out


def test_the_log_of_a_job_says_why_a_run_stopped(run, tmp_path, capsys):
    (run / "configuration.toml").write_text(settings(80))
    (run / "train.log").write_text("step 7\nhpclcae train: the disk is full\nslurmstepd: ended\n\n")
    assert asked(run) == 3 and "hpclcae train: the disk is full" in capsys.readouterr().out
    never = tmp_path / "never"
    never.mkdir()
    (never / "train.log").write_text("sweep: not started: why\n")
    assert asked(never) == 1 and "sweep: not started: why" in capsys.readouterr().out


@pytest.mark.parametrize("steps, code", [((20, 20), 0), ((20, 80), 3)])
def test_several_runs_give_a_table_of_what_differs(run, tmp_path, capsys, steps, code):
    other = write_run(tmp_path / "more").rename(tmp_path / "other")
    (run / "configuration.toml").write_text(settings(steps[0]))
    (other / "configuration.toml").write_text(settings(steps[1], field=5))
    (other / "neurons.json").write_text('{"rows": [{"name": "chance", "accuracy": 0.9}, '
                                        '{"name": "trained, stage 1", "accuracy": 0.75}]}')
    assert asked(run, other, "--csv", tmp_path / "table.csv") == code
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["run", "other"]
    assert [row["best neuron"] for row in rows] == ["", "0.750"]
    assert [row["stages.0.receptive_field"] for row in rows] == ["4", "5"]
    assert [row["step"] for row in rows] == [f"20/{n}" for n in steps]
    assert "stages.0.maps" not in rows[0]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_worst_run_decides_the_exit_code(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "configuration.toml").write_text("steps = =")
    assert asked(run, tmp_path / "empty") == 1


def test_a_table_replaces_tables_only(run, tmp_path):
    for _ in range(2):
        assert asked(run, "--csv", tmp_path / "table.csv") == 0
    (tmp_path / "table.csv").write_text("my,own,table\n")
    with pytest.raises(InputError, match="not a table of runs of ours"):
        asked(run, "--csv", tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "my,own,table\n"


def test_a_failure_is_written_down_and_shown(tmp_path, capsys):
    """What slurm/common.sh asks: exit code 0, start again; 1, do not."""
    (tmp_path / "configuration.toml").write_text("train.restarts = 5\n")
    words = ["status", str(tmp_path), "--job", "17", "--failed", "srun ended with exit code 137"]
    for code, said in ((0, "it goes on from the last checkpoint"), (1, "as the time before")):
        (tmp_path / "progress").write_text("12\n")
        assert cli.main(words) == code
        out = capsys.readouterr().out
        assert out.startswith("hpclcae failed: srun ended with exit code 137") and said in out
    assert cli.main(["status", str(tmp_path)]) == 3
    assert ("failures           2, the last after step 12: srun ended with exit code 137; not "
            "started again") in capsys.readouterr().out


def test_a_failure_before_there_is_a_run_is_tried_once_more(tmp_path, capsys):
    words = ["status", str(tmp_path), "--job", "17", "--failed", "srun ended with exit code 139"]
    for code, said in ((0, "139, before its first step: it goes on"), (1, "as the time before")):
        assert cli.main(words) == code
        assert said in capsys.readouterr().out
    (tmp_path / "refused").write_text("data.train = gone.h5: there is no such file\n")
    assert cli.main(["status", str(tmp_path), "--job", "18", "--failed", "it ended"]) == 1
    assert "as this would come back: data.train = gone.h5" in capsys.readouterr().out
