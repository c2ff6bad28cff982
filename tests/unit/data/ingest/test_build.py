"""Squares out of pictures, and settings that cannot be."""
import numpy as np
import pytest
from PIL import Image

from hpclcae.data.decode import Picture, as_image
from hpclcae.data.ingest.settings import Settings
from hpclcae.data.ingest.squares import to_square
from hpclcae.utils.errors import InputError


def square_of(pixels, original, size, how):
    square, shown = to_square(Picture(as_image(pixels), original), size, how)
    return np.asarray(square), shown


@pytest.mark.parametrize("rows, cols, crop", [
    (40, 100, (0, 30, 40, 70)), (90, 50, (20, 0, 70, 50)), (33, 32, (0, 0, 32, 32))])
def test_centre_crop(rows, cols, crop):
    pixels = np.random.default_rng(0).integers(0, 256, (rows, cols, 3), dtype=np.uint8)
    square, shown = square_of(pixels, (rows, cols), 20, "centre")
    assert shown == crop
    top, left, bottom, right = crop
    part = Image.fromarray(pixels[top:bottom, left:right])
    expected = part.resize((20, 20), Image.Resampling.LANCZOS)
    # at the edges the filter of the resampling looks a little beyond the crop
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(square[inner].astype(int) - np.asarray(expected)[inner]).max() <= 1


def test_crop_is_in_pixels_of_the_original():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8)
    square, shown = square_of(pixels, (200, 400), 20, "centre")
    assert shown == (0, 100, 200, 300)
    np.testing.assert_array_equal(square, square_of(pixels, (50, 100), 20, "centre")[0])


def test_fit_shows_everything_on_mid_grey():
    square, shown = square_of(np.full((50, 100, 3), 250, np.uint8), (50, 100), 40, "fit")
    assert shown == (0, 0, 50, 100)
    assert (square[10:30] == 250).all()
    assert (square[:10] == 128).all() and (square[30:] == 128).all()


@pytest.mark.parametrize("changes, message", [
    ({"size": 0}, "--size 0"), ({"min_side": 0}, "--min-side 0"), ({"every": 0.0}, "--every 0.0"),
    ({"pairs": 0.5}, "--pairs 0.5 needs --every"), ({"every": 1.0, "pairs": 1.0}, "--pairs 1.0"),
    ({"every": 1.0, "pairs": 0.0}, "--pairs 0.0"),
    ({"test_share": 1.5}, "test share 1.5"), ({"concept": "a"}, "needs --label-from folder")])
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**changes)
