"""A long job through failures."""
import pytest

from hpclcae.simulation.failures import REPORTED, LongJob, endure, mean_time

pytest.importorskip("simpy", reason="no simpy here: pip install 'hpclcae[simulate]' brings it")


def test_the_rate_is_that_of_the_reported_share():
    for hours, share in REPORTED.items():
        mean = mean_time(hours, share)
        assert 1 - 2.718281828 ** (-hours / mean) == pytest.approx(share)


def test_without_failures_all_work_counts():
    found = endure(LongJob(3, 10, 5, 2.0, 1e12, survive=False))
    assert found.goodput == pytest.approx(1) and found.failures == found.lost == 0


@pytest.mark.parametrize("survive", [True, False])
def test_failures_come_at_their_rate(survive):
    found = endure(LongJob(5, 100, 0, 20.0, 1000.0, survive=survive, recover=0, restart=0))
    assert found.failures == pytest.approx(20 * 24 * 500 / 1000, rel=0.25)
    assert found.restarts == (0 if survive else found.failures)
    if survive:
        assert found.goodput == pytest.approx(1) and found.lost == 0


def test_who_survives_keeps_more():
    def goodput(**settings):
        return endure(LongJob(5, 100, 10, 7.0, 500.0, **settings)).goodput
    kept, lost = goodput(survive=True), goodput(survive=False)
    assert 1 > kept > lost > 0
    assert goodput(survive=False, checkpoint=60) > lost > goodput(survive=False, checkpoint=6000)


def test_down_time_of_a_survivor_is_counted_once():
    found = endure(LongJob(1, 10, 0, 100.0, 1000.0, survive=True, recover=3600.0))
    assert 1 - found.goodput == pytest.approx(found.failures / 2400, rel=0.2)
