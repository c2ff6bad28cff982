"""HDF5 without locks and sealed; what may be written where is seen before the work."""
import errno
import json
import os
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from hpclcae.utils import files
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import (PNG_MARK, check_output, check_picture, is_hdf5, is_json,
                                 keep_out_of_checkpoints, read_hdf5, replacing, replacing_hdf5,
                                 save_figure)
from tests.support.pictures import encode, scene

HOLD = """
import h5py, sys
with h5py.File(sys.argv[1], "r+", locking=True):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["number"] = 7
    return tmp_path / "some.h5"


@pytest.fixture
def sealed(tmp_path):
    with replacing_hdf5(tmp_path / "a.h5") as file:
        file.create_dataset("images", data=np.arange(64).reshape(8, 8), chunks=(2, 8))
        file.attrs["text"] = "some words"
        file["names"] = ["one", "two"]
    return tmp_path / "a.h5"


@pytest.fixture
def held(sealed):
    """The file while another program has it open to write, and locked."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, sealed], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert other.stdout.readline() == "open\n"
    yield sealed
    other.communicate("")


@pytest.mark.skipif("HDF5_USE_FILE_LOCKING" in os.environ, reason="it decides on locks")
def test_a_file_that_another_program_has_open_is_read(held):
    with pytest.raises(OSError), h5py.File(held, locking=True):
        pass
    with read_hdf5(held) as file:
        assert file["images"][3, 3] == 27


def test_an_environment_that_wants_locks_is_named(file, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.ENOLCK, "Unable to open file (unable to lock file, errno = 37)")
    monkeypatch.setattr(h5py, "File", refuse)
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
    with pytest.raises(InputError, match="HDF5_USE_FILE_LOCKING=TRUE.*export HDF5_USE_FILE_LOCKING="
                                         "FALSE"):
        read_hdf5(file)


def test_what_is_no_hdf5_file_is_an_error_of_the_system(tmp_path):
    (tmp_path / "text").write_text("no")
    with pytest.raises(OSError, match="signature"):
        read_hdf5(tmp_path / "text")


def never(path):
    return False


def test_new_empty_and_own_files_may_be_written(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "own").write_bytes(b"own")
    for name, is_ours in (("new", never), ("empty", never), ("own", lambda path: True),
                          ("made/on/the/way", never)):
        check_output(tmp_path / name, is_ours, "a thing")
    assert sorted(os.listdir(tmp_path)) == ["empty", "own"]


def test_what_is_not_ours_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"somebody's")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("file", "exists and is not a thing of ours"), (".", "it is a folder"),
                        ("dangling", "not a regular file"), ("pipe", "not a regular file"),
                        ("file/new", "is not a folder; choose another folder")):
        with pytest.raises(InputError, match=words):
            check_output(tmp_path / name, never, "a thing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="may not be written to"):
        check_output(tmp_path / "new", never, "a thing")


def test_pictures_of_ours_are_told_from_others(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 2])
    for _ in range(2):
        check_picture(tmp_path / "a.png", "--plot")
        save_figure(figure, tmp_path / "a.png", 50)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["Software"] == PNG_MARK["Software"]
    save_figure(figure, tmp_path / "a.svg", 50)
    first = (tmp_path / "a.svg").read_bytes()
    check_picture(tmp_path / "a.svg", "--plot")
    save_figure(figure, tmp_path / "a.svg", 50)
    assert (tmp_path / "a.svg").read_bytes() == first
    for content in (encode(scene(0), "PNG"), encode(scene(0), "JPEG"), zlib.compress(b"hpclcae"),
                    b"<svg>hpclcae</svg>"):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(InputError, match="not a picture .--plot. of ours"):
            check_picture(tmp_path / "b.png", "--plot")


@pytest.mark.parametrize("text, ours", [
    (json.dumps({"kind": "x"}, indent=1), True), ('{"kind": "x"}\n{"other": 1}\n', True),
    ('{"kind": "y"}', False), ("[1]", False), ("no json", False), ('"kind"', False)])
def test_json_of_ours(tmp_path, text, ours):
    (tmp_path / "a.json").write_text(text)
    assert is_json(tmp_path / "a.json", "kind", "x") is ours


def test_hdf5_of_ours(file, tmp_path):
    assert not is_hdf5(file, "x")
    with h5py.File(file, "r+") as opened:
        opened.attrs["kind"] = "x"
    assert is_hdf5(file, "x") and not is_hdf5(file, "y")
    (tmp_path / "text").write_text("x")
    assert not is_hdf5(tmp_path / "text", "x")


def test_a_sealed_file_is_read_by_plain_h5py_and_by_us(sealed):
    for read in (h5py.File, read_hdf5):
        with read(sealed) as file:
            assert file["images"][3, 3] == 27 and file.attrs["text"] == "some words"


def test_damage_is_found_before_hdf5_looks(sealed, monkeypatch):
    content = sealed.read_bytes()
    with h5py.File(sealed) as file:
        chunks = [place for span in files._bulk(file) for place in range(*span)]
    monkeypatch.setattr(h5py, "File", None)
    for place in range(files.SUPERBLOCK[1], len(content), 7):
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
