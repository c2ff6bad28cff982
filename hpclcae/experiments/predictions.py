"""What a trained classifier says about pictures: files, folders and archives, in constant memory.

They are found, decoded, cut to squares and made grey as `hpclcae data ingest` does it, then
prepared as in training: a picture gets the numbers that it would get in a dataset. What cannot be
read is named, counted and left out.
"""
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.data.ingest import walk
from hpclcae.data.ingest.build import check_sources, why_nothing
from hpclcae.data.ingest.settings import Settings, Tally
from hpclcae.data.ingest.squares import Square, squares
from hpclcae.model.classifier import probabilities
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import check_output, is_hdf5, replacing_hdf5
from hpclcae.utils.progress import progress
from hpclcae.utils.text import printable

KIND = "hpclcae predictions"
BATCH = 64          # pictures that are held and asked about at a time
EVERY_LINE = 10**9  # all that is left out is named

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What the classifier says about one picture."""
    picture: str               # its path as given, and what lies below it; of a film, with the time
    scores: np.ndarray         # float (class,)
    probabilities: np.ndarray  # float64 (class,): of softmax they add up to 1

    def top(self, count: int) -> list[int]:
        """The most likely classes, the best first; of equal ones the first."""
        return np.argsort(-self.scores, kind="stable")[:count].tolist()


def predictions(model: Model, sources: Sequence[Path], tally: Tally,
                crop: str | None = None) -> Iterator[Prediction]:
    """Yield a prediction for every picture in the sources; tally the others.

    Parameters
    ----------
    model : Model
        With a classifier.
    sources : sequence of Path
        Folders, archives, pictures and films (of a film, the frame near its middle).
    tally : Tally
        Is told what is left out.
    crop : {"centre", "fit"}, optional
        How a picture becomes a square. Without it as the training images did, where their dataset
        can be opened; else "centre".

    Raises
    ------
    InputError
        There is no classifier, a source does not exist, or nothing in them can be read.
    """
    if not model.categories:
        raise InputError(f"{model.path} has no classifier: hpclcae finetune trains one on it")
    check_sources(sources)
    data = model.config.data
    how = Settings(size=data.size, channels="rgb" if data.channels == 3 else "grey", min_side=1,
                   contrast=0.0, crop=crop or _crop_in_training(Path(data.train)))
    count = 0
    for some in _batches(_squares(sources, how, tally)):
        count += len(some)
        yield from _asked(model, some)
    if not count:
        raise InputError(why_nothing(sources, tally))


def _batches(things: Iterable[T]) -> Iterator[list[T]]:
    """Yield up to BATCH of them at a time."""
    rest = iter(things)
    while some := list(islice(rest, BATCH)):
        yield some


def _asked(model: Model, images: Sequence[Square]) -> Iterator[Prediction]:
    """Ask about some images at a time."""
    scores = model.scores(model.prepare(np.stack([image.pixels for image in images])))
    likely = probabilities(model.config.classifier, scores)
    for index, image in enumerate(images):
        yield Prediction(image.source, scores[:, index].copy(), likely[:, index])


def _squares(sources: Sequence[Path], how: Settings, tally: Tally) -> Iterator[Square]:
    """Yield every usable image; tally the others."""
    for entry in progress(_found(sources), "reading", unit="files"):
        for item in [entry] if isinstance(entry, walk.Skipped) else squares(entry, how):
            if isinstance(item, walk.Skipped):
                tally.skip(item.name, item.reason, item.detail)
            else:
                yield item


def _found(sources: Sequence[Path]) -> walk.Found:
    """All that is found, with names that begin as the sources were given."""
    for source in sources:
        given, known = printable(str(source)).rstrip("/"), walk.source_name(source)
        for entry in walk.entries(source):
            yield replace(entry, name=given + entry.name.removeprefix(known))


def _crop_in_training(path: Path) -> str:
    with contextlib.suppress(InputError, OSError), Dataset(path) as dataset:
        if (crop := dataset.settings.get("crop")) in ("centre", "fit"):
            return str(crop)
    return "centre"


def check_results(out: Path) -> None:
    """See, before the work, that predictions can be written.

    Raises
    ------
    InputError
        They cannot, or would replace something else.
    """
    check_output(out, lambda path: is_hdf5(path, KIND), "a file of predictions")


def save(out: Path, model: Model, said: Iterable[Prediction], top: int) -> int:
    """Write predictions as they come to an HDF5 file, and return how many there are.

    Layout: ``picture`` (image,), ``scores`` and ``probabilities`` (image, class), ``top`` (image,
    rank), classes with the most likely first, ``classes`` (class,), their names.
    """
    classes = len(model.categories)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing_hdf5(out) as file:
        file.attrs.update(kind=KIND, schema=1, checkpoint=printable(str(model.path)),
                          step=model.step)
        file.create_dataset("classes", data=list(map(printable, model.categories)),
                            dtype=h5py.string_dtype())
        shapes = {"picture": ((), h5py.string_dtype()), "scores": ((classes,), np.float32),
                  "probabilities": ((classes,), np.float64), "top": ((top,), np.int32)}
        arrays = {name: file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape),
                                            chunks=(BATCH, *shape))
                  for name, (shape, dtype) in shapes.items()}
        count = 0
        for some in _batches(said):
            rows = {"picture": [each.picture for each in some],
                    "scores": np.stack([each.scores for each in some]),
                    "probabilities": np.stack([each.probabilities for each in some]),
                    "top": np.array([each.top(top) for each in some])}
            for name, array in arrays.items():
                array.resize(count + len(some), axis=0)
                array[count:] = rows[name]
            count += len(some)
    return count
