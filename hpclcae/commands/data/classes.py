"""The command ``hpclcae data classes``: a dataset with many classes, out of fetched packages."""
import argparse
from pathlib import Path

from hpclcae.commands.arguments import output
from hpclcae.data.halves import HALF_NAMES
from hpclcae.data.tasks.build import TASKS, Settings, write_task
from hpclcae.utils.tables import summed

MAX_NAMES = 20  # that are printed


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("task", metavar="TASK",
        help="; ".join(f"{name}: {task.what}, from {' and '.join(task.packages)}"
                       for name, task in TASKS.items()))
    add("folder", type=Path, help="folder written by 'hpclcae data fetch --only PACKAGE'")
    add("--out", type=output, required=True, metavar="FILE", help="dataset to write (HDF5)")
    counts = ", ".join(f"{name} {task.count or 'all'}" for name, task in TASKS.items())
    add("--count", type=int, metavar="N",
        help=f"images, equally many of each class or photograph ({counts})")
    add("--size", type=int, metavar="N",
        help="rows and cols, pixels, of composed images (32; others are 28)")
    add("--channels", choices=("grey", "rgb"), default="", help="of composed images (rgb)")
    add("--half", choices=("both", *HALF_NAMES), default="both",
        help="write one half alone: development has what may be learned from, also without labels "
        "(both)")
    add("--seed", type=int, default=0, help="of the images, their halves and their order")


def run(args: argparse.Namespace) -> None:
    """Write the dataset and say what it holds."""
    how = Settings(args.task, args.count, args.size, args.channels, args.seed,
                   args.half)
    names, count = write_task(args.folder, args.out, how)
    print(f"{args.out}: {count} images in {len(names)} classes: {summed(names, MAX_NAMES)}")
