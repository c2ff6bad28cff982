"""Checkpoints: one HDF5 file that plain h5py can read.

Layout of ``step-00000200.h5``::

    stage1/encode, stage1/decode   (row, col, krow, kcol, map in, map)  weights by position
    update/<slot>/stage1/encode    the update rule's memory, same axes
    preprocess/kernel, preprocess/eigenvalues
    attributes: kind, schema, step, configuration (TOML), counts, seconds, versions, created

Weights are stored by position, not in the kernel's layout, so any tile size, grid or version can load
them. ``encode`` are the learned weights; normalised filters are ``encode / ||encode||`` (layers/unit_norm.py).
"""
import json
import platform
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import h5py
import numpy as np
import scipy

from hpclcae import __version__, config as configuration
from hpclcae.config import Config
from hpclcae.files import replacing_hdf5
from hpclcae.exchange import Letters, Messenger
from hpclcae.network import Network
from hpclcae.parameters import ParameterVector
from hpclcae.partition import plan_block
from hpclcae.preprocess import Preprocessing
from hpclcae.stage import Stage

KIND = "hpclcae checkpoint"
SCHEMA = 1
_TAG = 10_000  # of messages with weights; exchanges of halos have smaller ones


@dataclass
class Checkpoint:
    """Everything that a run needs to go on.

    step : int
        Finished steps.
    update_state, counts
        See update_rules.UpdateRule.
    seconds : float
        Training time so far.
    """
    config: Config
    step: int
    parameters: ParameterVector
    preprocessing: Preprocessing
    update_state: dict[str, ParameterVector] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def path_of(folder: Path, step: int) -> Path:
    """Name of the checkpoint of `step` in a run's folder of checkpoints."""
    return folder / f"step-{step:08d}.h5"


def save(path: Path, state: Checkpoint, network: Network) -> None:
    """Write a checkpoint: to a temporary name, flushed to the disk, then renamed.

    In a network of many blocks all call this; the first gathers the weights, one block at a time, and writes.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written; older checkpoints are untouched.
    """
    vectors = {"": state.parameters, **{f"update/{slot}/": v for slot, v in state.update_state.items()}}
    if network.messenger.rank:
        for vector in vectors.values():
            for name, weights in vector.views.items():
                _send_weights(network, name, weights)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_hdf5(path) as file:
        for prefix, vector in vectors.items():
            for name, weights in vector.views.items():
                _write_weights(file, prefix + name, network, name, weights)
        for name in ("kernel", "eigenvalues"):
            array = getattr(state.preprocessing, name)
            if array is not None:
                file[f"preprocess/{name}"] = array
        versions = {"hpclcae": __version__, "python": platform.python_version(), "numpy": np.__version__,
                    "scipy": scipy.__version__, "h5py": h5py.__version__}
        file.attrs.update(kind=KIND, schema=SCHEMA, step=state.step, seconds=state.seconds,
                          configuration=configuration.dumps(state.config), counts=json.dumps(state.counts),
                          versions=json.dumps(versions),
                          created=datetime.now(timezone.utc).isoformat(timespec="seconds"))


def _stages(network: Network) -> dict[str, Stage]:
    return {name: stage for stage in network.stages for name in stage.parameter_shapes()}


def _write_weights(file: h5py.File, path: str, network: Network, name: str, weights: np.ndarray) -> None:
    """Write one parameter by position: this block's, then what the others send."""
    stage = _stages(network)[name]
    plan, (rows, cols, maps) = stage.filter, stage.geometry.filtered
    data = file.create_dataset(path, (rows, cols, plan.field, plan.field, plan.maps_in, maps), weights.dtype)
    data.attrs["axes"] = ["row", "col", "krow", "kcol", "map in", "map"]
    owned = stage.plan.z.owned
    for j in range(plan.tile_rows):
        first, last = owned.rows[0] + j * plan.tile, min(owned.rows[0] + (j + 1) * plan.tile, owned.rows[1])
        data[first:last, slice(*owned.cols)] = plan.unpack_row(weights, j)
    for rank in range(1, network.messenger.size):
        owned = plan_block(network.config, network.grid, rank).stages[network.stages.index(stage)].z.owned
        if owned.size:
            filters = np.empty((*owned.shape, *data.shape[2:]), weights.dtype)
            _transfer(network.messenger, [], [(rank, filters)])
            data[slice(*owned.rows), slice(*owned.cols)] = filters


def _send_weights(network: Network, name: str, weights: np.ndarray) -> None:
    """Send this block's part of a parameter to the block that writes."""
    plan = _stages(network)[name].filter
    if weights.size:
        filters = np.concatenate([plan.unpack_row(weights, j) for j in range(plan.tile_rows)])
        _transfer(network.messenger, [(0, filters)], [])


def _transfer(messenger: Messenger, sends: Letters, receives: Letters) -> None:
    channel = messenger.channel(_TAG, sends, receives)
    channel.start()
    channel.wait()
    channel.close()
