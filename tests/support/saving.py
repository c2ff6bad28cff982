"""Checkpoints written in one process, whoever is to own the shards."""
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from hpclcae import checkpoint, config as configuration
from hpclcae.checkpoint import BlockState, ChunkState, Committer, RunState, ShardWriter
from hpclcae.checkpoint.state import views
from hpclcae.config import Config
from hpclcae.model import preprocess
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import SLOTS
from hpclcae.parameter_server.chunks import Chunk, Shards
from hpclcae.partition.blocks import Grid
from tests.support.images import structured_images

WHOLE = Grid(1, 1)
#: What in a line of metrics differs from run to run.
TIMES = ("seconds", "images_per_second", "gflop_per_second", "timers", "meanwhile")


def owned_chunks(config: Config, grid: Grid, owners: int) -> list[list[Chunk]]:
    """The chunks of every owner, as parameter servers would have them."""
    shards = Shards(Layout(config, grid), owners)
    return [shards.held_by(number) for number in range(owners)]


def save(run: Path, state: BlockState, owners: int = 1) -> Path:
    """Write a checkpoint of a whole network as so many shards; returns its folder."""
    chunk_states = [views(chunks, state.parameters, state.update_state, state.counts)
                    for chunks in owned_chunks(state.config, WHOLE, owners)]
    return save_chunk_states(run, state, WHOLE, chunk_states)


def save_chunk_states(run: Path, state: RunState, grid: Grid,
                      owners: Sequence[Sequence[ChunkState]]) -> Path:
    """Write a checkpoint of what every owner holds; returns its folder."""
    checkpoint.clean(run)
    writers = [ShardWriter(run, number, Layout(state.config, grid))
               for number in range(len(owners))]
    committer = Committer(run, len(owners))
    with contextlib.ExitStack() as opened:  # after an error nobody writes on
        for part in (*writers, committer):
            opened.callback(part.close)
        committer.start(state)
        for writer, chunk_states in zip(writers, owners):
            writer.start(state.step, chunk_states)
        for part in (*writers, committer):
            part.wait()
    return checkpoint.step_folder(run, state.step)


METRICS = '{"step": 5, "objective": 1.5}\n{"step": 7, "objective": 2.25, "note": "\u00e4"}\n'


def made(config, step=7):
    """The state of a network whose every number is another one."""
    network = Network(Layout(config))
    generator = np.random.default_rng(5)

    def filled():
        """Random numbers at every learned position; the kernel's padding stays zero."""
        vector = network.parameters(0)
        for weights in vector.views.values():
            weights *= generator.standard_normal(weights.shape).astype(weights.dtype)
        return vector
    images = structured_images(40, config.data.size, config.data.channels)
    return BlockState(config=config, step=step,
                      preprocessing=preprocess.fit(config.preprocess, images), seconds=1.25,
                      cursors=(7, 9), metrics=METRICS, parameters=filled(),
                      update_state={slot: filled() for slot in SLOTS[config.update.rule]},
                      counts={name: 3 + i for i, name in enumerate(network.parameters().views)})


def datasets(path):
    """Every array of a checkpoint, or of an HDF5 file, by name, read with plain h5py.

    Not who held what, nor times.
    """
    found = {}
    with h5py.File(path / "model.h5" if path.is_dir() else path) as file:
        file.visititems(lambda name, item: found.update({name: item[...]})
                        if isinstance(item, h5py.Dataset) else None)
    return {name: array for name, array in found.items()
            if name not in ("chunks", "places", "metrics")}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]), name


def old_file(path, state):
    """What the first version of the package wrote, by plain h5py."""
    path.parent.mkdir(parents=True)
    network = Network(Layout(state.config))
    with h5py.File(path, "w") as file:
        vectors = {f"update/{slot}/": vector for slot, vector in state.update_state.items()}
        for prefix, vector in {"": state.parameters, **vectors}.items():
            for stage in network.stages:
                for name in stage.parameter_shapes():
                    rows = [stage.filter.unpack_row(vector[name], j)
                            for j in range(stage.filter.tile_rows)]
                    file[prefix + name] = np.concatenate(rows)
        file["preprocess/kernel"] = state.preprocessing.kernel
        file["preprocess/eigenvalues"] = state.preprocessing.eigenvalues
        text = configuration.dumps(state.config).partition("[parallel]")
        file.attrs.update(kind="hpclcae checkpoint", schema=1, step=state.step,
                          seconds=state.seconds,
                          configuration=text[0] + text[2][text[2].index("[[stages]]"):],
                          versions="{}", created="", counts=json.dumps(state.counts))
    return path
