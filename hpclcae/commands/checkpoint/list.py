"""The command ``hpclcae checkpoint list``: the checkpoints of a run, and whether each is whole."""
import argparse
from datetime import datetime
from pathlib import Path

from hpclcae import checkpoint
from hpclcae.checkpoint.folder import MANIFEST
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a training run")


def run(args: argparse.Namespace) -> None:
    """Print one line for every checkpoint, the oldest first.

    Sizes are looked at, contents are not (verify does).
    """
    folder = args.run / "checkpoints"
    found = sorted((path for path in folder.glob("step-*") if checkpoint.step_of(path) >= 0),
                   key=checkpoint.step_of)
    if not found:
        raise InputError(f"{args.run} has no checkpoints: give the folder that 'hpclcae train' "
                         "writes to")
    print(table(["step", "written", "MB", "shards", ""], [_row(path) for path in found]))


def _row(path: Path) -> list[object]:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    size = round(sum(file.stat().st_size for file in files) / 1e6, 1)
    shards = sum(file.name.startswith("shard-") and file.suffix == ".h5" for file in files)
    written = datetime.fromtimestamp(path.stat().st_mtime).isoformat(" ", "seconds")
    return [checkpoint.step_of(path), written, size, shards, state_of(path)]


def state_of(path: Path) -> str:
    """What can be said of a checkpoint without reading its content."""
    if path.is_file():
        return "one file of schema 1; read as it is"
    if not (path / MANIFEST).exists():
        return "not finished: under way, or interrupted"
    try:
        checkpoint.check(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}/")
    return "complete"
