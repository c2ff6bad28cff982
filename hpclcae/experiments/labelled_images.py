"""The labelled test images: who is in which half, and what numbers about them rest on.

Neuron and threshold are chosen on the *development* half and judged on the *final* half; no person
or photograph has images in both. Intervals resample whole persons and photographs, since the crops
of one are not independent. Where there are too few of these, a number would mean nothing: it is
left out, and a line says why.
"""
from dataclasses import dataclass

import numpy as np

from hpclcae.data.halves import DEVELOPMENT, FINAL, group_keys, halves
from hpclcae.utils.errors import InputError

HALF_NAMES = "development half", "final half"
LEAST_GROUPS = 5  # with the concept, and without it: below, nothing is said about others
SOURCES = 12      # the most frequent of the concept; the rest are one: "others"


@dataclass(frozen=True)
class LabelledImages:
    """What is known of the test images apart from their pixels.

    Images without a label are left out.
    """
    index: np.ndarray    # int64 (image,): position in the dataset
    concept: np.ndarray  # bool (image,): does it show the concept
    half: np.ndarray     # int64 (image,): DEVELOPMENT or FINAL, the same for all images of a group
    key: np.ndarray      # uint64 (image,): hash of the group, seed of its bootstrap weights
    source: np.ndarray   # int64 (image,): number of its source in `sources`
    sources: tuple[str, ...]  # what stands before the first "/" of a group; "others": see SOURCES
    groups: int          # how many persons and photographs there are
    resampled: str       # what half and key belong to: these, or "images"

    @classmethod
    def of(cls, labels: np.ndarray, groups: np.ndarray, seed: int = 0,
           half: np.ndarray | None = None) -> "LabelledImages":
        """Sort out labels and groups.

        Parameters
        ----------
        labels : int array (image,)
            1 the concept, -1 unknown (the image is left out), anything else not the concept.
        groups : str array (image,)
            Person or photograph. If all images have the same one, each image counts as a group of
            its own.
        seed : int
            Another seed gives another bootstrap, and other halves where `half` does not say them.
        half : int array (image,), optional
            DEVELOPMENT or FINAL, as the dataset has them. By default groups with the concept and
            groups without it are dealt out in turns, in an order that the seed decides.

        Raises
        ------
        InputError
            No image has a label, or all have the same; a group has images in both halves.
        """
        index = np.flatnonzero(labels >= 0)
        concept = labels[index] == 1
        if not 0 < concept.sum() < index.size:
            raise InputError(f"{concept.sum()} of {index.size} labelled images show the concept: a "
                             "test needs images that show it and images that do not")
        names, member = np.unique(groups[index], return_inverse=True)
        source, sources = _sources(groups[index], concept)
        resampled = "persons and photographs"
        if names.size == 1:
            names, member, resampled = index, np.arange(index.size), "images"
        keys = group_keys(names, seed)
        if half is None:
            shows = np.bincount(member, concept) > 0
            half = halves(names, shows, seed)[member].astype(np.int64)
        else:
            half = half[index].astype(np.int64)
            finals, members = np.bincount(member, half == FINAL), np.bincount(member)
            if not np.isin(half, (DEVELOPMENT, FINAL)).all() or (finals % members).any():
                raise InputError("the halves of the dataset divide a person or photograph, or are "
                                 "not 0 and 1: write it again")
        return cls(index, concept, half, keys[member], source, sources, names.size, resampled)

    def count_groups(self, chosen: np.ndarray) -> int:
        """How many persons and photographs some images (bool array) belong to."""
        return np.unique(self.key[chosen]).size

    def _too_few(self, chosen: np.ndarray, name: str) -> str:
        for shows, words in ((True, "that show the concept"), (False, "without it")):
            found = self.count_groups(chosen & (self.concept == shows))
            if found < LEAST_GROUPS:
                return (f"the {name} has {found} {self.resampled} {words}, and fewer than "
                        f"{LEAST_GROUPS} say nothing about others")
        return ""

    @property
    def why_no_interval(self) -> str:
        """Why no interval can be given; "" if it can."""
        return self._too_few(np.ones(self.concept.size, bool), "test set")

    @property
    def why_not_honest(self) -> str:
        """Why nothing can be chosen on one half and judged on the other; "" if it can."""
        return next(filter(None, (self._too_few(self.half == half, name)
                                  for half, name in enumerate(HALF_NAMES))), "")


def group_weights(keys: np.ndarray, replicates: int) -> np.ndarray:
    """Draw how often each image counts in each bootstrap replicate, int32 (image, replicate).

    A Poisson number of mean 1, seeded by the group alone: a group gets the same in every batch,
    pass and population, so nothing need be stored and differences between populations are paired.
    """
    unique, member = np.unique(keys, return_inverse=True)
    drawn = [np.random.default_rng(int(key)).poisson(1.0, replicates) for key in unique]
    return np.array(drawn, np.int32)[member]


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of those bootstrap replicates that are defined."""
    defined = replicates[np.isfinite(replicates)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined.size else (np.nan, np.nan)
    return float(low), float(high)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _sources(groups: np.ndarray, concept: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number of the source of each image, and the names of the sources in alphabetical order."""
    named = [before if slash else "others"
             for before, slash, _ in (str(group).partition("/") for group in groups)]
    found, number = np.unique(named, return_inverse=True)
    often = np.argsort(-np.bincount(number, concept), kind="stable")[:SOURCES]
    kept = np.where(np.isin(np.arange(found.size), often), found, "others")
    sources, source = np.unique(kept[number], return_inverse=True)
    return source, tuple(map(str, sources))
