"""The streamed test of single neurons against a version that holds everything and loops."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hpclcae.experiments import single_neurons as sn
from hpclcae.utils.errors import InputError


def in_batches(arrays, sizes):
    """A Pass over whole response arrays, cut into batches of the given sizes."""
    edges = np.cumsum([0, *sizes])

    def start():
        for first, last in zip(edges, edges[1:]):
            yield [array[..., first:last] for array in arrays], slice(first, last)
    return start


def slow_thresholds(values):
    low, high = float(values.min()), float(values.max())
    return [low + k * (high - low) / 21 for k in range(1, 21)]


def slow_right(values, threshold, concept):
    return sum((float(value) > threshold) == shown for value, shown in zip(values, concept))


def slow_best(responses, concept):
    """(neuron, threshold) with most right answers, and their number, for each neuron too."""
    counts = np.array([[slow_right(neuron, t, concept) for t in slow_thresholds(neuron)]
                       for neuron in responses])
    neuron, number = np.unravel_index(counts.argmax(), counts.shape)
    return int(neuron), slow_thresholds(responses[neuron])[number], counts.max(axis=1)


def slow_auc(values, concept):
    """Share of the pairs that a neuron puts in the right order; equal responses count half."""
    wins = [(one > other) + (one == other) / 2
            for one in values[concept] for other in values[~concept]]
    return sum(wins) / len(wins)


def labelled(count, groups, seed=0, share=0.4):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < share).astype(np.int8)
    labels[:2] = 0, 1
    return sn.LabelledImages.of(labels, np.array([f"p{i % groups}" for i in range(count)]), seed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracy_threshold_and_honest_accuracy_equal_the_slow_version(dtype, monkeypatch):
    monkeypatch.setattr(sn, "BLOCK", 5)  # several blocks, the last one smaller
    images = labelled(61, 23)
    rng = np.random.default_rng(1)
    responses = rng.standard_normal((2, 3, 2, 61)).astype(dtype)
    responses[1, 2, 0] += images.concept
    responses[0, 0, 1] = 0.25  # a dead neuron
    population, = sn.examine(in_batches([responses], [20, 20, 21]), images, 50)

    flat = responses.reshape(12, 61)
    neuron, threshold, best = slow_best(flat, images.concept)
    assert np.array_equal(population.accuracy.ravel() * 61, best)
    assert population.best.where == np.unravel_index(neuron, (2, 3, 2))
    assert population.best.accuracy == best.max() / 61
    assert population.best.threshold == pytest.approx(threshold, rel=1e-12)
    assert population.threshold[population.best.where] == population.best.threshold
    assert np.array_equal(population.minimum, responses.min(axis=-1))
    assert np.array_equal(population.maximum, responses.max(axis=-1))
    assert population.accuracy[0, 0, 1] == (~images.concept).mean()

    right = []
    for half in (0, 1):
        chosen, threshold, _ = slow_best(flat[:, images.half != half],
                                         images.concept[images.half != half])
        here = images.half == half
        right.append(slow_right(flat[chosen, here], threshold, images.concept[here]))
    assert population.best.honest == sum(right) / 61
    assert population.best.honest_halves == tuple(right / np.bincount(images.half))


def test_several_populations_are_told_apart_and_the_batch_does_not_matter():
    images = labelled(50, 50)
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal((1, 2, 3, 50)),
              rng.standard_normal((4, 1, 1, 50)) + images.concept]
    together = sn.examine(in_batches(arrays, [50]), images, 20)
    for array, one in zip(arrays, together):
        alone, = sn.examine(in_batches([array], [7] * 7 + [1]), images, 20)
        assert np.array_equal(alone.accuracy, one.accuracy)
        assert np.array_equal(alone.best.replicates, one.best.replicates)
        assert np.array_equal(alone.best.histogram, one.best.histogram)
        assert alone.best.stimuli.tolist() == one.best.stimuli.tolist()


def test_area_under_the_curve_lies_within_its_resolution_of_the_exact_one():
    images = labelled(300, 300)
    response = np.random.default_rng(3).standard_normal((1, 1, 1, 300)) ** 3 + 0.5 * images.concept
    best = sn.examine(in_batches([response], [300]), images, 10)[0].best
    having, without = response.ravel()[images.concept], response.ravel()[~images.concept]
    exact = (having[:, None] > without).mean()
    assert abs(best.auc - exact) <= best.auc_resolution
    assert 0 < best.auc_resolution < 0.01
    assert best.histogram.sum(axis=1).tolist() == [(~images.concept).sum(), images.concept.sum()]


def test_every_neuron_has_an_area_under_the_curve_within_its_resolution(monkeypatch):
    monkeypatch.setattr(sn, "BLOCK", 5)  # several blocks, the last one smaller
    images = labelled(61, 23)
    responses = np.random.default_rng(7).standard_normal((2, 3, 2, 61)).astype(np.float32)
    responses[1] += images.concept
    responses[0, 0, 0] = 0.25                                 # a dead neuron
    responses[0, 0, 1] = images.concept                       # says everything
    responses[0, 1, 0] = ~images.concept                      # says it the other way round
    responses[0, 1, 1] = np.array([0, *range(2, 22)])[np.arange(61) % 21]  # a bin for each value
    population, = sn.examine(in_batches([responses], [20, 20, 21]), images, 10)
    alone, = sn.examine(in_batches([responses], [61]), images, 10)
    assert np.array_equal(population.auc, alone.auc)
    for place in np.ndindex(2, 3, 2):
        values = responses[place]
        exact = slow_auc(values, images.concept)
        assert abs(population.auc[place] - exact) <= population.auc_resolution[place] + 1e-12
    best = population.best
    assert abs(population.auc[best.where] - best.auc) <= (population.auc_resolution[best.where]
                                                          + best.auc_resolution + 1e-12)
    assert (population.auc[0, 0, 0], population.auc_resolution[0, 0, 0]) == (0.5, 0.5)
    assert (population.auc[0, 0, 1], population.auc_resolution[0, 0, 1]) == (1, 0)
    assert (population.auc[0, 1, 0], population.auc_resolution[0, 1, 0]) == (0, 0)
    assert population.auc[0, 1, 1] == pytest.approx(slow_auc(responses[0, 1, 1], images.concept),
                                                    rel=1e-14)


def test_replicates_are_those_of_a_bootstrap_of_whole_groups():
    images = labelled(90, 12)
    rng = np.random.default_rng(4)
    responses = rng.standard_normal((1, 1, 5, 90)) + images.concept
    best = sn.examine(in_batches([responses], [40, 50]), images, 30)[0].best
    weights = sn.group_weights(images.key, 30)
    for key in np.unique(images.key):
        assert (weights[images.key == key] == weights[images.key == key][0]).all()
    right = (responses[best.where] > best.threshold) == images.concept
    expected = [(w * right).sum() / w.sum() for w in weights.T]
    assert np.allclose(best.replicates[0], expected, rtol=1e-14)
    flat, honest = responses.reshape(5, 90), np.zeros(90, bool)
    for half in (0, 1):
        chosen, threshold, _ = slow_best(flat[:, images.half != half],
                                         images.concept[images.half != half])
        here = images.half == half
        honest[here] = (flat[chosen, here] > threshold) == images.concept[here]
    assert np.allclose(best.replicates[1], [(w * honest).sum() / w.sum() for w in weights.T],
                       rtol=1e-14)
    majority = images.concept == (images.concept.mean() > 0.5)
    chance = [(w * majority).sum() / w.sum() for w in weights.T]
    assert np.allclose(sn.chance_replicates(images, 30, batch=7), chance, rtol=1e-14)


def test_the_interval_has_the_width_that_theory_gives_and_groups_widen_it():
    count = 2000
    concept = np.arange(count) % 2 == 0
    right = np.arange(count) // 2 % 4 > 0  # three in four; pairs of one label each
    noise = np.random.default_rng(0).uniform(0, 0.01, count)
    response = np.where(right == concept, 1.0, 0.0) + noise
    names = np.array([f"{i}" for i in range(count)])
    single = sn.LabelledImages.of(concept.astype(int), names)
    best = sn.examine(in_batches([response.reshape(1, 1, 1, -1)], [count]), single, 1000)[0].best
    assert best.accuracy == 0.75
    low, high = sn.interval(best.replicates[0])
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / count), rel=0.1)
    bundles = sn.LabelledImages.of(concept.astype(int),
                                   np.array([f"{i % 500 // 8}-{right[i]}" for i in range(count)]))
    wide = sn.examine(in_batches([response.reshape(1, 1, 1, -1)], [count]), bundles, 1000)[0].best
    wide_low, wide_high = sn.interval(wide.replicates[0])
    assert wide_high - wide_low > 2 * (high - low)


def test_the_best_of_many_useless_neurons_looks_better_than_chance_and_honestly_is_not():
    images = labelled(400, 400, share=0.35)
    noise = np.random.default_rng(5).standard_normal((10, 10, 20, 400)).astype(np.float32)
    best = sn.examine(in_batches([noise], [100] * 4), images, 100)[0].best
    assert best.accuracy > images.chance + 0.01
    assert best.honest <= images.chance


def test_halves_divide_no_group_and_balance_the_groups_that_show_the_concept():
    rng = np.random.default_rng(6)
    people = [f"faces/{i}" for i in rng.integers(0, 31, 200)]
    groups = np.array(people + [f"rooms/{i}" for i in rng.integers(0, 57, 300)])
    labels = np.repeat([1, 0], [200, 300])
    images = sn.LabelledImages.of(labels, groups)
    halves = {group: set(images.half[groups == group]) for group in np.unique(groups)}
    assert all(len(half) == 1 for half in halves.values())
    for kind in ("faces", "rooms"):
        sides = [half.copy().pop() for group, half in halves.items() if group.startswith(kind)]
        assert abs(2 * sum(sides) - len(sides)) <= 2
    assert images.groups == len(halves) and images.resampled == "persons and photographs"
    assert not np.array_equal(images.half, sn.LabelledImages.of(labels, groups, seed=1).half)


def test_images_without_label_are_left_out():
    images = sn.LabelledImages.of(np.array([-1, 1, 0, -1, 0]), np.array(list("abcde")))
    assert images.index.tolist() == [1, 2, 4]
    assert images.concept.tolist() == [True, False, False]
    assert images.chance == pytest.approx(2 / 3)


def test_images_of_one_group_count_as_their_own():
    images = sn.LabelledImages.of(np.array([1, 0, 1, 0]), np.array([""] * 4))
    assert images.resampled == "images" and images.groups == 4
    assert sorted(images.half) == [0, 0, 1, 1]


@pytest.mark.parametrize("labels", [[-1, -1], [0, 0, -1], [1, 1], []])
def test_a_test_set_without_two_kinds_is_refused(labels):
    with pytest.raises(InputError, match="a test needs images that show it and images that do not"):
        sn.LabelledImages.of(np.array(labels, np.int8), np.array(["g"] * len(labels)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_responses_that_are_not_finite_are_refused(bad):
    images = labelled(10, 10)
    responses = np.ones((1, 2, 3, 10), np.float32)
    responses[0, 1, 1, 4] = bad
    with pytest.raises(InputError, match="1 of the 6 neurons of a 1x2x3 stage"):
        sn.examine(in_batches([responses], [5, 5]), images, 10)


def test_stimuli_are_positions_in_the_dataset_strongest_first():
    labels = np.tile([-1, 0, 1], 40)
    images = sn.LabelledImages.of(labels, np.arange(120).astype(str))
    response = np.random.default_rng(8).permutation(80).astype(np.float32).reshape(1, 1, 1, 80)
    best = sn.examine(in_batches([response], [30, 50]), images, 10)[0].best
    assert best.stimuli_response.tolist() == list(range(79, 79 - sn.STIMULI, -1))
    assert best.stimuli.tolist() == [images.index[np.flatnonzero(response.ravel() == r)[0]]
                                     for r in best.stimuli_response]


def test_memory_does_not_grow_with_the_number_of_images():
    few, many = labelled(40, 40), labelled(4000, 4000)
    sizes = []
    for images in (few, many):
        count = images.concept.size
        response = np.random.default_rng(9).standard_normal((1, 1, 8, count))
        tally = sn.Tally(*[a for a in sn.find_ranges(in_batches([response], [count])(),
                                                     images)[0][:2]], images)
        look = sn.CloseLook(tally, 10)
        for (array,), part in in_batches([response], [10] * (count // 10))():
            tally.add(array, part)
            look.add(array, part, sn.group_weights(images.key[part], 10))
        held = [value for part in (tally, look) for value in vars(part).values()
                if isinstance(value, np.ndarray)]
        sizes.append(sum(array.nbytes for array in held))
    assert abs(sizes[0] - sizes[1]) < 200  # the list of stimuli is not yet full after 40 images


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=30), st.integers(1, 30))
def test_bins_cover_the_range_and_keep_the_order(values, bins):
    values = np.array(values, np.float32)
    low, high = values.min().astype(float), values.max().astype(float)
    place = sn.bin_of(values, low, high, bins)
    differs = high - low > sn.SMALLEST_SPAN
    assert place.min() == 0 and place.max() == (bins - 1 if differs else 0)
    assert (np.diff(place[np.argsort(values)]) >= 0).all()
    outside = sn.bin_of(np.array([low - 1, high + 1]), low, high, bins)
    assert outside.tolist() == [0, bins - 1 if differs else 0]
