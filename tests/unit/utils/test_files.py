"""Sealed HDF5 files, and checkpoints into which nothing else is written."""
import h5py
import numpy as np
import pytest

from hpclcae.utils import files
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import keep_out_of_checkpoints, read_hdf5, replacing, replacing_hdf5


@pytest.fixture
def sealed(tmp_path):
    with replacing_hdf5(tmp_path / "a.h5") as file:
        file.create_dataset("images", data=np.arange(64).reshape(8, 8), chunks=(2, 8))
        file.attrs["text"] = "some words"
        file["names"] = ["one", "two"]
    return tmp_path / "a.h5"


def test_a_sealed_file_is_read_by_plain_h5py_and_by_us(sealed):
    for read in (h5py.File, read_hdf5):
        with read(sealed) as file:
            assert file["images"][3, 3] == 27 and file.attrs["text"] == "some words"


def test_damage_is_found_before_hdf5_looks(sealed, monkeypatch):
    content = sealed.read_bytes()
    with h5py.File(sealed) as file:
        chunks = [place for span in files._bulk(file) for place in range(*span)]
    monkeypatch.setattr(h5py, "File", None)
    for place in range(0, len(content), 7):
        if place not in chunks and place < content.rindex(b'{"crc32"'):
            damaged = bytearray(content)
            damaged[place] ^= 1
            sealed.write_bytes(damaged)
            with pytest.raises(OSError, match="its checksum is"):
                read_hdf5(sealed)


def test_what_is_large_is_left_out_or_not_looked_at_when_a_file_is_opened(sealed, monkeypatch):
    monkeypatch.setattr(files, "LARGE", 64)
    damaged = bytearray(sealed.read_bytes())
    damaged[damaged.index(b"some words")] ^= 1
    sealed.write_bytes(damaged)
    read_hdf5(sealed).close()
    assert len(set(files.seal_of(sealed))) == 2
    with replacing_hdf5(sealed) as file:
        file["large"] = np.arange(99.0)
        file["small"] = np.arange(3.0)
        start = file["large"].id.get_offset()
        assert files._bulk(file) == [(start, start + 99 * 8)]


def test_zeros_in_a_heap_of_texts_are_found(sealed):
    """They make libhdf5 loop for ever."""
    content = bytearray(sealed.read_bytes())
    start = content.index(b"GCOL") + 16
    content[start:start + 512] = bytes(512)
    sealed.write_bytes(content)
    with pytest.raises(OSError, match="its checksum is"):
        read_hdf5(sealed)


def test_who_changes_a_file_by_hdf5_breaks_no_seal(sealed):
    with h5py.File(sealed, "r+") as file:
        file["more"] = [1, 2]
        file.attrs["text"] = "other words"
    with read_hdf5(sealed) as file:
        assert file["more"][1] == 2 and files.seal_of(sealed) == (0, 0)


def test_nothing_is_written_into_a_checkpoint_but_what_makes_it_one(tmp_path):
    folder = tmp_path / "best"
    folder.mkdir()
    with replacing(folder / "new") as partial:  # no checkpoint yet
        partial.write_text("new")
    for name in files.CHECKPOINT:
        (folder / name).write_text("")
    (tmp_path / "link").symlink_to(folder)
    for path in (folder / "a.json", folder / "below/a.json", tmp_path / "link/a.json"):
        for write in (keep_out_of_checkpoints, lambda path: replacing(path).__enter__()):
            with pytest.raises(InputError, match="lies in the checkpoint .*best"):
                write(path)
    with replacing(folder / "manifest.json") as partial:
        partial.write_text("new")
    keep_out_of_checkpoints(tmp_path / "a.json")
