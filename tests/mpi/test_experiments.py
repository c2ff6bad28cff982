"""``hpclcae experiment all`` and ``hpclcae neurons`` on ranks: one process's results, said once."""
import json

import h5py
import numpy as np
import pytest

from hpclcae import cli
from tests.support.mpi import MPIEXEC, mpiexec
from tests.support.tiny_run import SIZE, write_images, write_run

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


# ---- neurons -------------------------------------------------------------------------------------

OPTIONS = ["--bootstrap", "100", "--batch", "20", "--filters", "30", "--random-seeds", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one network, beside images with labels, and what one process said of them."""
    folder = tmp_path_factory.mktemp("neurons")
    both = [write_run(folder), write_run(folder, name="seed", weights=6)]
    write_images(folder / "train.h5", 60, labels=True, seed=1)
    write_images(folder / "large.h5", 40, labels=True, size=SIZE + 6)
    assert cli.main(["neurons", *map(str, both), *OPTIONS, "--json", str(folder / "both.json"),
                     "--out", str(folder / "one")]) == 0
    return folder, both


def rows_of(file):
    return json.loads(file.read_text())["rows"]


def same_arrays(one, other, tolerance=0.0):
    """Every array of a file is in the other one."""
    with h5py.File(one) as mine, h5py.File(other) as theirs:
        found = []

        def compare(path, array):
            if isinstance(array, h5py.Dataset):
                found.append(path)
                np.testing.assert_allclose(theirs[path][()], array[()], rtol=tolerance,
                                           atol=tolerance, err_msg=path)
        mine.visititems(compare)
        assert found


def test_ranks_share_the_table_of_several_runs_and_one_writes_it(runs, tmp_path):
    folder, both = runs
    job = mpiexec(2, "-m", "hpclcae", "neurons", *both, *OPTIONS, "--json", tmp_path / "both.json",
                  "--out", tmp_path)
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("2 runs, ") == 1 and job.stdout.count("halves made by the seed") == 1
    assert job.stdout.count("wrote ") == 3 and "ridge with labels" in job.stdout
    assert rows_of(tmp_path / "both.json") == rows_of(folder / "both.json")
    for run in both:
        assert rows_of(tmp_path / run.name / "neurons.json") == rows_of(
            folder / "one" / run.name / "neurons.json")
        same_arrays(folder / "one" / run.name / "neurons.h5", tmp_path / run.name / "neurons.h5")


def test_blocks_of_a_network_give_its_table(runs, tmp_path):
    folder, (run, _) = runs
    job = mpiexec(2, "-m", "hpclcae", "neurons", run, *OPTIONS, "--grid", "2x1", "--out", tmp_path)
    assert job.returncode == 0, job.stderr
    alone, shared = (json.loads((place / "neurons.json").read_text())
                     for place in (folder / "one/run", tmp_path))
    assert shared["weights_fingerprint"] == alone["weights_fingerprint"]
    assert shared["first_stage_filters"] == alone["first_stage_filters"]
    assert [row["name"] for row in shared["rows"]] == [row["name"] for row in alone["rows"]]
    for measure in ("honest", "accuracy", "auc"):
        mine, theirs = ([row[measure] for row in found["rows"] if row[measure] is not None]
                        for found in (shared, alone))
        assert mine == pytest.approx(theirs, rel=1e-9) and mine
    same_arrays(folder / "one/run/neurons.h5", tmp_path / "neurons.h5", 1e-9)


def test_ranks_share_a_scan(runs, tmp_path):
    pytest.importorskip("matplotlib")
    images = pytest.importorskip("PIL.Image")
    folder, (run, _) = runs
    pixels = np.random.default_rng(0).integers(0, 256, (40, 31, 3), np.uint8)
    images.fromarray(pixels).save(tmp_path / "street.png")
    words = ["neurons", run, "--neuron", "2/1,0,1", "--scan", tmp_path / "street.png",
             "--scan-test", folder / "large.h5", "--scales", "0.7", "1", "--bootstrap", "100",
             "--batch", "20", "--out"]
    assert cli.main([*map(str, words), str(tmp_path / "one")]) == 0
    job = mpiexec(2, "-m", "hpclcae", *words, tmp_path / "two")
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("neuron 2/1,0,1, scanned") == job.stdout.count("wrote ") == 1
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "scan-street.png", "scan-street.h5", "scan-large.json", "scan-large.h5"}
    assert rows_of(tmp_path / "two/scan-large.json") == rows_of(tmp_path / "one/scan-large.json")
    for name in ("scan-street.h5", "scan-large.h5"):
        same_arrays(tmp_path / "one" / name, tmp_path / "two" / name)


@pytest.mark.parametrize("words, message", [
    (["RUN", "--test", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    (["RUN", "RUN"], "two of these are of one run"),
    (["RUN", "--grid", "3x1"], "--grid 3x1 has 3 blocks, and 2 processes"),
    (["RUN", "--scan-test", "FOLDER/large.h5", "--neuron", "9/0,0,0"], "stages are 1 to 2"),
])
def test_bad_input_ends_all_ranks_with_one_line(runs, words, message):
    folder, (run, _) = runs
    words = [word.replace("RUN", str(run)).replace("FOLDER", str(folder)) for word in words]
    job = mpiexec(2, "-m", "hpclcae", "neurons", *words, timeout=60)
    assert job.returncode and job.stderr.count("hpclcae neurons: ") == 1
    assert message in job.stderr and "Traceback" not in job.stderr and not job.stdout
    assert not (run / "neurons.json").exists()
