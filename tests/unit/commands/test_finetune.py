"""hpclcae finetune and evaluate: from a trained network to classes, as it is typed."""
import json

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint, cli, config as configuration
from hpclcae.data.dataset import Dataset
from hpclcae.data.halves import DEVELOPMENT, FINAL
from hpclcae.data.writer import DatasetWriter
from hpclcae.experiments.classification import read_arrays
from hpclcae.training.trainer import Trainer
from hpclcae.utils.errors import InputError
from tests.support.images import write_classes, write_dataset, structured_images
from tests.support.processes import RUN
from tests.support.saving import made, save

CHANGES = ["train.steps=4", "train.batch=10", "train.checkpoint_every=2", "classifier.steps=2",
           "classifier.batch=10", "classifier.validation=0.2", "train.condition_images=40",
           "train.log_every=1"]


@pytest.fixture(scope="module")
def place(tiny_config, tmp_path_factory):
    """A trained network, images of three classes, and a fine-tuned run; nobody writes to it."""
    folder = tmp_path_factory.mktemp("place")
    save(folder / "trained", made(tiny_config()))
    write_classes(folder / "classes.h5")
    assert typed(folder) == 0
    return folder


def typed(folder, *more, name="run", config=RUN / "finetune.toml"):
    words = ["finetune", folder / "trained", config, "--out", folder / name, "--set",
             f"data.train={folder / 'classes.h5'}"]
    for change in CHANGES:
        words += ["--set", change]
    return cli.main([str(word) for word in (*words, *more)])


def refused(capsys, folder, *more, **options):
    """The one line that refuses."""
    capsys.readouterr()
    assert typed(folder, *more, **options) == 1
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1 and message[0].startswith("hpclcae finetune: ")
    return message[0]


def test_it_trains_tests_and_leaves_what_it_found(place, capsys):
    with open(place / "run/classification.json") as file:
        found = json.load(file)
    assert found["part"] == "test" and found["classes"] == 3 and found["loss"] == "logistic"
    assert 0 <= found["top1"] <= found["top5"] == 1
    arrays = read_arrays(place / "run/classification.h5")
    assert arrays.names == ("class 0", "class 1", "class 2")
    assert arrays.evaluation.summary() == pytest.approx({key: found[key] for key in
                                                         arrays.evaluation.summary()})
    best = checkpoint.find_best(place / "run")
    assert found["step"] == checkpoint.step_of(best)
    state = checkpoint.load_state(best)
    assert state.config.classifier.classes == 3 and state.categories == arrays.names
    with h5py.File(place / "run/classification.h5") as file:
        assert file["names"].asstr()[...].tolist() == list(arrays.names)


def test_a_run_that_was_ended_early_is_not_tested_before_it_is_complete(place, capsys, monkeypatch):
    train = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self, stop_at=None: train(self, 2))  # a signal
    assert typed(place, name="ended") == 0
    assert "not tested, as training is not complete" in capsys.readouterr().out
    assert not (place / "ended/classification.json").exists()
    monkeypatch.undo()
    assert typed(place, "--resume", name="ended") == 0
    assert (place / "ended/classification.json").exists()


def test_a_run_goes_on_by_its_own_configuration_too(place, capsys):
    """As hpclcae status tells: it is a run like any other."""
    words = ["train", str(place / "run/configuration.toml"), "--out", str(place / "run"),
             "--resume"]
    assert cli.main(words) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert cli.main(["status", str(place / "run")]) == 0
    assert "complete, step 4 of 4" in capsys.readouterr().out


def test_evaluation_of_several_is_one_table_and_may_be_of_another_part(place, tmp_path, capsys):
    assert typed(place, "--random-weights", name="random") == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(place / "run"), str(place / "random")]) == 0
    text = capsys.readouterr().out
    assert text.count("top 1 %") == 1 and "/run" in text and "/random" in text
    assert cli.main(["evaluate", str(place / "run"), "--part", "train", "--out",
                     str(tmp_path / "of-train")]) == 0
    with open(tmp_path / "of-train/classification.json") as file:
        assert json.load(file)["part"] == "train"
    with open(place / "run/classification.json") as file:
        assert json.load(file)["part"] == "test"


def other_images(place, path, classes, half):
    """Images that the run has not seen, in other order of classes; `half` is that of all."""
    with Dataset(place / "classes.h5") as dataset:
        unseen = read_arrays(place / "run/classification.h5").indices
        shown, labels = dataset.read(unseen), dataset.labels[unseen]
    with DatasetWriter(path, 24, 1, classes) as writer:
        for i, (image, label) in enumerate(zip(shown, labels)):
            if f"class {label}" in classes:
                writer.append(image, source=f"own/{i}", group=f"own/{i}", original=(24, 24),
                              crop=(0, 0, 24, 24), label=classes.index(f"class {label}"),
                              half=half)
    return str(path)


