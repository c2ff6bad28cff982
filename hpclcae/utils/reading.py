"""Reading what a crash, a disk or an editor may have damaged: one line, whatever was raised.

HDF5, JSON, TOML, NumPy and the decoding of text raise a dozen kinds of errors for content that is
not what was written, and libhdf5 may also hang or end the process. So everything that parses a file
does it inside `reading`; HDF5 files are opened by `files.read_hdf5`, which first compares the
checksum that `files.replacing_hdf5` left; and lines of a log are taken one by one
(`whole_objects`).
"""
import contextlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from hpclcae.utils.errors import InputError, one_line, shown

#: What is raised for a content that is not what was written.
DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
          RuntimeError, MemoryError, BadZipFile, zlib.error)


@contextlib.contextmanager
def reading(path: str | Path, kind: str, remedy: str) -> Iterator[None]:
    """Parse a file in here: whatever its content makes of it is one line.

    Parameters
    ----------
    path : str or Path
        The file, for the message.
    kind : str
        What it should be ("HDF5 dataset").
    remedy : str
        What to do.

    Raises
    ------
    InputError
        The file cannot be read, is damaged or of another kind.
    """
    try:
        yield
    except (InputError, BrokenPipeError):  # said already; the reader of a pipe went away
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            raise InputError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
        raise InputError(f"{path} cannot be read as {kind} ({_words(error)}): it is damaged, or of "
                         f"another kind; {remedy}") from error


def _words(error: BaseException) -> str:
    """What an error says; those of a missing key or of memory say little."""
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
        return one_line(text if " " in text else f"no {text!r}")
    return one_line(str(error) or type(error).__name__)


def whole_json(text: str) -> Any:
    """Parse JSON; numbers that are none, which we never write, are damage. Inside `reading`."""
    def refuse(word: str) -> None:
        raise ValueError(f"{word} stands for a number")
    return json.loads(text, parse_constant=refuse)


def require_kinds(value: object, kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    """See that a JSON object has what its readers rely on; call it inside `reading`.

    Parameters
    ----------
    value : object
    kinds : mapping
        For every key that is needed what its value may be.

    Raises
    ------
    ValueError, KeyError
        It is none, or lacks a key; a value is of another kind, or a number that is not finite.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is no object")
    for key, kind in kinds.items():
        found = value[key]
        if not isinstance(found, kind) or isinstance(found, float) and not math.isfinite(found):
            raise ValueError(f"{key!r} is {shown(found)}")


def whole_objects(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a log of JSON objects that are whole, each with what it says.

    A crash cuts lines short or fills them with zeros; those, and what is no object, are left out.
    """
    for line in content.splitlines(keepends=True):
        with contextlib.suppress(ValueError, RecursionError):
            text = line.decode()
            value = json.loads(text)
            if text.endswith("\n") and isinstance(value, dict):
                yield text, value
