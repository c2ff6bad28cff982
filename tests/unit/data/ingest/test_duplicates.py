"""Exact and near duplicates of structured images."""
import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hpclcae.data.ingest.duplicates import BITS, MASKS, Seen, fingerprint
from tests.support.pictures import SIZE, scene


def jpeg(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


CHANGES = {"recompressed": lambda i: jpeg(i, 30),
           "smaller": lambda i: i.resize((40, 40)).resize((SIZE, SIZE)),
           "brighter": lambda i: ImageEnhance.Brightness(i).enhance(1.15),
           "flatter": lambda i: ImageEnhance.Contrast(i).enhance(0.7),
           "cropped": lambda i: i.crop((1, 1, SIZE - 1, SIZE - 1)).resize((SIZE, SIZE))}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_near_duplicates(change):
    seen = Seen(near=True)
    originals = [scene(i) for i in range(30)]
    assert [seen.add(image) for image in originals] == [None] * 30
    copies = [np.asarray(CHANGES[change](Image.fromarray(image))) for image in originals]
    assert [seen.add(image) for image in copies] == [(i, False) for i in range(30)]
    assert len(seen) == 30


def test_exact_only():
    seen = Seen(near=False)
    assert seen.add(scene(0)) is None and seen.add(scene(1)) is None
    changed = scene(0)
    changed[0, 0, 0] ^= 1
    assert seen.add(changed) is None
    assert seen.add(scene(0)) == (0, True) and seen.add(changed) == (2, True) and len(seen) == 3
    # the same bytes in another shape
    assert seen.add(scene(1).reshape(SIZE * 2, SIZE // 2, 3)) is None


def test_exact_is_told_from_near():
    seen = Seen(near=True)
    seen.add(scene(0))
    assert seen.add(scene(0)) == (0, True)


def test_different_scenes_and_mirrored_copies_stay():
    seen = Seen(near=True)
    assert all(seen.add(scene(i)) is None for i in range(200))
    assert seen.add(np.ascontiguousarray(scene(0)[:, ::-1])) is None


def test_smooth_images_with_equal_hashes_are_compared_in_colour():
    ramp = np.repeat(np.linspace(40, 200, SIZE)[np.newaxis, :, np.newaxis], SIZE, axis=0)
    grey = np.repeat(ramp, 3, axis=2).astype(np.uint8)
    red = np.concatenate([ramp, 0 * ramp, 0 * ramp], axis=2).astype(np.uint8)
    assert fingerprint(grey)[0] == fingerprint(red)[0]
    seen = Seen(near=True)
    assert seen.add(grey) is None and seen.add(red) is None


def test_flat_images_are_one():
    seen = Seen(near=True)
    assert seen.add(np.zeros((SIZE, SIZE, 3), np.uint8)) is None
    assert seen.add(np.full((SIZE, SIZE, 3), 77, np.uint8)) == (0, False)
    assert seen.add(scene(0)) is None


@pytest.mark.parametrize("shape", [(5, 5, 1), (8, 9, 3), (31, 17, 1)])
def test_images_smaller_than_the_small_version(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    bits, small = fingerprint(image)
    assert small.shape == (16, 16, shape[2]) and 0 <= bits < 2 ** 64


def test_bands_cover_all_bits_once():
    assert len(MASKS) == BITS + 1 and sum(MASKS) == 2 ** 64 - 1
    assert np.bitwise_or.reduce(np.array(MASKS, np.uint64)) == np.uint64(2 ** 64 - 1)
