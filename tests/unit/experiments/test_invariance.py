"""Tolerance: pixels of windows, zooms and patches; units, areas and half-widths by hand."""
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset
from hpclcae.experiments import tolerance
from hpclcae.experiments.labelled_images import LabelledImages
from hpclcae.experiments.tolerance import Sweep
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_images

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (3, 20, 20, 1), np.uint8)


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[:, :19, :19], np.repeat(FRAMES, 3, axis=3)])
def test_a_shifted_window_shows_its_content_further_on(frames):
    first = (frames.shape[1] - 12) // 2
    middle = tolerance.window(frames, 12)
    assert np.array_equal(middle, frames[:, first:first + 12, first:first + 12])
    moved = tolerance.window(frames, 12, down=2, right=-3)
    assert np.array_equal(moved[:, 2:, :9], middle[:, :10, 3:])
    assert np.array_equal(moved, frames[:, first - 2:first + 10, first + 3:first + 15])


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[:, :19, :19], np.repeat(FRAMES, 3, axis=3)])
def test_a_zoom_by_one_is_the_window_and_others_keep_the_middle(frames):
    pytest.importorskip("PIL.Image")
    assert np.array_equal(tolerance.zoomed(frames, 12, 1), tolerance.window(frames, 12))
    size = frames.shape[1]
    ramp = np.broadcast_to((np.arange(size, dtype=np.uint8) * 10)[None, :, None, None],
                           (1, size, size, frames.shape[-1]))
    for scale in (0.75, 1.5, 2):
        assert tolerance.fits(scale, 12, size)
        rows = tolerance.zoomed(ramp, 12, scale)[0, :, 0, 0].astype(float)
        centre = (size - 12) // 2 + 5.5
        expected = 10 * (centre + (np.arange(12) - 5.5) / scale)
        inner = slice(2, -2)
        assert np.abs(rows - expected)[inner].max() < 1.5


def test_what_a_scale_wants_must_lie_inside_the_frame():
    assert tolerance.fits(0.6, 12, 20) and not tolerance.fits(0.599, 12, 20)
    assert not tolerance.fits(0.61, 12, 19)  # the middle lies half a pixel off


def test_a_patch_has_the_mean_grey_of_its_own_window():
    out = tolerance.covered(FRAMES, 12, 4, 1, 7)
    middle = tolerance.window(FRAMES, 12)
    covered = np.zeros((12, 12), bool)
    covered[1:5, 7:11] = True
    assert np.array_equal(out[:, ~covered], middle[:, ~covered])
    for image, before in zip(out, middle):
        assert (image[covered] == round(float(before.mean()))).all()
    assert np.array_equal(middle, tolerance.window(FRAMES, 12))  # the frames stay as they are


def test_sweeps_reach_as_far_as_the_frame_and_patches_meet_the_middle():
    right, down, scale, patch = tolerance.sweeps(64, 96, 4, (0.67, 2.2), 20)
    assert right.at.tolist() == list(range(-16, 17, 4)) == down.at.tolist()
    assert scale.at.tolist() == [0.67, 1, 2.2]
    assert patch.at.shape == (25, 2) and patch.at[12].tolist() == [22, 22]
    assert patch.at[3].tolist() == [0, 33] and patch.at.max() == 44
    short = tolerance.sweeps(12, 21, 3, (1,), 4)
    assert short[0].at.tolist() == [-3, 0, 3]
    assert np.array_equal(short[0].views[2](FRAMES), tolerance.window(FRAMES, 12, right=3))
    assert np.array_equal(short[1].views[0](FRAMES), tolerance.window(FRAMES, 12, down=-3))
    assert np.array_equal(short[3].views[7](FRAMES), tolerance.covered(FRAMES, 12, 4, 2, 4))


def test_half_widths_by_hand():
    at = np.array([-8.0, -4, 0, 4, 8])
    assert tolerance.half_width(at, np.array([0.1, 0.3, 1, 0.9, 0.4]), 0) == (
        pytest.approx(-4 * 0.5 / 0.7), pytest.approx(4 + 4 * 0.4 / 0.5))
    assert tolerance.half_width(at, np.array([0.6, 0.9, 1, 0.5, 2]), 0) == (-np.inf, 4)
    nothing = tolerance.half_width(at, np.full(5, np.nan), 0)
    assert np.isnan(nothing).all()
    assert tolerance.half_width(np.array([0.5, 1, 2]), np.array([0, 1, 0.0]), 1) == (0.75, 1.5)


def test_an_interval_of_half_widths_knows_those_beyond():
    assert tolerance.width_interval(np.append(np.full(50, 8.0), np.full(50, np.inf))) == (8, np.inf)
    assert tolerance.width_interval(np.array([5.0, np.nan, 5])) == (5, 5)


