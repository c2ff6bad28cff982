"""Is this machine ready for a run, and like the others of the job?"""
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path

from hpclcae.utils.errors import InputError

#: The line that `check --facts` prints begins so; a script finds it among what others say.
FACTS = "hpclcae facts: "
NO_MPI = "none"
LIBRARIES = ("hpclcae", "numpy", "scipy", "h5py", "mpi4py")


def facts(mpi: str) -> list[str]:
    """What must be the same on every machine of a job: Python, libraries and MPI.

    Parameters
    ----------
    mpi : str
        Name and version of the MPI library (mpi.library).
    """
    return [f"Python {platform.python_version()}",
            *(f"{name} {metadata.version(name)}" for name in LIBRARIES), f"MPI {mpi}"]


def compare(found: list[str], others: str) -> None:
    """Refuse a machine whose software differs.

    Parameters
    ----------
    found : list of str
        The facts of this machine.
    others : str
        Those of another one, with "; " between them; FACTS may stand before them.

    Raises
    ------
    InputError
        Names what differs.
    """
    for mine, theirs in zip(found, others.removeprefix(FACTS).split("; ")):
        if mine != theirs:
            raise InputError(f"{mine} here, {theirs} on the first node: all nodes must have the "
                             "same environment")


def check_folder(folder: Path) -> None:
    """Refuse a run folder that is not there or takes no files.

    Raises
    ------
    InputError
        Names the folder.
    """
    if not folder.is_dir():
        raise InputError(f"run folder {folder} is not there: it must be on a file system that all "
                         "nodes share")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"check-{os.uname().nodename}-"):
            pass
    except OSError as error:
        raise InputError(f"run folder {folder} cannot be written ({error.strerror}); choose "
                         "another one") from error
