"""Training on four nodes: the time limit, cancelling, requeues, a lost node, failures.

Every wait has a limit. The runs compared are deterministic (no servers): whatever happens on the
way, the last checkpoint must be that of a run which nothing happened to, bit for bit. A run is held
(STOP) where something is to happen in its middle, and let go when what is to happen has come to its
ranks, so that no test depends on how fast the machine is.
"""
import json
import re
import sys
from collections import Counter

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint
from tests.support.processes import RUN, run_limited
from tests.support.slurm_jobs import Job, cluster, command, hold, let_go, submit

STEPS = 400
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")


def settings(dataset, steps=STEPS, **more):
    """Words of every run: nothing is saved on the way unless it is asked for."""
    values = {"data.train": dataset, "train.steps": steps, "train.checkpoint_every": steps,
              "train.log_every": 1, "train.dtype": "float64", **more}
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def arrays(run):
    """Parameters and the update rule's memory of the newest checkpoint."""
    found = {}
    with h5py.File(checkpoint.find(run) / "model.h5") as file:
        file.visititems(lambda name,
                        item: found.update({name: item[...]}) if isinstance(item, h5py.Dataset)
                        and name.startswith(("stage", "update")) else None)
        return int(file.attrs["step"]), found


def assert_same(run, other, tolerance=0.0):
    (step, one), (other_step, two) = arrays(run), arrays(other)
    assert step == other_step and one.keys() == two.keys()
    assert any(name.startswith("update") for name in one)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=0,
                                   atol=tolerance * np.abs(two[name]).max(), err_msg=name)


def status(run):
    return run_limited([sys.executable, "-m", "hpclcae", "status", str(run)], 30)


