"""``hpclcae experiment autoencoders``, ``kmeans``, ``without-faces``: tables and bad input."""
import sys

import numpy as np
import pytest

from hpclcae import cli
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import rivals, without_faces
from hpclcae.experiments.record import read_record
from tests.support.tiny_run import write_images, write_run

QUICK = ["--bootstrap", "100", "--batch", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("rivals")
    write_run(place)
    write_run(place, name="other", weights=6)
    write_images(place / "labelled.h5", 60, labels=True, seed=4)
    return place


def experiment(folder, name, *words):
    return cli.main(["experiment", name, str(folder / "run"), *QUICK, *map(str, words)])


def rows_of(folder, name):
    return {row["name"]: row for row in read_record(str(folder / "run"), name)["values"]["rows"]}


def test_autoencoders_stand_beside_the_network(folder, capsys):
    assert experiment(folder, "autoencoders", "--layers", 2, 3, "--steps", 15) == 0
    said = capsys.readouterr().out
    assert "Table 2, face: test.h5" in said and "12x12x1 -> " in said
    rows = rows_of(folder, "autoencoders")
    assert list(rows) == ["chance", "autoencoder, 2 layers", "autoencoder, 3 layers",
                          "trained, stage 2"]
    assert all(row["candidates"] for name, row in rows.items() if name != "chance")
    assert rows["autoencoder, 3 layers"]["paper_faces"]["percent"] == 72.3


def test_an_autoencoder_learns_to_reconstruct(folder):
    def last_loss(steps):
        with Dataset(folder / "train.h5") as train:
            note = rivals.train_autoencoder(train, 2, 4, steps, 20, 0.03, 0).note
        return float(note.split("last losses ")[1].split(",")[0])
    assert last_loss(60) < 0.8 * last_loss(1)


def test_kmeans_stands_beside_the_network(folder, capsys):
    pytest.importorskip("sklearn")
    assert experiment(folder, "kmeans", "--centroids", 6) == 0
    assert "images of 12x12, as they are" in " ".join(capsys.readouterr().out.split())
    assert rows_of(folder, "kmeans")["k-means, 6 centroids"]["candidates"] == 6


def test_a_centroid_answers_with_minus_the_distance(folder):
    pytest.importorskip("sklearn")
    with Dataset(folder / "train.h5") as train:
        rival = rivals.train_kmeans(train, 5, 60, 20, 0)
        pixels = train.read(np.arange(8))
    x = rivals.small_images(12, 12)(pixels)
    answers = rival.respond(pixels)[0]
    assert answers.shape == (1, 1, 5, 8) and (answers <= 0).all()
    nearest = answers[0, 0].argmax(axis=0)
    for image, at in enumerate(nearest):  # the nearest centroid answers most
        assert answers[0, 0, at, image] == answers[0, 0, :, image].max()
    assert x.shape == (8, 144)


def test_large_images_are_shrunk_to_40(folder):
    pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 1)).astype(np.uint8)
    assert rivals.small_images(64, 40)(pixels).shape == (3, 1600)


@pytest.mark.parametrize("name, words, message", [
    ("kmeans", [], "pip install 'hpclcae[kmeans]'"),
    ("without-faces", [], "pip install 'hpclcae[detect]'")])
def test_a_missing_extra_is_one_line(folder, capsys, monkeypatch, name, words, message):
    for module in ("sklearn", "sklearn.cluster", "cv2"):
        monkeypatch.setitem(sys.modules, module, None)
    from hpclcae.data import faces
    faces._cascade.cache_clear()
    assert experiment(folder, name, *words) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_bad_input_is_one_line(folder, capsys):
    for name, words, message in (
            ("autoencoders", ["--train", folder / "gone.h5"], "gone.h5 is not a file"),
            ("autoencoders", ["--test", folder / "train.h5"], "train.h5 has no labels"),
            ("autoencoders", ["--steps", 30, "--rate", 10, "--layers", 2], None)):
        code = experiment(folder, name, *words)
        error = [line for line in capsys.readouterr().err.splitlines() if "experiment" in line]
        if message:
            assert code == 1 and message in error[0]


# ---- without faces: with a detector that sees bright middles -------------------------------------

def bright(images):
    """A "detector": half of the bright middles, and nothing else."""
    middle = images[:, 4:8, 4:8].astype(float).mean(axis=(1, 2, 3))
    return (middle - images.astype(float).mean(axis=(1, 2, 3))) > 30


@pytest.fixture
def detector(monkeypatch):
    monkeypatch.setattr(without_faces, "have_faces", bright)
    monkeypatch.setattr("hpclcae.commands.experiment.without_faces.require_detector", lambda: None)


def test_shares_are_corrected_for_what_the_detector_misses():
    labels = np.array([1] * 20 + [0] * 80 + [-1] * 100)
    found = np.zeros(200, bool)
    found[:10] = True           # recall 0.5
    found[20:24] = True         # false alarms 0.05
    found[100:120] = True
    said = without_faces.shares(found, labels)
    assert (said.recall, said.false_alarms) == (0.5, 0.05) and said.found == 0.17
    assert said.corrected == pytest.approx((0.17 - 0.05) / 0.45)
    assert without_faces.shares(found, None).corrected is None


def test_images_in_which_a_face_is_found_are_left_out(folder, tmp_path, detector, capsys):
    assert experiment(folder, "without-faces", "--train", folder / "labelled.h5", "--write",
                      tmp_path / "rest.h5", "--patches", 30, "--without", folder / "other") == 0
    said = capsys.readouterr().out
    assert "looked at whole" in said and "Without faces in training, face" in said
    with Dataset(folder / "labelled.h5") as train, Dataset(tmp_path / "rest.h5") as rest:
        found = bright(train.read(np.arange(train.count)))
        assert 0 < found.sum() < train.count
        kept = np.flatnonzero(~found)
        assert rest.count == kept.size
        assert np.array_equal(rest.read(np.arange(rest.count)), train.read(kept))
        assert np.array_equal(rest.labels, train.labels[kept])
    record = read_record(str(folder / "run"), "without-faces")
    assert record["values"]["left"] == kept.size
    assert [row["name"] for row in record["values"]["rows"]] == [
        "chance", without_faces.WITHOUT, without_faces.WITH]


def test_without_a_second_run_it_says_how_to_make_one(folder, detector, capsys):
    assert experiment(folder, "without-faces", "--patches", 10) == 0
    assert "--set data.train=FILE" in " ".join(capsys.readouterr().out.split())
    assert experiment(folder, "without-faces", "--without", folder / "run") == 1
    assert "hold the same weights" in capsys.readouterr().err
