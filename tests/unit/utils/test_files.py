"""HDF5 files are read whatever others do with locks."""
import errno
import os
import subprocess
import sys

import h5py
import pytest

from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5

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
