"""Parts of photographs in five classes, by what the package says that they show."""
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.data.frames import compose
from hpclcae.data.frames.recipe import Frame
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress

PACKAGE = "gcompris-qt-data"
NAMES = ["fishes", "monuments", "others", "renewable", "tools"]
SMALLEST = 0.7  # part of a photograph's shorter side that is shown, at least


def chosen(folder: Path) -> list[Item]:
    """The photographs that have a class.

    Raises
    ------
    InputError
        The package was not fetched.
    """
    items = [item for item in catalogue.load(folder)
             if item.source == PACKAGE and item.label in NAMES]
    if not items:
        raise InputError(f"{PACKAGE} is not in {folder}: bring it with hpclcae data fetch --only "
                         f"{PACKAGE} --out {folder}")
    return items


def frames(folder: Path, items: list[Item], count: int, size: int, channels: int,
           seed: int) -> Iterator[Frame]:
    """Yield `count` parts of the photographs, from each as many; a random half is mirrored."""
    pictures = [compose.load_picture(folder, item, channels, 2 * size)
                for item in progress(items, "reading", unit="photographs")]
    for index in range(count):
        picture = pictures[index % len(pictures)]
        rng = np.random.default_rng((seed, index))
        cols, rows = picture.image.size
        side = float(rng.uniform(SMALLEST, 1.0)) * min(rows, cols)
        crop = compose.Crop(rng.uniform(0, rows - side), rng.uniform(0, cols - side), side)
        pixels = np.asarray(compose.cut(picture, crop, size)).reshape(size, size, channels)
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        yield Frame(pixels, picture.item.path, picture.item.group, picture.original,
                    crop.of_original(picture), NAMES.index(picture.item.label), "")
