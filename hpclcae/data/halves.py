"""The two halves of a dataset: one to develop on, the other for the final figures.

Persons and photographs are dealt out, not images: nobody and no photograph is in both halves. They
are dealt in turns, class by class (those that show the concept, those that do not), so the halves
are alike; and in the order of their hashes, so no order of files decides. How a class is dealt does
not depend on the others: all sets made from the same people have the same people in each half.

Of a set with many classes each class is halved by itself, as in the paper (`halves_of_images`).
"""
import hashlib
from collections.abc import Iterable

import numpy as np

HALVES = DEVELOPMENT, FINAL = 0, 1
HALF_NAMES = ["development", "final"]


def group_keys(groups: Iterable[object], seed: int = 0) -> np.ndarray:
    """Hash the names of groups with a seed: uint64 (group,), the same on every machine."""
    digests = (hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()
               for group in groups)
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def halves(groups: np.ndarray, classes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Deal groups out to the halves.

    Parameters
    ----------
    groups : array (group,)
        Different names of persons and photographs.
    classes : int array (group,)
        What each shows. Of one class the halves get equally many, or one half one more.
    seed : int
        Another seed gives other halves.

    Returns
    -------
    uint8 array (group,)
        DEVELOPMENT or FINAL.
    """
    keys, half = group_keys(groups, seed), np.empty(len(groups), np.uint8)
    for each in np.unique(classes):
        own = np.flatnonzero(classes == each)
        # of two classes with an odd number of groups, each half gets the larger part of one
        half[own[np.argsort(keys[own])]] = (np.arange(own.size) + each) % 2
    return half


def halves_of_images(groups: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Deal the images of every class out to the halves, without dividing a group.

    Parameters
    ----------
    groups : array (image,)
        Name of what a split never divides: person, object, photograph.
    labels : int array (image,)
        Class of each; -1, unknown, is dealt like another one. A group with images of several
        classes is dealt with the class that most of them have.
    seed : int
        Another seed gives other halves.

    Returns
    -------
    uint8 array (image,)
        DEVELOPMENT or FINAL. Of each class the halves get as many images as whole groups allow:
        in the order of their hashes, the next group goes to the half that has fewer.
    """
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    pairs, often = np.unique(np.stack([member, labels]), axis=1, return_counts=True)
    order = np.lexsort((often, pairs[0]))
    classes = np.empty(names.size, np.int64)
    classes[pairs[0][order]] = pairs[1][order]  # of equal indices the last one stays
    keys, half = group_keys(names, seed), np.empty(names.size, np.uint8)
    balance: dict[int, int] = {}  # class -> images in the final half more than in the other
    for group in np.lexsort((keys, classes)).tolist():
        each = int(classes[group])
        more = balance.get(each, 0)
        half[group] = each % 2 if more == 0 else more < 0
        balance[each] = more + int(sizes[group]) * (1 if half[group] else -1)
    return half[member]
