"""The two halves of a dataset: one to develop on, the other for the final figures.

Persons and photographs are dealt out, not images: nobody and no photograph is in both halves. They
are dealt in turns, class by class (those that show the concept, those that do not), so the halves
are alike; and in the order of their hashes, so no order of files decides. How a class is dealt does
not depend on the others: all sets made from the same people have the same people in each half.
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