@pytest.fixture(scope="session")
def undisturbed(slurm, tiny_dataset, tmp_path_factory):
    """The run that nothing happened to, on two nodes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = submit("train.sbatch", RUN / "tiny.toml", folder / "run", *settings(tiny_dataset),
                 log=folder / "log", options=TWO_NODES)
    assert job.ended() == "COMPLETED", job.said
    return folder / "run"


@pytest.fixture
def started(tiny_dataset, tmp_path):
    """Submit a run on two nodes, wait until it trains, and hold it there.

    It trains when it has the file `until_there`.
    """
    def start(*options, until_there="metrics.jsonl", checkpoint_every=STEPS, **variables):
        words = settings(tiny_dataset, **{"train.checkpoint_every": checkpoint_every})
        job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words,
                     log=tmp_path / "log", options=(*TWO_NODES, *options), **variables)
        job.until_there(tmp_path / "run" / until_there)
        hold(tmp_path / "run")
        assert "complete" not in job.said, "it was over before it was held"
        return job
    return start


def finished_like(job, run, undisturbed):
    assert job.ended() == "COMPLETED", job.said
    assert f"{run}: complete, step {STEPS} of {STEPS}" in job.said
    assert status(run).returncode == 0 and not (run / "starts").exists()
    assert_same(run, undisturbed)


def test_four_nodes_train_the_numbers_of_one_process(hpclcae, tiny_dataset, tmp_path):
    words = settings(tiny_dataset, steps=6, **{"train.log_every": 5})
    job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words, log=tmp_path / "log",
                 options=("--nodes=4", "--ntasks-per-node=1"))
    assert job.ended() == "COMPLETED", job.said
    assert re.search(r"^train: job \d+ on node\[1-4\], 4 ranks, from step 0 ", job.said,
                     re.MULTILINE)
    assert re.search(r"^step 6/6  objective ", job.said, re.MULTILINE)
    assert f"{tmp_path}/run: complete, step 6 of 6 (100 %)" in job.said
    assert f"hpclcae neurons {tmp_path}/run" in job.said and "Traceback" not in job.said
    alone = hpclcae("train", RUN / "tiny.toml", "--out", tmp_path / "alone", *words)
    assert alone.returncode == 0, alone.stderr
    assert_same(tmp_path / "run", tmp_path / "alone", tolerance=1e-12)


@pytest.mark.parametrize("placement, servers",
                         [("beside", {"node1": 1, "node2": 1}), ("apart", {"node4": 2})])
def test_servers_stand_beside_workers_or_on_their_own_node(tiny_dataset, tmp_path, placement,
                                                           servers):
    words = settings(tiny_dataset, steps=6, **{"parallel.servers": 2, "parallel.replicas": 2,
                                               "parallel.placement": placement})
    job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words, log=tmp_path / "log",
                 options=("--nodes=4", "--ntasks-per-node=2"))
    assert job.ended() == "COMPLETED", job.said
    ranks = json.loads((tmp_path / "run/parallel.json").read_text())
    assert len(ranks) == 8
    assert Counter(rank["node"] for rank in ranks if rank["role"].startswith("server")) == servers
    assert status(tmp_path / "run").returncode == 0


def test_a_time_limit_in_the_middle(started, undisturbed, tmp_path):
    """USR1 comes to the script, TERM to the ranks; checkpoint, requeue, resume, the same result.

    SLURM looks every 30 s, so USR1 comes 30 to 60 s after the start.
    """
    job = started("--time=2", "--signal=B:USR1@60")
    job.until_said("train: USR1: the time limit is near")
    let_go(tmp_path / "run", "TERM")
    job.until_said("train: requeued")
    saved = checkpoint.saved(tmp_path / "run/checkpoints")
    assert len(saved) == 1 and 0 < checkpoint.step_of(saved[0]) < STEPS
    finished_like(job, tmp_path / "run", undisturbed)
    assert f"ranks, from step {checkpoint.step_of(saved[0])} (start 1 of 3 there)" in job.said


def test_scancel_leaves_a_checkpoint_and_is_not_requeued(started, undisturbed, tmp_path):
    """SLURM itself lets held ranks go (CONT) before it sends them TERM."""
    job = started()
    command("scancel", job.number)
    assert job.ended() == "CANCELLED"
    assert "train: srun ended with exit code 0 (stopped)" in job.said and "requeued" not in job.said
    run = tmp_path / "run"
    asked = status(run)
    step = checkpoint.step_of(checkpoint.find(run))
    assert asked.returncode == 3 and 0 < step < STEPS
    assert f"not complete, step {step} of {STEPS}" in asked.stdout
    again = submit("train.sbatch", run / "configuration.toml", run, log=tmp_path / "again",
                   options=TWO_NODES)
    finished_like(again, run, undisturbed)


def test_scontrol_requeue(started, undisturbed, tmp_path):
    job = started()
    command("scontrol", "requeue", job.number)
    finished_like(job, tmp_path / "run", undisturbed)
    assert len(re.findall(r"^train: job .* from step [1-9]", job.said, re.MULTILINE)) == 1


@pytest.mark.parametrize("grace", [0, 120])
def test_a_job_of_higher_priority(started, undisturbed, tmp_path, grace):
    """It takes all nodes; the run goes on afterwards.

    With time of grace it leaves a checkpoint and requeues itself.
    """
    command("scontrol", "update", "partitionname=test", f"gracetime={grace}")
    try:
        job = started()
        said = command("sbatch", "--parsable", "--partition=urgent", "--nodes=4", "--exclusive",
                       "--output=/dev/null", "--wrap=true")
        assert Job(said.strip(), tmp_path / "no log").ended() == "COMPLETED"
        finished_like(job, tmp_path / "run", undisturbed)
    finally:
        command("scontrol", "update", "partitionname=test", "gracetime=0")
    starts = re.findall(r"^train: job .* from step (\d+)", job.said, re.MULTILINE)
    assert len(starts) == 2 and starts[0] == "0"
    if grace:
        assert "train: requeued" in job.said and 0 < int(starts[1]) < STEPS


def test_open_mpi_started_by_pmix(started, undisturbed, pmix, tmp_path):
    """Requeued in the middle, on two nodes: the numbers are those of MPICH, bit for bit."""
    job = started(**pmix)
    command("scontrol", "requeue", job.number)
    finished_like(job, tmp_path / "run", undisturbed)
    # a start more for every crash of its MPI_Init (decisions.md); each under Open MPI
    starts = re.findall(r"^train: job .* from step \d", job.said, re.MULTILINE)
    assert len(starts) >= 2 and job.said.count("; MPI Open MPI v") == len(starts)
    assert len(re.findall(r"^train: job .* from step [1-9]", job.said, re.MULTILINE)) == 1


def test_servers_under_open_mpi(tiny_dataset, pmix, tmp_path):
    words = settings(tiny_dataset, steps=6, **{"parallel.servers": 2, "parallel.replicas": 2})
    job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words, log=tmp_path / "log",
                 options=("--nodes=4", "--ntasks-per-node=2"), **pmix)
    assert job.ended() == "COMPLETED", job.said
    assert "; MPI Open MPI v" in job.said and status(tmp_path / "run").returncode == 0


def test_usr1_to_the_ranks_leaves_a_checkpoint_and_goes_on(started, undisturbed, tmp_path):
    job = started()
    job.signal("USR1")
    let_go(tmp_path / "run", "USR1")
    finished_like(job, tmp_path / "run", undisturbed)
    steps = [checkpoint.step_of(path) for path in checkpoint.saved(tmp_path / "run/checkpoints")]
    assert len(steps) == 2 and 0 < steps[0] < steps[1] == STEPS
    assert "requeued" not in job.said


@pytest.mark.parametrize("lost", ["first", "second"])
def test_a_node_that_is_lost(started, undisturbed, tmp_path, lost):
    """The script's node or a rank's: the job starts again on the others, from the last checkpoint.

    One is declared down, the other one SLURM finds out about. A checkpoint is waited for before the
    next one is begun, so the run cannot be over when the first one is there.
    """
    job = started(until_there="checkpoints/step-00000020/manifest.json", checkpoint_every=20)
    number = {"first": "1", "second": "2"}[lost]
    cluster("crash", number)
    if lost == "first":
        command("scontrol", "update", "nodename=node1", "state=down", "reason=its slurmd ended")
    finished_like(job, tmp_path / "run", undisturbed)
    start = re.findall(r"^train: job \d+ on (\S+), 2 ranks, from step (\d+)", job.said,
                       re.MULTILINE)
    assert len(start) == 2
    assert f"node{number}" not in command("scontrol", "show", "hostnames", start[1][0])
    assert 0 < int(start[1][1]) < STEPS


def test_what_would_come_back_is_not_started_again(tiny_dataset, tmp_path):
    """It diverges before its first checkpoint, as it would in every start."""
    job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run",
                 *settings(tiny_dataset, **{"update.rate": 1e6}),
                 log=tmp_path / "log", options=TWO_NODES)
    assert job.ended() == "FAILED" and job.exit_code == 1
    assert job.said.count("from step 0 (start") == 1
    assert job.said.splitlines()[-1].startswith("train: given up: hpclcae failed: not started again"
                                                ", as this would come back: ")
    assert "update.rate = 1e+06 is likely too large" in job.said.splitlines()[-1]


def test_a_failure_in_the_same_step_is_given_up_and_before_that_started_again(tiny_dataset,
                                                                              tmp_path):
    """A rank is killed when the run folder is there, and in every start after that."""
    run = tmp_path / "run"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"""
