"""The jobs beside training: a sweep, scaling, evaluation, and the line that hpclcae plan prints."""
import csv
import json
import shlex
import sys

from tests.support.processes import RUN, run_limited
from tests.support.slurm_jobs import HANGS, Job, command, submit, until


def set_words(dataset, **more):
    values = {"data.train": dataset, "train.steps": 4, "train.checkpoint_every": 4, **more}
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def status(*words):
    return run_limited([sys.executable, "-m", "hpclcae", "status", *map(str, words)], 60)


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_of_six_configurations_of_which_one_fails(tiny_dataset, tmp_path):
    """Three receptive fields, two numbers of maps.

    One run's name is taken by a file, so it cannot be made.
    """
    runs, table = tmp_path / "sweep", tmp_path / "sweep.csv"
    runs.mkdir()
    broken = runs / "field4-maps3"
    broken.mkdir()
    (broken / "checkpoints").write_text("in the way")

    def sweep():
        number = command("sbatch", "--parsable", "--array=0-5", "--ntasks=1", "--mem=500",
                         f"--output={tmp_path}/log-%a", "slurm/sweep.sbatch", RUN / "tiny.toml",
                         runs, "2 3 4", "2 3", *set_words(tiny_dataset), HPCLCAE_VENV=sys.prefix,
                         HPCLCAE_MAX_STARTS="1").strip()
        until(lambda: not command("squeue", "--noheader", f"--jobs={number}").strip(), HANGS,
              lambda: "\n".join(path.read_text() for path in runs.glob("*/train.log")))
    sweep()
    done = status(*sorted(runs.iterdir()), "--csv", table)
    rows = {row["run"]: row for row in read_table(table)}
    assert done.returncode == 3 and len(rows) == 6
    good = {name: row for name, row in rows.items() if row["state"] == "complete"}
    assert good.keys() == {f"field{field}-maps{maps}" for field in (2, 3, 4)
                           for maps in (2, 3)} - {broken.name}
    for name, row in good.items():
        assert row["step"] == "4/4" and float(row["objective"]) > 0
        assert name == f"field{row['stages.0.receptive_field']}-maps{row['stages.2.maps']}"
    assert rows[broken.name]["state"] != "complete"
    named, = (line for line in done.stdout.splitlines() if line.startswith(f"{broken}: "))
    assert "folder of checkpoints" in named and "cannot be written" in named
    # Submitted again, with the cause repaired: finished runs are left alone, the sixth is made.
    (broken / "checkpoints").unlink()
    (broken / "starts").unlink(missing_ok=True)
    before = {name: (runs / name / "metrics.jsonl").read_text() for name in good}
    sweep()
    assert {name: (runs / name / "metrics.jsonl").read_text() for name in good} == before
    again = status(*sorted(runs.iterdir()))
    assert again.returncode == 0, again.stdout


def test_a_sweep_says_how_long_its_array_must_be(tiny_dataset, tmp_path):
    job = submit("sweep.sbatch", RUN / "tiny.toml", tmp_path / "sweep", "3 4 5", "2 3",
                 *set_words(tiny_dataset), log=tmp_path / "log", options=("--ntasks=1",))
    assert job.ended() == "FAILED" and job.said == "sweep: it is a job array: sbatch --array=0-5\n"


def test_scaling_over_one_two_and_four_nodes(tmp_path):
    out = tmp_path / "out"
    job = submit("scaling.sbatch", out, RUN / "tiny.toml", "--repeat", 1, "--steps", 2,
                 log=tmp_path / "log", options=("--nodes=4", "--ntasks-per-node=1"))
    assert job.ended() == "COMPLETED", job.said
    rows = [json.loads(line) for line in (out / "scaling.jsonl").read_text().splitlines()]
    found = {(row["case"].endswith("weak"), row["metric"]): row["value"] for row in rows}
    for weak in (False, True):
        assert found[weak, "1 ranks over 1: speed-up"] == 1
        assert all(found[weak, f"{ranks} ranks: step"] > 0 for ranks in (1, 2, 4))
        assert (out / f"{'weak' if weak else 'strong'}.png").read_bytes()[:4] == b"\x89PNG"
    assert job.said.count("speed-up over 1") == 2
    assert job.said.splitlines()[-1].startswith(f"scaling: done: {out}/")


def test_evaluation_of_a_run(slurm, tiny_dataset, labelled_dataset, tmp_path):
    words = set_words(tiny_dataset, **{"data.test": labelled_dataset})
    run = tmp_path / "run"
    trained = submit("train.sbatch", RUN / "tiny.toml", run, *words, log=tmp_path / "log",
                     options=("--ntasks=1",))
    assert trained.ended() == "COMPLETED", trained.said
    job = submit("evaluate.sbatch", run, log=tmp_path / "evaluated",
                 options=("--nodes=2", "--ntasks-per-node=1"))
    assert job.ended() == "COMPLETED", job.said
    assert json.loads((run / "neurons.json").read_text())["test_images"] == 60
    assert list((run / "figures").glob("*.png"))
    assert job.said.splitlines()[-1] == f"evaluate: done: {run}/neurons.json, {run}/figures"
    assert status(run, "--csv", tmp_path / "one.csv").returncode == 0
    assert 0.5 < float(read_table(tmp_path / "one.csv")[0]["best neuron"]) <= 1


def test_the_line_that_plan_prints_can_be_submitted(hpclcae, tiny_dataset, tmp_path):
    """Four nodes of two cores: replicas and servers."""
    run = tmp_path / "run"
    words = set_words(tiny_dataset, **{"preprocess.whitening_images": 60})
    planned = hpclcae("plan", RUN / "tiny.toml", "--nodes", 4, "--cores", 2, "--memory", 1,
                      "--replicas", 2, "--out", run, *words)
    assert planned.returncode == 0, planned.stderr
    line = shlex.split(planned.stdout.splitlines()[-1])
    assert line[0] == "sbatch" and "--ntasks=8" in line
    number = command(*line[:1], "--parsable", f"--output={tmp_path}/log", *line[1:],
                     HPCLCAE_VENV=sys.prefix).strip()
    job = Job(number, tmp_path / "log")
    assert job.ended() == "COMPLETED", job.said
    assert len(json.loads((run / "parallel.json").read_text())) == 8
