"""The command ``hpclcae checkpoint verify``: read every byte and compare it with its checksum."""
import argparse
import time
from pathlib import Path

from hpclcae import checkpoint
from hpclcae.utils.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT_OR_RUN", type=Path,
                        help="a checkpoint, or a run folder for all of its checkpoints")


def run(args: argparse.Namespace) -> None:
    """Say of every checkpoint whether it is as it was written."""
    found = checkpoint.saved(args.checkpoint / "checkpoints") or [checkpoint.find(args.checkpoint)]
    damaged = []
    for path in found:
        try:
            print(_verified(path), flush=True)
        except InputError as error:
            damaged.append(str(error))
            print(f"{path}: damaged", flush=True)
    if damaged:
        more = f" (and {len(damaged) - 1} more damaged)" if len(damaged) > 1 else ""
        raise InputError(damaged[0] + more)


def _verified(path: Path) -> str:
    if path.is_file():
        checkpoint.load_state(path)
        return f"{path}: one file of schema 1, which has no checksums"
    began = time.monotonic()
    manifest = checkpoint.verify(path)
    size = sum(content.size for content in manifest.files.values())
    seconds = time.monotonic() - began
    return (f"{path}: {len(manifest.files)} files as they were written, {size / 1e6:,.1f} MB in "
            f"{seconds:.1f} s ({size / 1e9 / max(seconds, 1e-9):.2f} GB/s)")
