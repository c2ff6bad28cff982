"""HDF5 is read whatever others do with locks; what may be written where is seen before the work."""
import errno
import json
import os
import subprocess
import sys
import zlib

import h5py
import pytest
from PIL import Image

from hpclcae.utils.errors import InputError
from hpclcae.utils.files import (PNG_MARK, check_output, check_picture, is_hdf5, is_json, read_hdf5,
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
def held(file):
    """The file while another program has it open to write, and locked."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, file], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert other.stdout.readline() == "open\n"
    yield file
    other.communicate("")


@pytest.mark.skipif("HDF5_USE_FILE_LOCKING" in os.environ, reason="it decides on locks")
def test_a_file_that_another_program_has_open_is_read(held):
    with pytest.raises(OSError), h5py.File(held, locking=True):
        pass
    with read_hdf5(held) as file:
        assert file["number"][()] == 7


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
    for content in (encode(scene(0), "PNG"), encode(scene(0), "JPEG"), zlib.compress(b"hpclcae")):
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
