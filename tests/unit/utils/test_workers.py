"""Processes that work in order, end with the one that started them, and may die."""
import os
import signal
import subprocess
import sys
import time

import pytest

from hpclcae.utils.workers import in_order, survives
from tests.support.ingesting import ROOT


def square(number):
    if number == 7:
        raise ValueError("seven")
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2, os.getpid()


def alone(number):
    return -1, os.getpid()


@pytest.mark.parametrize("workers, count", [(1, 6), (2, 6), (3, 1), (2, 0)])
def test_results_come_in_the_order_of_the_tasks(workers, count):
    done = list(in_order(square, iter(range(count)), workers, alone))
    assert [(task, result) for task, (result, _) in done] == [(i, i * i) for i in range(count)]
    elsewhere = {pid for _, (_, pid) in done} - {os.getpid()}
    assert bool(elsewhere) == (workers > 1 and count > 1)


def test_tasks_are_taken_as_they_are_needed():
    taken = []
    made = in_order(square, (taken.append(i) or i for i in range(14, 100)), 2, alone)
    next(made)
    assert len(taken) < 12
    made.close()


def test_what_a_function_raises_comes_through():
    with pytest.raises(ValueError, match="seven"):
        list(in_order(square, range(5, 9), 2, alone))


def test_who_dies_is_replaced_and_its_tasks_are_done_alone():
    done = {task: result for task, (result, _) in in_order(square, range(8, 40), 2, alone)}
    assert list(done) == list(range(8, 40)) and done[13] == -1
    assert sum(result == -1 for result in done.values()) < 10 and done[39] == 39**2
    assert survives(square, 3) and survives(square, 7) and not survives(square, 13)


ORPHANS = """
import os, sys, time
from hpclcae.utils.workers import in_order
def work(number):
    os.write(1, b"%d\\n" % os.getpid())  # at once, whatever the buffering
    time.sleep(60)
lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
list(in_order(work, range(4), 2, work, (lock,)))
"""


def test_they_end_with_the_process_that_started_them(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path / "lock")], text=True,
                          stdout=subprocess.PIPE, cwd=ROOT) as process:
        children = [int(process.stdout.readline()) for _ in range(2)]
        for child in children:
            assert not any(os.readlink(f"/proc/{child}/fd/{name}") == str(tmp_path / "lock")
                           for name in os.listdir(f"/proc/{child}/fd"))
        process.kill()
    end = time.monotonic() + 30
    while time.monotonic() < end and any(os.path.exists(f"/proc/{child}") for child in children):
        time.sleep(0.01)
    assert not any(os.path.exists(f"/proc/{child}") for child in children)


COLLECTS = """
import gc, os, sys
from hpclcae.utils.workers import survives

class Film:
    def __del__(self):
        print("closed by", os.getpid(), flush=True)

def work(task):
    gc.collect()

gc.disable()
film = Film()
film.itself = film
del film
gc.set_threshold(1)
os.register_at_fork(before=gc.enable)  # so the next thing that anybody makes collects
assert survives(work, 1)
print("at work", os.getpid(), flush=True)
"""


def test_a_process_does_not_close_what_it_inherits():
    """A film that is closed there waits for ever for threads that were not forked."""
    done = subprocess.run([sys.executable, "-c", COLLECTS], cwd=ROOT, timeout=60,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines())
    assert lines == {"at work": lines["at work"], "closed by": lines["at work"]}, done.stdout
