"""Rows and verdicts of the table."""
import dataclasses
import json

import numpy as np
import pytest

from hpclcae.experiments import seeds
from hpclcae.experiments.close_look import JudgedNeuron
from hpclcae.experiments.comparison import (Row, Verdict, as_text, equal_as_text, judge,
                                            sources_as_text)
from hpclcae.experiments.fewer_candidates import Equal
from hpclcae.experiments.labelled_images import LabelledImages

RNG = np.random.default_rng(0)
IMAGES = LabelledImages.of(np.repeat([1, 0], 20),
                           np.array([f"{'ab'[i % 2]}/{i}" for i in range(40)]),
                           half=np.arange(40) // 2 % 2)


def neuron(accuracy, noise, where=(1, 2, 3)):
    empty = np.zeros(0)
    answers = np.array([[[4, 1], [5, 0]], [[1, 4], [3, 2]]])  # (label, source, answer)
    return JudgedNeuron(where, 10, accuracy, 0.6, 0.001, 0.0, -1.0, 1.0, empty, empty, empty,
                        answers, np.stack([accuracy + noise, 0.6 + noise]),
                        np.repeat(answers[..., None], noise.size, axis=3))


def row(name, honest, noise, accuracy=None, **keys):
    paper = honest if accuracy is None else accuracy
    values, replicates = np.array([honest, 0.6, paper]), np.stack([honest + noise, 0.6 + noise,
                                                                   paper + noise])
    return Row(name, values, replicates, (neuron(honest, noise),), (neuron(paper, noise),), **keys)


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
    a, b = row("a", 0.66, noise, accuracy=0.75), row("b", 0.66, noise, accuracy=0.70)
    assert Verdict(a, b).difference(2)[1] > 0
    assert Verdict(a, b).word == "is within noise of"


def test_random_networks_are_beaten_only_if_the_best_of_them_is():
    noise = RNG.normal(0, 0.001, 1000)
    a = row("a", 0.70, noise)

    def random(*shares):
        chosen = tuple(neuron(share, noise) for share in shares)
        values = np.array([np.mean(shares), 0.6, np.mean(shares)])
        return Row("random", values, values[:, None] + noise, chosen, chosen)
    assert Verdict(a, random(0.65, 0.66)).word == "beats"
    assert Verdict(a, random(0.60, 0.71)).word == "is within noise of"
    assert random(0.60, 0.71).spread == pytest.approx(np.std([0.6, 0.71], ddof=1))
    assert row("one", 0.7, noise).spread is None


def test_what_cannot_be_said_has_no_verdict_and_no_number():
    noise = np.zeros(0)
    nothing = dataclasses.replace(row("a", 0.7, noise), chosen=(), trained=True,
                                  values=np.array([np.nan, np.nan, 0.7]))
    verdict = Verdict(nothing, nothing)
    assert verdict.word == str(verdict) == ""
    assert verdict.as_json()["honest"] == {"points": None, "low": None, "high": None}
    figures = nothing.as_json(IMAGES)
    assert figures["honest"] is figures["honest_interval"] is figures["auc"] is None
    assert figures["accuracy"] == 0.7 and figures["accuracy_interval"] is None
    json.dumps(figures, allow_nan=False)
    text = as_text([nothing])
    assert "nan" not in text and "final" not in text and "70.0" in text


def test_chance_is_the_answer_that_is_right_more_often_in_the_development_half():
    concept = np.repeat([1, 1, 0, 0], [10, 6, 5, 14])
    half = np.repeat([0, 1, 0, 1], [10, 6, 5, 14])  # two in three here, three in ten there
    images = LabelledImages.of(concept, np.arange(35).astype(str), half=half)
    chance = Row.chance(images, 2000, 3)
    assert chance.values.tolist() == [6 / 20, 0.5, 19 / 35]
    assert np.nanmean(chance.replicates[0]) == pytest.approx(6 / 20, abs=0.02)
    assert np.nanmean(chance.replicates[2]) == pytest.approx(19 / 35, abs=0.02)
    few = Row.chance(LabelledImages.of(np.array([1, 0, 0, 0, -1]), np.arange(5).astype(str)),
                     2000, 3)
    assert np.isnan(few.values[:2]).all() and few.values[2] == 0.75
    assert few.replicates.shape == (3, 0)


def equal_row(name, among, honest, equal, noise, trained=False):
    made = row(name, honest, noise, equal=Equal(equal, 0.0, equal + noise), trained=trained)
    return dataclasses.replace(made, chosen=(dataclasses.replace(made.chosen[0], neurons=among),))


def test_with_as_many_candidates_the_best_of_those_that_had_more_is_named():
    noise = RNG.normal(0, 0.01, 1000)
    top = equal_row("third", 32, 0.81, 0.81, noise, trained=True)
    rows = [equal_row("few", 32, 0.80, 0.80, noise), equal_row("most", 5000, 0.78, 0.70, noise),
            equal_row("second", 256, 0.77, 0.72, 2 * noise), top]
    said = equal_as_text(rows)
    assert said.startswith("with 32 candidates in every row the top stage is +9.0 [+")
    assert said.endswith("points above the best of them, second (72.0)")
    points, low, high = Verdict(top, rows[2]).equal_difference
    assert points == pytest.approx(9) and 6 < low < 8 and 10 < high < 12
    assert equal_as_text([rows[0], top]) == ""
    several = seeds.beside([rows, [*rows[:3], equal_row("third", 32, 0.83, 0.83, noise, True)]])
    assert seeds.equal_as_text(several).startswith("with 32 candidates in every row the top stage "
                                                   "is +10.0 [+")
    assert seeds.equal_as_text(several).endswith(" second (+9.0 at least)")
    assert several[2].as_json()["top_minus_it_equal_candidates"]["runs"] == pytest.approx(
        [0.09, 0.11])


def test_the_table_lines_up_and_marks_what_is_recalled():
    noise = RNG.normal(0, 0.01, 100)
    rows = [row("first row", 0.7, noise, paper="linear", equal=Equal(0.655, 0.01, 0.655 + noise)),
            row("third", 0.5, noise), row("second", 0.812, noise, paper="top", trained=True)]
    head, first, third, second = as_text(rows, 512).splitlines()
    assert first.endswith("(74.0)") and second.endswith(" 81.7")
    for word, cells in (("final", "70.0"), ("of 512", "65.5"), ("best of 20", "70.0"),
                        ("top minus it", "+11.2 [+11.2, +11.2]")):
        end = head.index(word) + len(word)
        assert first[:end].endswith(cells)
    assert "]" not in second
    assert [str(verdict.other.name) for verdict in judge(rows)] == ["first row", "third"]


def test_answers_by_source_and_what_is_right_without_one():
    text = sources_as_text([row("trained, stage 3", 0.7, np.zeros(5), trained=True)], IMAGES)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][-2:] == ["stage", "3"]
    assert lines[1] == ["found:", "a", "5", "5", "80.0"]
    assert lines[2] == ["found:", "b", "5", "5", "40.0"]
    assert lines[3] == ["false", "alarms", "10", "10", "10.0"]
    assert lines[4] == ["right", "without", "a", "15", "15", f"{100 * (9 + 2) / 15:.1f}"]
    assert lines[5] == ["right", "without", "b", "15", "15", f"{100 * (9 + 4) / 15:.1f}"]


