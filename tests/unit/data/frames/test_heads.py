"""Heads: the rasterizer against a loop, the cached mesh, and what a picture of a head must be."""
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from hpclcae.data.catalogue import heads_folder
from hpclcae.data.frames import head_mesh, heads
from hpclcae.data.frames.head_mesh import CACHE, CURTAIN, EYE, load_mesh, vertex_normals
from hpclcae.data.frames.heads import HeadModel, Person
from hpclcae.data.frames.rasterize import rasterize
from hpclcae.utils.errors import InputError
from tests.support.synthetic_head import FOLDER, write_synthetic_head


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic_head(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def model(folder):
    return HeadModel(folder)


def plain_person(model, **changes):
    """The neutral head, with a look of our choice."""
    look = model.person(np.random.default_rng(0)).look
    look = dataclasses.replace(look, thickness=0.0, curtain=0.0, glasses=0.0, beard=0.0, **changes)
    vertices = (model.mesh.rest - [0, 0, -heads.BEHIND_EYES]).astype(np.float32)
    return Person(vertices, vertex_normals(vertices, model.mesh.triangles), look)


# ---- rasterize


def naive_rasterize(points, triangles, size):
    """Nearest triangle of each pixel, one pixel and one triangle at a time.

    -1 where there is none.
    """
    seen, depth = np.full((size, size), -1), np.full((size, size), -np.inf)
    for t, triangle in enumerate(triangles):
        a, b, c = points[triangle].astype(float)
        area = (b[1] - a[1]) * (c[0] - a[0]) - (b[0] - a[0]) * (c[1] - a[1])
        if area <= 0:
            continue
        for row in range(size):
            for col in range(size):
                weights = np.linalg.solve(np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]],
                                                    [1, 1, 1]]), [col + 0.5, row + 0.5, 1])
                height = weights @ [a[2], b[2], c[2]]
                if weights.min() >= 0 and height > depth[row, col]:
                    seen[row, col], depth[row, col] = t, height
    return seen


def test_rasterize_agrees_with_a_loop():
    rng = np.random.default_rng(4)
    points = rng.uniform(-4, 18, (30, 3))  # some triangles reach over the edges of the picture
    triangles = rng.permuted(np.tile(np.arange(30), (25, 1)), axis=1)[:, :3]
    pixels, seen, weights = rasterize(points, triangles, 14)
    expected = naive_rasterize(points, triangles, 14)
    found = np.full(14 * 14, -1)
    found[pixels] = seen
    assert (expected >= 0).mean() > 0.5
    np.testing.assert_array_equal(found.reshape(14, 14), expected)
    places = (points[triangles[seen], :2] * weights[:, :, None]).sum(1)
    np.testing.assert_allclose(places, np.stack([pixels % 14 + 0.5, pixels // 14 + 0.5], 1),
                               atol=2e-4)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)


def test_rasterize_leaves_out_backs_and_what_keep_refuses():
    points = np.array([[0, 0, 0], [0, 8, 0], [8, 8, 0]], float)
    assert len(rasterize(points, np.array([[0, 2, 1]]), 8)[0]) == 0
    pixels, *_ = rasterize(points, np.array([[0, 1, 2]]), 8)
    assert len(pixels) == 36  # the diagonal and below it
    left, *_ = rasterize(points, np.array([[0, 1, 2]]), 8, lambda index,
                         weights: weights[:, 2] < 0.5)
    assert set(left) == {pixel for pixel in pixels if pixel % 8 < 4}


def test_rasterize_leaves_no_gap_between_neighbours():
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.arange(11.0), np.arange(11.0))
    inner = (x > 0) & (x < 10) & (y > 0) & (y < 10)
    shifts = inner * rng.uniform(-0.3, 0.3, (2, 11, 11))
    points = np.stack([x + shifts[0], y + shifts[1], x * 0], -1)
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).reshape(-1)
    triangles = np.concatenate([np.stack([corner, corner + 11, corner + 12], 1),
                                np.stack([corner, corner + 12, corner + 1], 1)])
    assert len(rasterize(points.reshape(-1, 3) * 20, triangles, 200)[0]) == 200 * 200


# ---- the mesh


