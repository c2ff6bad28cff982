"""Work for coming steps in a thread: the same results, sums in step on all blocks, no thread left.
"""
import threading

import numpy as np
import pytest

from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.partition.threads import run_blocks
from hpclcae.utils.ahead import Ahead, finish
from hpclcae.utils.background import Background

TIMEOUT = 60


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "images"]


def work(step, rank=0, sums=2):
    """Adds up `sums` times; what it makes tells of every sum."""
    made = [step]
    for number in range(sums):
        total = yield np.array([step + rank, 10.0 * number])
        made.append(total.tolist())
    return made


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    for thread in threads():
        thread.join(TIMEOUT)
    assert not threads()


def test_the_next_step_is_made_while_one_computes():
    asked, made = [], {step: threading.Event() for step in range(4)}

    def make(step):
        asked.append(step)
        yield from ()
        made[step].set()
        return step
    ahead = Ahead(make, 0, SerialCommunicator().allreduce_sum)
    assert ahead.take(0, 4) == 0
    assert made[1].wait(TIMEOUT)   # while "0 computes" here
    assert not made[2].is_set()    # one step ahead, no more
    assert [ahead.take(step, 4) for step in (1, 2, 3)] == [1, 2, 3]
    ahead.close()
    assert sorted(asked) == [0, 1, 2, 3]  # and nothing from the end on


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("steps", [range(9), [0, 1, 2, 5, 6, 8], [4, 5, 1, 2, 3]],
                         ids=["in order", "some left out", "back"])
def test_whatever_is_taken_is_what_would_have_been_made_at_once(blocks, steps):
    def block(communicator):
        sums = 2 if blocks > 1 else 0
        calls = []

        def total(own):
            calls.append(np.asarray(own).tolist())
            return communicator.allreduce_sum(own)
        ahead = Ahead(lambda step: work(step, communicator.rank), sums, total)
        found = [ahead.take(step, 9) for step in steps]
        ahead.close()
        at_once = [finish(work(step, communicator.rank), communicator.allreduce_sum)
                   for step in steps]
        return found, at_once, calls
    everyones = run_blocks(blocks, block)
    for found, at_once, calls in everyones:
        assert found == at_once
    if steps == range(9) and blocks > 1:  # one sum a step, of three steps together
        assert len(everyones[0][2]) <= 9 + 1
    assert len({len(calls) for _, _, calls in everyones}) == 1


def test_an_error_comes_when_its_step_is_taken():
    def make(step):
        yield from ()
        if step == 2:
            raise ValueError("image 7 is damaged")
        return step
    ahead = Ahead(make, 0, SerialCommunicator().allreduce_sum)
    assert [ahead.take(step, 5) for step in (0, 1)] == [0, 1]
    with pytest.raises(ValueError, match="image 7"):
        ahead.take(2, 5)
    assert ahead.take(3, 5) == 3
    ahead.close()


def test_an_error_of_one_block_ends_all_of_them():
    def block(communicator):
        def make(step):
            if step == 4 and communicator.rank == 1:
                raise ValueError("this block cannot read")
            return (yield from work(step, communicator.rank))
        ahead = Ahead(make, 2, communicator.allreduce_sum)
        try:
            return [ahead.take(step, 9) for step in range(9)]
        finally:
            ahead.close()
    with pytest.raises(ValueError, match="this block cannot read"):
        run_blocks(2, block)


def test_closing_while_the_thread_works_gives_up_the_rest():
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make(step):
        yield from ()
        if step == 1:
            begun.set()
            assert go_on.wait(TIMEOUT)
        made.append(step)
        return step
    ahead = Ahead(make, 0, SerialCommunicator().allreduce_sum)
    ahead.take(0, 9)
    assert begun.wait(TIMEOUT)
    closing = threading.Thread(target=ahead.close)
    closing.start()
    go_on.set()
    closing.join(TIMEOUT)
    assert not closing.is_alive() and made == [0, 1]


def test_pieces_that_follow_each_other_share_a_thread_and_nobody_keeps_one():
    background, seen = Background("images"), set()
    for _ in range(50):
        background.begin(lambda: seen.add(threading.get_ident()))
    background.wait()
    assert len(seen) < 50
    del background  # not closed: its thread ends by itself, which `nothing_is_left` sees
