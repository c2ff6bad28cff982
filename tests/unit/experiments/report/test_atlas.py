"""The atlas: which neurons it has, and that what it says of each is what a plain count says."""
import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import FINAL
from hpclcae.experiments.neurons import Settings, labelled_images
from hpclcae.experiments.report import atlas
from hpclcae.experiments.scan import Neuron
from tests.support.tiny_run import write_run


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """Model, test set, what judges, all neurons of the network, their facts, and the run."""
    run = write_run(tmp_path_factory.mktemp("atlas"))
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    model = Model.load(run)
    with Dataset(run.parent / "test.h5") as test:
        judged = atlas.judged_by(test, labelled_images(test, Settings()))
        shapes = [geometry.output for geometry in model.network.layout.geometry]
        neurons = atlas.choose([np.zeros(shape) for shape in shapes], 1000)
        yield (model, test, judged, neurons,
               atlas.look_at(model, test, judged, neurons, batch=7), run)


@pytest.fixture(scope="module")
def answers(examined):
    """Responses (neuron, image) to the judged images, all at once, and whether they show it."""
    model, test, judged, neurons, _, _ = examined
    places = judged.images.index[judged.mine]
    found = [each.copy() for each in model.responses(model.prepare(test.read(places)))]
    return (np.array([found[neuron.stage - 1][neuron.where] for neuron in neurons]),
            judged.images.concept[judged.mine])


def test_a_small_stage_is_there_whole_and_in_order():
    shape = (2, 3, 4)
    assert atlas.choose([np.zeros(shape)], 24) == [Neuron(1, where) for where in np.ndindex(shape)]


def test_of_a_large_stage_the_most_selective_and_a_regular_sample_are_there():
    score = np.random.default_rng(0).random((20, 30, 8))
    chosen = atlas.choose([score, score], 40, [Neuron(2, (3, 1, 7))])
    first, second = ([neuron.where for neuron in chosen if neuron.stage == stage]
                     for stage in (1, 2))
    assert len(first) <= 40 and len(set(first)) == len(first)
    best = np.argsort(-score.ravel())[:20]
    assert {tuple(map(int, np.unravel_index(at, score.shape))) for at in best} <= set(first)
    rows, cols, maps = (set(axis) for axis in zip(*first))
    assert min(rows) < 5 and max(rows) > 14 and min(cols) < 7 and max(cols) > 22 and len(maps) == 8
    assert set(second) == {*first, (3, 1, 7)}


@pytest.mark.parametrize("shape", [(1, 1, 32), (2, 2, 64), (13, 13, 8), (125, 125, 8), (1, 9, 1)])
@pytest.mark.parametrize("count", [0, 1, 7, 48])
def test_a_regular_sample_has_no_neuron_twice_and_is_about_as_large_as_asked(shape, count):
    found = atlas.regular_sample(shape, count)
    assert len(set(found)) == len(found) <= count
    assert len(found) >= min(count, np.prod(shape)) * 0.6
    assert all(0 <= at < np.prod(shape) for at in found)


def test_accuracies_are_those_of_the_test_of_single_neurons(examined):
    *_, facts, run = examined
    with h5py.File(run / "neurons.h5") as file:
        for fact in facts:
            assert fact.accuracy == pytest.approx(
                file[f"stage{fact.neuron.stage}/final"][fact.neuron.where], abs=1e-12)
    assert all(fact.interval[0] <= fact.accuracy <= fact.interval[1] for fact in facts)


def test_rates_areas_and_histograms_are_plain_counts(examined, answers):
    _, _, judged, _, facts, _ = examined
    found, concept = answers
    assert judged.honest and judged.kinds == ("other", "face")
    for fact, row in zip(facts, found):
        assert fact.fires == pytest.approx([(row[~concept] > fact.threshold).mean(),
                                            (row[concept] > fact.threshold).mean()])
        pairs = row[concept][:, None] - row[~concept]
        assert fact.auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-4)
        assert fact.histogram.sum(axis=1).tolist() == [(~concept).sum(), concept.sum()]
        assert (fact.lowest, fact.highest) == pytest.approx((row.min(), row.max()))


def test_shown_images_are_of_the_final_half_and_lie_where_they_are_said_to(examined, answers):
    _, test, judged, _, facts, _ = examined
    found, _ = answers
    places = judged.images.index[judged.mine].tolist()
    assert (judged.images.half[judged.mine] == FINAL).all()
    for fact, row in zip(facts, found):
        ordered = np.sort(row)[::-1]
        for (name, quantile, count), shown, responses in zip(atlas.GROUPS, fact.shown,
                                                             fact.responses):
            assert len(shown) == min(count, row.size), name
            assert row[[places.index(at) for at in shown]] == pytest.approx(responses, rel=1e-5)
            assert (np.diff(responses) <= 0).all()
            assert responses[-1] - 1e-6 <= np.quantile(row, quantile) <= responses[0] + 1e-6
        assert set(fact.top) <= set(places) and len(fact.top) == atlas.LEAST_MEAN
        assert fact.groups == np.unique(test.groups[fact.top]).size
        assert row[[places.index(at) for at in fact.top]].min() == pytest.approx(
            ordered[atlas.LEAST_MEAN - 1], rel=1e-5)


def test_the_most_alike_are_those_of_highest_correlation(examined, answers):
    *_, facts, _ = examined
    found, _ = answers
    correlation = np.corrcoef(found)
    np.fill_diagonal(correlation, -2)
    for number, fact in enumerate(facts):
        assert [r for _, r in fact.alike] == pytest.approx(
            np.sort(correlation[number])[::-1][:atlas.ALIKE], abs=1e-4)
        assert number not in [other for other, _ in fact.alike]


def test_means_are_those_of_the_strongest_images_and_every_shown_image_is_taken_once(examined):
    _, test, judged, _, facts, _ = examined
    taken = {}

    def take(position, pixels):
        assert position not in taken
        taken[position] = pixels
    means = atlas.look_at_pixels(test, judged, facts, 7, take)
    assert means.shape == (2 + len(facts), 12, 12, 1)
    assert set(taken) == {int(at) for fact in facts for group in fact.shown for at in group}
    assert all((pixels == test.read(np.array([at]))[0]).all() for at, pixels in taken.items())
    top = test.read(np.sort(facts[3].top)).astype(float)
    top = top - top.mean(axis=(1, 2, 3), keepdims=True)
    top /= top.std(axis=(1, 2, 3), keepdims=True)
    assert means[5] == pytest.approx(top.mean(axis=0), abs=1e-5)
    assert means[0, 4:8, 4:8].mean() > means[0].mean() + 0.5  # the bright middle


def test_large_images_are_shrunk_to_means_of_squares():
    images = np.arange(2 * 10 * 10, dtype=np.uint8).reshape(2, 10, 10, 1)
    small = atlas.shrunk(images, 5)
    assert small.shape == (2, 5, 5, 1)
    assert small[0, 0, 0, 0] == images[0, :2, :2].mean()
    assert atlas.shrunk(images, 10).shape == images.shape
    assert atlas.shrunk(images, 4).shape == (2, 3, 3, 1)  # what is over at the border is left out


def test_many_kinds_of_images_are_summed_up(examined, monkeypatch):
    _, test, _, _, _, _ = examined
    monkeypatch.setattr(test, "kind", np.array([f"kind {n % 30}" for n in range(test.count)]),
                        raising=False)
    judged = atlas.judged_by(test, labelled_images(test, Settings()))
    assert len(judged.kinds) == atlas.KINDS and judged.kinds[-1] == "others"
    assert 0 <= judged.kind.min() and judged.kind.max() == atlas.KINDS - 1
