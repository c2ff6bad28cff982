"""Rows and verdicts of the table."""
import numpy as np
import pytest

from hpclcae.experiments.comparison import Row, Verdict, as_text
from hpclcae.experiments.single_neurons import BestNeuron, LabelledImages

RNG = np.random.default_rng(0)


def neuron(accuracy, replicates, honest=None, where=(1, 2, 3)):
    empty = np.zeros(0)
    honest = accuracy if honest is None else honest
    return BestNeuron(where, 10, accuracy, honest, (honest, honest), 0.6, 0.001, 0.0, -1.0, 1.0,
                      empty, empty, empty, np.stack([replicates, replicates - accuracy + honest,
                                                     np.full(replicates.size, 0.6)]))


def row(name, accuracy, noise, **keys):
    return Row.of(name, [neuron(accuracy, accuracy + noise, **keys)])


def test_paired_replicates_find_a_difference_smaller_than_the_intervals():
    # both are judged by the same images: what is luck for one is for the other
    noise = RNG.normal(0, 0.02, 1000)
    verdict = Verdict(row("a", 0.70, noise), row("b", 0.69, noise + RNG.normal(0, 0.001, 1000)))
    assert verdict.word == "beats"
    points, low, high = verdict.difference(0)
    assert points == pytest.approx(1) and 0.7 < low < 1 < high < 1.3
    assert Verdict(verdict.other, verdict.row).word == "falls short of"


def test_differences_that_may_be_luck_are_noise():
    a, b = row("a", 0.70, RNG.normal(0, 0.02, 1000)), row("b", 0.69, RNG.normal(0, 0.02, 1000))
    assert Verdict(a, b).word == Verdict(b, a).word == "is within noise of"


def test_a_lead_that_is_not_honest_is_noise():
    noise = RNG.normal(0, 0.01, 1000)
    a, b = row("a", 0.75, noise, honest=0.66), row("b", 0.70, noise, honest=0.66)
    assert Verdict(a, b).difference(0)[1] > 0
    assert Verdict(a, b).word == "is within noise of"


def test_random_networks_are_beaten_only_if_the_best_of_them_is():
    noise = RNG.normal(0, 0.001, 1000)
    a = row("a", 0.70, noise)
    weak = Row.of("random", [neuron(0.65, 0.65 + noise), neuron(0.66, 0.66 + noise)])
    mixed = Row.of("random",
                   [neuron(0.60, 0.60 + noise), neuron(0.71, 0.71 + noise, where=(9, 8, 7))])
    assert Verdict(a, weak).word == "beats"
    assert Verdict(a, mixed).word == "is within noise of"
    assert mixed.values[0] == pytest.approx(0.655)
    assert mixed.spread == pytest.approx(np.std([0.6, 0.71], ddof=1))
    assert mixed.best.where == (9, 8, 7)


def test_chance_is_the_majority():
    images = LabelledImages.of(np.array([1, 0, 0, 0, -1]), np.arange(5).astype(str))
    chance = Row.chance(images, 2000, 3)
    assert chance.values.tolist() == [0.75, 0.75, 0.5]
    assert np.nanmean(chance.replicates[0]) == pytest.approx(0.75, abs=0.02)


def test_the_table_lines_up_and_marks_what_is_recalled():
    noise = RNG.normal(0, 0.01, 100)
    rows = [Row.of("first row", [neuron(0.7, 0.7 + noise), neuron(0.6, 0.6 + noise)], "linear"),
            Row.of("second", [neuron(0.812, 0.812 + noise)], "top"), row("third", 0.5, noise)]
    head, first, second, third = as_text(rows).splitlines()
    assert first.endswith("74.0 recalled") and second.endswith("81.7") and "recalled" not in second
    assert "65.0 (sd 7.1)" in first and "81.2" in second
    end = first.index("(sd 7.1)") + len("(sd 7.1)")
    assert head[:end].endswith("best of 20")
    assert second[:end].endswith("81.2") and third[:end].endswith("50.0")
