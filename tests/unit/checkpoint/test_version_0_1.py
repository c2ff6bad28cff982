"""Checkpoints of version 0.1 are read, and training goes on from them.

version_0_1/ was written by revision c5ae7d0 (2026-11-22): four steps with Adam in one process, and
four of two replicas in lockstep with momentum and two servers; OBJECTIVES are what it came to in
the four steps after that. A network on another grid reads them as well.
"""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpclcae import checkpoint, config as configuration
from hpclcae.model.layout import Layout
from hpclcae.partition.blocks import Grid
from hpclcae.training.local_job import run_local_job
from hpclcae.training.trainer import Trainer
from tests.support.saving import datasets

FOLDER = Path(__file__).parent / "version_0_1"
OBJECTIVES = {"alone": [303.0501680570841, 244.17406489491464, 245.9014352557063,
                        256.517786564976],
              "served": [152.19473008811474, 141.29228881388903, 152.68615132272242,
                         141.76498151361943]}


@pytest.fixture(params=["alone", "served"])
def run(request, tmp_path):
    """A copy of a run, and its configuration with the images where they are."""
    folder = tmp_path / request.param
    shutil.copytree(FOLDER / request.param, folder)
    images = f"data.train={FOLDER / 'train.h5'}"
    return folder, configuration.load(folder / "configuration.toml", [images])


def test_it_verifies_and_shows_what_it_holds(run):
    folder, config = run
    path = checkpoint.find(folder)
    checkpoint.verify(path)
    state = checkpoint.load_state(path)
    assert state.step == 4 and state.cursors == (4,) * config.parallel.replicas
    slots = {"adam": ["first_moment", "second_moment"], "momentum": ["velocity"]}
    names = [f"{prefix}stage{n}/{part}" for n in (1, 2) for part in ("encode", "decode")
             for prefix in ("", *(f"update/{slot}/" for slot in slots[config.update.rule]))]
    assert set(names) <= set(datasets(path))


@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(2, 2)], ids=str)
def test_any_grid_reads_the_same_weights(run, grid):
    path = checkpoint.find(run[0])
    layout, stored = Layout(checkpoint.load_state(path).config, grid), datasets(path)
    for rank in range(grid.size):
        block = layout.block(rank)
        state = checkpoint.load_block(path, block)
        for name, kernel in block.filters.items():
            (top, bottom), (left, right) = block.positions(
                name, ((0, kernel.tile_rows), (0, kernel.tile_cols)))
            for prefix, vector in {"": state.parameters, **{
                    f"update/{slot}/": v for slot, v in state.update_state.items()}}.items():
                found = np.concatenate([kernel.unpack_row(vector[name], j)
                                        for j in range(kernel.tile_rows)])
                assert np.array_equal(found, stored[prefix + name][top:bottom, left:right])


def test_training_goes_on_as_version_0_1_did(run):
    folder, config = run
    start = checkpoint.find(folder)
    if config.parallel.servers:
        run_local_job(config, folder, start)
    else:
        Trainer(config, folder, start).train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    np.testing.assert_allclose([row["objective"] for row in rows[4:]], OBJECTIVES[folder.name],
                               rtol=1e-5)  # other processors and libraries round otherwise
    checkpoint.verify(checkpoint.find(folder))
