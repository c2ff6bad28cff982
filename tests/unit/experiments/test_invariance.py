"""Invariance: pixels of windows, zooms, rotations, patches; units, areas and limits by hand."""
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset
from hpclcae.experiments import invariance, turning_heads
from hpclcae.experiments.invariance import Sweep, Unit
from hpclcae.experiments.labelled_images import LabelledImages, group_weights
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_images

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (3, 20, 20, 1), np.uint8)


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[:, :19, :19], np.repeat(FRAMES, 3, axis=3)])
def test_a_shifted_window_shows_its_content_further_on(frames):
    first = (frames.shape[1] - 12) // 2
    middle = invariance.window(frames, 12)
    assert np.array_equal(middle, frames[:, first:first + 12, first:first + 12])
    moved = invariance.window(frames, 12, down=2, right=-3)
    assert np.array_equal(moved[:, 2:, :9], middle[:, :10, 3:])
    assert np.array_equal(moved, frames[:, first - 2:first + 10, first + 3:first + 15])


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[:, :19, :19], np.repeat(FRAMES, 3, axis=3)])
def test_a_zoom_by_one_is_the_window_and_others_keep_the_middle(frames):
    pytest.importorskip("PIL.Image")
    assert np.array_equal(invariance.zoomed(frames, 12, 1), invariance.window(frames, 12))
    size = frames.shape[1]
    ramp = np.broadcast_to((np.arange(size, dtype=np.uint8) * 10)[None, :, None, None],
                           (1, size, size, frames.shape[-1]))
    for scale in (0.75, 1.5, 2):
        assert invariance.fits(scale, 12, size)
        rows = invariance.zoomed(ramp, 12, scale)[0, :, 0, 0].astype(float)
        centre = (size - 12) // 2 + 5.5
        expected = 10 * (centre + (np.arange(12) - 5.5) / scale)
        inner = slice(2, -2)
        assert np.abs(rows - expected)[inner].max() < 1.5


def test_what_a_scale_wants_must_lie_inside_the_frame():
    assert invariance.fits(0.6, 12, 20) and not invariance.fits(0.599, 12, 20)
    assert not invariance.fits(0.61, 12, 19)  # the middle lies half a pixel off


def test_a_patch_has_the_mean_grey_of_its_own_window():
    out = invariance.covered(FRAMES, 12, 4, 1, 7)
    middle = invariance.window(FRAMES, 12)
    covered = np.zeros((12, 12), bool)
    covered[1:5, 7:11] = True
    assert np.array_equal(out[:, ~covered], middle[:, ~covered])
    for image, before in zip(out, middle):
        assert (image[covered] == round(float(before.mean()))).all()
    assert np.array_equal(middle, invariance.window(FRAMES, 12))  # the frames stay as they are


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[:, :19, :19], np.repeat(FRAMES, 3, axis=3)])
def test_rotations_turn_to_the_left_about_the_middle_of_the_window(frames):
    pytest.importorskip("PIL.Image")
    middle = invariance.window(frames, 12)
    assert np.array_equal(invariance.rotated(frames, 12, 0), middle)
    if frames.shape[1] % 2 == 0:  # then whole pixels fall on whole pixels
        assert np.array_equal(invariance.rotated(frames, 12, 90), np.rot90(middle, 1, (1, 2)))
        assert np.array_equal(invariance.rotated(frames, 12, 180), middle[:, ::-1, ::-1])


@pytest.mark.parametrize("side", [12, 31, 40])
def test_frames_are_continued_by_reflection_about_their_middle(side):
    out = invariance.surrounded(FRAMES, side)
    assert out.shape == (3, max(side, 20), max(side, 20), 1)
    top = (out.shape[1] - 20) // 2
    assert np.array_equal(out[:, top:top + 20, top:top + 20], FRAMES)
    if side == 40:
        assert np.array_equal(out[:, 9], out[:, 11]) and np.array_equal(out[:, :, 30],
                                                                        out[:, :, 28])


def test_sweeps_have_room_and_patches_meet_the_middle():
    right, down, scale, turned, patch = invariance.sweeps(64, 4, (0.67, 2.2), (-30, 30))
    assert right.at.tolist() == list(range(-32, 33, 4)) == down.at.tolist()
    assert scale.at.tolist() == [0.67, 1, 2.2] and turned.at.tolist() == [-30, 0, 30]
    assert patch.at.shape == (25, 2) and patch.at[12].tolist() == [22, 22]
    assert patch.at[3].tolist() == [0, 33] and patch.at.max() == 44
    short = invariance.sweeps(12, 3, (0.4,), (), 4)
    assert short[0].at.tolist() == [-6, -3, 0, 3, 6] and short[3].at.tolist() == [0]
    frames = invariance.surrounded(FRAMES, invariance.room(12, (0.4,)))
    for sweep in short:
        assert all(view(frames).shape == (3, 12, 12, 1) for view in sweep.views)
    assert np.array_equal(short[0].views[3](FRAMES), invariance.window(FRAMES, 12, right=3))
    assert np.array_equal(short[1].views[1](FRAMES), invariance.window(FRAMES, 12, down=-3))
    assert np.array_equal(short[4].views[7](FRAMES), invariance.covered(FRAMES, 12, 4, 2, 4))


