"""``hpclcae experiment all`` on ranks: the results of one process, said once."""
import json

import h5py
import numpy as np
import pytest

from hpclcae import cli
from tests.support.mpi import MPIEXEC, mpiexec
from tests.support.tiny_run import write_run

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")
SHARED = ["concepts", "histograms", "map"]  # the others: unit/experiments/test_shared_work.py


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder with what one process made and what two made, and what these said."""
    folder = tmp_path_factory.mktemp("ranks")
    run = write_run(folder)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    words = ["experiment", "all", str(run), "--bootstrap", "100", "--batch", "20", "--sources",
             str(folder / "gone"), "--only", *SHARED, "invariance"]
    assert cli.main([*words, "--out", str(folder / "one")]) == 1
    job = mpiexec(2, "-m", "hpclcae", *words, "--grid", "2x1", "--out", folder / "two",
                  timeout=300)
    return folder, job, words


def test_ranks_find_what_one_process_finds(made):
    pytest.importorskip("matplotlib")
    folder, job, _ = made
    assert job.stdout.count("Table 1, face: test.h5") == 1 and "Traceback" not in job.stderr
    assert sorted(path.name for path in (folder / "one").iterdir()) == sorted(
        path.name for path in (folder / "two").iterdir())
    for name in SHARED:
        one, two = (json.loads((folder / ranks / f"{name}.json").read_text())
                    for ranks in ("one", "two"))
        assert one["weights_fingerprint"] == two["weights_fingerprint"], name
        for mine, theirs in zip(one["parts"], two["parts"], strict=True):
            assert mine.get("rows") == theirs.get("rows"), name
    for name in SHARED[1:]:
        with (h5py.File(folder / f"one/{name}.h5") as one,
              h5py.File(folder / f"two/{name}.h5") as two):
            def compare(path, array, other=two):
                if isinstance(array, h5py.Dataset):
                    np.testing.assert_allclose(other[path][()], array[()], rtol=1e-5, atol=1e-5)
            one.visititems(compare)


def test_what_fails_on_all_ranks_is_left_out_and_said_once(made):
    folder, job, _ = made
    assert job.returncode == 1
    assert job.stderr.count("invariance: --sources ") == 1 and "rank 1" not in job.stderr
    assert job.stdout.count("left out: invariance: --sources ") == 1
    assert not (folder / "two/invariance.json").exists()


def test_what_is_done_is_not_repeated_whoever_made_it(made, capsys):
    folder, _, words = made
    assert cli.main([*words, "--out", str(folder / "two")]) == 1
    said = capsys.readouterr().out
    for name in SHARED:
        assert f"{name}: done already" in said


def test_a_number_of_ranks_that_no_grid_divides_is_one_line(made):
    folder, _, words = made
    job = mpiexec(3, "-m", "hpclcae", *words, "--grid", "2x1", "--out", folder / "three")
    assert job.returncode and "--grid 2x1 has 2 blocks, and 3 processes cannot be" in job.stderr
    assert "Traceback" not in job.stderr
