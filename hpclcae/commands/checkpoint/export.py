"""The command ``hpclcae checkpoint export``: the weights for programs that read no HDF5."""
import argparse
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hpclcae import checkpoint
from hpclcae.commands.arguments import output
from hpclcae.utils.errors import InputError, require
from hpclcae.utils.files import check_output, replacing
from hpclcae.utils.text import readable


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT_OR_RUN",
                        help="a checkpoint, or a run folder for its newest")
    parser.add_argument("--out", required=True, type=output, metavar="FILE",
                        help="name.npz or name.safetensors")
    parser.add_argument("--state", action="store_true", help="with the update rule's memory")


def run(args: argparse.Namespace) -> None:
    """Write one file; all of it is in memory at once."""
    if args.out.suffix not in (".npz", ".safetensors"):
        raise InputError(f"--out {args.out}: its name must end in .npz or .safetensors")
    safetensors = require("safetensors.numpy", "safetensors", "writing .safetensors") \
        if args.out.suffix == ".safetensors" else None
    if not args.out.parent.is_dir():
        raise InputError(f"--out {args.out}: {args.out.parent} is not a folder")
    check_output(args.out, _is_export, "an export")
    path = checkpoint.find(args.checkpoint)
    arrays, texts = contents(path, args.state)
    with replacing(args.out) as partial:
        if safetensors:
            safetensors.save_file(arrays, partial, metadata={
                name: readable(text) for name, text in texts.items()})
        else:
            with partial.open("wb") as file:
                everything: dict[str, Any] = arrays | {
                    name: np.array(text) for name, text in texts.items()}
                np.savez(file, **everything)
    size = sum(array.nbytes for array in arrays.values())
    print(f"{args.out}: {len(arrays)} arrays, {size / 1e6:,.1f} MB, of step {texts['step']}")


def _is_export(path: Path) -> bool:
    """Whether a file holds the texts that every export has."""
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return b'"configuration"' in file.read(min(size, 2**24))
    try:
        with zipfile.ZipFile(path) as archive:
            return {"step.npy", "configuration.npy"} <= set(archive.namelist())
    except zipfile.BadZipFile:
        return False


def contents(path: Path, state: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays by name, as in model.h5, and the step and the configuration as texts."""
    with checkpoint.opened(path) as file:
        names = list(checkpoint.update_counts(file))
        slots = list(file["update"]) if state and "update" in file else []
        names += [f"update/{slot}/{name}" for slot in slots for name in names]
        names += [f"preprocess/{name}" for name in file.get("preprocess", ())]
        return ({name: file[name][...] for name in names},
                {"step": str(file.attrs["step"]),
                 "configuration": str(file.attrs["configuration"])})
