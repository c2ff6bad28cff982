"""Recipes: what they deal out, and those that cannot be."""
import dataclasses

import pytest

from hpclcae.data.frames.recipe import KINDS, Recipe, plan
from hpclcae.utils.errors import InputError

RECIPE = Recipe(split="train", seed=3, size=16, channels=1, faces=0.25, heads=0.1, cutouts=0.15,
                test_share=0.5, face_size=(0.6, 1.0), cutout_size=(0.3, 0.6), reach=0.08,
                pairs=False, pixels=1.25, alike=1, head_bank=4, yaw=30)


def test_plan_deals_exact_shares_in_turns():
    tasks = plan(1000, RECIPE)
    assert [index for index, _, _ in tasks] == list(range(1000))
    for kind, count in zip(KINDS, (250, 100, 0, 150, 500)):
        assert sorted(turn for _, k, turn in tasks if k == kind) == list(range(count))
    assert [kind for _, kind, _ in tasks] != sorted(kind for _, kind, _ in tasks)
    assert plan(1000, RECIPE) == tasks


def test_pairs_are_the_plan_of_half_as_many_frames_twice():
    tasks = plan(1000, dataclasses.replace(RECIPE, pairs=True))
    single = plan(500, RECIPE)
    assert [index for index, _, _ in tasks] == list(range(1000))
    for second in (0, 1):
        assert [task[1:] for task in tasks[second::2]] == [task[1:] for task in single]


@pytest.mark.parametrize("changes, message", [
    ({"size": 2}, "--size 2 is not between 8 and 4096"), ({"head_bank": 0}, "--head-bank 0"),
    ({"cutout_size": (0.6, 0.3)}, "--cutout-size 0.6 0.3"), ({"faces": 0.9}, "parts of a whole"),
    ({"reach": -0.1}, "--place -0.1 is not between 0 and 0.5"), ({"reach": 0.6}, "--place 0.6"),
    ({"reach": float("nan")}, "--place nan")])
def test_recipes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(RECIPE, **changes)
