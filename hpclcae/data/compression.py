"""How the pixels of a dataset are compressed: a choice of the one who writes it, seen by no reader.

The filters are plug-ins of HDF5 that the package hdf5plugin brings. They save 15 % of a photograph
and take time when it is read (notes/data.md), so without being asked nothing is compressed.
"""
import contextlib
import importlib
from pathlib import Path
from typing import Any

import h5py

from hpclcae.utils.errors import InputError, require

#: What one may ask for. Blosc is LZ4 behind a sorting of bits.
COMPRESSIONS = ("none", "lz4", "blosc")


def filters(compress: str) -> dict[str, Any]:
    """Arguments of ``h5py.Group.create_dataset``.

    Raises
    ------
    InputError
        It is none of COMPRESSIONS, or hdf5plugin is not installed.
    """
    if compress not in COMPRESSIONS:
        raise InputError(f"compression {compress!r} is not one of {', '.join(COMPRESSIONS)}")
    if compress == "none":
        return {}
    plugin = require("hdf5plugin", "compress", f"compression {compress!r}")
    if compress == "lz4":
        return dict(plugin.LZ4())
    return dict(plugin.Blosc(cname="lz4", clevel=5, shuffle=plugin.Blosc.BITSHUFFLE))


def check_filters(path: Path, data: h5py.Dataset) -> None:
    """See that what compressed an array can be undone here.

    Parameters
    ----------
    path : Path
        The file, for the message.

    Raises
    ------
    InputError
        A filter is missing; names the package that has it.
    """
    pipeline = data.id.get_create_plist()
    used = [pipeline.get_filter(number) for number in range(pipeline.get_nfilters())]
    missing = [(code, name) for code, _, _, name in used if not h5py.h5z.filter_avail(code)]
    if missing:
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # makes its filters known to HDF5
    for code, name in missing:
        if not h5py.h5z.filter_avail(code):
            words = name.decode(errors="replace").partition(";")[0]
            raise InputError(f"{path} is compressed with filter {code} ({words}), which HDF5 does "
                             "not have here: pip install 'hpclcae[compress]'")
