"""``hpclcae neurons`` from checkpoint and datasets to table and files."""
import json

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.config import StageConfig
from hpclcae.data.dataset import Dataset
from tests.support.tiny_run import SIZE, write_images, write_run


def slow_accuracy(responses, concept):
    """Best of 20 thresholds for each neuron of (row, col, map, image), one comparison at a time."""
    shape = responses.shape[:-1]
    accuracy = np.zeros(shape)
    for place in np.ndindex(*shape):
        values = responses[place]
        low, high = values.min(), values.max()
        accuracy[place] = max(np.mean((values > low + k * (high - low) / 21) == concept)
                              for k in range(1, 21))
    return accuracy


def labelled(run):
    """Images with a label, and whether they show the concept."""
    with Dataset(run.parent / "test.h5") as test:
        known = np.flatnonzero(test.labels >= 0)
        return test.read(known), test.labels[known] == 1


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """A run on which the command has been called."""
    run = write_run(tmp_path_factory.mktemp("neurons"))
    status = cli.main(["neurons", str(run), "--batch", "31", "--bootstrap", "100", "--random-seeds",
                       "2", "--filters", "40", "--json", str(run.parent / "copy.json")])
    assert status == 0
    return run


def test_every_accuracy_equals_the_slow_version(examined):
    images, concept = labelled(examined)
    model = Model.load(examined)
    with h5py.File(examined / "neurons.h5") as store:
        for number, responses in enumerate(model.responses(model.prepare(images)), start=1):
            expected = slow_accuracy(responses, concept)
            stage = store[f"stage{number}"]
            assert np.array_equal(stage["accuracy"][:], expected)
            place = np.unravel_index(expected.argmax(), expected.shape)
            assert tuple(stage["best"].attrs["where"]) == place
            assert np.allclose(stage["minimum"][:], responses.min(axis=-1), rtol=1e-12)
            counts = stage["best/histogram"][:].sum(axis=1).tolist()
            assert counts == [(~concept).sum(), concept.sum()]


def test_neurons_above_an_area_under_the_curve_are_listed(examined, capsys):
    images, concept = labelled(examined)
    model = Model.load(examined)
    capsys.readouterr()
    for number, responses in enumerate(model.responses(model.prepare(images)), start=1):
        name = f"stage{number}.auc"
        having, without = responses[..., concept, None], responses[..., None, ~concept]
        exact = ((having > without) + (having == without) / 2).mean(axis=(-2, -1))
        with h5py.File(examined / "neurons.h5") as store:
            auc = store[name.replace(".", "/")]
            resolution = store[f"stage{number}/auc_resolution"][:]
            assert "21 equal bins" in auc.attrs["computed"]
            auc = auc[:]
        assert (abs(auc - exact) <= resolution + 1e-12).all()
        least = float(f"{np.median(auc):.3f}")
        assert cli.main(["checkpoint", "query", str(examined / "neurons.h5"), name,
                         "--where", f"{name} > {least}", "--limit", str(auc.size)]) == 0
        lines = capsys.readouterr().out.splitlines()
        places = np.argwhere(auc > least)
        assert f"{len(places):,} places, {len(places):,} listed, in order:" in lines
        listed = [list(map(int, line.split()[:3])) for line in lines[-len(places):]]
        assert listed == places.tolist() and 0 < len(places) < auc.size


