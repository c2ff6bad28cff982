"""The images of many classes: which a classifier is trained on, stopped by and tested on.

A classified dataset is an ordinary one with ``labels`` (image,), 0 to C - 1 or -1 for unknown, and
C ``label_names``. Half of the images of each class, the final half, is for the test; what is left
is for training, but for a share of it by which training is stopped early and settings are chosen.
No person, object or photograph (group) is divided. What is unknown may be learned from without
labels, and is in none of the three.
"""
from dataclasses import dataclass

import numpy as np

from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import DEVELOPMENT, FINAL, group_keys, halves_of_images
from hpclcae.utils.errors import InputError, shown
from hpclcae.utils.tables import summed

VALIDATION = 0.1  # of the training images of each class
HOW = "hpclcae data ingest --label-from folder, or --label-file FILE, makes one with classes"


@dataclass(frozen=True)
class ClassSplit:
    """Which images of a dataset serve for what; make one with `of`.

    Attributes
    ----------
    names : list of str
        Name of class 0, 1, ...
    labels : int64 array (image,)
        Class of every image of the dataset, -1 unknown.
    train, validation, test : int64 array
        Indices in the dataset, ascending: two parts of the development half, and the final half.
    """
    names: list[str]
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, validation: float = VALIDATION, seed: int = 0,
           per_class: int | None = None) -> "ClassSplit":
        """Sort the labelled images of a dataset out.

        Parameters
        ----------
        dataset : Dataset
            One without halves is halved here, by `seed`.
        validation : float
            Share of the development half of each class that is not trained on, in whole groups: at
            least one, at most half of the images; 0: none.
        seed : int
            Another seed gives another validation part and other images for `per_class`.
        per_class : int, optional
            Train on so many images of each class, where it has more. Those of a smaller number
            are among those of a larger one; validation and test stay as they are.

        Raises
        ------
        InputError
            There are no labels, wrong ones, or those of one class only; a class has no images to
            train on, or none to test on; a number is out of its range.
        """
        if not 0 <= validation <= 0.5:
            raise InputError(f"a validation share of {validation} is not between 0 and 0.5")
        if per_class is not None and per_class < 1:
            raise InputError(f"{per_class} labels per class are not at least 1")
        names, labels = _checked(dataset)
        half = dataset.half
        if half is None:
            half = halves_of_images(dataset.groups, labels, seed)
        known = labels >= 0
        test = np.flatnonzero(known & (half == FINAL))
        own = np.flatnonzero(known & (half == DEVELOPMENT))
        # images in an order that the seed decides, with those of a group together
        unique, member = np.unique(dataset.groups[own], return_inverse=True)
        own = own[np.lexsort((group_keys(unique, seed)[member], labels[own]))]
        train: list[np.ndarray] = []
        held: list[np.ndarray] = []
        for each in _by_class(labels[own], len(names)):
            images = own[each]
            count = _held(dataset.groups[images], validation)
            held.append(images[:count])
            train.append(images[count:][:per_class])
        split = cls(names, labels, _joined(train), _joined(held), test)
        split._check(dataset)
        return split

    @property
    def counts(self) -> np.ndarray:
        """Images of each class to train on, to stop by, to test on: int64 (class, 3)."""
        return np.stack([np.bincount(self.labels[part], minlength=len(self.names))
                         for part in (self.train, self.validation, self.test)], axis=1)

    def _check(self, dataset: Dataset) -> None:
        """Refuse classes that cannot be learned, or not judged."""
        for column, purpose in ((0, "train"), (2, "test")):
            lacking = [name for name, count in zip(self.names, self.counts[:, column]) if not count]
            if lacking:
                raise InputError(
                    f"{dataset.path} has no images to {purpose} on of {len(lacking)} of "
                    f"{len(self.names)} classes ({summed(lacking)}): each half of a class needs a "
                    "person or photograph of its own; bring more of them, or leave these classes "
                    "out")


def labels_and_names(dataset: Dataset) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and labels int64 (image,).

    Raises
    ------
    InputError
        There are no labels, or two classes of one name.
    """
    if dataset.labels is None or dataset.label_names is None:
        raise InputError(f"{dataset.path} has no labels: {HOW}")
    names, labels = dataset.label_names, dataset.labels.astype(np.int64)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{dataset.path} has two classes that are called {shown(twice)}: write "
                         "it again with other names")
    return names, labels


def _checked(dataset: Dataset) -> tuple[list[str], np.ndarray]:
    """The same, of two classes or more."""
    names, labels = labels_and_names(dataset)
    present = np.unique(labels[labels >= 0])
    if present.size < 2:
        only = f"only images of {names[present[0]]}" if present.size else "no image with a label"
        raise InputError(f"{dataset.path} has {only}: a classifier needs two classes or more; "
                         f"{HOW}")
    return names, labels


def _by_class(labels: np.ndarray, classes: int) -> list[slice]:
    """Where each class lies among ascending labels."""
    edges = np.searchsorted(labels, np.arange(classes + 1)).tolist()
    return [slice(first, last) for first, last in zip(edges, edges[1:])]


def _held(groups: np.ndarray, share: float) -> int:
    """How many images at the front, where groups lie together, are whole groups of about `share`.

    One group is held back at least, but never more than half of the images.
    """
    edges = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    edges = edges[edges <= groups.size / 2]
    if share == 0 or not edges.size:
        return 0
    return int(edges[np.argmin(np.abs(edges - share * groups.size))])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Sorted indices of all parts."""
    return np.sort(np.concatenate([*parts, np.array([], np.int64)]))