import os, pathlib, sys, threading, time
def die():
    while not pathlib.Path({str(run)!r}, "configuration.toml").exists():
        time.sleep(0.001)
    os.kill(os.getpid(), 9)
if "train" in sys.argv[1:2] and os.environ.get("SLURM_PROCID") == "1":
    threading.Thread(target=die, daemon=True).start()
""")
    job = submit("train.sbatch", RUN / "tiny.toml", run, *settings(tiny_dataset),
                 log=tmp_path / "log", options=TWO_NODES, PYTHONPATH=str(site))
    assert job.ended() == "FAILED" and job.exit_code == 1
    assert job.said.count("from step 0 (start") == 2 and "train: requeued" in job.said
    assert job.said.splitlines()[-1].endswith("as the time before: not started again")


def test_ranks_that_end_before_there_is_a_run_are_started_again(tiny_dataset, tmp_path):
    """As when the MPI library crashes while it starts: seen once with Open MPI."""
    site, run = tmp_path / "site", tmp_path / "run"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"""
import os, pathlib, sys
if "train" in sys.argv[1:2] and os.environ.get("SLURM_PROCID") == "1":
    try:
        pathlib.Path({str(tmp_path)!r}, "died").touch(exist_ok=False)
        os.kill(os.getpid(), 11)
    except FileExistsError:
        pass
""")
    job = submit("train.sbatch", RUN / "tiny.toml", run, *settings(tiny_dataset, steps=6),
                 log=tmp_path / "log", options=TWO_NODES, PYTHONPATH=str(site))
    assert job.ended() == "COMPLETED", job.said
    assert (tmp_path / "died").exists() and job.said.count("train: requeued") == 1
    assert re.findall(r"\(start (\d) of 3 there\)", job.said) == ["1", "2"]
    assert status(run).returncode == 0


def test_a_chain_of_jobs_without_requeue(tiny_dataset, undisturbed, tmp_path):
    """The first job is ended in the middle.

    The second completes the run, the third has nothing to do.
    """
    run = tmp_path / "run"
    said = command("bash", "slurm/chain.sh", 3, *TWO_NODES, "--mem=500",
                   f"--output={tmp_path}/log-%j", "slurm/train.sbatch", RUN / "tiny.toml", run,
                   *settings(tiny_dataset), HPCLCAE_VENV=sys.prefix)
    numbers = re.match(r"chain: jobs (\d+) (\d+) (\d+);", said)
    assert numbers
    jobs = [Job(number, tmp_path / f"log-{number}") for number in numbers.groups()]
    jobs[0].until_there(run / "metrics.jsonl")
    hold(run)
    jobs[0].signal("TERM")
    let_go(run, "TERM")
    assert jobs[0].ended() == "FAILED" and jobs[0].exit_code == 3 and "requeued" not in jobs[0].said
    finished_like(jobs[1], run, undisturbed)
    assert jobs[2].ended() == "COMPLETED" and "nothing left to do" in jobs[2].said
