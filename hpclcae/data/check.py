"""Whether a dataset is as it was written, file by file and image by image; and what to do if not.
"""
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpclcae.data.dataset import Dataset
from hpclcae.utils.errors import InputError
from hpclcae.utils.progress import progress
from hpclcae.utils.workers import in_order

LISTED = 20  # images, or shards, that are named


@dataclass(frozen=True)
class _File:
    """A file to check."""
    path: Path
    fingerprint: str = ""  # that it should have


@dataclass(frozen=True)
class Damage:
    """What is wrong with one file."""
    shard: int | None  # None: the dataset is this file
    path: Path
    what: str


def check(path: Path, workers: int = 1) -> tuple[int, list[Damage]]:
    """Compare all of a dataset with its checksums.

    Parameters
    ----------
    path : Path
    workers : int
        Processes that read shards.

    Returns
    -------
    int
        How many files have pixels.
    list of Damage

    Raises
    ------
    InputError
        The dataset cannot be opened at all.
    """
    with Dataset(path, whole=False) as dataset:
        dataset.check_seal()
        shards = dataset.shards
        files = [_File(shard.path, shard.fingerprint) for shard in shards] or [_File(path)]
    done = in_order(_check, files, workers, _died)
    found = [what for _, what in (progress(done, "checking", len(files), "files")
                                  if len(files) > 1 else done)]
    return len(files), [Damage(number if shards else None, file.path, what)
                        for number, (file, what) in enumerate(zip(files, found)) if what]


def _check(file: _File) -> str:
    """What is wrong with a file; "" if nothing is."""
    try:
        with Dataset(file.path) as dataset:
            if file.fingerprint and dataset.fingerprint != file.fingerprint:
                return (f"it has the fingerprint {dataset.fingerprint}, {file.fingerprint} was "
                        "written")
            bad = dataset.verify()
    except InputError as error:
        return str(error).removeprefix(f"{file.path} ")
    if not bad:
        return ""
    shown = ", ".join(map(str, bad[:LISTED])) + (", ..." if len(bad) > LISTED else "")
    return f"{len(bad)} of its images do not have the checksum they were written with: {shown}"


def _died(file: _File) -> str:
    return "the process that read it died"


def remedy(path: Path, damages: Sequence[Damage]) -> str:
    """How to mend what is damaged."""
    with Dataset(path, whole=False) as dataset:
        ingested = "sources" in dataset.settings
    if not ingested:
        return "write it again with the command that made it"
    name = shlex.quote(str(path))
    numbers = [str(damage.shard) for damage in damages if damage.shard is not None]
    shards = f" --shard {' '.join(numbers)}" if numbers else ""
    return (f"bring a copy back, or make {'them' if len(numbers) > 1 else 'it'} again from the "
            f"sources: hpclcae data ingest --manifest {name}{shards} --out {name}")
