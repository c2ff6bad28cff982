"""Training images: drawn by a seed, read in few goes."""
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset
from hpclcae.experiments.training_images import read, sample, sample_alike
from tests.support.tiny_run import write_images


def test_a_sample_has_different_numbers_and_the_seed_decides():
    places = sample(25, 10, seed=0)
    assert places.size == 10 and (np.diff(places) > 0).all()
    assert 0 <= places[0] and places[-1] < 25
    assert np.array_equal(places, sample(25, 10, seed=0))
    assert not np.array_equal(places, sample(25, 10, seed=1))
    assert np.array_equal(sample(25, 100, seed=0), np.arange(25))


@pytest.mark.parametrize("share, count, shown, others", [
    (0.25, 40, 10, 30), (0.25, 1000, 20, 60), (0.05, 1000, 10, 190), (0.5, 15, 8, 7)])
def test_a_sample_alike_has_the_share_and_no_image_without_label(share, count, shown, others):
    labels = np.repeat([1, 0, -1], [20, 190, 50])[np.random.default_rng(0).permutation(260)]
    places = sample_alike(labels, share, count, seed=0)
    assert (np.diff(places) > 0).all()
    assert np.bincount(labels[places]).tolist() == [others, shown]


@pytest.mark.parametrize("labels", [[0, 0, -1], [1, 1], [-1], []])
def test_a_kind_that_is_missing_gives_no_sample(labels):
    assert sample_alike(np.array(labels, np.int8), 0.3, 100, 0).size == 0


def test_what_lies_close_is_read_in_one_go(tmp_path, monkeypatch):
    write_images(tmp_path / "train.h5", 60, labels=False)
    with Dataset(tmp_path / "train.h5") as train:
        for places in ([0], [3, 3, 4], [0, 7, 15, 16, 40, 59], list(range(60))):
            places = np.array(places)
            assert np.array_equal(read(train, places), train.read(places))
        calls = []
        monkeypatch.setattr(train, "read", lambda wanted: calls.append(wanted)
                            or np.zeros((len(wanted), 1)))
        read(train, np.array([2, 5, 30]))
    assert calls[0].tolist() == [2, 3, 4, 5, 30]
