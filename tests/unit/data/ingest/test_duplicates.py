"""Exact and near duplicates of structured images."""
import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hpclcae.data.dataset import checksum
from hpclcae.data.ingest import duplicates
from hpclcae.data.ingest.duplicates import DEALT, Print, Seen, fingerprint
from tests.support.pictures import SIZE, scene


class Images(Seen):
    """The same, of images."""

    def __init__(self, folder, near=True):
        super().__init__(folder)
        self.near = near

    def add(self, image):
        return super().add(checksum(image.tobytes()), fingerprint(image) if self.near else None)


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
def test_changed_copies_are_near_duplicates(tmp_path, change):
    seen = Images(tmp_path)
    originals = [scene(i) for i in range(30)]
    assert [seen.add(image) for image in originals] == [None] * 30
    copies = [np.asarray(CHANGES[change](Image.fromarray(image))) for image in originals]
    assert [seen.add(image) for image in copies] == [(i, False) for i in range(30)]
    assert len(seen) == 30


def test_exact_only(tmp_path):
    seen = Images(tmp_path, near=False)
    assert seen.add(scene(0)) is None and seen.add(scene(1)) is None
    changed = scene(0)
    changed[0, 0, 0] ^= 1
    assert seen.add(changed) is None
    assert seen.add(scene(0)) == (0, True) and seen.add(changed) == (2, True) and len(seen) == 3


def test_exact_is_told_from_near(tmp_path):
    seen = Images(tmp_path)
    seen.add(scene(0))
    assert seen.add(scene(0)) == (0, True)


def test_different_scenes_and_mirrored_copies_stay(tmp_path):
    seen = Images(tmp_path)
    assert all(seen.add(scene(i)) is None for i in range(200))
    assert seen.add(np.ascontiguousarray(scene(0)[:, ::-1])) is None


def test_smooth_images_with_equal_hashes_are_compared_in_colour(tmp_path):
    ramp = np.repeat(np.linspace(40, 200, SIZE)[np.newaxis, :, np.newaxis], SIZE, axis=0)
    grey = np.repeat(ramp, 3, axis=2).astype(np.uint8)
    red = np.concatenate([ramp, 0 * ramp, 0 * ramp], axis=2).astype(np.uint8)
    np.testing.assert_array_equal(fingerprint(grey).bits, fingerprint(red).bits)
    seen = Images(tmp_path)
    assert seen.add(grey) is None and seen.add(red) is None


def test_flat_images_are_one(tmp_path):
    seen = Images(tmp_path)
    assert seen.add(np.zeros((SIZE, SIZE, 3), np.uint8)) is None
    assert seen.add(np.full((SIZE, SIZE, 3), 77, np.uint8)) == (0, False)
    assert seen.add(scene(0)) is None


@pytest.mark.parametrize("shape", [(5, 5, 1), (8, 9, 3), (31, 17, 1)])
def test_images_smaller_than_the_small_version_and_prints_as_bytes(shape):
    printed = fingerprint(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert printed.small.shape == (16, 16, shape[2]) and printed.bits.shape == (16,)
    content = printed.to_bytes()
    assert len(content) == Print.size(shape[2])
    again = Print.from_bytes(content, shape[2])
    np.testing.assert_array_equal(again.bits, printed.bits)
    np.testing.assert_array_equal(again.small, printed.small)


def test_every_bit_has_its_place():
    assert sorted(DEALT) == list(range(128))


@pytest.mark.parametrize("differ, is_found", [(0, True), (7, True), (15, False)])
def test_hashes_that_differ_in_few_bits_are_found(tmp_path, differ, is_found):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    seen = Seen(tmp_path)
    for trial in range(50):
        bits = rng.integers(0, 2, 128, dtype=np.uint8)
        assert seen.add(2 * trial, Print(np.packbits(bits), small)) is None
        bits[rng.permutation(128)[:differ]] ^= 1
        found = seen.add(2 * trial + 1, Print(np.packbits(bits), small))
        assert (found is not None) == is_found
        if not is_found:  # the numbers of the others go on
            continue
        assert found == (trial, False)


@pytest.mark.parametrize("near, files", [(True, 5), (False, 2)])
def test_what_is_in_files_is_found_as_what_is_in_memory(tmp_path, monkeypatch, near, files):
    """Against a Seen that holds all in memory: with few images in memory, and merged in blocks."""
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (20, 16, 16, 1), dtype=np.uint8)
    stream = []
    for i in range(600):
        if i > 20 and rng.random() < 0.3:  # again, exactly or nearly
            check, bits, which = stream[rng.integers(i)]
            if rng.random() < 0.5:
                bits, check = bits.copy(), i
                bits[rng.permutation(16)[:2]] ^= 1
            stream.append((check, bits, which))
        else:
            stream.append((i, rng.integers(0, 256, 16, dtype=np.uint8), rng.integers(20)))

    def run(folder):
        folder.mkdir()
        seen = Seen(folder)
        return [seen.add(check, Print(bits, small[which]) if near else None)
                for check, bits, which in stream]
    expected = run(tmp_path / "memory")
    assert sum(found is not None for found in expected) > 60
    monkeypatch.setattr(duplicates, "RECENT", 32)
    monkeypatch.setattr(duplicates, "BLOCK", 50)
    assert run(tmp_path / "files") == expected
    assert len(list((tmp_path / "files").iterdir())) == files
