"""Linear filters: made of the right images, applied as inner products."""
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset
from hpclcae.data.writer import DatasetWriter
from hpclcae.experiments import baselines
from tests.support.tiny_run import SIZE, write_images


@pytest.fixture
def train(tmp_path):
    write_images(tmp_path / "train.h5", 25, labels=False, channels=3)
    with Dataset(tmp_path / "train.h5") as dataset:
        yield dataset


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_filters_have_zero_mean_and_unit_norm_and_point_at_their_image(train, batch):
    patches = np.array([1, 4, 5, 20, 24])  # two goes
    prepare = baselines.normalised_pixels(SIZE)
    filters = baselines.linear_filters(train, patches, prepare, batch)
    for weights, patch in zip(filters, patches):
        pixels = train.read(np.array([patch]))[0].astype(float)
        expected = (pixels - pixels.mean()) / np.linalg.norm(pixels - pixels.mean())
        assert np.allclose(weights, expected.ravel(), atol=1e-6)


def test_a_flat_patch_is_a_filter_of_zeros(tmp_path):
    with DatasetWriter(tmp_path / "flat.h5", 4, 1) as writer:
        writer.append(np.full((4, 4, 1), 200, np.uint8), source="", group="g", original=(4, 4),
                      crop=(0, 0, 4, 4))
    with Dataset(tmp_path / "flat.h5") as flat:
        filters = baselines.linear_filters(flat, np.array([0]), baselines.normalised_pixels(4), 10)
    assert not filters.any()


def test_windows_stay_where_they_were_and_point_at_what_was_there(train):
    prepare = baselines.normalised_pixels(SIZE)
    filters = baselines.window_filters(train, 200, 3, prepare, 7).reshape(200, SIZE, SIZE, 3)
    pixels = np.moveaxis(prepare(train.read(np.arange(25))), -1, 0).astype(float)
    sides, places = [], []
    for weights in filters:
        rows, cols = (np.flatnonzero(weights.any(axis=axes)) for axes in ((1, 2), (0, 2)))
        window = np.s_[rows[0]:rows[-1] + 1, cols[0]:cols[-1] + 1]
        assert weights[window].mean() == pytest.approx(0, abs=1e-6)
        assert np.linalg.norm(weights) == pytest.approx(1, abs=1e-5)
        cut = pixels[:, window[0], window[1]]
        cut = cut - cut.mean(axis=(1, 2, 3), keepdims=True)
        match = (cut * weights[window]).sum(axis=(1, 2, 3)) / np.linalg.norm(
            cut.reshape(25, -1), axis=1)
        assert match.max() == pytest.approx(1, abs=1e-5)
        sides.append(rows[-1] + 1 - rows[0])
        places.append((rows[0], cols[0]))
    assert min(sides) == SIZE // 4 and max(sides) == SIZE and len(set(places)) > 30
    assert np.array_equal(filters.reshape(200, -1),
                          baselines.window_filters(train, 200, 3, prepare, 100))


def test_noise_has_zero_mean_and_unit_norm():
    filters = baselines.gaussian_filters(50, 1200, 1)
    assert np.allclose(filters.mean(axis=1), 0, atol=1e-6)
    assert np.allclose(np.linalg.norm(filters, axis=1), 1, atol=1e-5)
    assert abs(np.corrcoef(filters[0], filters[1])[0, 1]) < 0.5


def test_the_ridge_is_the_solution_of_the_normal_equations(tmp_path):
    write_images(tmp_path / "train.h5", 90, labels=True)
    prepare = baselines.normalised_pixels(SIZE)
    with Dataset(tmp_path / "train.h5") as train:
        places = np.flatnonzero(train.labels >= 0)
        shown = train.labels[places] == 1
        weights = baselines.ridge_filter(train, places, shown, prepare, 11)
        x = prepare(train.read(places)).reshape(SIZE * SIZE, -1).T.astype(float)
    x -= x.mean(axis=0)
    normal = x.T @ x / len(x) + baselines.DAMPING * np.eye(SIZE * SIZE)
    expected = np.linalg.solve(normal, x.T @ (shown - shown.mean()) / len(x))
    assert weights.shape == (1, SIZE * SIZE)
    assert np.allclose(weights[0], expected, atol=1e-3 * abs(expected).max())


@pytest.mark.parametrize("labels", [True, False])
def test_kinds_that_need_labels_are_left_out_without_them(tmp_path, labels):
    write_images(tmp_path / "train.h5", 40, labels=labels)
    prepare = baselines.normalised_pixels(SIZE)
    with Dataset(tmp_path / "train.h5") as train:
        kinds = baselines.linear_kinds(train, train.labels, prepare, 30, 40, 0, 10)
        made = {kind.name.removeprefix("linear: "): kind.make() for kind in kinds}
        shapes = {name: filters.shape[0] for name, filters in made.items()}
        assert shapes == {"Gaussian noise": 30, "windows of frames": 30} | (
            {"frames, no concept": (train.labels == 0).sum(), "templates by label": 30,
             "ridge with labels": 1} if labels else {"templates by label": 30})
        if labels:
            others = prepare(train.read(np.flatnonzero(train.labels == 0)))
            products = baselines.filter_responses(made["frames, no concept"], others)[0, 0]
            assert (products.argmax(axis=0) == np.arange(len(products))).all()


def test_responses_are_inner_products():
    rng = np.random.default_rng(0)
    filters, pixels = rng.standard_normal((7, 2 * 3 * 4)), rng.standard_normal((2, 3, 4, 5))
    responses = baselines.filter_responses(filters, pixels)
    assert responses.shape == (1, 1, 7, 5)
    for number in range(7):
        for image in range(5):
            expected = sum(filters[number, (row * 3 + col) * 4 + channel]
                           * pixels[row, col, channel, image]
                           for row in range(2) for col in range(3) for channel in range(4))
            assert responses[0, 0, number, image] == pytest.approx(expected, rel=1e-12)


def test_normalised_pixels_have_zero_mean_and_one_scale(train):
    images = train.read(np.arange(10)).astype(float)
    pixels = baselines.normalised_pixels(SIZE)(train.read(np.arange(10)))
    assert pixels.shape == (SIZE, SIZE, 3, 10) and pixels.dtype == np.float32
    for number, image in enumerate(images):
        expected = (image - image.mean()) / (image.std() + 8)
        assert np.allclose(pixels[..., number], expected, atol=1e-6)
