"""Sprites: every picture is where the layout says."""
import base64
import io

import numpy as np
import pytest

image_module = pytest.importorskip("PIL.Image")

from hpclcae.experiments.report import sprites  # noqa: E402
from hpclcae.experiments.report.sprites import Sprites, data_uri, mosaic, signed  # noqa: E402


def decoded(uri):
    kind, _, content = uri.partition(";base64,")
    assert kind in ("data:image/webp", "data:image/png")
    return np.asarray(image_module.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_is_found_on_its_sheet(monkeypatch, channels):
    monkeypatch.setattr(sprites, "SIDE", 20)
    pictures = np.random.default_rng(0).integers(0, 256, (23, 5, 6, channels), np.uint8)
    made = Sprites((5, 6, channels), exact=True)
    assert [made.add(picture) for picture in pictures] == list(range(23))
    layout = made.layout()
    assert (layout["across"], layout["each"], layout["count"]) == (3, 12, 23)
    sheets = [decoded(uri) for uri in layout["sheets"]]
    assert [sheet.shape for sheet in sheets] == [(20, 18, 3), (20, 18, 3)]
    for number, picture in enumerate(pictures):
        sheet, place = divmod(number, layout["each"])
        row, col = divmod(place, layout["across"])
        shown = sheets[sheet][5 * row:5 * row + 5, 6 * col:6 * col + 6]
        assert (shown == picture).all()


def test_without_webp_it_is_png(monkeypatch):
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    uri = data_uri(pixels, exact=False)
    assert uri.startswith("data:image/png") and (decoded(uri) == pixels).all()


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="a picture of"):
        Sprites((5, 5, 1), True).add(np.zeros((5, 6, 1), np.uint8))


def test_grey_is_zero():
    assert signed(np.array([-2.0, 0, 1])).tolist() == [0, 128, 191]
    assert (signed(np.zeros(3)) == 128).all()


def test_a_mosaic_has_gaps():
    shown = mosaic(np.zeros((3, 2, 2, 1), np.uint8), 2)
    assert shown.shape == (5, 5, 1)
    assert (shown[2] == 255).all() and (shown[3:, 3:] == 255).all() and (shown[:2, :2] == 0).all()
