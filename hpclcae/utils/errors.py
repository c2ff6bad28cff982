"""What a user may get wrong, as exceptions with one clear line."""
import importlib
from types import ModuleType


class InputError(ValueError):
    """Bad input: the message names the thing, its value and the remedy; no traceback is shown.

    Raised at the boundaries only (configuration, file, command line, geometry that does not fit).
    """


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