def test_mesh_is_in_head_heights_from_the_eyes(model):
    mesh = model.mesh
    np.testing.assert_allclose(mesh.rest[mesh.eyes].mean(0), 0, atol=1e-6)
    assert mesh.rest[mesh.crown, 1] == pytest.approx(0.5)
    assert mesh.rest[mesh.chin, 1] < -0.3
    assert set(np.unique(mesh.part)) == {head_mesh.SKIN, EYE, CURTAIN}  # joints are not drawn
    assert len(mesh.rest) == mesh.triangles.max() + 1


def test_left_and_right_targets_are_one_and_rigid_ones_are_left_out(model):
    names = list(model.mesh.names)
    assert names == ["universal-male-young-averagemuscle-averageweight", "asian-female-old",
                     "head-round", "l-cheek"]
    moved = np.abs(model.mesh.targets[names.index("l-cheek")]).sum(1)
    np.testing.assert_allclose(moved[[9, 11]], 0.2 / 2.4, rtol=1e-5)  # the head is 2.4 units high
    assert np.count_nonzero(moved) == 2


def test_hollows_get_less_light(tmp_path):
    mesh = load_mesh(write_synthetic_head(tmp_path))
    inside = np.linalg.norm((mesh.rest * 2.4 + [0, 0, 0.9]) / [1, 1.2, 1], axis=1) < 0.9
    inside &= np.isin(np.arange(len(inside)), mesh.eyes)  # the backs of the eyes
    assert inside.sum() > 50 and mesh.occlusion[inside].max() < 0.05
    assert mesh.occlusion[mesh.crown] > 0.95


def test_mesh_is_parsed_once(tmp_path, model):
    write_synthetic_head(tmp_path)
    load_mesh(tmp_path)
    (tmp_path / FOLDER / "3dobjs" / "base.obj").unlink()
    again = load_mesh(tmp_path)
    for field in dataclasses.fields(again):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(model.mesh, field.name))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"something else"])
def test_damaged_cache_is_parsed_again(tmp_path, content):
    write_synthetic_head(tmp_path)
    (tmp_path / CACHE).write_bytes(content)
    assert len(load_mesh(tmp_path).names) == 4
    with np.load(tmp_path / CACHE) as stored:
        assert len(stored["names"]) == 4


