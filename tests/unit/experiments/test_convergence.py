"""Comparing runs: what is counted, and what is refused."""
import json

import numpy as np
import pytest

from hpclcae.config import Config, ParallelConfig
from hpclcae.experiments import convergence
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_metrics, write_parallel, write_run


@pytest.fixture
def folder(tmp_path):
    run = write_run(tmp_path)
    write_metrics(run)
    return run


def test_curves_are_means_of_neighbouring_lines(folder):
    curves = convergence.read(folder)
    assert curves["minibatches"].tolist() == list(range(3, 19))
    np.testing.assert_allclose(curves["seconds"], 2.0 * np.arange(3, 19))
    np.testing.assert_allclose(curves["objective"], 97.0 - np.arange(16))
    assert curves["staleness"] == 0.0 and curves["name"] == "no servers"


def test_staleness_is_the_mean_over_servers_or_workers(folder):
    write_parallel(folder)
    told = json.loads((folder / "parallel.json").read_text())
    counts = {"server 0": [1, 2, 1], "server 1": [0, 0, 4]}
    for rank in told:
        rank["staleness"] = counts[rank["role"]] + [0] * 62 if rank["role"] in counts else []
    (folder / "parallel.json").write_text(json.dumps(told))
    assert convergence.mean_staleness(folder) == pytest.approx((2 * 1 + 5 * 2) / 8)


def test_names_tell_modes_apart():
    def name(**settings):
        return convergence.describe(Config(parallel=ParallelConfig(servers=1, **settings)))
    assert name() == "1 replica, asynchronous"
    assert name(replicas=4) == "4 replicas, asynchronous"
    assert (name(replicas=3, consistency="synchronous", backup=1)
            == "3 replicas, synchronous, 1 backup")
    assert name(replicas=2, consistency="bounded", staleness=7) == "2 replicas, bounded 7"
    assert name(replicas=2, elastic=0.1, push_every=5) == "2 replicas, elastic every 5"


def test_too_few_lines_are_refused(folder):
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 1, "objective": 1}\n')
    with pytest.raises(InputError, match="has 1 lines of metrics, a curve needs 10"):
        convergence.read(folder)
