"""What a user may get wrong, as exceptions with one clear line."""
import importlib
import re
from types import ModuleType


class InputError(ValueError):
    """Bad input: the message names the thing, its value and the remedy; no traceback is shown.

    Raised at the boundaries only (configuration, file, command line, geometry that does not fit).
    """


LONGEST = 300  # characters of what others say, in a message


def one_line(text: str, longest: int = LONGEST) -> str:
    """What somebody else wrote, fit for a message: printable, on one line, and not too long.

    Spaces stay, as in the name of a file, and so does what stands for bytes that are no text.
    """
    line = re.sub(r"\s*[^\S ]\s*", " ", text).strip()
    line = "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else " " for c in line)
    return line if len(line) <= longest else f"{line[:longest * 2 // 3]} ... {line[-20:]}"


def shown(value: object, longest: int = 60) -> str:
    """A value as Python writes it, fit for a message; Python itself refuses very long integers."""
    try:
        return one_line(repr(value), longest)
    except (ValueError, RecursionError):
        return "a number of thousands of digits"


class MissingExtraError(InputError):
    """A library that is not part of the core is needed and is not installed."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`, which belongs to the extra `extra`.

    Parameters
    ----------
    module : str
        Name to import, for instance ``"PIL.Image"``.
    extra : str
        Name of the extra in ``setup.cfg`` that installs it.
    purpose : str
        What needs it, for the message ("reading pictures").

    Raises
    ------
    MissingExtraError
        The module cannot be imported; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module.split('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'hpclcae[{extra}]'") from error
