"""Linear filters: made of the right images, applied as inner products."""
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset, DatasetWriter
from hpclcae.experiments import baselines
from tests.support.tiny_run import SIZE, write_images


@pytest.fixture
def train(tmp_path):
    write_images(tmp_path / "train.h5", 25, labels=False, channels=3)
    with Dataset(tmp_path / "train.h5") as dataset:
        yield dataset


def test_patches_are_different_images_and_the_seed_decides(train):
    patches = baselines.sample_patches(train, 10, seed=0)
    assert patches.size == 10 and (np.diff(patches) > 0).all()
    assert 0 <= patches[0] and patches[-1] < 25
    assert np.array_equal(patches, baselines.sample_patches(train, 10, seed=0))
    assert not np.array_equal(patches, baselines.sample_patches(train, 10, seed=1))
    assert np.array_equal(baselines.sample_patches(train, 100, seed=0), np.arange(25))


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_filters_have_zero_mean_and_unit_norm_and_point_at_their_image(train, batch):
    patches = np.array([1, 4, 5, 20, 24])
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
