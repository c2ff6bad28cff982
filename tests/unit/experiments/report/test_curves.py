"""Curves of many neurons: the mean of the answers to each view, and its interval."""
import numpy as np
import pytest

pytest.importorskip("PIL.Image")

from hpclcae.experiments import invariance  # noqa: E402
from hpclcae.experiments.labelled_images import LabelledImages  # noqa: E402
from hpclcae.experiments.report.atlas import Judged  # noqa: E402
from hpclcae.experiments.report.curves import curves  # noqa: E402
from hpclcae.experiments.turning_heads import SCANNED  # noqa: E402


class Images:
    """A dataset of noise."""
    size = 16
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)

    def read(self, places):
        return self.pixels[places]


def judged_by(people):
    """Forty images, the first 30 with the concept, of so many people."""
    labels = (np.arange(40) < 30).astype(int)
    groups = np.array([f"made/{n % people if n < 30 else n}" for n in range(40)])
    images = LabelledImages.of(labels, groups)
    return Judged(images, images.half == 1, ("other", "face"), labels, True)


def ask(views):
    return np.stack([views[:, 8, 8, 0], np.full(len(views), 7)]).astype(np.float32)


def test_curves_have_the_mean_response_and_its_interval():
    judged = judged_by(6)
    chosen = judged.images.index[invariance.choose_faces(judged.images, judged.mine, 10, 0)]
    values = Images.pixels[chosen, 8, 8, 0].astype(float)
    assert values.size == 3  # people of the final half
    found = curves(ask, Images(), judged)
    assert [curve.name for curve in found] == ["horizontal shift", "vertical shift", "scale",
                                               "rotation in the plane"]
    for curve in found:
        here = int(np.flatnonzero(curve.at == curve.unchanged)[0])
        assert curve.mean[0, here] == pytest.approx(values.mean()) and curve.images == 3
        # Student's t of 2 degrees of freedom, 97.5 %
        assert curve.deviation[0, here] == pytest.approx(4.3027 * values.std(ddof=1) / 3 ** 0.5,
                                                         rel=1e-4)
        assert (curve.mean[1] == 7).all() and (curve.deviation[1] == 0).all()
    right = Images.pixels[chosen, 8, 8 - 2, 0].mean()
    assert found[0].mean[0, list(found[0].at).index(2)] == pytest.approx(right)


def test_heads_turn_and_nod_before_images_of_the_rest():
    """A bright head where the neuron looks, brighter the further it turns to the right."""
    def head(size, yaw, pitch, zoom):
        return np.full((size, size, 4), [100 + yaw, 100 + yaw, 100 + yaw, 255], np.uint8)

    class Framed(Images):
        settings: dict = {}
    found = curves(ask, Framed(), judged_by(6), {"": [head, head]})
    assert [curve.name for curve in found][4:] == ["turn of a head", "nod of a head"]
    turn, nod = found[4:]
    assert turn.images == 2 and np.allclose(turn.mean[0], 100 + turn.at, atol=0.5)
    assert (turn.deviation == 0).all() and (nod.mean[0] == 100).all() and nod.unchanged == 0
    both = curves(ask, Framed(), judged_by(6), {"": [head, head], SCANNED: [head]})
    assert [(curve.name, curve.beside, curve.images) for curve in both][4:] == [
        ("turn of a head", "", 2), ("nod of a head", "", 2),
        ("turn of a scanned head", "turn of a head", 1),
        ("nod of a scanned head", "nod of a head", 1)]
    assert np.array_equal(both[6].mean, turn.mean) and np.isnan(both[6].deviation).all()
    alone = curves(ask, Framed(), judged_by(6), {"": [], SCANNED: [head]})
    assert [(curve.name, curve.beside) for curve in alone][4:] == [
        ("turn of a scanned head", ""), ("nod of a scanned head", "")]


def test_one_person_has_no_interval():
    found = curves(ask, Images(), judged_by(2))
    assert found[0].images == 1
    assert all(np.isnan(curve.deviation).all() for curve in found)
