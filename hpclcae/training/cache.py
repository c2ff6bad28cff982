"""What a stage gets for every training image, kept while that stage is trained (greedy training).

The stages below do not change any more, so their responses to an image are computed when it is
first seen, kept as float16, and used from then on: also in that first step, so that it does not
matter when an image was computed.
"""
import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from hpclcae.partition.communicator import Communicator
from hpclcae.utils.cores import available_memory
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5
from hpclcae.utils.reading import reading

KIND = "hpclcae response cache"
LARGEST = float(np.finfo(np.float16).max)
SHARE = 0.5  # of the memory that is free: the most that is taken where it need not be


class ResponseCache:
    """Float16 arrays by image, each as one row of numbers after a 1 that says that it is there.

    All blocks have computed the same images, whatever they hold of them: zeros, or nothing at all.

    Parameters
    ----------
    entries : int
        Images, and their mirrored selves.
    shape : tuple of int
        Of what is kept of each: (row, col, map), with the block's halo.
    file : Path or None
        HDF5 file that holds it; None: memory.
    fingerprint : str
        Of everything that the responses depend on: a file of another one is begun anew.
    communicator : Communicator
        To the other blocks of the replica, which have files of their own: all are used, or none.
    or_none : bool
        If a block has not as much memory as its part takes, nothing is kept: all is computed each
        time, with the same bits.

    Raises
    ------
    InputError
        There is not as much memory, or the file cannot be written.
    """

    def __init__(self, entries: int, shape: tuple[int, ...], file: Path | None, fingerprint: str,
                 communicator: Communicator, or_none: bool = False) -> None:
        self.file, self._fingerprint, self._shape = file, fingerprint, shape
        table = entries, 1 + int(np.prod(shape))
        self.nbytes = 2 * int(np.prod(table))
        self._keeps = True
        if or_none:
            scarce = self.nbytes > SHARE * available_memory()
            self._keeps = not communicator.allreduce_sum([float(scarce)])[0]
        if not self._keeps:
            self._kept = np.zeros((0, 0), np.float16)
        elif file is None:
            if self.nbytes > available_memory():
                raise InputError(f"train.cache = 'memory' needs {self.nbytes / 1e9:.1f} GB for the "
                                 f"responses to {entries} images, there are "
                                 f"{available_memory() / 1e9:.1f} GB: set it to 'disk' or 'none'")
            self._kept = np.zeros(table, np.float16)
        else:
            reusable = float(self._is_reusable(file, table))
            is_kept = communicator.allreduce_sum([reusable])[0] == communicator.size
            self._kept = self._map(file, table, is_kept)

    def get(self, entries: np.ndarray, dtype: np.dtype,
            compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The responses to some images: (row, col, map, image).

        Parameters
        ----------
        entries : int array (image,)
        compute : callable
            compute(which) gives (row, col, map, image) of those that a mask says are missing.

        Raises
        ------
        InputError
            A response does not fit into float16.
        """
        if not self._keeps:
            return self._made(np.ones(len(entries), bool), compute).astype(dtype)
        missing = self._kept[entries, 0] == 0
        if missing.any():
            made = np.moveaxis(self._made(missing, compute), -1, 0)
            self._kept[entries[missing], 1:] = made.reshape(len(made), -1)
            self._kept[entries[missing], 0] = 1
        found = self._kept[entries, 1:].reshape(len(entries), *self._shape)
        return np.ascontiguousarray(np.moveaxis(found, 0, -1), dtype)

    def _made(self, missing: np.ndarray,
              compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        made = compute(missing)
        largest = float(np.abs(made).max(initial=0))
        if not largest < LARGEST:
            raise InputError(f"a response of {largest:g} does not fit into the cache's 16-bit "
                             "numbers: set train.cache = 'none', or standardise the stage")
        return made.astype(np.float16)

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
            raise InputError(f"train.cache = 'disk': {path} cannot be written "
                             f"({error.strerror or error}): free some space "
                             f"({self.nbytes / 1e9:.1f} GB), or set train.cache = 'none'"
                             ) from error


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
