"""The rates of a forward pass: a share for each of two clocks, on any grid."""
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset
from hpclcae.experiments import rates
from hpclcae.experiments.ranks import Ranks
from hpclcae.partition.blocks import Grid
from hpclcae.partition.threads import run_blocks
from tests.support.tiny_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("rates"))


def measured(run, ranks=Ranks()):
    with Dataset(run.parent / "test.h5") as test:
        return rates.measure(ranks.load(str(run)), test, 50)  # 120 images: the last batch is less


def test_reading_and_preparing_are_in_the_pass_and_not_in_the_filters(run):
    found = measured(run)
    assert found.encode > found.forward > 0
    assert 0 < found.share < 1 and 0 < found.computing < 1
    assert found.gflop == pytest.approx((2 * 9 * 9 * 3 * 16 + 2 * 4 * 4 * 2 * 27) / 1e9)
    assert f"{found.share:.2f} of the filters alone" in str(found)


def test_blocks_make_as_many_rounds_as_each_other(run, monkeypatch):
    """Each of a pass's exchanges waits for the other block; clocks differ."""
    monkeypatch.setattr(rates, "SECONDS", 0.05)
    clock = iter(np.random.default_rng(0).uniform(0, 0.03, 1000).cumsum())
    real = rates._timed

    def timed(work):
        real(work)
        return next(clock), next(clock)
    monkeypatch.setattr(rates, "_timed", timed)

    def program(world):
        return measured(run, Ranks(world, world.split(0), Grid(2, 1))).forward > 0
    assert run_blocks(2, program) == [True, True]
