"""Scans: every window at its place, sizes of pictures, maxima, heat maps."""
import numpy as np
import pytest

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import scan
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.scan import Neuron, ScaleMap
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import SIZE, write_images, write_run

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model.load(write_run(tmp_path_factory.mktemp("scan")))


def test_places_step_along_and_end_at_the_end():
    assert scan.places(20, 12, 4).tolist() == [0, 4, 8]
    assert scan.places(22, 12, 4).tolist() == [0, 4, 8, 10]
    assert scan.places(12, 12, 4).tolist() == [0]


def test_a_resized_picture_keeps_its_mean_and_its_ramp():
    frames = np.broadcast_to(np.arange(0, 240, 6, np.uint8)[None, :, None, None], (2, 40, 30, 1))
    for scale in (0.5, 0.85, 1.7):
        out = scan.resized(frames, scale)
        rows, cols = round(40 * scale), round(30 * scale)
        assert out.shape == (2, rows, cols, 1) and out.dtype == np.uint8
        expected = ((np.arange(rows) + 0.5) * 40 / rows - 0.5) * 6
        inner = slice(3, -3)
        assert np.abs(out[0, inner, 0, 0].astype(float) - expected[inner]).max() < 1.01
    assert scan.resized(frames, 1) is frames
    fine = RNG.integers(0, 256, (1, 64, 64, 3), np.uint8)  # a quarter is the mean, no pick
    assert np.abs(scan.resized(fine, 0.25)[:, 2:-2, 2:-2].astype(float) - 127).max() < 60


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_every_response_is_that_of_its_window(model, batch):
    frames = RNG.integers(0, 256, (3, 20, 26, 1), np.uint8)
    neuron = Neuron(2, (1, 0, 1))
    found, smaller = scan.scan(frames, neuron.detector(model), SIZE, (1, 0.7), 5, batch)
    assert found.rows.tolist() == [0, 5, 8] and found.cols.tolist() == [0, 5, 10, 14]
    for image, row, col in np.ndindex(found.response.shape):
        top, left = int(found.rows[row]), int(found.cols[col])
        window = frames[None, image, top:top + SIZE, left:left + SIZE]
        expected = model.responses(model.prepare(window))[1][1, 0, 1, 0]
        assert found.response[image, row, col] == pytest.approx(expected, rel=1e-5)
    assert smaller.response.shape == (3, 2, 3)  # 14 x 18 pixels
    assert smaller.rows.tolist() == [0, 2 * 20 / 14] and smaller.side == pytest.approx(SIZE / 0.7)
    peak, top, left = found.strongest(1)
    assert peak == found.response[1].max()
    at = np.argwhere(found.response[1] == peak)[0]
    assert (top, left) == (found.rows[at[0]], found.cols[at[1]])
    assert scan.batches(3, (20, 26), SIZE, (1, 0.7), 5, 7) == -(-36 // 7) + -(-18 // 7)


def test_a_heat_map_has_each_response_at_the_centre_of_its_window():
    response = RNG.random((1, 3, 2)).astype(np.float32)
    low = ScaleMap(1, np.array([0.0, 4, 8]), np.array([0.0, 6]), 5, response)
    heat = scan.heat_map([low], (13, 11))
    assert heat.shape == (13, 11)
    for row, col in np.ndindex(3, 2):
        assert heat[2 + 4 * row, 2 + 6 * col] == pytest.approx(response[0, row, col], rel=1e-6)
    assert heat[4, 2] == pytest.approx(response[0, :2, 0].mean(), rel=1e-6)
    assert heat[0, 0] == heat[2, 2]  # half a distance further out
    assert np.isnan(scan.heat_map([low], (13, 20))[2, 12:]).all()
    whole = ScaleMap(2, np.array([0.0]), np.array([0.0]), 20, np.full((1, 1, 1), 0.7, np.float32))
    both = scan.heat_map([low, whole], (13, 11))
    assert np.allclose(both, np.fmax(heat, 0.7), rtol=1e-6)


def test_maxima_are_those_of_all_windows_and_are_judged_as_one_neuron(model, tmp_path):
    write_images(tmp_path / "large.h5", 60, labels=True, size=SIZE + 6)
    detector = Neuron(1, (2, 3, 0)).detector(model)
    with Dataset(tmp_path / "large.h5") as large:
        images = LabelledImages.of(large.labels, large.groups)
        found = scan.maxima(large, images.index, detector, SIZE, (1, 0.8), 2, 20)
        frames = large.read(images.index)
    maps = scan.scan(frames, detector, SIZE, (1, 0.8), 2, 100)
    expected = np.max([each.response.max(axis=(1, 2)) for each in maps], axis=0)
    assert np.allclose(found["response"], expected, rtol=1e-5)
    for image in range(5):
        each = maps[0 if found["scale"][image] == 1 else 1]
        assert found["side"][image] == each.side
        at = (np.flatnonzero(each.rows == found["top"][image])[0],
              np.flatnonzero(each.cols == found["left"][image])[0])
        assert each.response[image][at] == pytest.approx(found["response"][image], rel=1e-5)
    population = scan.judge_maxima(found["response"], images, 100, 7)
    assert population.accuracy.shape == (1, 1, 1)
    best = population.best
    right = (found["response"] > best.threshold) == images.concept
    assert best.accuracy == right.mean()


@pytest.mark.parametrize("text, message", [
    ("3/0,0,0", "--neuron 3/0,0,0: stages are 1 to 2"),
    ("1/9,0,0", "stage 1 has 6 rows, 6 cols and 3 maps, counted from 0"),
    ("1/0,-1,0", "counted from 0"), ("1", "write STAGE/ROW,COL,MAP"),
    ("1/0,0", "write STAGE/ROW,COL,MAP"), ("a/0,0,0", "write STAGE/ROW,COL,MAP")])
def test_a_neuron_that_does_not_exist_is_named(model, text, message):
    with pytest.raises(InputError, match=message):
        Neuron.parse(text, model)
    assert str(Neuron.parse("2/1,0,1", model)) == "2/1,0,1"


def test_a_scale_at_which_no_window_fits_is_named():
    scan.require_windows("picture", (40, 64), (0.3, 1), 12)
    with pytest.raises(InputError, match=r"picture at --scales 0.25 has 10x16 pixels, the network "
                                         r"sees 12x12: leave such a scale away \(at least 0.3\)"):
        scan.require_windows("picture", (40, 64), (1, 0.25), 12)