def test_several_runs_have_a_mean_a_spread_and_the_interval_of_the_mean():
    noise = RNG.normal(0, 0.01, 1000)
    chance = row("chance", 0.6, noise)
    runs = [[chance, row("random", low, noise), row("top", high, noise, trained=True)]
            for low, high in ((0.62, 0.80), (0.66, 0.84), (0.64, 0.85))]
    rows = seeds.beside(runs)
    assert [line.shared for line in rows] == [True, False, False]
    figures = rows[1].as_json()
    assert figures["honest"]["mean"] == pytest.approx(0.64)
    assert figures["honest"]["spread"] == pytest.approx(0.02)
    assert figures["honest"]["interval"] == pytest.approx(
        tuple(np.percentile(0.64 + noise, [2.5, 97.5])))
    assert figures["top_minus_it_honest"]["runs"] == pytest.approx([0.18, 0.18, 0.21])
    assert figures["top_minus_it_honest"]["interval"] == pytest.approx((0.19, 0.19))
    assert rows[0].as_json()["honest"]["spread"] is None
    head, first, second, top = seeds.as_text(rows, ["one", "two", "three"]).splitlines()
    assert head.split()[:6] == ["final", "sd", "95", "%", "interval", "one"]
    assert second.split()[1:3] == ["64.0", "2.0"] and second.split()[6:9] == ["62.0", "66.0",
                                                                              "64.0"]
    assert second.endswith("+18.0") and "+19.0 [+19.0, +19.0]" in second
    assert first.split()[1:3] == ["60.0", first.split()[2]] and top.endswith("85.0")