def test_limits_by_hand():
    at = np.array([-8.0, -4, 0, 4, 8])
    assert invariance.crossing(at, np.array([0.1, 0.3, 1, 0.9, 0.4]), 0, 0.5) == (
        pytest.approx(-4 * 0.5 / 0.7), pytest.approx(4 + 4 * 0.4 / 0.5))
    assert invariance.crossing(at, np.array([0.6, 0.9, 1, 0.5, 2]), 0, 0.5) == (-np.inf, 4)
    assert invariance.crossing(at, np.array([0.6, 0.9, 1, 0.5, 2]), 0, 0.9) == (
        -4, pytest.approx(0.8))
    for nothing in (np.full(5, np.nan), np.full(5, 0.2)):
        assert np.isnan(invariance.crossing(at, nothing, 0, 0.5)).all()
    assert invariance.crossing(np.array([0.5, 1, 2]), np.array([0, 1, 0.0]), 1, 0.5) == (0.75, 1.5)


def test_an_interval_of_limits_knows_those_beyond():
    beyond = np.append(np.full(50, 8.0), np.full(50, np.inf))
    assert invariance.limit_interval(beyond) == (8, np.inf)
    assert invariance.limit_interval(np.array([5.0, np.nan, 5])) == (5, 5)


def images_of(concept):
    """Two images of each of so many people."""
    concept = np.asarray(concept)
    groups = np.array([f"a/{number // 2}" for number in range(concept.size)])
    return LabelledImages.of(concept.astype(int), groups)


