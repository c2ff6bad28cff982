"""Reading a checkpoint: each rank its own part, on any grid and any number of servers."""
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from hpclcae import config as configuration
from hpclcae.checkpoint.folder import KIND, MANIFEST, MODEL, SCHEMA, check, find
from hpclcae.checkpoint.model_file import conditioner_places
from hpclcae.checkpoint.regions import positions
from hpclcae.checkpoint.shard_file import CHUNKS, StoredArrays, ahead
from hpclcae.checkpoint.state import BlockState, ChunkState, RunState, views
from hpclcae.config import Config
from hpclcae.data.dealing import Deal, Piece
from hpclcae.model.conditioner import Conditioner
from hpclcae.model.layout import WHOLE, BlockLayout, Layout
from hpclcae.model.network import Network
from hpclcae.model.preprocess import Preprocessing
from hpclcae.parameter_server.chunks import Chunk, block_chunks
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import Communicator
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5
from hpclcae.utils.reading import reading
from hpclcae.utils.text import to_text


def load(path: Path, grid: Grid = WHOLE,
         communicator: Communicator | None = None) -> tuple[BlockState, Network]:
    """Read a checkpoint and build its network, or one block of it with that block's weights.

    Raises
    ------
    InputError
        A file is missing, truncated, of another kind or run, or of a newer schema.
    """
    layout = Layout(load_state(path).config, grid)
    network = Network(layout, communicator)
    state = load_block(path, network.block)
    network.condition(state.conditioners)
    return state, network


def load_block(path: Path, block: BlockLayout, stages_only: bool = False) -> BlockState:
    """The state of the run with one block's weights; errors as in `load`.

    The block's grid and tiles may be others than those that wrote. With `stages_only` a classifier
    is left at zero, and so is the update rule's memory.
    """
    with opened(path) as file:
        state = _run_state(file, path)
        slots = list(file["update"]) if "update" in file and not stages_only else []
        parameters, memory = block.parameters(), {slot: block.parameters() for slot in slots}
        chunks = [chunk for chunk in block_chunks(block)
                  if not (stages_only and chunk.name.startswith("classifier/"))]
        _fill(file, path, block.layout, views(chunks, parameters, memory, {}))
        counts = update_counts(file)
    return BlockState(**vars(state), parameters=parameters, update_state=memory, counts=counts)


def load_state(path: Path) -> RunState:
    """The state of the run alone, without the parameters; errors as in `load`."""
    with opened(path) as file:
        return _run_state(file, path)


def load_chunk_states(path: Path, layout: Layout, chunks: Sequence[Chunk]) -> list[ChunkState]:
    """What an owner of these chunks begins with; errors as in `load`.

    Values and the update rule's memory are read by position, so the owners, the grid and the tiles
    may be others than those that wrote. Where a chunk covers several that were written, its count
    and version are the largest of theirs.
    """
    with opened(path) as file:
        slots = list(file["update"]) if "update" in file else []
        chunk_states = [ChunkState(chunk, np.empty(chunk.shape, layout.dtype),
                                   {slot: np.empty(chunk.shape, layout.dtype) for slot in slots})
                        for chunk in chunks]
        _fill(file, path, layout, chunk_states)
    return chunk_states


def fill(path: Path, layout: Layout, chunk_states: Sequence[ChunkState]) -> None:
    """The same into arrays that are there already, such as a server's window.

    Errors as in `load`.
    """
    with opened(path) as file:
        _fill(file, path, layout, chunk_states)


