"""What damaged files raise is one line; logs are read line by line."""
import json
import zipfile

import pytest

from hpclcae.utils.errors import InputError, one_line, shown
from hpclcae.utils.reading import reading, whole_objects


@pytest.mark.parametrize("error, words", [
    (KeyError("schema"), "no 'schema'"), (KeyError("Unable to open"), "(Unable to open)"),
    (OSError("file signature not found"), "file signature not found"),
    (RecursionError(), "RecursionError"),
    (MemoryError(), "MemoryError"), (OverflowError("too large"), "too large"),
    (json.JSONDecodeError("Expecting value", "x", 0), "Expecting value"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "invalid start byte"),
    (zipfile.BadZipFile("no zip"), "no zip"),
    (RuntimeError("two\nlines\t" + "x" * 900), "two lines")])
def test_whatever_is_raised_becomes_one_line(error, words):
    with pytest.raises(InputError) as caught, reading("a.h5", "HDF5 thing", "write it again"):
        raise error
    line = str(caught.value)
    assert line.startswith("a.h5 cannot be read as HDF5 thing (") and words in line
    assert line.endswith("; write it again") and "\n" not in line and len(line) < 500


def test_a_file_that_is_not_there_is_no_damage(tmp_path):
    with pytest.raises(InputError) as caught, reading(tmp_path / "a", "text", "make it"):
        (tmp_path / "a").read_text()
    assert str(caught.value) == (f"{tmp_path / 'a'} cannot be read (No such file or directory): "
                                 "make it")


def test_what_was_said_already_and_a_broken_pipe_pass():
    for error in (InputError("said"), BrokenPipeError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reading("a", "b", "c"):
            raise error
        assert caught.value is error


def test_lines_that_are_not_whole_are_left_out():
    lines = [b'{"a": 1}\n', bytes(50) + b"\n", b'{"a": 2, \n', b"\xff\xfe\n", b"[1]\n", b"\n",
             b"[" * 9000 + b"\n", b'{"a": ' + b"9" * 5000 + b"}\n", b'{"a": 3}\n', b'{"a": 4}']
    assert [value for _, value in whole_objects(b"".join(lines))] == [{"a": 1}, {"a": 3}]


def test_values_in_messages_are_short():
    assert shown("x\ny") == "'x\\ny'" and len(shown("9" * 5000)) < 80
    assert shown(10 ** 6000) == "a number of thousands of digits"
    assert one_line(" a  b \n  c\td\x00") == "a  b c d "
