"""The images that conditioners are fitted on: which, by whom they are read."""
import threading

import numpy as np
import pytest

from hpclcae import config as configuration
from hpclcae.data import fitting
from hpclcae.data.dataset import Dataset
from hpclcae.data.minibatches import read_shown
from hpclcae.data.writer import DatasetWriter
from hpclcae.model import preprocess
from tests.support.processes import RUN

COUNT, MOST = 60, 30


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Images of which those from 10 to 50 come in pairs."""
    path = tmp_path_factory.mktemp("data") / "pairs.h5"
    random = np.random.default_rng(0)
    with DatasetWriter(path, 12, 1) as writer:
        for i in range(COUNT):
            writer.append(random.integers(0, 256, (12, 12, 1), dtype=np.uint8), source="s",
                          group=f"s/{i}", original=(12, 12), crop=(0, 0, 12, 12),
                          pair=i - 1 if 10 <= i < 50 and i % 2 else -1)
    return path


@pytest.mark.parametrize("pairs", [False, True])
def test_a_thread_reads_a_portion_while_the_one_before_is_used(path, pairs, monkeypatch):
    config = configuration.load(RUN / "tiny.toml", [
        f"train.condition_images={MOST}", "data.mirror=true",
        *(("stages.0.window=10", "stages.0.window_stride=8", "stages.0.whiten=4",
           "stages.0.whiten_by=pairs", "stages.1.receptive_field=1", "stages.1.pooling=1",
           "stages.2.receptive_field=1", "stages.2.pooling=1", "train.gradient=greedy",
           "stages.0.lcn=0") if pairs else ())])
    generator = np.random.default_rng([config.train.seed, 2, 0])
    if pairs:
        firsts = generator.permutation(np.arange(10, 50, 2))[:MOST // 2]
        chosen = np.stack([firsts, firsts + 1], axis=1).ravel()
        mirrored = np.repeat(generator.random(MOST // 2) < 0.5, 2)
    else:
        chosen = np.sort(generator.permutation(COUNT)[:MOST])
        mirrored = generator.random(MOST) < 0.5
    readers = []

    def read(*arguments):
        readers.append(threading.current_thread())
        return read_shown(*arguments)
    monkeypatch.setattr(fitting, "read_shown", read)
    monkeypatch.setattr(fitting, "PORTION", 8)
    monkeypatch.setattr("hpclcae.data.dataset.ROWS", 16)
    with Dataset(path) as dataset:
        prepare = preprocess.fit(config.preprocess, dataset.read(np.arange(COUNT))).preprocessor(
            12, np.float32)
        given = fitting.fitting_pass(config, dataset, 0, prepare)
        for _ in range(2):
            found = np.concatenate([*given()], axis=-1)
            expected = [prepare(read_shown(dataset, chosen[at:at + 8], mirrored[at:at + 8]))
                        for at in range(0, MOST, 8)]
            np.testing.assert_array_equal(found, np.concatenate(expected, axis=-1))
        assert len(readers) == 8 and threading.main_thread() not in readers
        for _ in given():  # nobody wants the rest
            break
    assert not any(thread.name == "images" and thread.is_alive() and thread not in readers
                   for thread in threading.enumerate())
