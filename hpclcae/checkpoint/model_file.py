"""``model.h5``: one model out of many shards, by virtual datasets, with the state of the run."""
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import h5py
import numpy as np

from hpclcae import config as configuration
from hpclcae.checkpoint.folder import KIND, SCHEMA, shard_name
from hpclcae.checkpoint.shard_file import EXTENTS
from hpclcae.checkpoint.state import RunState
from hpclcae.config import Config
from hpclcae.data.dealing import Deal, Piece
from hpclcae.model.conditioner import Conditioner
from hpclcae.model.layout import Layout
from hpclcae.parameter_server.store import owned_slots
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import read_hdf5, replacing_hdf5
from hpclcae.utils.provenance import revision, versions
from hpclcae.utils.text import attribute

AXES = ["row", "col", "krow", "kcol", "map in", "map"]
AXES_OF_CLASSIFIER = ["row", "col", "krow", "kcol", "map", "class"]


@dataclass(frozen=True)
class _Piece:
    """A dataset of a shard, and where it belongs.

    That is where its first position lies in the whole, and its first number in the file.
    """
    shard: int
    name: str
    shape: tuple[int, ...]
    row: int
    col: int
    offset: int


def write_model(path: Path, run: str, state: RunState, shards: int) -> None:
    """Write the file that shows the shards beside it as one model.

    Raises
    ------
    InputError
        A shard is of another run or step, or together they are not the whole network.
    OSError
        The disk is full, or the folder cannot be written.
    """
    pieces: dict[str, list[_Piece]] = {}
    chunks = []
    for number in range(shards):
        with read_hdf5(path.with_name(shard_name(number))) as file:
            if (file.attrs["run"], file.attrs["step"]) != (run, state.step):
                raise InputError(f"{file.filename} is of another run or step: two jobs write into "
                                 "one run folder")
            chunks.append(file["chunks"][...])
            for name, piece in _pieces(file, number):
                pieces.setdefault(name, []).append(piece)
    with replacing_hdf5(path) as file:
        prefixes = ["", *(f"update/{slot}/" for slot in owned_slots(state.config))]
        for name, shape in Layout(state.config).stored_shapes.items():
            for prefix in prefixes:
                _check_whole(path, prefix + name, shape, pieces.get(prefix + name, []))
                _show(file, prefix + name, shape, state.config.train.dtype, pieces[prefix + name])
        file["places"] = np.array([(name.encode(), piece.shard, piece.row, piece.col,
                                    *piece.shape[:2], piece.offset)
                                   for name, parts in pieces.items() for piece in parts], EXTENTS)
        file["chunks"] = np.concatenate(chunks)
        file["cursors"] = np.array(state.cursors, np.int64)
        if state.deal != Deal(state.deal.replicas):
            file["rest"] = np.array(state.deal.rest, np.int64).reshape(-1, len(Piece._fields))
            file["rest"].attrs.update(step=state.deal.step, epochs=state.deal.epochs,
                                      axes=["piece", " ".join(Piece._fields)])
        file["metrics"] = state.metrics
        for name in ("kernel", "eigenvalues"):
            array = getattr(state.preprocessing, name)
            if array is not None:
                file[f"preprocess/{name}"] = array
        places = conditioner_places(state.config)
        for place, conditioner in zip(places, state.conditioners):
            if conditioner:
                _write_conditioner(file.create_group(place), conditioner)
        if state.categories:
            file["classifier/names"] = attribute(state.categories)
        file.attrs.update(kind=KIND, schema=SCHEMA, run=run, step=state.step, seconds=state.seconds,
                          shards=shards, order=state.order,
                          configuration=attribute(configuration.dumps(state.config)),
                          versions=json.dumps(versions()),
                          revision=revision(), host=platform.node(),
                          created=datetime.now(timezone.utc).isoformat(timespec="seconds"))


def conditioner_places(config: Config) -> list[str]:
    """The groups of what stands above each stage, and before a classifier."""
    places = [f"conditioner/stage{number}" for number, _ in enumerate(config.stages, 1)]
    return places + ["conditioner/classifier"] * config.is_supervised


def _write_conditioner(group: h5py.Group, conditioner: Conditioner) -> None:
    """The fitted numbers by name, with the names of their axes (model/conditioner.py)."""
    windows = ["window row", "window col"]
    units = ["krow", "kcol", "map"] if conditioner.is_windowed else ["row", "col", "map"]
    places = windows if conditioner.is_windowed else []
    axes = {"mean": ["row", "col", "map"], "deviation": ["row", "col", "map"], "floor": places,
            "centre": places + units, "directions": [*places, *units, "direction"],
            "spectrum": [*places, "direction"]}
    for name, array in conditioner.arrays().items():
        group[name] = array
        group[name].attrs["axes"] = axes[name] if array.ndim else []


def _pieces(file: h5py.File, shard: int) -> Iterator[tuple[str, _Piece]]:
    """The rectangles of a shard, by the name of the parameter that they are a part of."""
    found: list[tuple[str, h5py.Dataset]] = []
    file.visititems(lambda name, item: found.append((name, item))
                    if isinstance(item, h5py.Dataset) else None)
    for name, data in found:
        if name != "chunks":
            yield name.rpartition("/")[0], _Piece(shard, name, data.shape, data.attrs["row"],
                                                  data.attrs["col"], data.id.get_offset())


def _check_whole(path: Path, name: str, shape: tuple[int, ...], pieces: list[_Piece]) -> None:
    covered = sum(piece.shape[0] * piece.shape[1] for piece in pieces)
    if covered != shape[0] * shape[1]:
        raise InputError(f"{path.parent}: the shards have {covered} of {shape[0] * shape[1]} "
                         f"positions of {name}: the owners do not agree on who holds what")


def _show(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str,
          pieces: list[_Piece]) -> None:
    """A virtual dataset; what is missing in it later on reads as NaN."""
    layout = h5py.VirtualLayout(shape, dtype)
    for piece in pieces:
        rows, cols = (slice(piece.row, piece.row + piece.shape[0]),
                      slice(piece.col, piece.col + piece.shape[1]))
        layout[rows, cols] = h5py.VirtualSource(
            shard_name(piece.shard), piece.name, piece.shape, dtype)
    data = file.create_virtual_dataset(name, layout, fillvalue=np.nan)
    of_classifier = name.rpartition("classifier/")[1]
    data.attrs["axes"] = AXES_OF_CLASSIFIER if of_classifier else AXES
