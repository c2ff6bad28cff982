"""What can be said of the jobs in slurm/ without a cluster."""
import os
import shutil
import subprocess
import sys

import pytest

from tests.support.documents import check_typed, code_lines, command_lines
from tests.support.processes import ROOT, RUN, run_limited

SCRIPTS = sorted([*(ROOT / "slurm").glob("*.sh"), *(ROOT / "slurm").glob("*.sbatch"),
                  *(ROOT / "tests/support").glob("slurm*.sh")])
README = (ROOT / "slurm/README.md").read_text()


@pytest.mark.skipif(not shutil.which("shellcheck"),
                    reason="no shellcheck here: a package of that name brings it")
def test_shellcheck_has_nothing_to_say():
    said = subprocess.run(["shellcheck", "--external-sources", *map(str, SCRIPTS)],
                          capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert len(SCRIPTS) >= 8 and (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("words", command_lines(code_lines(README)), ids=" ".join)
def test_the_commands_of_the_readme_can_be_typed(words):
    check_typed("slurm/README.md", words)


def test_the_readme_names_every_job_and_has_five_steps():
    assert [script.name for script in SCRIPTS if script.name not in README + "common.sh"] == []
    assert [f"**{number}. " in README for number in range(1, 7)] == [True] * 5 + [False]


#: In place of srun: the command on this machine, as on a node.
SRUN = """#!/usr/bin/env bash
while case $1 in --*) true ;; *) false ;; esac; do shift; done
echo "srun: a line of its own" >&2
SLURMD_NODENAME=node1 exec "$@"
"""


@pytest.fixture
def batch(tmp_path, tiny_dataset):
    """Run slurm/train.sbatch with a srun that stays here, among libraries that talk."""
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\n"), ("scancel", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\nprint('a site that greets')\nprint('a warning', file=sys.stderr)\n"
        "atexit.register(print, 'and says goodbye', file=sys.stderr)\n")

    def run(*changes, **variables):
        words = [word for change in [f"data.train={tiny_dataset}", "train.steps=2", *changes]
                 for word in ("--set", change)]
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}",
                       "PYTHONPATH": f"{tmp_path}:{ROOT}", "HPCLCAE_VENV": sys.prefix,
                       "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "7",
                       "SLURM_JOB_NODELIST": "node1", "SLURM_SUBMIT_DIR": str(tmp_path),
                       "LD_PRELOAD": "/nowhere/libtalk.so", **variables}
        return run_limited(["bash", "slurm/train.sbatch", RUN / "tiny.toml", "run", *words], 60,
                           cwd=tmp_path, env=environment)
    return run


def test_lines_of_others_do_not_stop_a_job(batch, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/starts").write_text("0 many\n")
    job = batch()
    assert job.returncode == 0, job.stdout + job.stderr
    assert [line for line in job.stdout.splitlines() if line.startswith("train: ")][:2] == [
        job.stdout[job.stdout.index("train: Python "):].splitlines()[0],
        "train: job 7 on node1, 1 ranks, from step 0 (start 1 of 3 there)"]
    assert "run: complete, step 2 of 2" in job.stdout


def test_why_a_job_is_not_started_is_found_among_lines_of_others(batch):
    job = batch("train.speed=9")
    assert job.returncode == 1
    last = job.stderr.splitlines()[-1]
    assert last.startswith("train: not started: hpclcae check: ") and "'train.speed'" in last


def test_a_chain_finds_its_jobs_among_lines_of_others(tmp_path):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho Welcome to 2 clusters\necho '7;cluster'\n"
                                     "echo sbatch: a plugin >&2\necho Goodbye\n")
    (tmp_path / "sbatch").chmod(0o755)
    said = subprocess.run(["bash", "slurm/chain.sh", "2", "slurm/train.sbatch", "a", "b"],
                          capture_output=True, text=True, cwd=ROOT, timeout=10,
                          env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert said.stdout == "chain: jobs 7 7; to end it: scancel 7 7\n", said.stderr


@pytest.mark.parametrize("words", [[], ["two"], ["0", "slurm/train.sbatch"]])
def test_a_chain_without_a_length_is_refused(words):
    said = subprocess.run(["bash", "slurm/chain.sh", *words], capture_output=True, text=True,
                          cwd=ROOT, timeout=10)
    assert said.returncode == 2 and said.stderr.startswith("usage: bash slurm/chain.sh LENGTH")
