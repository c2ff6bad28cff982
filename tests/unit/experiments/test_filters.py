"""Orientation and localisation of filters whose answer is known."""
import numpy as np
import pytest

from hpclcae.experiments.filters import filter_shape, localisation, orientation_index


def wave(angle, size=11, frequency=0.25, width=100.0, channels=1):
    """A grating under a Gaussian, (1, row, col, channel)."""
    row, col = np.mgrid[:size, :size] - size // 2
    turned = col * np.cos(angle) + row * np.sin(angle)
    window = np.exp(-(row ** 2 + col ** 2) / (2 * width ** 2))
    picture = np.sin(2 * np.pi * frequency * turned) * window
    return np.repeat(picture[None, ..., None], channels, axis=3)


def test_a_grating_that_fits_the_window_is_oriented_fully():
    across = np.sin(2 * np.pi * np.arange(12) / 4)
    for picture in (np.tile(across, (12, 1)), np.tile(across, (12, 1)).T):
        assert orientation_index(picture[None, ..., None])[0] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("angle", np.deg2rad([0, 17, 45, 90, 130]))
def test_gabor_filters_are_oriented_at_every_angle(angle):
    assert orientation_index(wave(angle, width=2.0))[0] > 0.75


@pytest.mark.parametrize("size", [6, 7, 18])
def test_checkerboards_are_not_oriented_though_they_hold_some_noise(size):
    board = np.where(np.indices((size, size)).sum(axis=0) % 2, 1.0, -1.0)
    noise = np.random.default_rng(0).standard_normal((200, size, size, 1))
    assert np.median(orientation_index(board[..., None] + 0.2 * noise)) < 0.05


def test_blobs_plaids_and_nothing_are_not_oriented():
    row, col = np.mgrid[:11, :11] - 5
    blob = np.exp(-(row ** 2 + col ** 2) / 4.0)[None, ..., None]
    plaid = wave(0.0, size=12) + wave(np.pi / 2, size=12)
    for filter_ in (blob, plaid, np.zeros((1, 5, 5, 2)), np.ones((1, 5, 5, 1))):
        assert orientation_index(filter_)[0] == pytest.approx(0, abs=1e-7)


def test_neither_scale_nor_brightness_nor_a_copy_in_another_channel_changes_the_index():
    one = orientation_index(wave(0.4))[0]
    assert orientation_index(7 * wave(0.4) + 3)[0] == pytest.approx(one, rel=1e-9)
    assert orientation_index(wave(0.4, channels=3))[0] == pytest.approx(one, rel=1e-9)


def test_localisation_counts_the_energy_in_the_best_window():
    spread = np.ones((1, 6, 6, 2))
    assert localisation(spread)[0] == pytest.approx(9 / 36)
    spot = np.zeros((2, 7, 7, 1))
    spot[0, 3:7, 2:6, 0] = 1, -1, 2, 5  # within one window of 4 x 4
    spot[1, 0, 0], spot[1, 6, 6] = 3, 4  # two spots that no window holds together
    assert localisation(spot).tolist() == pytest.approx([1, 16 / 25])
    assert localisation(np.zeros((1, 4, 4, 1)))[0] == 0


def test_the_medians_of_a_stage():
    rng = np.random.default_rng(0)
    weights = np.empty((3, 4, 9, 9, 1, 5))
    for place in np.ndindex(3, 4, 5):
        weights[place[0], place[1], ..., place[2]] = wave(rng.uniform(0, np.pi), 9, width=1.5)[0]
    shape = filter_shape(weights)
    assert shape.filters == 60
    assert shape.orientation > 0.7 and shape.orientation_noise < 0.2
    assert shape.localisation > 0.9 and shape.localisation_noise < 0.5
    stacked = np.moveaxis(weights, -1, 2).reshape(60, 9, 9, 1)
    assert shape.orientation == pytest.approx(np.median(orientation_index(stacked)), rel=1e-12)
    noise = filter_shape(rng.standard_normal((10, 10, 9, 9, 3, 8)))
    assert noise.orientation == pytest.approx(noise.orientation_noise, abs=0.01)
    assert noise.localisation == pytest.approx(noise.localisation_noise, abs=0.01)