def test_a_set_that_is_for_the_test_alone_is_evaluated_by_the_names_of_its_classes(
        place, tmp_path, capsys):
    run, whole = str(place / "run"), read_arrays(place / "run/classification.h5")
    for name, classes, half, words in (
            ("final", ["class 2", "class 0", "class 1"], FINAL, []),
            ("unhalved", ["class 1", "class 0", "class 2"], -1, ["--part", "all"]),
            ("one", ["class 1", "unused"], FINAL, [])):
        data = other_images(place, tmp_path / f"{name}.h5", classes, half)
        assert cli.main(["evaluate", run, "--data", data, *words, "--out",
                         str(tmp_path / name)]) == 0
        found = read_arrays(tmp_path / name / "classification.h5")
        kept = (np.ones(whole.indices.size, bool) if name != "one"
                else whole.evaluation.labels == 1)
        np.testing.assert_array_equal(found.evaluation.labels, whole.evaluation.labels[kept])
        np.testing.assert_array_equal(found.evaluation.predicted, whole.evaluation.predicted[kept])
    assert "has learned from" not in capsys.readouterr().out
    # what is no test says so, and what it does not know is named
    assert cli.main(["evaluate", run, "--part", "all", "--out", str(tmp_path / "all")]) == 0
    assert "note: 45 of the 90 images show what the classifier has learned from" in (
        capsys.readouterr().out)
    data = other_images(place, tmp_path / "dev.h5", ["class 0", "class 1"], DEVELOPMENT)
    assert cli.main(["evaluate", run, "--data", data, "--out", str(tmp_path / "d")]) == 1
    assert "has no test images (--part all has those of both halves)" in capsys.readouterr().err
    with h5py.File(data, "r+") as file:
        file["labels"].attrs["label_names"] = ["class 0", "a cat"]
    assert cli.main(["evaluate", run, "--data", data, "--out", str(tmp_path / "d")]) == 1
    assert "has other classes than the classifier of" in (said := capsys.readouterr().err)
    assert "(a cat)" in said and said.count("\n") == 1


def test_figures_are_drawn(place, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert cli.main(["figures", str(place / "run"), "--out", str(tmp_path)]) == 0
    drawn = {file.name for file in tmp_path.iterdir()}
    assert {"objective.png", "classifier.png", "confusion.png", "reliability.png"} <= drawn


def test_what_cannot_be_is_one_line_before_training(place, tmp_path, capsys):
    file = tmp_path / "some.toml"
    file.write_text("[data]\nsize = 24\n")
    plain = write_dataset(tmp_path / "plain.h5", structured_images(20))
    for words, message in (
            ([], "already holds a run"),
            (["--set", f"data.train={plain}"], "has no labels: hpclcae data ingest"),
            (["--set", "data.train=/nowhere.h5"], "/nowhere.h5"),
            (["--set", "classifier.classes=5"], "has 3 classes, classifier.classes = 5"),
            (["--set", "classifier.losses=5"], "unknown key 'classifier.losses'"),
            (["--set", "train.weights=other"], "train.weights is that of the checkpoint"),
            (["--servers", "1"], "hpclcae launch --on ")):
        name = "run" if not words else "other"
        assert message in refused(capsys, place, *words, name=name)
    assert "data.size is that of the checkpoint" in refused(capsys, place, config=file, name="x")
    assert not (place / "other").exists()


def test_one_class_and_a_class_without_test_images_are_refused(place, capsys):
    other = place / "changed.h5"
    for labels, message in (([0] * 90, "a classifier needs two classes or more"),
                            ([0, 1] * 44 + [1, 2], "of 1 of 3 classes (class 2)")):
        other.write_bytes((place / "classes.h5").read_bytes())
        with h5py.File(other, "r+") as file:
            file["labels"][...] = np.array(labels)
        assert message in refused(capsys, place, "--set", f"data.train={other}", name="other")


def test_results_that_are_damaged_are_named(place, tmp_path):
    with pytest.raises(InputError, match="hpclcae evaluate"):
        read_arrays(tmp_path / "classification.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["kind"] = "something else"
    with pytest.raises(InputError, match="no result of hpclcae evaluate"):
        read_arrays(tmp_path / "other.h5")


def test_what_will_be_trained_is_shown_and_written_for_other_commands(place, tmp_path, capsys):
    """hpclcae show --on: layers and classes; with --settings a configuration of its own."""
    words = ["show", str(RUN / "finetune.toml"), "--on", str(place / "trained"), "--set",
             f"data.train={place / 'classes.h5'}"]
    for change in CHANGES:
        words += ["--set", change]
    assert cli.main(words) == 0
    assert "3 classes x 2 features" in capsys.readouterr().out
    assert cli.main([*words, "--settings"]) == 0
    file = tmp_path / "classes.toml"
    file.write_text(capsys.readouterr().out)
    config = configuration.load(file)
    assert config.classifier.classes == 3 and config.train.weights == str(place / "trained")
    assert config == checkpoint.load_state(checkpoint.find(place / "run")).config
