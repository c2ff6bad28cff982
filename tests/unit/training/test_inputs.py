"""What a step gets does not depend on when it was made, where pixels were kept, or by whom."""
import json
import threading
import tracemalloc

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.cluster.memory import worker_bytes
from hpclcae.data.dataset import Dataset
from hpclcae.data.dealing import Deal
from hpclcae.data.minibatches import MinibatchStream
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.phases import phases
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.partition.threads import run_blocks
from hpclcae.training.inputs import Inputs
from hpclcae.training.resume import fit_preprocessing, starting_point
from hpclcae.training.trainer import Trainer
from hpclcae.utils.errors import InputError
from tests.support.images import structured_images, write_dataset
from tests.support.saving import assert_same, datasets

GREEDY = ["train.gradient=greedy", "train.steps=40", "train.batch=7", "stages.0.steps=8",
          "stages.1.steps=24", "train.cache=memory", "train.condition_images=20"]
JOINT = ["train.steps=20", "train.batch=7"]
COUNT = 10_000_000


def pixels_of(inputs):
    return inputs._pixels.kept


@pytest.mark.parametrize("keep", ["data.keep=0", "data.keep=1"])
@pytest.mark.parametrize("changes", [JOINT, GREEDY, [*GREEDY, "data.mirror=false"]],
                         ids=["joint", "kept responses", "not mirrored"])
@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(1, 2), Grid(2, 1)], ids=str)
def test_inputs_of_the_thread_are_those_made_at_once(tiny_config, tmp_path, grid, changes, keep):
    """Over the ends of epochs (of 60 images), on all blocks: the same bits."""
    config = tiny_config(*changes, keep)
    count = 33  # an epoch ends inside of a minibatch, and images come again before they are there
    path = write_dataset(tmp_path / "train.h5", structured_images(count))
    layout = Layout(config, grid)

    def block(communicator):
        with Dataset(path) as dataset:
            fitted = fit_preprocessing(config, dataset)
            found = []
            for ahead in (True, False):
                network = Network(layout, communicator)
                parameters = network.parameters(1)
                prepare = fitted.preprocessor(config.data.size, network.dtype,
                                              network.block.plan.stages[0].x, communicator)
                batches = MinibatchStream(dataset, phases(config), 3, mirror=config.data.mirror)
                with Inputs(network, batches, prepare, (), ahead=ahead) as inputs:
                    for step in range(config.train.steps):
                        inputs.begin(step, parameters)
                        found.append(inputs.read(step, parameters).copy())
                    assert (pixels_of(inputs) is not None) == (ahead and keep == "data.keep=1")
                inputs.close()
        steps = config.train.steps
        return [np.array_equal(found[step], found[steps + step]) for step in range(steps)]
    for same in run_blocks(grid.size, block):
        assert all(same)


def test_pixels_are_read_once(tiny_config, tiny_dataset, tmp_path, monkeypatch):
    read = []
    original = Dataset.read

    def counted(self, indices, *slab):
        if threading.current_thread().name == "images":
            read.extend(np.asarray(indices).tolist())
        return original(self, indices, *slab)
    monkeypatch.setattr(Dataset, "read", counted)
    config = tiny_config("train.steps=12", "data.keep=1")  # four epochs
    Trainer(config, tmp_path / "run").train()
    assert sorted(read) == list(range(60))


def test_pixels_are_kept_if_they_fit_beside_the_network(tiny_config, tmp_path, monkeypatch):
    config = tiny_config("train.steps=2", "data.keep=0.5")
    needed = worker_bytes(Layout(config), False) + 2 * 60 * (24 * 24 + 1)
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr("hpclcae.training.cache.available_memory", lambda: free)
        inputs = Trainer(config, tmp_path / "run").inputs
        assert (pixels_of(inputs) is not None) == fits


