"""Text that may hold names of files: UTF-8 everywhere, other bytes come back as they were.

A name that is not UTF-8 is, in Python, text with lone surrogates in the place of its odd bytes.
These turn them into bytes and back; encode() alone raises.
"""
import functools
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_bytes(text: str) -> bytes:
    """The bytes to write for a text."""
    return text.encode("utf-8", "surrogateescape")


def to_text(content: bytes) -> str:
    """The text that `to_bytes` made bytes of."""
    return content.decode("utf-8", "surrogateescape")


def attribute(text: str | Sequence[str]) -> np.ndarray:
    """A text, or several, as the value of an HDF5 attribute, which h5py reads as the same text."""
    content = to_bytes(text) if isinstance(text, str) else list(map(to_bytes, text))
    return np.array(content, h5py.string_dtype())


def storable(attributes: Mapping[str, object]) -> dict[str, object]:
    """Values as HDF5 attributes: texts as `attribute`, others as they are."""
    return {name: attribute(value) if isinstance(value, str) else value
            for name, value in attributes.items()}


def readable(text: str) -> str:
    """A text that every reader can store; bytes that are not UTF-8 as escapes."""
    return to_bytes(text).decode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    """A name that every reader can store, draw and print in one line; other characters as escapes.
    """
    return "".join(character.encode("unicode_escape").decode()
                   if unicodedata.category(character) == "Cc" else character
                   for character in readable(name))


def entitle(figure: "Figure", text: str) -> None:
    """Put a title above a figure, in lines that are no wider than it is."""
    wide = int(11 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.fill(line, wide) for line in text.splitlines()),
                    fontsize=11)


def drawable(name: str, longest: int = 40) -> str:
    """A name that may stand in a figure: printable, not too long, and nothing in it a formula.

    Characters that the font of figures does not have are escapes, not empty boxes.
    """
    known = _characters()
    shown = "".join(character if not known or ord(character) in known
                    else character.encode("unicode_escape").decode()
                    for character in printable(name))
    if len(shown) > longest:
        shown = f"{shown[:longest - 3]}..."
    return shown.replace("$", r"\$")


@functools.cache
def _characters() -> Set[int]:
    """What Matplotlib's font has; nothing is known without Matplotlib."""
    try:
        from matplotlib import font_manager
    except ImportError:
        return frozenset()
    file = font_manager.findfont(font_manager.FontProperties())
    return frozenset(font_manager.get_font(file).get_charmap())
