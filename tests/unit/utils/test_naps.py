"""Naps while waiting: short within a step, longer where nothing happens for long."""
from hpclcae.utils.naps import LONG_SLEEP, LONGEST_SLEEP, SPIN_SECONDS, nap_after


def test_naps_grow_with_the_wait_and_are_a_small_part_of_it():
    waits = [10 ** (exponent / 10) for exponent in range(-60, 30)]
    naps = [nap_after(waited) for waited in waits]
    assert naps == sorted(naps) and naps[-1] == LONGEST_SLEEP
    for waited, nap in zip(waits, naps):
        assert (nap == 0) == (waited < SPIN_SECONDS) and nap <= waited / 19.9
        assert nap <= max(LONG_SLEEP, waited / 499)
    assert max(nap_after(waited) for waited in (0.01, 0.1, 0.25)) == LONG_SLEEP  # within a step
