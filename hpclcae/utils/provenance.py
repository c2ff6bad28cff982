"""Where a checkpoint comes from: versions, host, revision of the code."""
import platform
from pathlib import Path

import h5py
import numpy as np
import scipy

import hpclcae


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {"hpclcae": hpclcae.__version__, "python": platform.python_version(),
            "numpy": np.__version__, "scipy": scipy.__version__, "h5py": h5py.__version__}


def revision(folder: Path | None = None) -> str:
    """The git revision of the code, if it is run from a checkout; otherwise "".

    Read from git's files: starting a program from inside an MPI job is not safe everywhere.
    """
    for parent in (folder or Path(hpclcae.__file__)).parents:
        head = parent / ".git" / "HEAD"
        if not head.is_file():
            continue
        text = head.read_text(errors="replace").strip()
        if not text.startswith("ref: "):
            return text
        name = text.removeprefix("ref: ")
        if (head.parent / name).is_file():
            return (head.parent / name).read_text(errors="replace").strip()
        packed = head.with_name("packed-refs")
        lines = packed.read_text(errors="replace").splitlines() if packed.is_file() else []
        return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")
    return ""
