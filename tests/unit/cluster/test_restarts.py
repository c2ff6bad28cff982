"""Whether a job that failed is started again, from what it left in its run folder."""
import os
import signal
import subprocess
import sys
import time

import pytest

from hpclcae.cluster import restarts
from hpclcae.cluster.restarts import STARTING, Progress, failures, forget, judge, last_words
from hpclcae.cluster.watch import RankWatch
from hpclcae.utils.errors import InputError

LINUX = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")


def reach(run, step):
    with Progress(run) as progress:
        progress(step)


def test_it_goes_on_until_it_has_been_started_so_often(tmp_path):
    for step in (3, 4, 9):
        reach(tmp_path, step)
        verdict = judge(tmp_path, "job", "rank 2 failed first", 3)
        assert verdict.again and f"rank 2 failed first, after step {step}: " in verdict.text
    reach(tmp_path, 12)
    verdict = judge(tmp_path, "job", "it failed", 3)
    assert not verdict.again
    assert "started again 3 times already (train.restarts = 3)" in verdict.text
    assert [one["again"] for one in failures(tmp_path)] == [True] * 3 + [False]
    assert judge(tmp_path, "another job", "it failed", 3).again


@pytest.mark.parametrize("steps", [(7, 7), (STARTING, STARTING)])
def test_a_failure_that_comes_back_in_the_same_step_ends_it(tmp_path, steps):
    for step in steps:
        forget(tmp_path)
        if step != STARTING:
            reach(tmp_path, step)
        verdict = judge(tmp_path, "job", "it failed", 9)
    assert not verdict.again and "as the time before: not started again" in verdict.text


def test_what_a_rank_refuses_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv(restarts.WATCHED, "1")
    run = tmp_path / "run"  # gone with the lock of the rank that had made it
    with pytest.raises(InputError), last_words(run):
        raise InputError("data.train = 'x': there is none")
    verdict = judge(run, "job", "it failed", 9)
    assert not verdict.again and verdict.text.endswith("data.train = 'x': there is none")
    assert verdict.refused and not run.exists()
    monkeypatch.delenv(restarts.WATCHED)
    with pytest.raises(InputError), last_words(run):
        raise InputError("nobody would start it again")
    assert not run.exists()
    assert judge(tmp_path, "another job", "it failed", 9).again
    with pytest.raises(ZeroDivisionError), last_words(tmp_path):
        1 // 0
    assert not (tmp_path / restarts.REFUSED).exists()


def test_a_folder_that_is_not_there_or_damaged_says_nothing(tmp_path):
    assert judge(tmp_path / "none", "job", "it failed", 1).again
    (tmp_path / restarts.PROGRESS).write_bytes(b"\xff")
    (tmp_path / restarts.FAILURES).write_bytes(b'{"step": 3}\n\0\0\0{"ti')
    assert restarts.step_reached(tmp_path) == STARTING and failures(tmp_path) == []


def wait_until(holds):
    """Look again and again, and let other threads work."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


@LINUX
def test_the_rank_that_ends_first_is_found_and_none_is_left():
    ranks = [subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"],
                              env=os.environ | {"PMI_SIZE": "3", "PMI_RANK": str(rank)})
             for rank in range(3)]
    with RankWatch(lambda: [rank.pid for rank in ranks], 3) as watch:
        wait_until(lambda: len(watch._known) == 3)
        ranks[1].send_signal(signal.SIGKILL)
        wait_until(lambda: watch.first is not None)
        ranks[2].send_signal(signal.SIGKILL)
        ranks[0].send_signal(signal.SIGTERM)
    assert watch.first == (1, ranks[1].pid)
    assert [rank.wait() for rank in ranks] == [-15, -9, -9]
