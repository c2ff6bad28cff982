"""``predict``: pictures as in training, a line for each, and the broken ones named and counted."""
import csv
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.config import ClassifierConfig, Config, DataConfig
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import predictions
from hpclcae.experiments.record import read_record
from tests.support import folders
from tests.support.images import write_classes
from tests.support.pictures import encode, scene
from tests.support.saving import made, save

SIZE = 12
NAMES = ("red", "green", "blue caf\u00e9")


@dataclass
class Classifier:
    """Stands in for a network: the score of a class is the mean of one colour."""
    config: Config
    categories: tuple[str, ...] = NAMES
    path: Path = Path("runs/made")
    step: int = 7

    def prepare(self, images):
        self.asked = images
        return images.astype(float).transpose(1, 2, 3, 0)

    def scores(self, x):
        return x.mean(axis=(0, 1)) / 255


@pytest.fixture
def model(monkeypatch):
    made = Classifier(Config(data=DataConfig(train="none.h5", size=SIZE, channels=3), stages=(),
                             classifier=ClassifierConfig(loss="logistic")))
    monkeypatch.setattr(Model, "load", classmethod(lambda cls, path: made))
    return made


def plain(colour, kind="PNG"):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., colour] = 200
    return encode(pixels, kind)


@pytest.fixture
def pictures(tmp_path):
    return folders.fill(tmp_path / "my pictures", {
        "a.png": plain(0), "deep/b.jpg": plain(1, "JPEG"), "c.png": b"no picture", "d.txt": b"t"})


def predict(*arguments):
    return cli.main(["predict", "run", *map(str, arguments)])


def test_a_line_for_each_picture_and_the_broken_one_named(model, pictures, tmp_path, capsys):
    archive = folders.make_zip(tmp_path / "more.zip", {"in/e.png": plain(2)})
    assert predict(pictures, archive, pictures / "a.png", "--top", 2) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        f"{pictures}/a.png", f"{pictures}/deep/b.jpg", f"{archive}/in/e.png",
        f"{pictures}/a.png"]
    assert lines[0].startswith(f"{pictures}/a.png: red 68.7%, green 50.0%")
    assert lines[2].partition(": ")[2].startswith("blue caf\u00e9 68.7%")
    assert f"skipped {pictures}/c.png: not a picture" in err
    assert "4 pictures, 1 left out: 1 x not a picture" in err


def test_json_and_csv(model, pictures, capsys):
    assert predict(pictures, "--json", "--top", 9) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["picture"] == f"{pictures}/a.png"
    assert first["labels"] == ["red", "green", "blue caf\u00e9"]
    assert first["scores"][0] == pytest.approx(200 / 255)
    assert first["probabilities"][1:] == [0.5, 0.5]
    assert predict(pictures, "--csv", "--top", 1) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["label1"] for row in rows] == ["red", "green"]
    assert float(rows[0]["probability1"]) == pytest.approx(0.686612, abs=1e-5)


def test_a_file_of_all_scores(model, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predictions, "BATCH", 3)  # more than one batch, the last not full
    many = folders.fill(tmp_path / "many", {f"{i:02d}.png": plain(i % 3) for i in range(10)})
    out = tmp_path / "new" / "said.h5"
    assert predict(many, "--out", out, "--top", 2) == 0
    assert f"10 pictures in {out}" in capsys.readouterr().out
    with h5py.File(out) as file:
        assert file["picture"].asstr()[:].tolist() == [f"{many}/{i:02d}.png" for i in range(10)]
        assert file["classes"].asstr()[:].tolist() == list(NAMES)
        assert file["top"][:, 0].tolist() == [i % 3 for i in range(10)]
        np.testing.assert_allclose(file["scores"][:].max(axis=1), 200 / 255, rtol=1e-6)
        np.testing.assert_allclose(file["probabilities"][:], 1 / (1 + np.exp(-file["scores"][:])),
                                   rtol=1e-6)
    assert predict(many, "--out", out) == 0  # an earlier one of ours
    other = tmp_path / "mine.h5"
    other.write_bytes(b"mine")
    assert predict(many, "--out", other) == 1
    assert "is not a file of predictions of ours" in capsys.readouterr().err
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("crop, channels", [("centre", "rgb"), ("fit", "grey")])
def test_pictures_are_prepared_as_those_of_the_training_set(model, tmp_path, crop, channels):
    photos = folders.fill(tmp_path / "photos", {
        "a.png": encode(scene(1)[:60], "PNG"), "b.jpg": encode(scene(2), "JPEG")})
    assert cli.main(["data", "ingest", str(photos), "--out", str(tmp_path / "a.h5"), "--size",
                     str(SIZE), "--crop", crop, "--channels", channels]) == 0
    model.config = replace(model.config, data=DataConfig(
        train=str(tmp_path / "a.h5"), size=SIZE, channels=1 if channels == "grey" else 3))
    model.scores = lambda x: np.zeros((3, x.shape[-1]))
    assert predict(photos) == 0
    with Dataset(tmp_path / "a.h5") as dataset:
        order = np.argsort(dataset.sources)
        np.testing.assert_array_equal(model.asked, dataset.read(order))