def update_counts(file: h5py.File) -> dict[str, int]:
    """Every parameter of an opened checkpoint and how often it was updated.

    That is the most that any chunk of it has had.
    """
    table = _chunks(file)
    names = dict.fromkeys(name.decode() for name in table["parameter"])
    return {name: int(table["count"][table["parameter"] == name.encode()].max()) for name in names}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file that shows a checkpoint as one model.

    Raises
    ------
    InputError
        A file is missing, truncated, of another kind or run, of a newer schema, or was removed
        meanwhile.
    """
    path = find(path)
    with reading(path, "HDF5 checkpoint", "use another one"), contextlib.ExitStack() as stack:
        manifest = check(path) if path.is_dir() else None
        model = path / MODEL if manifest else path
        file = stack.enter_context(read_hdf5(model))
        _refuse_others(file, model)
        if manifest and (file.attrs["run"], file.attrs["step"]) != (manifest.run, manifest.step):
            raise InputError(f"{path / MANIFEST} is of another run or step than {MODEL} beside it: "
                             "bring back its own, or use another checkpoint")
        yield file
        if manifest and not (path / MANIFEST).exists():  # then some shards may be gone, and HDF5
            raise InputError(f"{path} was removed while it was read: use a newer checkpoint")


def _refuse_others(file: h5py.File, path: Path) -> None:
    kind, schema = file.attrs.get("kind"), int(file.attrs.get("schema", 0))
    if kind != KIND:
        raise InputError(f"{path} is {kind or 'an HDF5 file of another program'}, not an {KIND}: "
                         "give the folder of a run, or a checkpoint in it")
    if schema > SCHEMA:
        raise InputError(f"{path} has schema {schema}, this hpclcae reads up to {SCHEMA}: use a "
                         "newer hpclcae")
    if schema == SCHEMA and "shard" in file.attrs:
        raise InputError(f"{path} is one shard of a checkpoint: give the folder that it is in")


def _run_state(file: h5py.File, path: Path) -> RunState:
    config = configuration.loads(str(file.attrs["configuration"]), where=f"configuration in {path}")
    kernel, eigenvalues = (file[f"preprocess/{name}"][...] if f"preprocess/{name}" in file else None
                           for name in ("kernel", "eigenvalues"))
    step = int(file.attrs["step"])
    one_file = file.attrs["schema"] < SCHEMA  # written by one replica, without its metrics
    return RunState(config=config, step=step,
                    preprocessing=Preprocessing(config.preprocess, kernel, eigenvalues),
                    conditioners=_conditioners(file, config),
                    categories=_categories(file),
                    seconds=float(file.attrs["seconds"]),
                    cursors=(step,) if one_file else tuple(map(int, file["cursors"][...])),
                    deal=_deal(file),
                    metrics="" if one_file else file["metrics"].asstr()[()],
                    order=int(file.attrs.get("order", 1)))


def _conditioners(file: h5py.File, config: Config) -> tuple[Conditioner | None, ...]:
    """What stands above each stage, and before a classifier; None: nothing that was fitted."""
    groups = map(file.get, conditioner_places(config))
    return tuple(Conditioner(**{name: group[name][...] for name in group}) if group else None
                 for group in groups)


def _deal(file: h5py.File) -> Deal:
    """How images were dealt; in older checkpoints nothing was ever left of an epoch."""
    replicas = file["cursors"].size if "cursors" in file else 1
    if "rest" not in file:
        return Deal(replicas)
    rest = file["rest"]
    return Deal(replicas, int(rest.attrs["step"]), int(rest.attrs["epochs"]),
                tuple(Piece(*row) for row in rest[...].tolist()))


def _categories(file: h5py.File) -> tuple[str, ...]:
    """Names of a classifier's classes."""
    names = file.get("classifier/names")
    return () if names is None else tuple(map(to_text, names[...]))


def _chunks(file: h5py.File) -> np.ndarray:
    """The table of chunks (shard_file.CHUNKS).

    A checkpoint of schema 1 has one count for every parameter.
    """
    if file.attrs["schema"] == SCHEMA:
        return file["chunks"][...]
    counts = json.loads(str(file.attrs["counts"]))
    return np.array([(name.encode(), 0, 0, *file[name].shape[:2], count, count) for name,
                     count in counts.items()], CHUNKS)


def _fill(file: h5py.File, path: Path, layout: Layout, chunk_states: Sequence[ChunkState]) -> None:
    """Read what the chunks are to hold.

    The next piece is read while one is brought into the kernel's layout.
    """
    with StoredArrays(file) as arrays:
        for chunk, values, filters in ahead(_pieces(arrays, path, layout, chunk_states)):
            plan = layout.block(chunk.block).filters[chunk.name]
            for j in range(*chunk.rows):
                first = (j - chunk.rows[0]) * plan.tile
                plan.pack_row(filters[first:first + plan.tile], values, j, (chunk.rows, chunk.cols))
    _count(file, layout, chunk_states)


def _pieces(arrays: StoredArrays, path: Path, layout: Layout,
            chunk_states: Sequence[ChunkState]) -> Iterator[tuple[Chunk, np.ndarray, np.ndarray]]:
    """Every chunk, an array of it, and the filters by position that belong there.

    In the order of the files.
    """
    for slot in (None, *(chunk_states[0].state if chunk_states else ())):
        for chunk_state in chunk_states:
            chunk = chunk_state.chunk
            plan = layout.block(chunk.block).filters[chunk.name]
            name = f"update/{slot}/{chunk.name}" if slot else chunk.name
            shape = arrays[name].shape
            if shape[2:] != (plan.field, plan.field, plan.maps_in, plan.maps):
                raise InputError(f"{path} has {name} of shape {shape}, which is not that of the "
                                 "configuration: use the configuration of the checkpoint")
            into = chunk_state.state[slot] if slot else chunk_state.values
            yield chunk, into, arrays.read(name, *positions(layout, chunk))


def _count(file: h5py.File, layout: Layout, chunk_states: Sequence[ChunkState]) -> None:
    """Give every chunk the largest count and version of the chunks that it meets."""
    table = _chunks(file)
    tables = {name: table[table["parameter"] == name.encode()]
              for name in {h.chunk.name for h in chunk_states}}
    for chunk_state in chunk_states:
        (top, bottom), (left, right) = positions(layout, chunk_state.chunk)
        rows = tables[chunk_state.chunk.name]
        met = rows[(rows["row"] < bottom) & (rows["row"] + rows["rows"] > top)
                   & (rows["col"] < right) & (rows["col"] + rows["cols"] > left)]
        chunk_state.count, chunk_state.version = (int(met[n].max(initial=0))
                                                  for n in ("count", "version"))
