"""All ranks of the paper in one box: the 13x13 grid and servers, three steps, against one block.

175 ranks on a few cores take minutes and 10 GB, so it runs only when it is asked for::

    HPCLCAE_GRID=13x13 python -m pytest tests/system/test_paper_grid.py
"""
import os
import sys

import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.partition.blocks import Grid
from tests.support.images import structured_images, write_dataset
from tests.support.mpi import ENVIRONMENT, MPIEXEC
from tests.support.processes import RUN, run_limited
from tests.support.saving import datasets

GRID = os.environ.get("HPCLCAE_GRID", "")
SERVERS, MINUTES = 6, 30
#: The paper's image and windows; a narrow network, so that only the geometry is large.
NARROW = ["data.channels=1", "train.steps=3", "train.batch=2", "train.dtype=float64",
          "train.checkpoint_every=1000", "preprocess.whitening=5", "update.rate=0.01",
          *(f"stages.{stage}.maps=1" for stage in range(3))]


@pytest.mark.skipif(MPIEXEC is None or not GRID,
                    reason="it takes minutes: HPCLCAE_GRID=13x13, -o timeout=1800")
def test_the_papers_grid_and_servers_give_the_numbers_of_one_block(tmp_path):
    images = write_dataset(tmp_path / "train.h5", structured_images(12, 200, 1))
    changes = [word for change in [*NARROW, f"data.train={images}"] for word in ("--set", change)]
    train = [sys.executable, "-m", "hpclcae", "train", str(RUN / "paper.toml"), *changes]
    alone = run_limited([*train, "--out", str(tmp_path / "one")], 60 * MINUTES, env=ENVIRONMENT)
    assert alone.returncode == 0, alone.stderr
    ranks = Grid.parse(GRID).size + SERVERS
    served = ["--set", f"parallel.grid={GRID}", "--set", f"parallel.servers={SERVERS}", "--set",
              "parallel.consistency=synchronous"]
    many = run_limited([MPIEXEC, "-n", str(ranks), *train, *served, "--out",
                        str(tmp_path / "many")], 60 * MINUTES, env=ENVIRONMENT)
    assert many.returncode == 0, many.stderr
    one, all_ = (datasets(checkpoint.find(tmp_path / name)) for name in ("one", "many"))
    names = [name for name in one if name.startswith("stage")]
    assert len(names) >= 6
    for name in names:
        np.testing.assert_allclose(all_[name], one[name], rtol=1e-8, atol=1e-11)
