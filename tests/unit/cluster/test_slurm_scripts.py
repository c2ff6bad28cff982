"""What can be said of the jobs in slurm/ without a cluster."""
import shutil
import subprocess

import pytest

from tests.support.documents import check_typed, code_lines, command_lines
from tests.support.processes import ROOT

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


@pytest.mark.parametrize("words", [[], ["two"], ["0", "slurm/train.sbatch"]])
def test_a_chain_without_a_length_is_refused(words):
    said = subprocess.run(["bash", "slurm/chain.sh", *words], capture_output=True, text=True,
                          cwd=ROOT, timeout=10)
    assert said.returncode == 2 and said.stderr.startswith("usage: bash slurm/chain.sh LENGTH")