def test_a_dataset_that_fails_while_training_is_one_line_and_leaves_no_thread(
        tiny_config, tmp_path, monkeypatch):
    original, calls = Dataset.read, []

    def failing(self, *arguments):
        calls.append(threading.current_thread().name)
        if len(calls) == 6:
            raise InputError("train.h5 cannot be read as HDF5 dataset: write it again")
        return original(self, *arguments)
    monkeypatch.setattr(Dataset, "read", failing)
    with pytest.raises(InputError, match="^train.h5 cannot be read"):
        Trainer(tiny_config("data.keep=0"), tmp_path / "run").train()
    assert calls[-1] == "images"
    for thread in threading.enumerate():
        if thread.name == "images":
            thread.join(60)
            assert not thread.is_alive()


def test_metrics_and_the_last_line_say_what_waits_for_what(tiny_config, tmp_path, capsys):
    Trainer(tiny_config("train.steps=10"), tmp_path / "run").train()
    lines = list(map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines()))
    for line in lines:
        assert {"wait for images", "forward", "fetch"} <= line["timers"].keys()
        assert line["meanwhile"].keys() == {"read", "prepare"}
        assert all(0 <= s <= line["seconds"] for s in line["timers"].values())
    last = capsys.readouterr().out.splitlines()[-1]
    assert "wait for images 0." in last and "; meanwhile read 0." in last and "prepare 0." in last


@pytest.fixture(scope="module")
def ten_million(tmp_path_factory):
    """Ten million images: an index of HDF5 that shows a file of 65,536 again and again."""
    folder = tmp_path_factory.mktemp("large")
    size, shape = 2**16, (24, 24, 1)
    random = np.random.default_rng(0)
    with h5py.File(folder / "shard.h5", "w") as file:
        pixels = np.repeat(random.integers(0, 256, (64, *shape), np.uint8), size // 64, axis=0)
        pixels.reshape(size, -1)[:, :2] = np.arange(size, dtype=np.uint16)[:, None].view(np.uint8)
        file["images"] = pixels
    write_dataset(folder / "few.h5", structured_images(2))
    layout = h5py.VirtualLayout((COUNT, *shape), np.uint8)
    for first in range(0, COUNT, size):
        part = min(size, COUNT - first)
        source = h5py.VirtualSource("shard.h5", "images", (size, *shape), np.uint8)
        layout[first:first + part] = source[:part]
    with h5py.File(folder / "few.h5") as few, h5py.File(folder / "index.h5", "w") as file:
        file.create_virtual_dataset("images", layout)
        file.attrs.update(few.attrs)
    return folder / "index.h5"


@pytest.mark.parametrize("changes", [[], ["parallel.replicas=3", "parallel.servers=1"]],
                         ids=["one replica", "third of three"])
def test_images_of_ten_million_are_those_of_their_indices(ten_million, tiny_config, changes):
    config = tiny_config(*changes)
    with Dataset(ten_million) as dataset:
        replicas = config.parallel.replicas
        batches = MinibatchStream(dataset, phases(config), 0, replicas - 1, Deal(replicas))
        assert batches.first + batches.count == COUNT
        for step in (0, 1, batches.count // 20, 10**8):  # the end of the first epoch, far beyond
            numbers = batches.images(step).reshape(20, -1)[:, :2].copy().view(np.uint16)[:, 0]
            assert np.array_equal(numbers, batches.indices(step) % 2**16)


def test_training_on_ten_million_images_takes_no_memory_for_them_and_resumes(
        ten_million, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr("hpclcae.training.cache.available_memory", lambda: 16e9)  # too few
    config = tiny_config(f"data.train={ten_million}", "train.steps=9", "data.keep=0.25",
                         "train.checkpoint_every=100")

    def train(run, stop_at=None, resume=False):
        start = starting_point(config, run, resume, SerialCommunicator())
        Trainer(config, run, start).train(stop_at)
        return datasets(checkpoint.find(run))
    tracemalloc.start()
    whole = train(tmp_path / "whole")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # one byte for each would be 10e6, an order 80e6, the pixels 5.8e9
    train(tmp_path / "twice", stop_at=4)
    assert_same(whole, train(tmp_path / "twice", resume=True))
