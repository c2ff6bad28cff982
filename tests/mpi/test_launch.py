"""Under mpiexec: any number of ranks trains the same numbers, or is refused with one message.

Every job runs under a time limit, after which all that it started is killed.
"""
import subprocess
import sys

import numpy as np
import pytest

from hpclcae import checkpoint
from tests.support.mpi import ENVIRONMENT, MPIEXEC, mpiexec, train
from tests.support.processes import RUN, run_limited
from tests.support.saving import assert_same, datasets

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")


def test_two_ranks_add_their_numbers():
    job = mpiexec(2, "-c", "from mpi4py import MPI; w = MPI.COMM_WORLD; "
                           "total = w.allreduce(10 ** w.rank); w.rank or print(w.size, total)")
    assert job.returncode == 0, job.stderr
    assert job.stdout.splitlines() == ["2 11"]


def test_one_rank_trains_the_same_numbers_as_no_mpiexec(hpclcae, tiny_dataset, tmp_path):
    job = mpiexec(1, *train(tiny_dataset, tmp_path / "launched"))
    assert job.returncode == 0, job.stderr
    alone = hpclcae(*train(tiny_dataset, tmp_path / "alone")[2:])
    assert alone.returncode == 0, alone.stderr
    assert_same(*(datasets(checkpoint.find(tmp_path / run)) for run in ("launched", "alone")))


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("ranks, grid", [(2, "auto"), (2, "2x1"), (4, "auto"), (6, "2x3")])
def test_any_grid_trains_the_numbers_of_one_block(hpclcae, tiny_dataset, tmp_path, ranks, grid,
                                                  dtype, tolerance):
    """Six steps with LCN, untied weights, joint gradients, mirrored images: file to checkpoint."""
    settings = ["--set", f"train.dtype={dtype}"]
    job = mpiexec(ranks, *train(tiny_dataset, tmp_path / "grid"), *settings, "--grid", grid)
    assert job.returncode == 0, job.stderr
    alone = hpclcae(*train(tiny_dataset, tmp_path / "alone")[2:], *settings)
    assert alone.returncode == 0, alone.stderr
    found, expected = (datasets(checkpoint.find(tmp_path / run)) for run in ("grid", "alone"))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * abs(values).max(),
                                   err_msg=name)


def test_a_checkpoint_goes_on_on_another_grid(hpclcae, tiny_dataset, tmp_path):
    """3 steps on 2x1, 3 on 1x3, against 6 on one block."""
    settings = ["--set", "train.dtype=float64"]
    first = mpiexec(2, *train(tiny_dataset, tmp_path / "grid"), *settings, "--grid", "2x1",
                    "--stop-at", "3")
    assert first.returncode == 0, first.stderr
    second = mpiexec(3, *train(tiny_dataset, tmp_path / "grid"), *settings, "--grid", "1x3",
                     "--resume")
    assert second.returncode == 0, second.stderr
    alone = hpclcae(*train(tiny_dataset, tmp_path / "alone")[2:], *settings)
    assert alone.returncode == 0, alone.stderr
    found, expected = (datasets(checkpoint.find(tmp_path / run)) for run in ("grid", "alone"))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12 * abs(values).max(),
                                   err_msg=name)


@pytest.mark.parametrize("ranks, more, words", [
    (3, ["--grid", "2x2"], ["grid 2x2 has 4 blocks", "3 ranks"]),
    (2, ["--grid", "two"], ["grid 'two' is not understood"]),
    (2, ["--set", "stages.0.maps=none"], ["stages.0.maps = 'none'"]),
    (2, ["--set", "data.train=nowhere.h5"], ["nowhere.h5 is not a file"]),
])
def test_bad_input_ends_all_ranks_with_one_message(tiny_dataset, tmp_path, ranks, more, words):
    job = mpiexec(ranks, *train(tiny_dataset, tmp_path / "run"), *more, timeout=30)
    assert job.returncode != 0
    ours = [line for line in job.stderr.splitlines() if line.startswith("hpclcae")
            or "rank 1 of" in line]
    assert len(ours) == 1 and all(word in ours[0] for word in words), job.stderr
    assert "Traceback" not in job.stderr and not (tmp_path / "run").exists()


def test_ranks_that_were_given_different_things_are_refused(tiny_dataset, tmp_path):
    """One job whose second rank has another seed."""
    one, other = ([sys.executable, *map(str, train(tiny_dataset, tmp_path / "run")), "--set",
                   f"train.seed={seed}"] for seed in (0, 1))
    job = run_limited([MPIEXEC, "-n", "1", *one, ":", "-n", "1", *other], 30, env=ENVIRONMENT)
    assert job.returncode != 0
    assert "the configuration of rank 1 is not that of rank 0" in job.stderr
    assert "Traceback" not in job.stderr


def test_nothing_of_a_job_has_a_name_in_shared_memory(installed):
    """So a job that is killed leaves nothing: what has no name ends with its processes."""
    names = ("from hpclcae.mpi import library, shared_memory; world = library.start(); "
             "print([p for p in shared_memory._mapped() if p.name.startswith('mpich')])")
    # what two ranks print may share a line
    assert "".join(installed.run(2, "-c", names)) == "[][]"


#: hpclcae on a machine whose shared memory is almost full.
FULL = """
import sys
from hpclcae.mpi import shared_memory
shared_memory.free_space = lambda vendor: 100e3
from hpclcae.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("transport, code", [("auto", 0), ("rma", 1)])
def test_windows_that_do_not_fit_into_shared_memory(tiny_dataset, tmp_path, transport, code):
    words = train(tiny_dataset, tmp_path / "run")[2:]
    job = mpiexec(2, "-c", FULL, *words, "--servers", "1", "--set", "update.rule=sgd", "--set",
                  f"parallel.transport={transport}")
    assert (job.returncode != 0) == code, job.stderr
    [line] = [line for line in job.stderr.splitlines() if "/dev/shm" in line]
    assert line.startswith("hpclcae") and "parallel.transport = \"messages\"" in line
    assert "parallel.window = \"create\"" in line and "Traceback" not in job.stderr
    if not code:
        assert '"transport": "messages"' in (tmp_path / "run/parallel.json").read_text()


def test_other_commands_refuse_several_ranks_with_one_message():
    job = mpiexec(2, "-m", "hpclcae", "show", RUN / "tiny.toml")
    assert job.returncode != 0
    ours = [line for line in job.stderr.splitlines() if "hpclcae" in line]
    assert ours == ["hpclcae show: it runs in one process, and 2 were launched: use mpiexec -n 1"]


def test_a_job_that_hangs_is_killed_with_all_its_ranks(tmp_path):
    """Both ranks wait for a message that nobody sends."""
    hanging = ("import os, pathlib; from mpi4py import MPI; w = MPI.COMM_WORLD; "
               f"pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); w.recv(source=1 - "
               "w.rank)")
    with pytest.raises(subprocess.TimeoutExpired):
        mpiexec(2, "-c", hanging, timeout=5)
    ranks = [int(path.name) for path in tmp_path.iterdir()]
    assert len(ranks) == 2
    for rank in ranks:
        # waits until it is gone
        ended = subprocess.run(["tail", "--pid", str(rank), "-f", "/dev/null"], timeout=30)
        assert ended.returncode == 0
