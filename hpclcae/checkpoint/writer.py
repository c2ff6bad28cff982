"""An owner writes its shard of a checkpoint while training goes on."""
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

import numpy as np

from hpclcae.utils.background import Background
from hpclcae.checkpoint.folder import (KIND, MANIFEST, RUN_ID, SCHEMA, Content, done_marker,
                                       read_run_id, saved, shard_name, step_folder)
from hpclcae.checkpoint.regions import regions
from hpclcae.checkpoint.shard_file import chunk_table, write_shard
from hpclcae.checkpoint.state import ChunkState
from hpclcae.model.layout import Layout
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replacing

PATIENCE = 600.0  # seconds that a shard of another rank may take to appear
#: Seconds that a name may appear later on another node; network file systems ask anew within 60.
LATE = 100.0
POLL = 0.02  # seconds between looks
GONE = ("removed or moved while the job ran: bring it back and go on with --resume, or start again "
        "with another --out")


class ShardWriter(Background):
    """Writes the shards of one owner: a parameter server, or a block where there are none.

    Parameters
    ----------
    run : Path
        Run folder, prepared by `clean`.
    number : int
        Of the owner, from 0.
    layout : Layout
        What the chunks were cut from.
    spare : callable
        The bytes of memory that a copy may take. Where it does not fit and the owner's numbers lie
        in one piece, they are written from where they are, and the step waits.
    """

    def __init__(self, run: Path, number: int, layout: Layout,
                 spare: Callable[[], float] = lambda: math.inf) -> None:
        self.run, self.number, self.layout, self.spare = run, number, layout, spare
        super().__init__(f"shard {number}")
        self.buffers: dict[str, np.ndarray] = {}
        self._step = -1
        self._run_id = ""

    def start(self, step: int, chunk_states: Sequence[ChunkState]) -> None:
        """Copy what the owner holds, and begin to write it as its shard of the checkpoint.

        Returns as soon as the copy is made (or all is written, where there is no room for a copy);
        the next update may change the arrays then. Waits first if the shard before is not written
        yet. A step that was begun or committed before is left alone.

        Raises
        ------
        InputError
            The shard before could not be written.
        """
        self.wait()
        if step == self._step or (step_folder(self.run, step) / MANIFEST).exists():
            return
        self._step = step
        in_place = self._in_place(chunk_states)
        if not in_place:
            self._copy(chunk_states)
        chunks = chunk_table(self.layout, chunk_states)
        covering = regions(self.layout, [chunk_state.chunk for chunk_state in chunk_states])

        def work() -> None:
            path = step_folder(self.run, step) / shard_name(self.number)
            with as_input_error(self.run, step, path):
                self._run_id = self._run_id or run_id(self.run, self)
                marks = {"kind": KIND, "schema": SCHEMA, "run": self._run_id, "step": step,
                         "shard": self.number}
                path.parent.mkdir(exist_ok=True)
                write_done_marker(path, write_shard(
                    path, marks, covering, in_place or self.buffers, chunks, self.go_on))
        self.begin(work)
        if in_place:
            self.wait()

    def close(self) -> None:
        """Give up what is not written and let go of the memory."""
        super().close()
        self.buffers = {}

    def _copy(self, chunk_states: Sequence[ChunkState]) -> None:
        """Put values and state one after the other into memory.

        The memory is kept from checkpoint to checkpoint.
        """
        for prefix, arrays in by_prefix(chunk_states).items():
            size = sum(array.size for array in arrays)
            buffer = self.buffers.get(prefix)
            if buffer is None or buffer.size != size:
                buffer = self.buffers[prefix] = np.empty(size, self.layout.dtype)
            start = 0
            for array in arrays:
                buffer[start:start + array.size].reshape(array.shape)[...] = array
                start += array.size

    def _in_place(self, chunk_states: Sequence[ChunkState]) -> dict[str, np.ndarray]:
        """The owner's numbers where they are, if a copy does not fit; empty: make a copy."""
        parts = by_prefix(chunk_states)
        size = sum(array.nbytes for arrays in parts.values() for array in arrays)
        if sum(buffer.nbytes for buffer in self.buffers.values()) >= size or size <= self.spare():
            return {}
        joined = {prefix: as_one(arrays) for prefix, arrays in parts.items()}
        found = {prefix: array for prefix, array in joined.items() if array is not None}
        return found if len(found) == len(joined) else {}


def by_prefix(chunk_states: Sequence[ChunkState]) -> dict[str, list[np.ndarray]]:
    """An owner's arrays, chunk after chunk: weights, and each slot of the update rule's memory.

    The keys are how the names of the datasets begin.
    """
    parts = {"": [chunk_state.values for chunk_state in chunk_states]}
    for slot in chunk_states[0].state if chunk_states else ():
        parts[f"update/{slot}/"] = [chunk_state.state[slot] for chunk_state in chunk_states]
    return parts


def as_one(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """The flat array of which these are consecutive views; None: they are not.

    >>> whole = np.arange(6.0)
    >>> as_one([whole[1:3].reshape(1, 2), whole[3:6]])
    array([1., 2., 3., 4., 5.])
    >>> as_one([whole[:2], whole[3:]]) is None
    True
    """
    base = arrays[0].base if arrays else None
    if not isinstance(base, np.ndarray) or not base.flags.c_contiguous:
        return None
    start = end = arrays[0].ctypes.data - base.ctypes.data
    for array in arrays:
        if (array.base is not base or not array.flags.c_contiguous
                or array.ctypes.data != base.ctypes.data + end):
            return None
        end += array.nbytes
    return base.reshape(-1).view(np.uint8)[start:end].view(arrays[0].dtype)  # windows are of bytes


@contextlib.contextmanager
def as_input_error(run: Path, step: int, path: Path) -> Iterator[None]:
    """An error of the system becomes one line that says what is left."""
    try:
        yield
    except OSError as error:
        older = [path.name for path in saved(run / "checkpoints")[-1:]]
        left = "there is no older one"
        if not (run / "checkpoints").is_dir():
            left = f"the run folder was {GONE}"
        elif older:
            left = f"{older[0]} is complete, and --resume goes on from it"
        raise InputError(f"the checkpoint of step {step} cannot be written: "
                         f"{error.filename or path}: {error.strerror or error}; {left}") from error


def write_done_marker(shard: Path, content: Content) -> None:
    """Say that a shard is finished, and what is in it."""
    with replacing(done_marker(shard)) as partial:
        partial.write_text(json.dumps({"size": content.size, "crc32": content.crc32}))


def read_done_marker(shard: Path) -> Content | None:
    """What the marker of a shard says; None: there is none yet, or not all of it."""
    try:
        return Content(**json.loads(done_marker(shard).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def run_id(run: Path, thread: Background) -> str:
    """The mark of the run.

    Another rank writes it before anything else, so at most it is visible late.

    Raises
    ------
    InputError
        It does not appear.
    """
    path, began = run / "checkpoints" / RUN_ID, monotonic()
    while monotonic() < began + LATE:
        if mark := read_run_id(run):
            return mark
        thread.go_on()
        sleep(POLL)
    raise InputError(f"{path} did not appear in {LATE:.0f} s: it was removed, or the ranks do not "
                     "see the same run folder; put it on a file system that all nodes share")
