"""Changed images: shift, scale and rotation against NumPy's own."""
import numpy as np
import pytest

from hpclcae.experiments.report import curves
from hpclcae.experiments.report.curves import changed


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 2), np.uint8)


def test_nothing_is_changed_by_nothing(images):
    assert (changed(images) == images).all()


@pytest.mark.parametrize("down, right", [(2, 0), (0, 3), (-1, 4)])
def test_a_shift_by_whole_pixels_moves_the_content(images, down, right):
    moved, inside = changed(images, down=down, right=right), np.s_[:, 4:8, 4:8]
    assert (moved[inside] == np.roll(images, (down, right), axis=(1, 2))[inside]).all()


def test_a_quarter_turn_is_anticlockwise(images):
    assert (changed(images, degrees=90) == np.rot90(images, axes=(1, 2))).all()


def test_twice_as_large_is_twice_as_wide():
    image = np.zeros((1, 33, 33, 1), np.uint8)
    image[:, 12:21, 12:21] = 200
    wide = [(changed(image, scale=scale)[0, 16, 7:26, 0] > 100).sum() for scale in (0.5, 1, 2)]
    assert wide == pytest.approx([4.5, 9, 18], abs=1)


class Images:
    size = 12

    def __init__(self, images):
        self.images = images

    def read(self, places):
        return self.images[places]


def test_curves_have_the_mean_response_and_its_interval(images):
    def respond(views):
        return np.stack([views[:, 6, 6, 0], np.full(len(views), 7)]).astype(np.float32)
    found = curves.curves(respond, Images(images), [0, 1, 2])
    assert [curve.name for curve in found] == ["horizontal shift", "vertical shift", "scale",
                                               "rotation"]
    for curve in found:
        here = int(np.flatnonzero(curve.at == curve.unchanged)[0])
        values = images[:, 6, 6, 0].astype(float)
        assert curve.mean[0, here] == pytest.approx(values.mean())
        # Student's t of 2 degrees of freedom, 97.5 %
        assert curve.deviation[0, here] == pytest.approx(4.3027 * values.std(ddof=1) / 3 ** 0.5,
                                                         rel=1e-4)
        assert (curve.mean[1] == 7).all() and (curve.deviation[1] == 0).all()


def test_one_example_has_no_interval(images):
    found = curves.curves(lambda views: np.zeros((1, len(views))), Images(images), [1])
    assert np.isnan(found[0].deviation).all() and (found[0].mean == 0).all()
