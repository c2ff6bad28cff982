"""Contrast normalisation and local whitening against definitions written out."""
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from scipy.ndimage import gaussian_filter

from hpclcae.config import PreprocessConfig
from hpclcae.model import preprocess
from hpclcae.utils.errors import InputError
from tests.support.gradient_check import directional_error
from tests.support.images import structured_images

PLAIN = PreprocessConfig(whitening=5, rescale=False)


def naive_contrast(config, images):
    """Step 1 image by image, (row, col, channel, image)."""
    out = []
    for image in images.astype(float):
        centred = image - image.sum() / image.size
        out.append(centred / (np.sqrt((centred ** 2).sum() / image.size) + config.contrast_floor))
    return np.stack(out, axis=-1)


def naive_whitening(kernel, x):
    """Step 2 pixel by pixel; the image is continued by reflection about its outermost pixels."""
    def mirrored(i, size):
        return -i if i < 0 else 2 * size - 2 - i if i >= size else i
    side, (rows, cols, _, _) = len(kernel), x.shape
    out = np.zeros_like(x)
    for row, col, k, m in np.ndindex(rows, cols, side, side):
        pixel = x[mirrored(row + k - side // 2, rows), mirrored(col + m - side // 2, cols)]
        out[row, col] += np.einsum("ci,cd->di", pixel, kernel[k, m])
    return out


def patches_of(x, side):
    """Every whole patch of x (row, col, channel, image), (patch, krow * kcol * channel)."""
    rows, cols = x.shape[:2]
    return np.concatenate([x[y:y + side, c:c + side].reshape(-1, x.shape[-1]).T
                           for y in range(rows - side + 1) for c in range(cols - side + 1)])


def smooth_noise(count, size, channels=1):
    """A stationary field whose neighbouring pixels are strongly correlated."""
    noise = np.random.default_rng(0).normal(size=(count, size, size, channels))
    smooth = gaussian_filter(noise, (0, 0.7, 0.7, 0), mode="wrap")
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


# ---- what the numbers are ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_the_kernel_is_the_centre_of_the_patches_inverse_square_root(channels, epsilon):
    images = structured_images(30, 12, channels)
    config = replace(PLAIN, whitening=3, whitening_epsilon=epsilon)
    fitted = preprocess.fit(config, images)
    patches = patches_of(naive_contrast(config, images), 3)
    covariance = patches.T @ patches / len(patches)
    loaded = covariance + (epsilon * np.trace(covariance) / len(covariance)
                           + 1e-12) * np.eye(len(covariance))
    centre = 4 * channels
    root = fractional_matrix_power(loaded, -0.5)
    expected = root[:, centre:centre + channels].reshape(fitted.kernel.shape)
    assert np.allclose(fitted.kernel, expected, rtol=0, atol=1e-9 * abs(expected).max())
    assert np.allclose(fitted.eigenvalues, np.linalg.eigvalsh(covariance)[::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size, side", [(11, 5), (12, 3), (9, 9), (13, 1)])
def test_preparing_is_a_convolution_with_reflection(size, side, channels):
    images = structured_images(7, size, channels)
    fitted = preprocess.fit(replace(PLAIN, whitening=side), images)
    expected = naive_whitening(fitted.kernel, naive_contrast(PLAIN, images))
    prepared = fitted.preprocessor(size, np.float64)(images)
    assert prepared.shape == (size, size, channels, 7)
    assert abs(prepared - expected).max() < 1e-12
    assert abs(fitted.preprocessor(size, np.float32)(images) - expected).max() < 2e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_with_a_tiny_epsilon_the_fitted_pixels_have_the_identity_as_covariance(channels):
    """On the patches that were fitted: channels of a pixel are uncorrelated, of variance 1."""
    images = structured_images(60, 16, channels)
    fitted = preprocess.fit(replace(PLAIN, whitening_epsilon=1e-9), images)
    inner = fitted.preprocessor(16, np.float64)(images)[2:-2, 2:-2]  # no reflection there
    pixels = inner.transpose(2, 0, 1, 3).reshape(channels, -1)
    assert np.allclose(pixels @ pixels.T / pixels.shape[1], np.eye(channels), rtol=0, atol=1e-5)


def test_neighbours_become_uncorrelated():
    images = smooth_noise(400, 20)
    before = naive_contrast(PLAIN, images)
    fitted = preprocess.fit(replace(PLAIN, whitening=9, whitening_epsilon=1e-3), images)
    after = fitted.preprocessor(20, np.float64)(images)

    def correlations(x):
        x = x[4:-4, 4:-4, 0]
        return np.array([(x[dy:, dx:] * x[:x.shape[0] - dy, :x.shape[1] - dx]).mean() / (
            x * x).mean() for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 2))])
    assert correlations(before)[:2].min() > 0.55
    assert abs(correlations(after)).max() < 0.03  # standard error of one: 0.004


def test_a_large_epsilon_leaves_the_image_as_it_is_up_to_a_factor():
    images = structured_images(40, 12)
    fitted = preprocess.fit(replace(PLAIN, whitening_epsilon=1e6), images)
    before, after = naive_contrast(PLAIN, images), fitted.preprocessor(12, np.float64)(images)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 1 - 1e-9


@pytest.mark.parametrize("dtype, rounding", [(np.float32, 2e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("whitening", [0, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_rescaled_to_unit_power(whitening, channels, dtype, rounding):
    config = PreprocessConfig(whitening=whitening)
    images = structured_images(20, 24, channels)
    images[3] = 120 + images[3] // 50  # hardly any contrast
    prepared = preprocess.fit(config, images).preprocessor(24, dtype)(images)
    assert np.allclose(np.square(prepared, dtype=float).mean(axis=(0, 1, 2)), 1, rtol=0,
                       atol=rounding)
    # whitening removes the mean all but
    assert np.allclose(prepared.std(axis=(0, 1, 2)), 1, rtol=0, atol=2e-3)


def test_without_any_step_pixels_are_grey_levels_over_255():
    images = structured_images(3, 8)
    config = PreprocessConfig(contrast=False, whitening=0, rescale=False)
    prepared = preprocess.fit(config, images).preprocessor(8, np.float64)(images)
    assert np.array_equal(prepared, np.moveaxis(images, 0, -1) / 255)


# ---- its gradient --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("whitening", [0, 1, 5, 9])
def test_the_gradient_with_respect_to_pixels_is_that_of_a_small_change(whitening, rescale, contrast,
                                                                       channels):
    images = structured_images(6, 10, channels)
    fitted = preprocess.fit(PreprocessConfig(contrast=contrast, whitening=whitening,
                                             rescale=rescale), images)
    prepare = fitted.preprocessor(10, np.float64)
    pixels = images[:3].astype(float)
    wanted = np.random.default_rng(1).standard_normal((10, 10, channels, 3))
    gradient = prepare.backward(pixels, wanted)
    assert gradient.shape == pixels.shape
    assert directional_error(lambda: float(np.vdot(prepare(pixels), wanted)), pixels,
                             gradient) < 1e-8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_pixels_are_prepared_as_whole_ones_and_flat_ones_have_a_gradient(dtype):
    images = structured_images(5, 24, 3)
    images[2] = 77
    prepare = preprocess.fit(PreprocessConfig(whitening=5), images).preprocessor(24, dtype)
    assert np.allclose(prepare(images.astype(dtype)), prepare(images), rtol=0, atol=1e-5)
    assert np.isfinite(prepare.backward(images, np.ones((24, 24, 3, 5), dtype))).all()


# ---- what must not happen ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size, channels", [(24, 1), (200, 3)])
def test_flat_images_become_zero_without_a_warning(size, channels, dtype):
    """Of 200 x 200 x 3 pixels as well, whose sum float32 cannot hold."""
    fitted = preprocess.fit(PreprocessConfig(whitening=5), structured_images(4, size, channels))
    flat = np.repeat(np.array([0, 7, 128, 255], np.uint8),
                     size * size * channels).reshape(4, size, size, channels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fitted.preprocessor(size, dtype)(flat).any()


def test_nothing_but_flat_images_cannot_be_fitted():
    with pytest.raises(InputError, match="all 5 training images looked at are flat"):
        preprocess.fit(PLAIN, np.full((5, 12, 12, 1), 9, np.uint8))


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(
            InputError,
            match=r"preprocess\.whitening = 13 does not fit into images of 12 x 12 pixels; "
            "make it at most 12, or 0"):
        preprocess.fit(replace(PLAIN, whitening=13), structured_images(3, 12))


def test_a_grid_of_patches_gives_nearly_the_kernel_of_all_patches():
    images = smooth_noise(240, 64)
    fitted = preprocess.fit(PLAIN, images)  # 864,000 patches: it looks at every second row and col
    covariance, count = 0.0, 0
    for first in range(0, 240, 40):
        patches = patches_of(naive_contrast(PLAIN, images[first:first + 40]), 5)
        covariance, count = covariance + patches.T @ patches, count + len(patches)
    expected = np.linalg.eigvalsh(covariance / count)[::-1]
    assert not np.allclose(fitted.eigenvalues, expected, rtol=1e-6)
    assert np.allclose(fitted.eigenvalues, expected, rtol=0.02)


# ---- the same in training and in every test ------------------------------------------------------


@pytest.mark.parametrize("dtype, rounding", [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_an_image_does_not_depend_on_its_minibatch(dtype, rounding):
    """Up to rounding: BLAS adds in another order for the last columns of a product."""
    images = structured_images(40, 24, 3)
    prepare = preprocess.fit(PreprocessConfig(whitening=5), images).preprocessor(24, dtype)
    together = prepare(images)
    for count in (1, 2, 7, 33):
        chosen = np.random.default_rng(count).permutation(40)[:count]
        assert abs(prepare(images[chosen]) - together[..., chosen]).max() < rounding
    assert np.array_equal(prepare(images), together)


def test_preparing_does_not_change_the_images():
    images = structured_images(5, 24)
    before = images.copy()
    preprocess.fit(PreprocessConfig(whitening=5), images).preprocessor(24, np.float32)(images)
    assert np.array_equal(images, before)
