"""Cut-out objects in twelve classes, pasted on photographs: in colour, and hard for its size.

An object is in one half only, and so is a photograph behind it: what is tested is whether a class
was learned, not its objects nor their backgrounds. All classes take the same photographs in the
same order, so that a background says nothing about the class.
"""
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.data.frames import recipe
from hpclcae.data.frames.build import read_pictures
from hpclcae.data.frames.compose import Picture, load_picture
from hpclcae.data.halves import HALVES, halves, halves_of_images
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress

PACKAGE = "tuxpaint-stamps-default"
MAMMALS = "animals/mammals"
#: Class to the folders and names of its objects, below those of the package.
CLASSES = {
    "birds": r"animals/birds/.+",
    "hoofed animals": rf"{MAMMALS}/(bovines|camel|deer|equines)/.+"
                      rf"|{MAMMALS}/(giraffe|hippopotamus|pig.*|rhino.*|wildboar)\.png",
    "furry animals": rf"{MAMMALS}/(apes|bears|cats|dogs|rodents)/.+|animals/marsupials/.+"
                     rf"|{MAMMALS}/(badger|ferret|rabbit_little)\.png",
    "sea animals": rf"animals/(fish|shellfish)/.+|{MAMMALS}/aquatic/.+",
    "fruit": r"food/fruit/.+",
    "vegetables": r"food/vegetables/.+",
    "flowers": r"plants/flowers/.+",
    "household": r"household/(dishes/.+|[^/]+\.png)",
    "tools": r"household/(tools|arttools)/.+",
    "instruments": r"hobbies/music/.+",
    "vehicles": r"military/vehicles/.+"
                r"|vehicles/(?!7spoke|wheel_tractor|emergency/sedan_police).+",
    "planets": r"space/(planets|moon)/.+"}
NAMES = list(CLASSES)
LEAST = 4           # objects of a class, so that each half has two
SIZES = (0.6, 1.0)  # longer side of an object, as a share of the frame
REACH = 0.15        # how far an object may lie off the middle
DEALT_AS_PHOTOGRAPH = 0


@dataclass(frozen=True)
class Objects:
    """What frames are made from: for each half the objects of every class, and the photographs.
    """
    things: list[list[list[Picture]]]  # half, class, object
    photographs: list[list[Picture]]   # half
    half: dict[str, int]               # of each object's group


def class_of(path: str) -> int | None:
    """The class of a cut-out by its path in the catalogue; None: it is in none."""
    within = path.partition("/stamps/")[2]
    return next((number for number, pattern in enumerate(CLASSES.values())
                 if re.fullmatch(pattern, within)), None)


def chosen(folder: Path) -> tuple[list[Item], list[Item]]:
    """The cut-outs that have a class, and the photographs.

    Raises
    ------
    InputError
        There are too few of them.
    """
    listed = catalogue.load(folder)
    things = [item for item in listed if item.source == PACKAGE and item.kind == "cutout"
              and class_of(item.path) is not None]
    photographs = [item for item in listed if item.kind == "photograph"]
    own = [{item.group for item in things if class_of(item.path) == number}
           for number in range(len(NAMES))]
    if min(map(len, own)) < LEAST:
        raise InputError(f"{folder} has no {LEAST} cut-outs of each class: bring them with hpclcae "
                         f"data fetch --only {PACKAGE} --out {folder}")
    if len({item.group for item in photographs}) < LEAST:
        raise InputError(f"{folder} has no photographs to put objects on: bring them with hpclcae "
                         f"data fetch --out {folder}")
    return things, photographs


def settings(size: int, channels: int, seed: int) -> recipe.Recipe:
    """How frames are composed."""
    return recipe.Recipe(split="all", seed=seed, size=size, channels=channels, faces=0.0,
                         heads=0.0, cutouts=1.0, test_share=0.5, face_size=(0.5, 0.5),
                         cutout_size=SIZES, reach=REACH, pairs=False, pixels=1.25, alike=1,
                         head_bank=1, yaw=0.0)


def read(folder: Path, things: list[Item], photographs: list[Item],
         how: recipe.Recipe) -> Objects:
    """Bring objects and photographs into memory, dealt to the halves."""
    classes = np.array([class_of(item.path) for item in things])
    halved = halves_of_images(np.array([item.group for item in things]), classes, how.seed)
    sorted_things: list[list[list[Picture]]] = [[[] for _ in NAMES] for _ in HALVES]
    for item, label, half in zip(progress(things, "reading", unit="cut-outs"), classes, halved):
        picture = load_picture(folder, item, how.channels, 2 * how.size)
        sorted_things[half][label].append(picture)
    groups = sorted({item.group for item in photographs})
    of_group = dict(zip(groups, halves(np.array(groups),
                                       np.full(len(groups), DEALT_AS_PHOTOGRAPH), how.seed)))
    behind = read_pictures(folder, photographs, how, 1)["photograph"]
    return Objects(sorted_things,
                   [[picture for picture in behind if of_group[picture.item.group] == half]
                    for half in HALVES],
                   {item.group: int(half) for item, half in zip(things, halved)})


def frames(objects: Objects, how: recipe.Recipe, count: int) -> Iterator[recipe.Frame]:
    """Yield `count` frames: the classes take turns, and in each the halves and the objects."""
    for index in range(count):
        round_, label = divmod(index, len(NAMES))
        turn, half = divmod(round_, len(HALVES))
        things = objects.things[half][label]
        bank = recipe.Bank([], objects.photographs[half], things, [])
        frame = recipe.make_frame(how, bank, index, recipe.CUTOUT, turn)
        yield replace(frame, group=things[turn % len(things)].item.group, label=label)
