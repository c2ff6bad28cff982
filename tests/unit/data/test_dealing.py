"""Images are seen equally often, whoever reads them: any numbers of replicas, changed anywhere."""
import itertools
import sys
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hpclcae.data.dealing import Deal, Piece, Stream
from hpclcae.data.minibatches import MinibatchStream
from hpclcae.model.phases import Phase


class Job:
    """A run whose replicas come and go; it only looks which images they see."""

    def __init__(self, total, batch, seed=0):
        self.total, self.batch, self.seed = total, batch, seed
        self.seen = np.zeros(total, int)
        self.deal = None

    def train(self, steps):
        """Each replica makes some steps from where all begin; then the job ends."""
        if self.deal is None:
            self.deal, begun = Deal(len(steps)), [0] * len(steps)
        elif self.deal.replicas == len(steps):
            begun = self.cursors
        else:
            taken = [(cursor - self.deal.step) * self.batch for cursor in self.cursors]
            first = sum(self.cursors) // len(self.cursors)
            self.deal = self.deal.again(len(steps), first, taken, self.total)
            begun = [first] * len(steps)
        self.cursors = [cursor + more for cursor, more in zip(begun, steps)]
        for replica, (start, stop) in enumerate(zip(begun, self.cursors)):
            stream = MinibatchStream(SimpleNamespace(count=self.total, path="train.h5"),
                                     [Phase(None, 0, sys.maxsize, self.batch, 0.1)], self.seed,
                                     replica, self.deal)
            for step in range(start, stop):
                shown = stream.indices(step)
                assert len(shown) == self.batch
                np.add.at(self.seen, shown, 1)

    def rest(self):
        """What is left of the epoch in which the furthest replica is, and how often all images
        will have been seen then."""
        taken = [(cursor - self.deal.step) * self.batch for cursor in self.cursors]
        deal = self.deal.again(1, 0, taken, self.total)
        left = np.zeros(self.total, int)
        for piece in deal.rest:
            stream = Stream(self.total, self.seed, piece.number, piece.streams)
            position = piece.start
            while position < piece.stop:
                images = stream.drawn(position, piece.stop - position)
                np.add.at(left, images, 1)
                position += len(images)
        return left, deal.epochs

    def assert_fair(self):
        left, epochs = self.rest()
        assert np.array_equal(self.seen + left, np.full(self.total, epochs))


@pytest.mark.parametrize("batch", [1, 2])
def test_any_numbers_of_replicas_changed_at_any_step_see_every_image_once_an_epoch(batch):
    """All sequences of three numbers of replicas, all cuts of the first two epochs."""
    total = 7
    for replicas in itertools.product((1, 2, 3), repeat=3):
        for cuts in itertools.product(range(0, 6, batch), repeat=2):
            job = Job(total, batch)
            for number, steps in zip(replicas, (*cuts, 2)):
                job.train([steps] * number)
                job.assert_fair()


@settings(max_examples=30)
@given(st.data())
def test_also_where_replicas_are_not_equally_far(data):
    total = data.draw(st.integers(12, 60))
    batch = data.draw(st.integers(1, 3))
    job = Job(total, batch, data.draw(st.integers(0, 3)))
    for replicas in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)):
        job.train(data.draw(st.lists(st.integers(0, 30), min_size=replicas, max_size=replicas)))
        job.assert_fair()


def test_three_then_two_then_four_replicas_see_every_image_once_in_one_epoch():
    job = Job(50, 2)
    job.train([3, 3, 3])
    job.train([4, 4])
    job.train([2, 2, 2, 2])
    assert set(job.seen) == {1}


def test_with_the_same_number_a_run_goes_on_as_if_it_had_not_stopped():
    parts, whole = Job(40, 3), Job(40, 3)
    for steps in ([2, 3], [4, 4]):
        parts.train(steps)
    whole.train([6, 7])
    assert parts.deal == whole.deal == Deal(2) and np.array_equal(parts.seen, whole.seen)


def test_shares_of_a_rest_are_equal_and_a_rest_that_was_read_is_forgotten():
    rest = Piece(3, 0, 5, 20), Piece(3, 2, 0, 11)
    deal = Deal(4, 7, 1, rest)
    shares = [deal.share(replica) for replica in range(4)]
    sizes = [sum(piece.stop - piece.start for piece in share) for share in shares]
    assert sum(sizes) == 26 and max(sizes) - min(sizes) <= 1
    again = deal.again(2, 20, [30, 30, 30, 30], 60)
    assert {piece.streams for piece in again.rest} <= {4}
    assert deal.again(2, 9, [0] * 4, 60).rest == deal.again(3, 9, [0] * 4, 60).rest


def test_an_older_stream_is_not_read_from_its_beginning():
    """A long rest costs no time or memory: its pieces are not unrolled."""
    total = 10 ** 12
    deal = Deal(3).again(2, 10, [10 ** 6, 5, 10 ** 11], total)
    tracemalloc.start()
    try:
        stream = MinibatchStream(SimpleNamespace(count=total, path="train.h5"),
                                 [Phase(None, 0, sys.maxsize, 100, 0.1)], 0, 1, deal)
        shown = [stream.indices(step) for step in (10, 10 ** 6, 10 ** 9 - 1)]
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert Counter(map(len, shown)) == {100: 3}


def test_passes_over_the_images_are_counted_on():
    deal = Deal(3).again(2, 4, [8, 8, 8], 48)
    assert deal.passes(48) == 0.5
    stream = MinibatchStream(SimpleNamespace(count=48, path="train.h5"),
                             [Phase(None, 0, 100, 2, 0.1)], 0, 0, deal)
    assert [stream.passes(step) for step in (4, 10)] == [0.5, 1.0]
    assert [stream.is_shared_out(step) for step in (4, 9, 10)] == [True, True, False]
