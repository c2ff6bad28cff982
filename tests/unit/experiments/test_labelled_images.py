"""Halves, groups, and what can be said with how many of them."""
import numpy as np
import pytest

from hpclcae.experiments.labelled_images import LEAST_GROUPS, LabelledImages
from hpclcae.utils.errors import InputError


def test_halves_divide_no_group_and_balance_the_groups_that_show_the_concept():
    rng = np.random.default_rng(6)
    people = [f"faces/{i}" for i in rng.integers(0, 31, 200)]
    groups = np.array(people + [f"rooms/{i}" for i in rng.integers(0, 57, 300)])
    labels = np.repeat([1, 0], [200, 300])
    images = LabelledImages.of(labels, groups)
    halves = {group: set(images.half[groups == group]) for group in np.unique(groups)}
    assert all(len(half) == 1 for half in halves.values())
    for kind in ("faces", "rooms"):
        sides = [half.copy().pop() for group, half in halves.items() if group.startswith(kind)]
        assert abs(2 * sum(sides) - len(sides)) <= 2
    assert images.groups == len(halves) and images.resampled == "persons and photographs"
    assert not np.array_equal(images.half, LabelledImages.of(labels, groups, seed=1).half)


def test_images_without_label_are_left_out():
    images = LabelledImages.of(np.array([-1, 1, 0, -1, 0]), np.array(list("abcde")))
    assert images.index.tolist() == [1, 2, 4]
    assert images.concept.tolist() == [True, False, False]


def test_images_of_one_group_count_as_their_own():
    images = LabelledImages.of(np.array([1, 0, 1, 0]), np.array([""] * 4))
    assert images.resampled == "images" and images.groups == 4
    assert sorted(images.half) == [0, 0, 1, 1]


@pytest.mark.parametrize("labels", [[-1, -1], [0, 0, -1], [1, 1], []])
def test_a_test_set_without_two_kinds_is_refused(labels):
    with pytest.raises(InputError, match="a test needs images that show it and images that do not"):
        LabelledImages.of(np.array(labels, np.int8), np.array(["g"] * len(labels)))


def test_the_halves_of_the_dataset_come_before_those_of_the_seed():
    labels, groups = np.array([-1, 1, 0, 1, 0]), np.array(["x", "a", "b", "c", "d"])
    half = np.array([1, 1, 0, 0, 1], np.uint8)
    for seed in (0, 1):
        assert LabelledImages.of(labels, groups, seed, half).half.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("half", [[0, 1, 1, 0], [0, 0, 1, 2]])
def test_halves_that_divide_a_group_are_refused(half):
    with pytest.raises(InputError, match="halves of the dataset divide a person or photograph"):
        LabelledImages.of(np.array([1, 1, 0, 0]), np.array(["a", "a", "b", "c"]),
                          half=np.array(half, np.uint8))


def test_sources_are_what_stands_before_the_name():
    images = LabelledImages.of(np.array([1, 0, 0]), np.array(["orl/s1", "rooms/1", "orl/s2"]))
    assert images.sources == ("orl", "rooms") and images.source.tolist() == [0, 1, 0]

    many = LabelledImages.of(np.arange(40) % 2, np.array([f"s{i // 2:02}/x" for i in range(40)]))
    assert many.sources == ("others", *(f"s{i:02}" for i in range(12)))
    assert np.bincount(many.source).tolist() == [16] + 12 * [2]


def people(with_concept, without, images_of_each=3):
    """A label and a group for each image."""
    labels = np.repeat([1, 0], [with_concept * images_of_each, without * images_of_each])
    names = np.repeat([f"p/{i}" for i in range(with_concept + without)], images_of_each)
    return labels, names


def test_enough_groups_have_halves_and_intervals():
    images = LabelledImages.of(*people(2 * LEAST_GROUPS, 2 * LEAST_GROUPS))
    assert images.why_not_honest == images.why_no_interval == ""


@pytest.mark.parametrize("counts, half, interval", [
    ((1, 1), "half has 0 persons and photographs that show the concept",
     "the test set has 1 persons and photographs that show the concept"),
    ((9, 30), "half has 4 persons and photographs that show the concept", ""),
    ((30, 9), "has 4 persons and photographs without it", ""),
    ((30, 4), "has 2 persons and photographs without it",
     "the test set has 4 persons and photographs without it")])
def test_too_few_groups_are_named(counts, half, interval):
    images = LabelledImages.of(*people(*counts))
    assert half in images.why_not_honest
    assert interval in images.why_no_interval and bool(images.why_no_interval) == bool(interval)


def test_halves_of_one_kind_each_are_named():
    """What a dataset may say, with as many people as one likes."""
    labels, groups = people(20, 20)
    images = LabelledImages.of(labels, groups, half=1 - labels)
    assert "the development half has 0 persons and photographs without it" in images.why_not_honest
    assert images.why_no_interval == ""