def test_truncated_cache_is_parsed_again(tmp_path):
    load_mesh(write_synthetic_head(tmp_path))
    content = (tmp_path / CACHE).read_bytes()
    (tmp_path / CACHE).write_bytes(content[:len(content) // 2])
    assert len(load_mesh(tmp_path).names) == 4


def test_folder_that_cannot_be_written_does_without_a_cache(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "read-only", str(path))
    monkeypatch.setattr(head_mesh, "replacing", refuse)
    assert len(load_mesh(write_synthetic_head(tmp_path)).names) == 4


def test_absent_and_damaged_meshes_are_one_line(tmp_path):
    with pytest.raises(InputError,
                       match="holds no head mesh .*base.obj is missing.*data fetch") as error:
        HeadModel(tmp_path)
    assert "\n" not in str(error.value)
    write_synthetic_head(tmp_path)
    target = tmp_path / FOLDER / "targets" / "head" / "head-round.target.gz"
    content = target.read_bytes()
    for damaged in (content[:-12], b"not gzip", content[:30] + b"\xff" * 10 + content[40:]):
        target.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read.*data fetch"):
            HeadModel(tmp_path)
    target.write_bytes(content)
    (tmp_path / FOLDER / "textures" / "mpfb_lips.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="cannot be read.*data fetch"):
        HeadModel(tmp_path)


def test_mesh_of_another_kind_is_refused(tmp_path):
    write_synthetic_head(tmp_path)
    path = tmp_path / FOLDER / "3dobjs" / "base.obj"
    for content in ("", "v 0 0 0\ng body\nf 1/1 1/1 1/1\n", "v 0 0 zero\n"):
        path.write_text(content)
        with pytest.raises(InputError, match="cannot be read"):
            HeadModel(tmp_path)


# ---- people and pictures


def test_picture_is_rgba_with_nothing_around_the_head(model):
    picture = model.render(model.person(np.random.default_rng(2)), 40, yaw=20, pitch=5, roll=-5)
    assert picture.shape == (40, 40, 4) and picture.dtype == np.uint8
    alpha = picture[..., 3]
    assert not alpha[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (alpha[15:25, 15:25] == 255).all()
    assert ((alpha > 0) & (alpha < 255)).sum() > 20  # soft edges


def test_people_are_reproducible_and_different(model):
    first, same, other = (model.render(model.person(np.random.default_rng(seed)), 32)
                          for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first.astype(int) - other).mean() > 2


def test_turning_follows_the_documented_directions():
    nose, up = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    np.testing.assert_allclose(heads.rotation(90, 0, 0) @ nose, [1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(heads.rotation(0, 90, 0) @ nose, [0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(heads.rotation(0, 0, 90) @ up, [-1, 0, 0], atol=1e-7)
    turned = heads.rotation(25, -40, 70)
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-6)


def test_eyes_move_with_the_head(model):
    person = plain_person(model, skin=np.ones(3), hair=np.ones(3), clothes=np.ones(3),
                          iris=np.zeros(3), brow=0.001)

    def dark(**turn):
        picture = model.render(person, 96, light=(0, 0, 1), **turn)
        row, col = np.nonzero((picture[..., :3].max(2) < 60) & (picture[..., 3] == 255))
        return row.mean(), col.mean()
    row, col = dark()
    assert col == pytest.approx(47.5, abs=0.5)
    assert dark(yaw=30)[1] > col + 5 and dark(yaw=-30)[1] < col - 5
    assert dark(pitch=20)[0] < row - 5 and dark(pitch=-20)[0] > row + 5


def test_opposite_turns_are_mirror_images(model):
    person = plain_person(model, phase=np.zeros(3))
    left, right = (model.render(person, 64, yaw=yaw, light=(0, 0.5, 1))[..., 3].astype(int)
                   for yaw in (-40, 40))
    # at most a quarter of the samples of a pixel on the edge
    assert np.abs(left - right[:, ::-1]).max() <= 64


def test_zoom_scales_and_the_head_fills_its_share(model):
    person = plain_person(model)
    for zoom in (0.5, 1.0):
        rows = np.flatnonzero(model.render(person, 100, zoom=zoom)[..., 3].max(1) > 127)
        height = 2.4 / 2.4  # the egg is one head height
        assert len(rows) == pytest.approx(100 * heads.FILLS * zoom * height, rel=0.04)


def test_light_comes_from_where_it_is_asked_to(model):
    person = plain_person(model)
    for direction, half in (((-1, 0, 0.2), np.s_[:, :20]), ((1, 0, 0.2), np.s_[:, 20:])):
        picture = model.render(person, 40, light=direction).astype(float)
        opaque = picture[..., 3] == 255
        bright = np.where(opaque, picture[..., :3].mean(2), np.nan)
        rest = np.nanmean(bright) * 2 - np.nanmean(bright[half])
        assert np.nanmean(bright[half]) > 1.3 * rest
    assert np.isfinite(model.render(person, 40, light=(0, 0, -1))).all()


def test_long_hair_is_seen_from_both_sides(model):
    person = model.person(np.random.default_rng(0))
    covered = {}
    for length in (0.0, 1.0):
        look = dataclasses.replace(person.look, curtain=length)
        for yaw in (0, 180):
            picture = model.render(dataclasses.replace(person, look=look), 48, yaw=yaw)
            covered[length, yaw] = (picture[..., 3] > 127).sum()
    assert covered[1.0, 0] > covered[0.0, 0] + 50 and covered[1.0, 180] > covered[0.0, 180] + 50


# ---- the real mesh


@pytest.fixture(scope="module")
def real_model():
    sources = os.environ.get("HPCLCAE_SOURCES")
    if not sources:
        pytest.skip("the real head mesh: HPCLCAE_SOURCES names no folder written by 'hpclcae data "
                    "fetch'")
    mesh = heads_folder(Path(sources))
    if mesh is None:
        pytest.skip(f"the real head mesh is not in {sources}")
    return HeadModel(mesh)


def test_real_mesh_is_the_one_we_know(real_model):
    mesh = real_model.mesh
    assert (len(mesh.rest), len(mesh.triangles), len(mesh.names)) == (6467, 12524, 247)
    np.testing.assert_allclose(mesh.rest[mesh.chin], head_mesh.CHIN, atol=0.04)


def test_real_heads_are_whole_at_every_angle(real_model):
    rng = np.random.default_rng(3)
    for yaw in range(-90, 91, 45):
        picture = real_model.render(real_model.person(rng), 64, yaw=yaw)
        rows = np.flatnonzero(picture[:, 24:40, 3].max(1) > 127)
        assert 8 <= rows[0] <= 15  # the crown, hair included
        assert (picture[20:44, 26:38, 3] == 255).all()  # no holes
        assert picture[..., :3][picture[..., 3] == 255].std() > 15
