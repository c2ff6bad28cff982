"""bench server: it starts its own ranks, measures every part, and leaves nothing.

No test asserts a time.
"""
import json
import os

import pytest

from hpclcae.bench import server, slow_replica
from hpclcae.model.optimizers import SLOTS
from tests.support.mpi import ENVIRONMENT, MPIEXEC, mpiexec
from tests.support.processes import RUN

pytestmark = pytest.mark.skipif(MPIEXEC is None,
                                reason="no mpiexec here: pip install 'hpclcae[mpich]' brings one")


def test_every_part_is_measured(hpclcae, tmp_path):
    path = tmp_path / "rows.jsonl"
    done = hpclcae("bench", "server", RUN / "tiny.toml", "--repeat", 1, "--steps", 2, "--set",
                   "train.batch=2", "--json", path, timeout=120, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = {row["metric"]: row["value"] for row in rows}
    assert len(found) == len(rows) and {row["bench"] for row in rows} == {"server"}
    for line in (f"{transport}, {rule}, {what}" for transport in ("rma", "messages")
                 for rule in SLOTS for what in ("push", "fetch")):
        raw = "raw ".join(line.rpartition(" ")[::2]).replace("raw ", " raw ")
        assert found[line] > 0 and found[raw] > 0 and found[f"{line}: of a copy"] > 0
        share = found[line] / found[raw]  # of one round
        assert found[f"{line}: of MPI's calls alone"] == pytest.approx(share, rel=1e-9)
    for way in ("rma, sgd", "messages, sgd", "rma, momentum", "messages, momentum"):
        assert found[f"{way}: server's time of an update"] > 0
        more = found[f"{way}: step with a server"] / found[f"{way}: step without servers"] - 1
        assert found[f"{way}: more"] == pytest.approx(more, rel=1e-9)  # of one round
        assert 0 <= found[f"{way}: server's share of a core, idle"] <= 1.1
    for mode in slow_replica.MODES:
        assert found[f"{mode}: rate kept"] > 0 and found[f"{mode}: slow one"] > 0
    assert [done.stdout.count(f"\n{part}: ") for part in server.PARTS] == [1, 1, 1]


def test_what_cannot_be_measured_is_one_message(hpclcae):
    done = hpclcae("bench", "server", RUN / "tiny.toml", "--set", "train.batch=none",
                   env=os.environ | ENVIRONMENT)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "train.batch = 'none'" in done.stderr
    job = mpiexec(2, "-m", "hpclcae", "bench", "server", RUN / "tiny.toml", timeout=30)
    assert job.returncode != 0 and "Traceback" not in job.stderr
    said = [line for line in job.stderr.splitlines() if "hpclcae" in line]
    assert said and all("2 processes were launched; it needs 4" in line for line in said)
