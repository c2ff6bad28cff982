"""Cues: what they measure, and what is chosen by them."""
import numpy as np
import pytest
from PIL import Image

from hpclcae.data.frames.cues import best_threshold, cues, first_not_dull, most_alike


def test_cues_measure_brightness_contrast_and_softness():
    rng = np.random.default_rng(0)
    sharp = Image.fromarray(rng.integers(60, 160, (32, 32), np.uint8))
    soft = sharp.resize((8, 8), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BICUBIC)
    brighter = Image.fromarray(np.asarray(sharp) + 50)
    weaker = Image.fromarray((np.asarray(sharp) // 2))
    np.testing.assert_allclose(cues(brighter) - cues(sharp), [50, 0, 0], atol=1e-4)
    np.testing.assert_allclose((cues(weaker) - cues(sharp))[1:], [-np.log(2), 0], atol=0.01)
    assert cues(soft)[2] < cues(sharp)[2] - 1
    assert cues(np.asarray(sharp)[:, :, None])[0] == pytest.approx(cues(sharp)[0])


def test_cues_of_colour_measure_the_tint():
    grey, red, green = np.full((3, 8, 8, 3), 100, np.uint8)
    red[..., 0], green[..., 1] = 130, 130
    np.testing.assert_allclose(cues(grey)[3:], 0, atol=1e-5)
    np.testing.assert_allclose(cues(red)[3:], [30, -15], atol=1e-5)
    np.testing.assert_allclose(cues(green)[3:], [0, 30], atol=1e-5)


def test_most_alike_and_first_not_dull_choose():
    rng = np.random.default_rng(0)
    shown = [Image.fromarray(rng.normal(mean, 20, (16, 16)).clip(0, 255).astype(np.uint8))
             for mean in (60, 120, 200)]
    wanted = Image.fromarray(rng.normal(190, 20, (16, 16)).clip(0, 255).astype(np.uint8))
    assert most_alike(shown, wanted) == 2
    dull = Image.new("L", (16, 16), 90)
    assert first_not_dull([dull, dull, shown[0], shown[1]]) == 2
    assert first_not_dull([dull, dull]) == 1


def test_best_threshold_agrees_with_trying_all():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values, labels = rng.integers(0, 6, 15).astype(float), rng.random(15) < 0.4
        tried = [np.mean((values > cut) == labels) for cut in np.arange(-0.5, 7)]
        assert best_threshold(values, labels) == pytest.approx(max(max(tried), 1 - min(tried)))