def test_faces_are_of_different_people():
    images = images_of([1] * 20 + [0] * 8)
    among = np.arange(28) != 3
    chosen = invariance.choose_faces(images, among, 6, 0)
    assert chosen.size == 6 == np.unique(chosen // 2).size and 3 not in chosen
    assert images.concept[chosen].all() and (np.diff(chosen) > 0).all()
    assert not np.array_equal(chosen, invariance.choose_faces(images, among, 6, 1))
    assert invariance.choose_faces(images, among, 99, 0).size == 10
    assert invariance.choose_faces(images, among, 0, 0).size == 19


def measured(rest, shown, images, threshold, replicates, at):
    """As `invariance.measure`, of all images."""
    sweep, keys = Sweep("shift x", np.array(at, float)), images.key[images.concept]
    unit = Unit.of(np.asarray(rest, float), images.key[~images.concept], shown[at.index(0)], keys,
                   replicates)
    return invariance.measure(sweep, shown, keys, unit, threshold)


def test_the_unit_is_the_unchanged_concept_above_the_rest():
    images = images_of([1] * 12 + [0] * 12)
    rest = np.arange(12) / 10  # mean 0.55
    middle = np.full(12, 2.55)
    shown = np.stack([np.full(12, 0.55), middle, np.append(np.full(6, 0.55), np.full(6, 4.55))])
    found = measured(rest, shown, images, 1.05, 200, [-1, 0, 1])
    assert found.response.shape == (3, 201)
    assert np.allclose(found.response[:, 0], [0, 1, 1]) and found.level[0] == pytest.approx(0.25)
    drawn = found.response[:, np.isfinite(found.response[1])]
    assert np.allclose(drawn[1], 1) and drawn.shape[1] > 190  # whoever is drawn
    assert drawn[2].std() > 0.1 and abs(drawn[2].mean() - 1) < 0.1
    assert found.share[:, 0] == pytest.approx([0, 1, 0.5])
    assert found.auc[:, 0] == pytest.approx([0.5, 1, (0.5 + 1) / 2])
    assert found.limits(True)[:, 0].tolist() == [pytest.approx(-0.75), np.inf]
    assert found.limits(False)[:, 0].tolist() == [pytest.approx(-0.5), np.inf]
    without = measured(rest, shown, images, None, 100, [-1, 0, 1])
    assert np.isnan(without.share).all() and np.array_equal(without.auc[:, 0], found.auc[:, 0])
    assert np.isnan(without.limits(True)).all()


def test_people_are_drawn_and_not_their_images():
    """Replicate by replicate, as group_weights deals them out."""
    images = images_of([1] * 12 + [0] * 12)
    shown, rest = RNG.integers(4, 14, (1, 12)), RNG.integers(0, 12, 12)  # with ties
    found = measured(rest, shown, images, 8.0, 20, [0])
    weights = group_weights(images.key, 20)
    assert (weights[::2] == weights[1::2]).all()
    for number, column in enumerate(weights.T, start=1):
        having, lacking = (np.repeat(values, column[part]) for values, part in
                           ((shown[0], slice(12)), (rest, slice(12, None))))
        above = having[:, None] - lacking
        area = (above > 0).mean() + (above == 0).mean() / 2
        assert found.auc[0, number] == pytest.approx(area)
        assert found.share[0, number] == pytest.approx((having > 8).mean())


def test_no_unit_is_a_line_and_one_head_has_no_interval():
    images = images_of([1] * 4 + [0] * 12)
    with pytest.raises(InputError, match="unchanged concept is 0, that to the rest 1, so there is "
                       "no"):
        measured(np.ones(12), np.zeros((1, 4)), images, 0.5, 100, [0])
    unit = Unit.of(np.zeros(12), images.key[4:], np.ones(4), images.key[:4], 50)
    one = invariance.measure(Sweep("turn", np.zeros(1)), np.full((1, 1), 0.7),
                             np.array([7], np.uint64), unit, 0.5)
    assert one.response[0, 0] == pytest.approx(0.7) and np.isnan(one.response[0, 1:]).all()


@pytest.mark.parametrize("batch", [7, 1000])
def test_every_neuron_sees_every_view_of_every_image(tmp_path, batch):
    """Two "neurons" that answer with the means of their window's top left and right corner."""
    write_images(tmp_path / "frames.h5", 40, labels=True, size=20)

    def ask(windows):
        assert len(windows) <= batch and windows.shape[1:3] == (12, 12)
        return np.stack([windows[:, :3, :3].mean(axis=(1, 2, 3)),
                         windows[:, :3, -3:].mean(axis=(1, 2, 3))])

    with Dataset(tmp_path / "frames.h5") as frames:
        images = LabelledImages.of(frames.labels, frames.groups)
        faces, others = np.flatnonzero(images.concept), np.flatnonzero(~images.concept)
        swept = invariance.sweeps(12, 4, (1,), (0,), 4)[:2]
        rest, shown = invariance.ask_about(ask, frames, images, faces, others, swept, 12, batch)
        pixels = frames.read(images.index).astype(float)
    left, right = (pixels[:, 4:7, cols].mean(axis=(1, 2, 3)) for cols in (slice(4, 7),
                                                                          slice(13, 16)))
    assert np.allclose(rest, np.stack([left, right])[:, others])
    assert np.allclose(invariance.unchanged(shown[0]), np.stack([left, right])[:, faces])
    assert shown[0].sweep.at.tolist() == [-4, 0, 4] and shown[0].response.shape == (
        2, 3, faces.size)
    assert np.allclose(shown[0].response[0, 2], pixels[faces, 4:7, 0:3].mean(axis=(1, 2, 3)))
    assert np.allclose(shown[1].response[0, 0], pixels[faces, 8:11, 4:7].mean(axis=(1, 2, 3)))
    curves = invariance.curves(rest, shown)
    low = rest.mean(axis=1)[:, None]
    unit = invariance.unchanged(shown[0]).mean(axis=1)[:, None] - low
    expected = (shown[1].response.mean(axis=2) - low) / np.where(unit > 0, unit, np.nan)
    assert curves[1].shape == (2, 3) and np.allclose(curves[1], expected, equal_nan=True)


def test_a_response_that_is_not_finite_is_a_line(tmp_path):
    write_images(tmp_path / "frames.h5", 10, labels=True, size=16)
    with Dataset(tmp_path / "frames.h5") as frames, pytest.raises(InputError, match="not finite"):
        invariance.respond(lambda windows: np.full((1, len(windows)), np.nan), frames,
                           np.arange(10), invariance.sweeps(12, 2)[0].views, 26, 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_heads_turn_before_images_without_the_concept(tmp_path, channels):
    """A head that is a bar whose brightness and height say how it was asked for."""
    write_images(tmp_path / "frames.h5", 10, labels=True, size=16, channels=channels)
    asked = []

    def head(size, yaw, pitch, zoom):
        asked.append((size, yaw, pitch, zoom))
        out = np.zeros((size, size, 4), np.uint8)
        out[:3] = [90 + yaw, 90 + yaw, 90 + yaw, 255]
        return out

    def ask(windows):
        assert windows.dtype == np.uint8 and windows.shape[1:] == (12, 12, channels)
        seen.append(windows)
        return windows[:, :3].mean(axis=(1, 2, 3))[None]
    seen = []
    with Dataset(tmp_path / "frames.h5") as frames:
        turn, nod = turning_heads.ask_about_heads(ask, [head, head], frames, np.array([1, 4]), 12,
                                                  5, "")
        grounds = invariance.window(frames.read([1, 4]), 12)
    assert (turn.sweep.name, nod.sweep.name) == ("turn", "nod")
    assert turn.response.shape == (1, len(turning_heads.TURNS), 2) and turn.key.size == 2
    assert np.allclose(turn.response[0].T, 90 + turn.sweep.at, atol=0.5)
    assert np.allclose(nod.response, 90, atol=0.5)
    assert np.array_equal(seen[0][:, 3:], grounds[:, 3:])
    assert asked[0][:3] == (12, -90, 0) and asked[-1][:3] == (12, 0, 60)
    assert asked[0][3] == pytest.approx(turning_heads.HEIGHT * 16 / 12 / 0.6)
    assert turning_heads.rendered_heads(None, 3, 0) == [] == turning_heads.scanned_heads(tmp_path)
