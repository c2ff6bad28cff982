"""Which BLAS does the matrix products, and what that means for their sizes."""
import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

#: OpenBLAS's AVX-512 kernels take products of up to this many multiplications without packing their
#: operands.
SMALL_PRODUCT = 1_000_000


@lru_cache
def small_product() -> int:
    """The most multiplications of a product that BLAS does without packing; 0: it always packs.

    Packing, the copy of both operands in the order of the kernel, is what products of few units
    suffer from most (notes/performance.md).
    """
    return SMALL_PRODUCT if blas()["kernels"] == "SkylakeX" else 0


def blas() -> dict[str, Any]:
    """NumPy's BLAS: name and version as it was built; kernels and threads as OpenBLAS itself says.

    `kernels` is the processor type that OpenBLAS chose its kernels for (or was told to by
    OPENBLAS_CORETYPE); "" and None where it cannot be told.
    """
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = {"name": built.get("name", "BLAS"), "version": built.get("version", ""), "kernels": "",
             "threads": None}
    for path in _loaded("openblas"):
        library = ctypes.CDLL(path)
        kernels = _symbol(library, "get_corename")
        threads = _symbol(library, "get_num_threads")
        if kernels is not None and threads is not None:
            kernels.restype = ctypes.c_char_p
            found["kernels"] = kernels().decode()
            found["threads"] = max(threads(), found["threads"] or 0)
    return found


def _loaded(name: str) -> list[str]:
    """Shared libraries in this process whose file name has `name` in it (Linux; elsewhere none)."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in mapped.splitlines()
             if len(line.split(maxsplit=5)) == 6}
    return sorted(path for path in paths if name in Path(path).name)


def _symbol(library: ctypes.CDLL, name: str) -> Any:
    """OpenBLAS's function `name`, whatever prefix and suffix its symbols were built with."""
    for prefix in ("scipy_", ""):
        for suffix in ("64_", "", "_64"):
            found = getattr(library, f"{prefix}openblas_{name}{suffix}", None)
            if found is not None:
                return found
    return None