def test_rows_hold_the_baselines(examined):
    images, concept = labelled(examined)
    results = json.loads((examined / "neurons.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == ["chance", "random weights, stage 2", "random weights, stage 1",
                          "linear filter, prepared pixels", "linear filter, contrast only",
                          "trained, stage 1", "trained, stage 2"]
    assert rows["chance"]["accuracy"] == (~concept).mean()
    model = Model.load(examined)
    random = [[slow_accuracy(r, concept).max() for r in weights.responses(model.prepare(images))]
              for weights in map(model.with_random_weights, (0, 1))]
    for stage in (1, 2):
        row = rows[f"random weights, stage {stage}"]
        assert row["accuracy_of_seeds"] == [bests[stage - 1] for bests in random]
        assert row["accuracy"] == pytest.approx(np.mean(row["accuracy_of_seeds"]), rel=1e-14)
        assert row["accuracy_spread"] == pytest.approx(np.std(row["accuracy_of_seeds"], ddof=1),
                                                       rel=1e-12)
    assert rows["linear filter, contrast only"]["accuracy"] > rows["chance"]["accuracy"] + 0.1
    for row in rows.values():
        low, high = row["accuracy_interval"]
        assert low <= row["accuracy"] <= high
    assert rows["trained, stage 2"]["paper_faces"] == {"percent": 81.7, "status": "confirmed"}
    assert rows["chance"]["paper_faces"] == {"percent": 64.8, "status": "recalled"}
    assert (examined.parent / "copy.json").read_text() == (examined / "neurons.json").read_text()


def test_results_say_how_they_were_made(examined):
    results = json.loads((examined / "neurons.json").read_text())
    assert results["step"] == 20 and results["concept"] == "face"
    assert results["settings"]["batch"] == 31
    assert results["labelled_images"] == 107 and results["test_images"] == 120
    assert {"hpclcae", "python", "numpy", "scipy", "h5py"} == results["versions"].keys()
    judged = [(verdict["row"], verdict["other"]) for verdict in results["verdicts"]]
    names = [row["name"] for row in results["rows"]]
    assert judged[:6] == [("trained, stage 2", name) for name in names[:6]]
    # and stage 1, which has the best neuron
    assert judged[6:] == [("trained, stage 1", name) for name in names[:5]]
    with h5py.File(examined / "neurons.h5") as store:
        assert store.attrs["step"] == 20 and store.attrs["kind"] == "hpclcae neurons"
    assert not list(examined.rglob("*.partial"))


def test_the_same_call_gives_the_same_numbers(examined, capsys):
    before = json.loads((examined / "neurons.json").read_text())
    checkpoint, = (examined / "checkpoints").glob("step-*")
    assert cli.main(["neurons", str(checkpoint), "--batch", "31", "--bootstrap", "100",
                     "--random-seeds", "2", "--filters", "40"]) == 0
    # a checkpoint's results go to its run
    after = json.loads((examined / "neurons.json").read_text())
    assert after["rows"] == before["rows"] and after["verdicts"] == before["verdicts"]
    out = capsys.readouterr().out
    assert "107 labelled images, 43 show 'face'; 13 without a label are left out" in out
    assert "81.7\n" in out and "74.0 recalled" in out and "no comparison" in out


def test_a_network_of_one_stage_has_no_row_twice(tmp_path, capsys):
    run = write_run(tmp_path, (StageConfig(receptive_field=5, maps=2, pooling=2, lcn=0),),
                    channels=3)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "5"]) == 0
    names = [row["name"] for row in json.loads((run / "neurons.json").read_text())["rows"]]
    assert names == ["chance", "random weights, stage 1", "linear filter, prepared pixels",
                     "linear filter, contrast only", "trained, stage 1"]


def test_training_images_that_are_gone_leave_out_the_linear_filters(tmp_path, capsys):
    run = write_run(tmp_path)
    (tmp_path / "train.h5").unlink()
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--random-seeds", "0"]) == 0
    assert "no linear filters: " in capsys.readouterr().out
    names = [row["name"] for row in json.loads((run / "neurons.json").read_text())["rows"]]
    assert names == ["chance", "trained, stage 1", "trained, stage 2"]


@pytest.mark.parametrize("arguments, message", [
    (["gone"], "gone is neither a checkpoint nor the folder of a run"),
    (["RUN", "--test", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    (["RUN", "--train", "FOLDER/gone.h5"], "gone.h5 is not a file"),
    (["RUN", "--test", "FOLDER/train.h5"], "train.h5 has no labels"),
    (["RUN", "--test", "FOLDER/colour.h5"], "holds images of 12x12x3, the network takes 12x12x1"),
    (["RUN", "--test", "FOLDER/large.h5"], "holds images of 14x14x1, the network takes 12x12x1"),
    (["RUN", "--test", "FOLDER/one_kind.h5"], "1 of 1 labelled images show the concept"),
    (["RUN", "--test", "FOLDER/truncated.h5"], "truncated.h5 cannot be read as HDF5"),
    (["RUN", "--train", "FOLDER/colour.h5"], "holds images of 12x12x3"),
    (["RUN", "--bootstrap", "20"], "--bootstrap 20: it must be at least 100"),
    (["RUN", "--batch", "0"], "--batch 0: it must be at least 1"),
    (["RUN", "--random-seeds", "-1"], "--random-seeds -1: it must be at least 0"),
    (["RUN", "--json", "FOLDER/gone/a.json"], "is not a folder that can be written to"),
])
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
    run = write_run(tmp_path)
    write_images(tmp_path / "colour.h5", 20, labels=True, channels=3)
    write_images(tmp_path / "large.h5", 20, labels=True, size=SIZE + 2)
    write_images(tmp_path / "one_kind.h5", 1, labels=True)
    (tmp_path / "truncated.h5").write_bytes((tmp_path / "test.h5").read_bytes()[:3000])
    words = [word.replace("RUN", str(run)).replace("FOLDER", str(tmp_path)) for word in arguments]
    assert cli.main(["neurons", *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (run / "neurons.json").exists() and not (run / "neurons.h5").exists()