def images_of(concept):
    """Two images of each of so many people."""
    concept = np.asarray(concept)
    groups = np.array([f"a/{number // 2}" for number in range(concept.size)])
    return LabelledImages.of(concept.astype(int), groups)


def test_the_unit_is_the_concept_in_the_middle_above_the_rest():
    images = images_of([1] * 12 + [0] * 12)
    rest = np.arange(12) / 10  # mean 0.55
    middle = np.full(12, 2.55)
    shown = np.stack([np.full(12, 0.55), middle, np.append(np.full(6, 0.55), np.full(6, 4.55))])
    sweep = Sweep("shift x", np.array([-1.0, 0, 1]), ())
    found = tolerance.measure([sweep], rest, [shown], images, 1.0, 200)[0]
    assert found.response.shape == (3, 201)
    assert np.allclose(found.response[:, 0], [0, 1, 1])
    drawn = found.response[:, np.isfinite(found.response[1])]
    assert np.allclose(drawn[1], 1) and drawn.shape[1] > 190  # whoever is drawn
    assert drawn[2].std() > 0.1 and abs(drawn[2].mean() - 1) < 0.1
    assert found.share[:, 0] == pytest.approx([0, 1, 0.5])
    assert found.auc[:, 0] == pytest.approx([0.5, 1, (0.5 + 1) / 2])
    without = tolerance.measure([sweep], rest, [shown], images, None, 100)[0]
    assert np.isnan(without.share).all() and np.array_equal(without.auc[:, 0], found.auc[:, 0])


def test_people_are_drawn_and_not_their_images():
    """Replicate by replicate, as group_weights deals them out."""
    images = images_of([1] * 12 + [0] * 12)
    shown, rest = RNG.integers(4, 14, (1, 12)), RNG.integers(0, 12, 12)  # with ties
    found = tolerance.measure([Sweep("shift x", np.zeros(1), ())], rest, [shown], images, 8.0, 20)
    weights = tolerance.group_weights(images.key, 20)
    assert (weights[::2] == weights[1::2]).all()
    for number, column in enumerate(weights.T, start=1):
        having, lacking = (np.repeat(values, column[part]) for values, part in
                           ((shown[0], slice(12)), (rest, slice(12, None))))
        above = having[:, None] - lacking
        area = (above > 0).mean() + (above == 0).mean() / 2
        assert found[0].auc[0, number] == pytest.approx(area)
        assert found[0].share[0, number] == pytest.approx((having > 8).mean())


def test_no_unit_is_a_line_and_few_people_give_no_replicates():
    images = images_of([1] * 4 + [0] * 12)
    sweep = Sweep("shift x", np.zeros(1), ())
    found = tolerance.measure([sweep], np.zeros(12), [np.ones((1, 4))], images, 0.5, 100)[0]
    assert found.response.tolist() == [[1]] and "fewer than" in images.why_no_interval
    with pytest.raises(InputError, match="in the middle is 0, that to the rest 1, so there is no"):
        tolerance.measure([sweep], np.ones(12), [np.zeros((1, 4))], images, 0.5, 100)


@pytest.mark.parametrize("batch", [7, 1000])
def test_the_neuron_sees_every_view_of_every_image(tmp_path, batch):
    """A "neuron" that answers with the mean of its window's top left corner."""
    write_images(tmp_path / "frames.h5", 40, labels=True, size=20)

    def detector(windows):
        assert len(windows) <= batch
        return windows[:, :3, :3].mean(axis=(1, 2, 3))

    with Dataset(tmp_path / "frames.h5") as frames:
        images = LabelledImages.of(frames.labels, frames.groups)
        swept = tolerance.sweeps(12, 20, 4, (1,), 4)[:2]
        rest, shown = tolerance.respond(frames, images, swept, 12, detector, batch)
        pixels = frames.read(images.index)
    corner = pixels[:, 4:7, 4:7].mean(axis=(1, 2, 3))
    assert np.allclose(rest, corner[~images.concept])
    assert np.allclose(shown[0][1], corner[images.concept])
    further = pixels[:, 4:7, 0:3].mean(axis=(1, 2, 3))
    assert np.allclose(shown[0][2], further[images.concept])
    below = pixels[:, 8:11, 4:7].mean(axis=(1, 2, 3))
    assert np.allclose(shown[1][0], below[images.concept])


def test_a_response_that_is_not_finite_is_a_line(tmp_path):
    write_images(tmp_path / "frames.h5", 10, labels=True, size=16)
    with Dataset(tmp_path / "frames.h5") as frames:
        images = LabelledImages.of(frames.labels, frames.groups)
        with pytest.raises(InputError, match="not finite: training diverged"):
            tolerance.respond(frames, images, tolerance.sweeps(12, 16, 2, (1,), 4)[:1], 12,
                              lambda windows: np.full(len(windows), np.nan), 10)
