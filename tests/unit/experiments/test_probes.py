"""Probes: streamed least squares is that of all images at once, and a sketch is linear."""
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import probes
from hpclcae.experiments.neurons import Settings
from hpclcae.experiments.record import read_record
from hpclcae.experiments.training_images import sample_alike
from tests.support.tiny_run import write_images, write_run

SETTINGS = Settings(batch=7, training_images=48, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("probes")
    write_run(place)
    write_images(place / "labelled.h5", 60, labels=True, seed=4)
    return place


@pytest.mark.parametrize("most", [2048, 10])
def test_a_probe_is_damped_least_squares_of_standardised_units(folder, monkeypatch, most):
    monkeypatch.setattr(probes, "MOST", most)
    model = Model.load(folder / "run")
    with Dataset(folder / "labelled.h5") as train, Dataset(folder / "test.h5") as test:
        found = probes.train_probes(model, train, test, SETTINGS)
        places = sample_alike(train.labels, (test.labels[test.labels >= 0] == 1).mean(),
                              SETTINGS.training_images, SETTINGS.seed)
        shown = train.labels[places] == 1
        units = probes.levels(model, model.prepare(train.read(places)))
    assert [probe.name for probe in found] == ["prepared pixels", "stage 1", "stage 2"]
    for probe, level in zip(found, units):
        level = level.astype(np.float64)
        sketch = probes.Sketch.of(level.shape[1], level.sum(1), (level ** 2).sum(1), SETTINGS.seed)
        inputs = sketch(level).astype(np.float64)
        assert len(inputs) == probe.inputs == min(len(level), most)
        if len(level) <= most:
            np.testing.assert_allclose(inputs.std(axis=1)[level.std(axis=1) > 1e-3], 1, rtol=1e-3)
        weights = np.linalg.solve(
            inputs @ inputs.T + probe.penalty * shown.size * np.eye(len(inputs)),
            inputs @ (shown - shown.mean()))
        np.testing.assert_allclose(probe(level)[0, 0, 0], weights @ inputs, atol=2e-4)


def test_the_penalty_is_the_one_that_others_are_told_by_best():
    """With noise alone the largest; where nothing but the concept varies, a small one."""
    rng = np.random.default_rng(0)
    held_out = np.arange(400) % 3 == 0
    wanted = np.where(rng.random(400) < 0.4, 0.6, -0.4)
    sketch = probes.Sketch(np.zeros(5), np.ones(5), np.arange(5), np.arange(5))

    def penalty(inputs):
        halves = [inputs[:, ~held_out], inputs[:, held_out]]
        return probes._solved("", sketch, [half @ half.T for half in halves],
                              [inputs[:, ~held_out] @ wanted[~held_out],
                               inputs[:, held_out] @ wanted[held_out]], held_out).penalty
    noise = rng.standard_normal((5, 400))
    assert penalty(noise) == max(probes.PENALTIES)
    assert penalty(noise + 3 * wanted) < 0.1


def test_probes_stand_beside_the_network(folder, capsys):
    words = ["experiment", "probes", str(folder / "run"), "--bootstrap", "100", "--batch", "20",
             "--train", str(folder / "labelled.h5")]
    assert cli.main(words) == 0
    assert "What labels can tell from every stage, face: test.h5" in capsys.readouterr().out
    found = read_record(str(folder / "run"), "probes")["values"]
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["chance", "probe: prepared pixels", "probe: stage 1", "probe: stage 2",
                          "trained, stage 2"]
    assert all(row["candidates"] == 1 for name, row in rows.items() if name.startswith("probe"))
    assert rows["probe: stage 1"]["auc"] > 0.6


@pytest.mark.parametrize("words, said", [
    ([], "train.h5 has no labels: name labelled training images with --train"),
    (["--training-images", "0"], "--training-images 0: a probe learns from labelled"),
    (["--train", "LABELLED", "--training-images", "2"], "a probe needs more persons")])
def test_what_cannot_be_learned_from_is_one_line(folder, capsys, words, said):
    words = [str(folder / "labelled.h5") if word == "LABELLED" else word for word in words]
    assert cli.main(["experiment", "probes", str(folder / "run"), *words]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_all_passes_over_a_run_without_labels(folder, capsys):
    assert cli.main(["experiment", "all", str(folder / "run"), "--only", "probes"]) == 0
    assert "left out: probes: " in (said := capsys.readouterr().out)
    assert "train.h5 has no labels to learn from" in said
