"""The command ``hpclcae checkpoint diff``: which parameters moved between two checkpoints."""
import argparse
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from hpclcae import checkpoint, config as configuration
from hpclcae.utils.errors import InputError
from hpclcae.utils.reading import reading
from hpclcae.utils.tables import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("first", metavar="CHECKPOINT_OR_RUN",
                        help="a checkpoint; or a run folder, for its last two")
    parser.add_argument("second", metavar="CHECKPOINT", nargs="?", help="the later checkpoint")
    parser.add_argument("--state", action="store_true", help="compare the update rule's memory too")


def run(args: argparse.Namespace) -> None:
    """Print settings that differ and one line for every parameter."""
    first, second = _two(args.first, args.second)
    with checkpoint.opened(first) as one, checkpoint.opened(second) as other:
        lines = [f"{first} (step {one.attrs['step']}) -> {second} (step {other.attrs['step']})"]
        configs = [configuration.loads(str(file.attrs["configuration"]), where=str(path))
                   for file, path in ((one, first), (other, second))]
        settings = [configuration.flatten(config) for config in configs]
        for key in sorted(settings[0].keys() | settings[1].keys()):
            old, new = (flat.get(key) for flat in settings)
            if old != new:
                lines.append(f"{key}: {old!r} -> {new!r}")
        names = [name for name in checkpoint.update_counts(one)]
        slots = list(one["update"]) if args.state and "update" in one else []
        names += [f"update/{slot}/{name}" for slot in slots for name in names]
        with reading(f"{first} or {second}", "HDF5 checkpoint", "use other ones"):
            lines.append(table(["parameter", "moved, %", "relative change", "cosine",
                                "largest change", "at row, col"],
                               [_compared(one, other, name).row(name) for name in names]))
    # Only now, since an error of the terminal would be taken for one of the file that is read.
    print("\n".join(lines))


def _two(first: str, second: str | None) -> tuple[Path, Path]:
    if second is not None:
        return checkpoint.find(first), checkpoint.find(second)
    found = checkpoint.saved(Path(first) / "checkpoints")
    if len(found) < 2:
        raise InputError(f"{first} has {len(found)} checkpoints, and a difference needs two: name "
                         "them, or let the run write another one")
    return found[-2], found[-1]


@dataclass
class Change:
    """Sums over the numbers of one parameter, and the largest change with its position."""
    numbers: int = 0
    moved: int = 0
    squares: float = 0.0        # of the differences
    old_squares: float = 0.0
    new_squares: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    place: tuple[int, int] = 0, 0

    def row(self, name: str) -> list[object]:
        """Cells of the table."""
        length = np.sqrt(self.old_squares * self.new_squares)
        relative = (np.sqrt(self.squares / self.old_squares) if self.old_squares
                    else np.inf * self.squares)
        return [name, round(100 * self.moved / self.numbers, 1), float(f"{relative:.3g}"),
                round(self.product / length, 6) if length else 0.0, float(f"{self.largest:.3g}"),
                f"{self.place[0]}, {self.place[1]}" if self.moved else ""]


def _compared(one: h5py.File, other: h5py.File, name: str) -> Change:
    """Compare a parameter by rows of positions: memory does not grow with the network."""
    if name not in other or one[name].shape != other[name].shape:
        shape = other[name].shape if name in other else "none"
        raise InputError(f"{name} has shape {one[name].shape} in the first checkpoint and {shape} "
                         "in the second: they are of different networks")
    change = Change(one[name].size)
    for y in range(one[name].shape[0]):
        old, new = (file[name][y].astype(np.float64) for file in (one, other))
        difference = new - old
        change.moved += int(np.count_nonzero(difference))
        for field, value in (("squares", difference * difference), ("old_squares", old * old),
                             ("new_squares", new * new), ("product", old * new)):
            setattr(change, field, getattr(change, field) + float(value.sum()))
        by_position = abs(difference).reshape(len(difference), -1).max(axis=1)
        if by_position.max() > change.largest:
            change.largest, change.place = float(by_position.max()), (y, int(by_position.argmax()))
    return change
