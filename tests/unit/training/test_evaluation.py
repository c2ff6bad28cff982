"""What is said of a classifier: every figure from a few numbers an image."""
import numpy as np
import pytest

from hpclcae.config import ClassifierConfig
from hpclcae.training import evaluation
from hpclcae.training.evaluation import BINS, Evaluation

#: (class, image): the third image has two equal scores, the last one is wrong by far
SCORES = np.array([[2.0, -1.0, 0.5, 9.0, 3.0],
                   [1.0, 3.0, 0.5, 8.0, 2.0],
                   [0.0, 2.0, -9.0, 7.0, 1.0],
                   [-5.0, -5.0, -9.0, 6.0, -50.0]])
LABELS = np.array([0, 2, 1, 0, 3])


def judged(loss="softmax", portion=2, monkeypatch=None):
    if monkeypatch:
        monkeypatch.setattr(evaluation, "PORTION", portion)
    config = ClassifierConfig(loss=loss, classes=4)
    of_dataset = np.array([9, *LABELS])  # the first image is not asked for
    return Evaluation.of(config, lambda chosen: SCORES[:, chosen - 1], np.arange(1, 6), of_dataset)


def test_figures_of_a_few_images(monkeypatch):
    found = judged(monkeypatch=monkeypatch)
    assert found.predicted.tolist() == [0, 1, 0, 0, 0]  # of equal scores the first
    assert found.rank.tolist() == [0, 1, 1, 0, 3]
    assert [found.top(count) for count in (1, 2, 3, 4, 5)] == pytest.approx([.4, .8, .8, 1, 1])
    np.testing.assert_allclose(found.by_class(), [1, 0, 0, 0])
    assert found.mean_by_class() == 0.25
    assert found.confused().tolist() == [[0, 0, 2], [1, 0, 1], [2, 1, 1], [3, 0, 1]]
    assert found.confused()[:, 2].sum() == 5
    expected = np.exp(SCORES[:, 1]) / np.exp(SCORES[:, 1]).sum()
    assert found.confidence[1] == pytest.approx(expected[1])
    assert found.objective[1] == pytest.approx(-np.log(expected[2]))


def test_a_class_without_images_is_left_out_of_the_mean():
    found = judged()
    fewer = Evaluation(5, found.labels, found.predicted, found.rank, found.confidence,
                       found.objective)
    assert np.isnan(fewer.by_class()[4]) and fewer.mean_by_class() == 0.25


def test_one_against_all_has_a_probability_for_each_class_by_itself():
    found = judged("logistic")
    assert found.confidence[0] == pytest.approx(1 / (1 + np.exp(-2.0)))
    chances = 1 / (1 + np.exp(-SCORES[:, 0]))
    assert found.objective[0] == pytest.approx(-np.log(chances[0])
                                               - np.log(1 - chances[1:]).sum())


def test_reliability_compares_confidence_with_what_is_right():
    confidence = np.array([0.05, 0.95, 0.95, 0.95, 0.95, 1.0])
    predicted = np.zeros(6, int)
    labels = np.array([1, 0, 0, 0, 1, 0])
    found = Evaluation(2, labels, predicted, labels, confidence, confidence)
    curve = found.reliability()
    assert curve.shape == (BINS, 3) and curve[:, 2].sum() == 6
    np.testing.assert_allclose(curve[0], [0.05, 0, 1])
    np.testing.assert_allclose(curve[-1], [0.96, 0.8, 5])
    assert np.isnan(curve[3, :2]).all() and curve[3, 2] == 0
    assert found.calibration_error() == pytest.approx((0.05 * 1 + 0.16 * 5) / 6)