def test_a_picture_smaller_than_the_network_is_enlarged(model, tmp_path, capsys):
    folders.fill(tmp_path / "small", {"a.png": encode(np.full((3, 5, 3), 9, np.uint8), "PNG")})
    assert predict(tmp_path / "small") == 0
    assert model.asked.shape == (1, SIZE, SIZE, 3)


def test_what_cannot_work_is_one_line(model, pictures, tmp_path, capsys):
    def error(*arguments):
        assert predict(*arguments) == 1
        lines = [line for line in capsys.readouterr().err.splitlines()
                 if line.startswith("hpclcae")]
        assert len(lines) == 1
        return lines[0]
    assert "none.png does not exist" in error(tmp_path / "none.png")
    assert "can be used (1 x not a picture)" in error(pictures / "c.png")
    model.categories = ()
    assert "has no classifier: hpclcae finetune" in error(pictures)
    with pytest.raises(SystemExit):
        predict(pictures, "--json", "--csv")
    assert "not allowed with" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tuned(tiny_config, tmp_path_factory):
    """Real runs of finetune, a few steps each: pretrained weights, and random ones."""
    folder = tmp_path_factory.mktemp("tuned")
    pretrained = save(folder / "pretrained", made(tiny_config()))
    data = write_classes(folder / "classes.h5")
    (folder / "finetune.toml").write_text("")
    changes = [f"data.train={data}", "data.mirror=false", "train.steps=4", "train.batch=10",
               "classifier.steps=2", "train.checkpoint_every=4", "classifier.validation=0.2"]
    for name, words in (("pretrained-run", []), ("random-run", ["--random-weights"])):
        assert cli.main(["finetune", str(pretrained), str(folder / "finetune.toml"), *words,
                         "--out", str(folder / name),
                         *(word for change in changes for word in ("--set", change))]) == 0
    return folder


def test_a_real_classifier_says_of_pictures_what_it_says_of_the_dataset(tuned, tmp_path, capsys):
    with Dataset(tuned / "classes.h5") as dataset:
        images = dataset.read(np.arange(5))
    pictures = folders.fill(tmp_path / "p", {f"{i}.png": encode(image[:, :, 0], "PNG")
                                             for i, image in enumerate(images)})
    out = tmp_path / "said.h5"
    assert cli.main(["predict", str(tuned / "pretrained-run"), str(pictures), "--out",
                     str(out)]) == 0
    real = Model.load(tuned / "pretrained-run")
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["scores"][:].T, real.scores(real.prepare(images)),
                                   rtol=1e-5, atol=1e-6)
        assert file["classes"].asstr()[:].tolist() == ["class 0", "class 1", "class 2"]


@pytest.fixture
def compared(tuned):
    """What is typed to compare the two runs; results go into the first."""
    run, other = str(tuned / "pretrained-run"), str(tuned / "random-run")
    yield ["experiment", "categories", run, "--beside", other]
    shutil.rmtree(tuned / "pretrained-run" / "experiments", ignore_errors=True)


def test_runs_beside_their_control_and_beside_pixels(tuned, compared, capsys):
    assert cli.main(compared) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("pretrained, then fine-tuned", "random weights, then trained",
                  "logistic regression on pixels", "4 updates of 10 images"):
        assert words in out
    rows = read_record(compared[2], "categories")["values"]["rows"]
    assert [row["seeds"] for row in rows] == [[0]] * 3
    assert cli.main([*compared, compared[2]]) == 1
    assert "leave one of them out" in capsys.readouterr().err


def test_all_experiments_have_this_one_where_there_is_a_classifier(tuned, compared, capsys):
    def every(run):
        return cli.main(["experiment", "all", str(run), "--only", "categories", "--beside",
                         compared[-1]])
    assert every(tuned / "pretrained-run") == 0
    assert read_record(compared[2], "categories")["command"].endswith(f"--beside {compared[-1]}")
    capsys.readouterr()
    assert every(tuned / "pretrained-run") == 0
    assert "categories: done already" in capsys.readouterr().out
    assert every(tuned / "pretrained") == 0
    assert "left out: categories: there is no classifier: hpclcae" in capsys.readouterr().out


def test_a_result_of_another_step_is_not_compared(tuned, compared, capsys, tmp_path):
    shutil.copytree(tuned / "random-run", tmp_path / "run")
    with h5py.File(tmp_path / "run" / "classification.h5", "r+") as file:
        file.attrs["step"] = 2
    assert cli.main([*compared[:-1], str(tmp_path / "run")]) == 1
    assert "result of step 2, and its best checkpoint is step 4: hpclcae evaluate" in (
        capsys.readouterr().err)
