"""``hpclcae experiment concepts`` on ranks: the figures of one process, said once."""
import json

import pytest

from hpclcae import cli
from tests.support.mpi import MPIEXEC, mpiexec
from tests.support.tiny_run import write_run

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")


def test_ranks_find_what_one_process_finds(tmp_path):
    run = write_run(tmp_path)
    words = ["experiment", "concepts", run, "--bootstrap", "100", "--filters", "9", "--batch", "20"]
    assert cli.main([*map(str, words), "--out", str(tmp_path / "one")]) == 0
    job = mpiexec(2, "-m", "hpclcae", *words, "--grid", "2x1", "--out", tmp_path / "two")
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("Table 1, face: test.h5") == 1
    one, two = (json.loads((tmp_path / name / "concepts.json").read_text())
                for name in ("one", "two"))
    assert one["weights_fingerprint"] == two["weights_fingerprint"]
    for mine, theirs in zip(one["values"]["sets"][0]["rows"], two["values"]["sets"][0]["rows"]):
        for measure in ("honest", "auc", "accuracy"):
            assert mine[measure] == pytest.approx(theirs[measure]), mine["name"]
    job = mpiexec(3, "-m", "hpclcae", *words, "--grid", "2x1", "--out", tmp_path / "two")
    assert job.returncode and "--grid 2x1 has 2 blocks, and 3 processes cannot be" in job.stderr
