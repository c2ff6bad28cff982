"""The halves: alike, and the same people in each whatever else is dealt out."""
import numpy as np
import pytest

from hpclcae.data.halves import group_keys, halves

PEOPLE = [f"faces/{i}" for i in range(31)]
ROOMS = [f"rooms/{i}" for i in range(57)]


def dealt(groups, seed=0):
    classes = np.array([group.startswith("faces") for group in groups])
    return dict(zip(groups, halves(np.array(groups), classes, seed).tolist()))


def test_each_class_is_halved():
    half = dealt(PEOPLE + ROOMS)
    assert {sum(half[group] for group in PEOPLE), sum(half[group] for group in ROOMS)} == {16, 28}
    assert dealt(PEOPLE + ROOMS, seed=1) != half


@pytest.mark.parametrize("rooms", [0, 1, 56, 57])
def test_neither_order_nor_other_classes_matter(rooms):
    some = dealt(ROOMS[:rooms] + PEOPLE[::-1])
    assert {group: some[group] for group in PEOPLE} == dealt(PEOPLE)


def test_one_of_each_is_one_in_each_half():
    assert dealt(["faces/a", "rooms/b"]) == {"faces/a": 1, "rooms/b": 0}


def test_keys_are_the_same_everywhere():
    assert group_keys(["a", "ü"], 3).tolist() == [17144405879716790563, 8214397939455336211]
