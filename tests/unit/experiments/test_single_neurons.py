"""The streamed test of single neurons against a version that holds everything and loops."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hpclcae.experiments import single_neurons as sn
from hpclcae.experiments.close_look import SMALLEST_SPAN, STIMULI, NeuronLook, bin_of
from hpclcae.experiments.fewer_candidates import DRAWS
from hpclcae.experiments.labelled_images import LabelledImages, group_weights, interval
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
    return LabelledImages.of(labels, np.array([f"p{i % groups}" for i in range(count)]), seed)


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

    development, final = images.half == 0, images.half == 1
    chosen, threshold, counts = slow_best(flat[:, development], images.concept[development])
    judged = slow_right(flat[chosen, final], threshold, images.concept[final]) / final.sum()
    assert np.array_equal(population.development.ravel() * development.sum(), counts)
    assert population.chosen.where == np.unravel_index(chosen, (2, 3, 2))
    assert population.chosen.threshold == pytest.approx(threshold, rel=1e-12)
    assert population.chosen.accuracy == judged == population.final[population.chosen.where]
    for place in np.ndindex(2, 3, 2):
        _, threshold, _ = slow_best(responses[place][None, development],
                                    images.concept[development])
        right = slow_right(responses[place][final], threshold, images.concept[final])
        assert population.final[place] == right / final.sum()


def test_hand_computed_halves_threshold_and_answers():
    """Twenty images of as many people: responses from 0 to 21, faces above 10.5 but for two."""
    halves = np.tile([0, 1], 10)
    concept = np.arange(20) >= 10
    response = np.where(concept, 14.0, 5.0)
    response[:4] = 0, 0, 21, 21  # one of the others cries wolf in each half
    response[[10, 11]] = 1, 1    # and one face is missed
    images = LabelledImages.of(concept.astype(int),
                               np.array([f"{'ab'[i % 4 // 2]}/{i}" for i in range(20)]),
                               half=halves)
    population, = sn.examine(in_batches([response.reshape(1, 1, 1, 20)], [7, 13]), images, 100)
    best, chosen = population.best, population.chosen
    # thresholds are 1, 2, ... 20; the first of the equally good ones, 5, lies above what is at 5
    assert (best.minimum, best.maximum, best.threshold) == (0, 21, 5)
    assert best.accuracy == 16 / 20 and chosen.accuracy == 8 / 10
    assert chosen.threshold == 5 and population.development.item() == 8 / 10
    assert images.sources == ("a", "b")
    # final half: faces 11 (missed), 13, 15, 17, 19; the others 1, 5, 7, 9 and 3, which cries wolf
    assert chosen.answers.tolist() == [[[3, 0], [1, 1]], [[0, 2], [1, 2]]]
    assert chosen.hits.tolist() == [1, 2 / 3] and chosen.false_alarms == 1 / 5
    without, replicates = chosen.without_source(1)
    assert without == (4 + 2) / 7 and replicates.shape == (100,)
    # 5 x 5 pairs; of the faces four have 14 and one 1, of the others one has 0, one 21, three 5
    assert chosen.auc == (4 * 4 + 1) / 25
    assert chosen.neurons == 1
    assert (population.equal.accuracy, population.equal.spread) == (8 / 10, 0)
    assert np.array_equal(population.equal.replicates, chosen.replicates[0])


def test_fewer_candidates_choose_worse_and_all_of_them_the_same():
    images = labelled(200, 200)
    rng = np.random.default_rng(3)
    responses = rng.standard_normal((1, 1, 30, 200))
    responses[0, 0, 17] += 3 * images.concept
    population, = sn.examine(in_batches([responses], [200]), images, 100)
    assert population.chosen.where == (0, 0, 17)
    every = population.equal
    assert (every.accuracy, every.spread) == (population.chosen.accuracy, 0)
    assert np.array_equal(every.replicates, population.chosen.replicates[0])
    population, = sn.examine(in_batches([responses], [120, 80]), images, 100, candidates=10, seed=5)
    judged, neurons = [], []
    draws = np.random.default_rng(5)
    for _ in range(DRAWS):  # slowly
        drawn = sorted(draws.choice(30, 10, replace=False))
        best = max(drawn, key=lambda neuron: population.development[0, 0, neuron])
        neurons.append(best)
        judged.append(population.final[0, 0, best])
    mean = population.equal.accuracy
    assert mean == pytest.approx(np.mean(judged), rel=1e-12)
    assert population.equal.spread == pytest.approx(np.std(judged, ddof=1), rel=1e-12)
    assert 1 / 5 < np.mean(np.array(judged) > 0.85) < 1 / 2 and mean < population.chosen.accuracy
    # each draw's replicates are those of its neuron by itself
    alone = {neuron: sn.examine(in_batches([responses[:, :, [neuron]]], [200]), images, 100)[0]
             for neuron in set(neurons)}
    wanted = np.mean([alone[neuron].chosen.replicates[0] for neuron in neurons], axis=0)
    assert population.equal.replicates == pytest.approx(wanted, rel=1e-12)


def test_fewer_candidates_are_drawn_from_all_stages_at_once():
    images = labelled(100, 100)
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal((2, 2, 5, 100)), rng.standard_normal((1, 1, 4, 100))]
    arrays[0][1, 0, 3] += 3 * images.concept
    first, last = sn.examine(in_batches(arrays, [100]), images, 30)
    together, = sn.examine(in_batches([np.concatenate([array.reshape(1, 1, -1, 100)
                                                       for array in arrays], 2)], [60, 40]),
                           images, 30, candidates=4)
    assert last.equal_of_all.spread == first.equal_of_all.spread > last.equal.spread == 0
    assert last.equal_of_all.accuracy == together.equal.accuracy != first.equal.accuracy
    assert np.array_equal(last.equal_of_all.replicates, together.equal.replicates)


def test_training_labels_choose_and_the_development_half_sets_the_threshold():
    images = labelled(120, 120)
    rng = np.random.default_rng(4)
    test = rng.standard_normal((1, 1, 3, 120))
    test[0, 0, 0] += 4 * images.concept      # the best on the test ...
    test[0, 0, 2] += 1.5 * images.concept    # ... and the one that training labels know
    shown = np.arange(90) % 3 == 0
    train = rng.standard_normal((1, 1, 3, 90))
    train[0, 0, 2] += 2 * shown
    population, = sn.examine(in_batches([test], [120]), images, 50,
                             sn.TrainingImages(in_batches([train], [40, 50]), shown))
    assert population.chosen.where == (0, 0, 0) and population.by_training.where == (0, 0, 2)
    development, final = images.half == 0, images.half == 1
    _, threshold, _ = slow_best(test[0, 0, 2:, development].T, images.concept[development])
    assert population.by_training.threshold == pytest.approx(threshold, rel=1e-12)
    assert population.by_training.accuracy == slow_right(test[0, 0, 2, final], threshold,
                                                         images.concept[final]) / final.sum()


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
        assert np.array_equal(alone.chosen.replicates, one.chosen.replicates)
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
    population = sn.examine(in_batches([responses], [40, 50]), images, 30)[0]
    weights = group_weights(images.key, 30)
    for key in np.unique(images.key):
        assert (weights[images.key == key] == weights[images.key == key][0]).all()
    for neuron, judged in ((population.best, np.ones(90, bool)),
                           (population.chosen, images.half == 1)):
        right = (responses[neuron.where] > neuron.threshold) == images.concept
        expected = [(w * right)[judged].sum() / w[judged].sum() for w in weights.T]
        assert np.allclose(neuron.replicates[0], expected, rtol=1e-14)
        values = responses[neuron.where]
        areas = [slow_auc(np.repeat(values[judged], w[judged]),
                          np.repeat(images.concept[judged], w[judged])) for w in weights.T[:3]]
        assert np.allclose(neuron.replicates[1, :3], areas, atol=0.01)


def test_the_interval_has_the_width_that_theory_gives_and_groups_widen_it():
    count = 2000
    concept = np.arange(count) % 2 == 0
    right = np.arange(count) // 2 % 4 > 0  # three in four; pairs of one label each
    noise = np.random.default_rng(0).uniform(0, 0.01, count)
    response = np.where(right == concept, 1.0, 0.0) + noise
    names = np.array([f"{i}" for i in range(count)])
    single = LabelledImages.of(concept.astype(int), names)
    best = sn.examine(in_batches([response.reshape(1, 1, 1, -1)], [count]), single, 1000)[0].best
    assert best.accuracy == 0.75
    low, high = interval(best.replicates[0])
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / count), rel=0.1)
    names = np.array([f"{i % 500 // 8}-{right[i]}" for i in range(count)])
    bundles = LabelledImages.of(concept.astype(int), names)
    wide = sn.examine(in_batches([response.reshape(1, 1, 1, -1)], [count]), bundles, 1000)[0].best
    wide_low, wide_high = interval(wide.replicates[0])
    assert wide_high - wide_low > 2 * (high - low)


def test_the_best_of_many_useless_neurons_looks_better_than_chance_and_honestly_is_not():
    images = labelled(400, 400, share=0.35)
    noise = np.random.default_rng(5).standard_normal((10, 10, 20, 400)).astype(np.float32)
    population = sn.examine(in_batches([noise], [100] * 4), images, 100)[0]
    best = population.best
    chance = max(images.concept.mean(), 1 - images.concept.mean())
    assert best.accuracy > chance + 0.01
    assert population.chosen.accuracy <= chance


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_responses_that_are_not_finite_are_refused(bad):
    images = labelled(10, 10)
    responses = np.ones((1, 2, 3, 10), np.float32)
    responses[0, 1, 1, 4] = bad
    with pytest.raises(InputError, match="1 of the 6 neurons of a 1x2x3 stage"):
        sn.examine(in_batches([responses], [5, 5]), images, 10)


def test_stimuli_are_positions_in_the_dataset_strongest_first():
    labels = np.tile([-1, 0, 1], 40)
    images = LabelledImages.of(labels, np.arange(120).astype(str))
    response = np.random.default_rng(8).permutation(80).astype(np.float32).reshape(1, 1, 1, 80)
    best = sn.examine(in_batches([response], [30, 50]), images, 10)[0].best
    assert best.stimuli_response.tolist() == list(range(79, 79 - STIMULI, -1))
    assert best.stimuli.tolist() == [images.index[np.flatnonzero(response.ravel() == r)[0]]
                                     for r in best.stimuli_response]


def test_memory_does_not_grow_with_the_number_of_images():
    few, many = labelled(40, 40), labelled(4000, 4000)
    sizes = []
    for images in (few, many):
        count = images.concept.size
        response = np.random.default_rng(9).standard_normal((1, 1, 8, count))
        ranges = sn.find_ranges(in_batches([response], [count])(), images)[0]
        tally = sn.Tally(ranges[0][0], ranges[1][0], images.concept, images.half)
        look = NeuronLook(0, 10, tally, images, None, 10)
        for (array,), part in in_batches([response], [10] * (count // 10))():
            tally.add(array, part)
            look.add(array[0, 0, 0], part, group_weights(images.key[part], 10))
        held = [value for part in (tally, look) for name, value in vars(part).items()
                if isinstance(value, np.ndarray) and value.size != count]  # labels may grow
        sizes.append(sum(array.nbytes for array in held))
    assert abs(sizes[0] - sizes[1]) < 1500  # a full list of stimuli


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=30), st.integers(1, 30))
def test_bins_cover_the_range_and_keep_the_order(values, bins):
    values = np.array(values, np.float32)
    low, high = values.min().astype(float), values.max().astype(float)
    place = bin_of(values, low, high, bins)
    differs = high - low > SMALLEST_SPAN
    assert place.min() == 0 and place.max() == (bins - 1 if differs else 0)
    assert (np.diff(place[np.argsort(values)]) >= 0).all()
    outside = bin_of(np.array([low - 1, high + 1]), low, high, bins)
    assert outside.tolist() == [0, bins - 1 if differs else 0]
