"""The minibatch stream: every image once an epoch, in any order of asking, replicas apart."""
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hpclcae.data import dealing
from hpclcae.data.dataset import Dataset
from hpclcae.data.dealing import DECK, RUN, Deal
from hpclcae.data.minibatches import ORDER, MinibatchStream, sample
from hpclcae.model.phases import Phase
from hpclcae.partition.blocks import Rectangle
from hpclcae.utils.errors import InputError


def stream_of(count, batch, seed=0, replica=0, replicas=1):
    """A stream whose images are not looked at."""
    return MinibatchStream(SimpleNamespace(count=count, path="train.h5"), phases(batch), seed,
                           replica, Deal(replicas))


def phases(batch):
    """Minibatches of one size, without end."""
    return [Phase(None, 0, sys.maxsize, batch, 0.1)]


PORTIONS = st.tuples(st.integers(1, 70), st.integers(1, 5), st.integers(1, 12)).filter(
    lambda drawn: drawn[0] // drawn[1] >= drawn[2])


@given(PORTIONS, st.integers(0, 3))
def test_every_image_is_shown_once_per_epoch_and_to_one_replica(drawn, seed):
    count, replicas, batch = drawn
    owned = []
    for replica in range(replicas):
        stream = stream_of(count, batch, seed, replica, replicas)
        steps = -(-2 * stream.count // batch)
        shown = np.concatenate([stream.indices(step) for step in range(steps)])
        first, second = shown[:stream.count], shown[stream.count:2 * stream.count]
        assert np.array_equal(np.sort(first), np.sort(second))
        assert np.array_equal(np.sort(first), stream.at(np.arange(stream.count)))
        owned.append(first)
    assert np.array_equal(np.sort(np.concatenate(owned)), np.arange(count))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1


@given(PORTIONS, st.permutations(range(8)))
def test_a_minibatch_depends_on_seed_replica_and_step_alone(drawn, order):
    count, replicas, batch = drawn
    forwards = stream_of(count, batch, 1, replicas - 1, replicas)
    expected = [forwards.indices(step) for step in range(8)]
    backwards = stream_of(count, batch, 1, replicas - 1, replicas)
    for step in order:
        assert np.array_equal(backwards.indices(step), expected[step])
    alone = stream_of(count, batch, 1, replicas - 1, replicas)
    assert np.array_equal(alone.indices(7), expected[7])


def test_an_epoch_may_end_inside_a_minibatch_and_a_minibatch_may_span_the_whole_of_it():
    stream = stream_of(10, 4)
    second, third = stream.indices(2), stream.indices(3)
    assert len(second) == 4
    first_epoch = np.concatenate([stream.indices(0), stream.indices(1), second[:2]])
    assert np.array_equal(np.sort(first_epoch), np.arange(10))
    assert not set(second[2:]) & set(third)  # both in the second epoch
    whole = stream_of(10, 10)
    assert np.array_equal(np.sort(whole.indices(5)), np.arange(10))


def test_seeds_replicas_and_epochs_have_orders_of_their_own():
    def order(seed=0, replica=0, epoch=0):
        stream = stream_of(800, 100, seed, replica, 2)
        return np.concatenate([stream.indices(4 * epoch + step)
                               for step in range(4)]) - stream.first
    orders = [order(), order(seed=1), order(replica=1), order(epoch=1), order(seed=1, epoch=1)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.mean(one == other) < 0.2  # by chance one in 50 runs


def test_images_are_drawn_in_runs_of_a_chunk_of_the_file():
    shown = np.concatenate([stream_of(803, 100).indices(step) for step in range(8)])
    jumps = np.count_nonzero(np.diff(shown) != 1)
    assert jumps <= 803 // RUN + 1


def test_up_to_a_million_images_come_in_the_order_that_they_always_had():
    """Checkpoints of before go on with the same images."""
    count, stream = 803, stream_of(2 * 803, 73, seed=5, replica=1, replicas=2)
    for epoch in (0, 3):
        runs = np.random.default_rng([5, 1, 0, epoch]).permutation(-(-count // 8)) * 8
        order = (runs[:, None] + np.arange(8)).ravel()
        expected = count + order[order < count]
        steps = range(epoch * count // 73, (epoch + 1) * count // 73 + 1)
        shown = np.concatenate([stream.indices(step) for step in steps])
        skipped = epoch * count - steps[0] * 73
        assert np.array_equal(shown[skipped:skipped + count], expected)
    assert DECK * RUN > 1_000_000
    chosen = np.random.default_rng(3).permutation(1000)[:70]
    assert np.array_equal(sample(np.random.default_rng(3), 1000, 70), chosen)


@given(PORTIONS, st.integers(1, 4), st.integers(0, 3))
def test_many_decks_show_every_image_once_per_epoch_too(drawn, deck, seed):
    count, replicas, batch = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dealing, "DECK", deck)
        for replica in range(replicas):
            stream = stream_of(count, batch, seed, replica, replicas)
            steps = -(-2 * stream.count // batch)
            shown = np.concatenate([stream.indices(step) for step in range(steps)])
            portion = np.arange(stream.first, stream.first + stream.count)
            for epoch in range(2):
                part = shown[epoch * stream.count:(epoch + 1) * stream.count]
                assert np.array_equal(np.sort(part), portion)
            alone = stream_of(count, batch, seed, replica, replicas)
            assert np.array_equal(alone.indices(steps - 1), shown[-batch:])


@pytest.mark.parametrize("replicas", [1, 3, 5])
def test_ten_million_images_are_each_shown_once_in_constant_memory(replicas):
    count, batch = 10_000_000, 50_000
    shown = np.zeros(count, np.uint8)
    tracemalloc.start()
    try:
        for replica in range(replicas):
            stream = stream_of(count, batch, 7, replica, replicas)
            for step in range(-(-stream.count // batch)):
                indices = stream.indices(step)
                shown[indices[:stream.count - step * batch]] += 1
                if step == 17:  # as a run that goes on would draw them
                    again = stream_of(count, batch, 7, replica, replicas)
                    assert np.array_equal(again.indices(step), indices)
        assert tracemalloc.get_traced_memory()[1] < 8e6  # a list of all images takes 80e6
    finally:
        tracemalloc.stop()
    assert shown.min() == shown.max() == 1


def test_decks_are_samples_of_the_whole_portion():
    """Sets are often in the order in which they came: a deck of neighbours would be of one kind."""
    first = stream_of(10_000_000, 50_000).indices(0)
    assert np.histogram(first, 10, (0, 10_000_000))[0].min() > 4000
    assert len(np.unique(first // RUN)) <= 50_000 // RUN + 1


def test_few_of_very_many_are_chosen_without_a_list_of_all():
    tracemalloc.start()
    chosen = sample(np.random.default_rng(0), 10_000_000, 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(chosen)) == 2000 and chosen.max() > 9_000_000 and peak < 1e6


def test_a_large_run_that_began_with_another_order_is_refused():
    with pytest.raises(InputError, match=r"^the run began with an older hpclcae, which drew .*h5"
                       r" in another order .more than 1,048,576 .*train\.weights"):
        stream_of(10_000_000, 100).check_order(1)
    stream_of(10_000_000, 100).check_order(ORDER)
    stream_of(1_000_000, 100).check_order(1)


# ---- with a file ---------------------------------------------------------------------------------


def test_images_are_those_of_the_indices(tiny_dataset):
    with Dataset(tiny_dataset) as dataset:
        stream = MinibatchStream(dataset, phases(20), seed=3)
        for step in (4, 0, 2):  # step 2 ends the first epoch, 4 is in the second
            images = stream.images(step)
            assert images.dtype == np.uint8 and images.shape == (20, 24, 24, 1)
            assert np.array_equal(images, dataset.read(stream.indices(step)))


def test_half_of_the_images_are_mirrored_left_to_right(tiny_dataset):
    with Dataset(tiny_dataset) as dataset:
        plain = MinibatchStream(dataset, phases(30), seed=3)
        mirrored = MinibatchStream(dataset, phases(30), seed=3, mirror=True)
        flips = []
        for step in range(40):
            expected, shown = plain.images(step), mirrored.images(step)
            flipped = np.array([np.array_equal(s, e[:, ::-1]) for s, e in zip(shown, expected)])
            kept = np.array([np.array_equal(s, e) for s, e in zip(shown, expected)])
            assert np.all(flipped ^ kept)
            flips.append(flipped)
        assert abs(np.mean(flips) - 0.5) < 4 * 0.5 / np.sqrt(40 * 30)
        assert len({tuple(f) for f in flips}) == 40  # another half in every step
        again = MinibatchStream(dataset, phases(30), seed=3, mirror=True)
        assert np.array_equal(again.images(17), mirrored.images(17))


# ---- what is refused -----------------------------------------------------------------------------


def test_a_portion_smaller_than_a_minibatch_is_refused():
    with pytest.raises(
            InputError,
            match=r"^a minibatch of 61 is more than the 60 images that train\.h5 has; make"):
        stream_of(60, 61)
    assert stream_of(60, 60).count == 60
    with pytest.raises(
            InputError,
            match=r"^a minibatch of 31 is more than the 30 images that train\.h5 has for each "
            "of 2 replicas"):
        stream_of(60, 31, replica=1, replicas=2)


def test_a_stream_draws_from_some_images_alone(tiny_dataset):
    among = np.array([3, 4, 8, 9, 10, 30, 31, 50])
    with Dataset(tiny_dataset) as dataset:
        streams = [MinibatchStream(dataset, phases(2), 0, replica, Deal(2), among=among)
                   for replica in range(2)]
        shown = [np.concatenate([each.indices(step) for step in range(2)]) for each in streams]
    assert [sorted(each) for each in shown] == [[3, 4, 8, 9], [10, 30, 31, 50]]


def test_moved_images_repeat_their_border_and_a_part_is_that_of_the_whole(tiny_dataset):
    with Dataset(tiny_dataset) as dataset:
        stream = MinibatchStream(dataset, phases(20), 0, mirror=True, crop=3)
        plain = dataset.read(stream.indices(1))
        moved, mirrored = stream.moved(1), stream.mirrored(1)
        assert set(np.abs(moved).ravel()) == {0, 1, 2, 3} and len(set(mirrored)) == 2
        expected = []
        for image, (down, right), flip in zip(plain, moved, mirrored):
            wide = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
            cut = wide[3 + down:3 + down + len(image), 3 + right:3 + right + len(image)]
            expected.append(cut[:, ::-1] if flip else cut)
        assert np.array_equal(stream.images(1), expected)
        for part in (Rectangle((0, 7), (0, 9)), Rectangle((10, 24), (5, 24))):
            rows, cols = slice(*part.rows), slice(*part.cols)
            assert np.array_equal(stream.images(1, part), np.array(expected)[:, rows, cols])


def test_every_way_in_which_an_image_is_shown_has_a_number_of_its_own(tiny_dataset):
    with Dataset(tiny_dataset) as dataset:
        for mirror, crop in ((False, 0), (True, 0), (False, 2), (True, 1)):
            stream = MinibatchStream(dataset, phases(30), 0, mirror=mirror,
                                     crop=crop)
            ways = {}
            for step in range(40):
                for key in zip(stream.entries(step).tolist(), stream.indices(step).tolist(),
                               stream.mirrored(step).tolist(), *stream.moved(step).T.tolist()):
                    assert ways.setdefault(key[0], key[1:]) == key[1:]
            assert len(set(ways.values())) == len(ways)
            assert 0 <= min(ways) and max(ways) < stream.count * stream.variants
