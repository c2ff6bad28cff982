"""What stops a run, and what does not."""
import math

import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.model.stage import StageLoss
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.training.divergence import Divergence
from hpclcae.training.resume import starting_point
from hpclcae.training.trainer import Trainer
from hpclcae.utils.errors import InputError
from tests.support.images import structured_images, write_dataset


def loss(objective):
    return StageLoss(objective, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("first", [0.0, 1e-9, 3.0, 500.0])
def test_a_first_minibatch_without_content_is_no_measure(tiny_config, first):
    """24 x 24 inputs of unit power: an objective of 576 if nothing is reconstructed."""
    divergence = Divergence(tiny_config())
    divergence.check([loss(first)], 0)
    divergence.check([None, loss(0.0)], 1)
    divergence.check([loss(576.0), loss(0.0)], 2)
    divergence.check([loss(500_000.0)], 3)
    with pytest.raises(InputError) as caught:
        divergence.check([loss(600_000.0)], 4)
    line = str(caught.value)
    assert "stage 1" in line and "step 5" in line and f"6e+05, and {first:.3g} in the first" in line


@pytest.mark.parametrize("first, later", [(0.0, math.nan), (5.0, math.inf), (1e4, 1.1e7),
                                          (math.nan, math.nan)])
def test_what_diverges_is_named(tiny_config, first, later):
    divergence = Divergence(tiny_config())
    with pytest.raises(InputError, match="stage 1 is .* likely too large"):
        divergence.check([loss(first)], 0)
        divergence.check([loss(later)], 1)


@pytest.mark.parametrize("changes", [
    [], ["preprocess.whitening=0", *(f"stages.{i}.sparsity=0" for i in range(3))],
    ["train.gradient=greedy"], ["preprocess.contrast=false", "preprocess.whitening=0"]])
def test_blank_pictures_train(tiny_config, tmp_path, changes):
    """One picture in four is not blank; the first minibatch is."""
    images = structured_images(40)
    images[np.arange(40) % 4 > 0] = 255
    write_dataset(tmp_path / "blank.h5", images)
    config = tiny_config(f"data.train={tmp_path / 'blank.h5'}", "train.batch=1", "train.steps=12",
                         "update.rate=0.0001", *changes)
    start = starting_point(config, tmp_path / "run", False, SerialCommunicator())
    Trainer(config, tmp_path / "run", start).train()
    assert checkpoint.step_of(checkpoint.find(tmp_path / "run")) == 12
