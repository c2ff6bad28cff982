"""How images are made of what is found, and what happened to all of it."""
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hpclcae.data.catalogue import split_of
from hpclcae.data.ingest import labels, walk
from hpclcae.data.writer import check_seed
from hpclcae.utils.errors import InputError

MAX_SIZE = 2**14  # rows and cols of an image, pixels
MAX_LINES = 20    # for each reason to skip; the rest is only counted
#: Where in a film its frames are taken; or every so many seconds.
FILM = ("middle", "random", "scenes")
#: What is done about faces: nothing, counted, or images that show one are left out.
FACES = ("ignore", "count", "drop")


@dataclass(frozen=True)
class Settings:
    """How images are made; stored in the dataset.

    Raises
    ------
    InputError
        A setting is out of its range: names the option of hpclcae data ingest.
    """
    size: int = 200               # rows and cols of the images, pixels
    channels: str = "rgb"         # or "grey"
    crop: str = "centre"          # the largest central square, or "fit": all on mid-grey
    min_side: int | None = None   # pixels of the shorter side of a picture; None: the size
    contrast: float = 2.0         # least standard deviation of brightness, in levels of 256; 0: any
    film: str = "middle"          # one frame, near its middle; "random": at a time that the seed
    #                               draws; "scenes": one of every scene
    every: float | None = None    # seconds between frames of a film, in place of those
    pairs: float | None = None    # seconds from a frame of a film to its partner; None: it has none
    faces: str = "ignore"         # or "count", or "drop" images that show one
    label_from: str = "none"      # or "folder": that an image lies in
    concept: str | None = None    # with folders: label 1 is this one, label 0 all others
    label_level: int | None = None  # 0: the source is the class, 1: the folder below it, ...
    group: str = "file"           # what a split never divides, or "folder"
    split: str | None = None      # "train" or "test": only the groups on this side are stored
    test_share: float = 0.2       # of the groups
    dedupe: str = "none"          # images seen before are dropped: "exact" or "near"
    licence: str = "not stated"   # of the sources
    shard_size: float = 4.0       # GB of pixels in a file; more make several
    seed: int = 0                 # of the order of the images, and of random times in films

    def __post_init__(self) -> None:
        if self.size < 1 or self.min_side is not None and self.min_side < 1:
            raise InputError(f"--size {self.size} --min-side {self.min_side}: both are at least 1 "
                             "pixel")
        if not 0 <= self.contrast < 128:
            raise InputError(f"--contrast {self.contrast} is not between 0 (any) and 128 levels")
        if self.every is not None and not self.every > 0:
            raise InputError(f"--every {self.every} is not a time between frames: give seconds "
                             "above 0")
        if self.every is not None and self.film != "middle":
            raise InputError(f"--film {self.film} and --every {self.every} each say which frames: "
                             "give one of them")
        if self.pairs is not None and not 0 < self.pairs < (self.every or 0):
            raise InputError(f"--pairs {self.pairs} needs --every SECONDS with a longer time: the "
                             "partner of a frame comes before the next one")
        if self.label_from == "none":
            for option, value in (("concept", self.concept), ("label-level", self.label_level)):
                if value is not None:
                    raise InputError(f"--{option} {value} needs --label-from folder")
        if self.concept is not None and not labels.normal(self.concept):
            raise InputError(f"--concept '{self.concept}' is not the name of a folder")
        if self.label_level is not None and not 0 <= self.label_level < 100:
            raise InputError(f"--label-level {self.label_level} is not between 0 (the source) and "
                             "99")
        if not self.size <= MAX_SIZE:
            raise InputError(f"--size {self.size} is more than {MAX_SIZE} pixels")
        if not 0 < self.shard_size <= 1e6:
            raise InputError(f"--shard-size {self.shard_size} is not a number of gigabytes above 0")
        check_seed(self.seed)
        split_of("", self.test_share)

    @property
    def depth(self) -> int:
        """How many channels an image has."""
        return 3 if self.channels == "rgb" else 1

    @property
    def of_pixels(self) -> str:
        """All that the pixels, and what is measured of them, depend on."""
        return repr((self.size, self.channels, self.crop, self.min_side, self.contrast, self.film,
                     self.every, self.pairs, self.faces, self.dedupe == "near",
                     self.seed if self.film == "random" else None))


@dataclass
class Tally:
    """What happened to everything that was found."""
    stored: Counter[str] = field(default_factory=Counter)   # by source
    noted: Counter[str] = field(default_factory=Counter)    # conversions of what is stored
    skipped: Counter[str] = field(default_factory=Counter)  # by reason
    largest: int = 0                                        # shorter side of a picture, pixels
    with_faces: int = 0                                     # of what is stored, where counted
    labels: Counter[str] = field(default_factory=Counter)   # of what is stored, by name

    def as_dict(self) -> dict[str, Any]:
        """For JSON; Tally.of makes the tally of it."""
        return {name: dict(value) if isinstance(value, Counter) else value
                for name, value in vars(self).items()}

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Tally":
        """The opposite of `as_dict`."""
        tally = cls()
        for name, value in values.items():
            setattr(tally, name, Counter(value) if isinstance(value, dict) else value)
        return tally

    def skip(self, name: str, reason: str, detail: str = "") -> None:
        """Count something that is left out, and say so in a line if it claimed to be a picture."""
        self.skipped[reason] += 1
        if reason != walk.OTHER and self.skipped[reason] <= MAX_LINES:
            more = " (others like it are only counted)" if self.skipped[reason] == MAX_LINES else ""
            print(f"skipped {name}: {reason}{f', {detail}' if detail else ''}{more}",
                  file=sys.stderr)
