"""What is kept of every training image: its pixels, or what finished stages make of it.

Finished stages (greedy training) do not change any more, so their responses to an image are
computed when it is first seen, kept as float16, and used from then on: also in that first step, so
that it does not matter when an image was computed.

Pixels are kept as the bytes that they are. Prepared images would be four times as large, and not
the same: products of matrices round an image differently at another place in the minibatch.

Ranks of a node have nothing to share. A replica keeps its own portion of the images, and a block
its own part of them.
"""
import contextlib
import hashlib
import os
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import DTypeLike

from hpclcae.cluster.launcher import on_this_node
from hpclcae.partition.communicator import Communicator, SerialCommunicator
from hpclcae.utils.cores import available_memory
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5
from hpclcae.utils.reading import reading

KIND = "hpclcae response cache"
AUTO = 0.5  # of a rank's memory: the most that is taken without being asked for


class Kept:
    """A row of numbers for every image, after a 1 that says that it is there.

    All blocks have put the same images, whatever they hold of them: zeros, or nothing at all.

    Parameters
    ----------
    entries : int
        Images, and their mirrored selves.
    shape : tuple of int
        Of what is kept of each.
    dtype : dtype
        float16 (responses) or uint8 (pixels).
    setting : str
        What in the configuration asks for it, for messages.
    file : Path or None
        HDF5 file that holds it; None: memory.
    fingerprint : str
        Of everything that the numbers depend on: a file of another one is begun anew.
    communicator : Communicator, optional
        To the other blocks of the replica, which have files of their own: all are used, or none.

    Raises
    ------
    InputError
        This rank's share of the memory is smaller, or the file cannot be written.
    """

    def __init__(self, entries: int, shape: tuple[int, ...], dtype: DTypeLike, setting: str,
                 file: Path | None = None, fingerprint: str = "",
                 communicator: Communicator | None = None) -> None:
        self.file, self._fingerprint, self._shape = file, fingerprint, shape
        self.dtype, self._setting = np.dtype(dtype), setting
        table = entries, 1 + int(np.prod(shape))
        self.nbytes = needed(entries, shape, dtype)
        if file is None:
            share = share_of_memory()
            if self.nbytes > share:
                raise InputError(f"{setting} = 'memory' needs {self.nbytes / 1e9:.1f} GB for "
                                 f"{entries} images, this rank's share of the node is "
                                 f"{share / 1e9:.1f} GB: set it to 'disk' or 'none'")
            self._kept = np.zeros(table, dtype)
        else:
            communicator = communicator or SerialCommunicator()
            reusable = float(self._is_reusable(file, table))
            is_kept = communicator.allreduce_sum([reusable])[0] == communicator.size
            self._kept = self._map(file, table, is_kept)

    def absent(self, entries: np.ndarray) -> np.ndarray:
        """Which of some images are not there (a mask)."""
        return self._kept[entries, 0] == 0

    def put(self, entries: np.ndarray, numbers: np.ndarray) -> None:
        """Keep (image, *shape).

        Raises
        ------
        InputError
            A number does not fit into float16.
        """
        if self.dtype.kind == "f":
            numbers = rounded(numbers)
        self._kept[entries, 1:] = numbers.reshape(len(numbers), self._kept.shape[1] - 1)
        self._kept[entries, 0] = 1

    def get(self, entries: np.ndarray) -> np.ndarray:
        """What is there of some images: (image, *shape)."""
        return self._kept[entries, 1:].reshape(len(entries), *self._shape)

    def close(self, for_good: bool = False) -> None:
        """Let go of it; a file may be used again by a run that goes on, or goes for good."""
        if for_good and self.file is not None:
            self.file.unlink(missing_ok=True)
        elif self.file is not None and isinstance(self._kept, np.memmap):
            self._kept.flush()
            with contextlib.suppress(OSError), h5py.File(self.file, "r+") as file:
                file.attrs["closed"] = True
        self._kept = self._kept[:0]

    def _is_reusable(self, path: Path, shape: tuple[int, ...]) -> bool:
        with contextlib.suppress(InputError), reading(path, "response cache", ""), \
                read_hdf5(path) as file:
            return bool(file.attrs["kind"] == KIND and file.attrs["closed"]
                        and file.attrs["fingerprint"] == self._fingerprint
                        and file["responses"].shape == shape)
        return False

    def _map(self, path: Path, shape: tuple[int, ...], is_kept: bool) -> np.ndarray:
        """The file's array as memory; the file is made anew unless it is to be kept."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "r+" if is_kept else "w", libver="latest") as file:
                if not is_kept:
                    kept = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                    kept.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                    kept.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                    h5py.h5d.create(file.id, b"responses", h5py.h5t.IEEE_F16LE,
                                    h5py.h5s.create_simple(shape), kept)
                    file["responses"].attrs["axes"] = ["image", "1 if there; row, col, map"]
                    file.attrs.update(kind=KIND, fingerprint=self._fingerprint)
                file.attrs["closed"] = False
                offset = file["responses"].id.get_offset()
            if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process later on
                with path.open("r+b") as opened:
                    os.posix_fallocate(opened.fileno(), offset, self.nbytes)
            return np.memmap(path, np.float16, "r+", offset, shape)
        except OSError as error:
            raise InputError(f"{self._setting} = 'disk': {path} cannot be written "
                             f"({error.strerror or error}): free some space "
                             f"({self.nbytes / 1e9:.1f} GB), or set {self._setting} = 'none'"
                             ) from error


def rounded(responses: np.ndarray) -> np.ndarray:
    """Responses as float16, whether they are kept or not: the same bits.

    Raises
    ------
    InputError
        One does not fit.
    """
    largest = float(np.abs(responses).max(initial=0))
    if not largest < float(np.finfo(np.float16).max):
        raise InputError(f"a response of {largest:g} does not fit into the cache's 16-bit numbers: "
                         "set train.cache = 'none', or standardise the stage")
    return responses.astype(np.float16)


def needed(entries: int, shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Bytes that `Kept` takes."""
    return entries * (1 + int(np.prod(shape))) * np.dtype(dtype).itemsize


def share_of_memory() -> float:
    """Bytes that this rank may take: what is free on its node, divided by the ranks there."""
    ranks, _ = on_this_node()
    return available_memory() / ranks


def spare_memory() -> float:
    """Bytes that this rank may take for what only saves time."""
    return AUTO * share_of_memory()


def fingerprint(*facts: str | bytes | np.ndarray) -> str:
    """A short digest of texts and arrays."""
    digest = hashlib.blake2b(digest_size=12)
    for fact in facts:
        if isinstance(fact, np.ndarray):
            digest.update(str(fact.shape).encode())
            digest.update(np.ascontiguousarray(fact).data)
        else:
            digest.update(fact.encode() if isinstance(fact, str) else fact)
        digest.update(b"\0")
    return digest.hexdigest()
