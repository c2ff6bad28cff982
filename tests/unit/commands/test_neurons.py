"""``hpclcae neurons`` from checkpoint and datasets to table and files."""
import json
import sys

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.config import StageConfig
from hpclcae.data.dataset import Dataset
from hpclcae.data.writer import DatasetWriter
from hpclcae.experiments.labelled_images import LabelledImages
from tests.support.tiny_run import SIZE, STAGES, write_images, write_run


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


def slow_choice(responses, images):
    """(place, threshold, accuracy on the final half) that the development half chooses."""
    development, final = images.half == 0, images.half == 1
    best, found = -1.0, None
    for place in np.ndindex(*responses.shape[:-1]):
        values = responses[place]
        low, high = values[development].min(), values[development].max()
        for k in range(1, 21):
            threshold = low + k * (high - low) / 21
            right = (values > threshold) == images.concept
            if right[development].mean() > best:
                best, found = right[development].mean(), (place, threshold, right[final].mean())
    return found


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


def test_the_headline_equals_the_slow_version(examined):
    with Dataset(examined.parent / "test.h5") as test:
        images = LabelledImages.of(test.labels, test.groups)
        pixels = test.read(images.index)
    model = Model.load(examined)
    rows = {row["name"]: row for row in
            json.loads((examined / "neurons.json").read_text())["rows"]}
    top = model.responses(model.prepare(pixels))[-1]
    candidates = int(np.prod(top.shape[:-1]))
    for number, responses in enumerate(model.responses(model.prepare(pixels)), start=1):
        place, threshold, accuracy = slow_choice(responses, images)
        row = rows[f"trained, stage {number}"]
        assert row["honest"] == accuracy and row["candidates"] == responses[..., 0].size
        assert tuple(row["chosen"][0]["where"]) == place
        assert row["chosen"][0]["threshold"] == pytest.approx(threshold, rel=1e-12)
        with h5py.File(examined / "neurons.h5") as store:
            chosen = store[f"stage{number}/chosen"].attrs
            assert (tuple(chosen["where"]), chosen["accuracy"]) == (place, accuracy)
            assert store[f"stage{number}/final"][place] == accuracy
    assert rows["trained, stage 2"]["equal_candidates"]["honest"] == row["honest"]
    windows = rows["linear: windows of frames"]
    assert candidates < windows["candidates"] == 40
    assert windows["equal_candidates"]["draws"] == 50 and windows["equal_candidates"]["spread"] > 0


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
    assert list(rows) == ["chance", "random weights, stage 1", "random weights, stage 2",
                          "linear: Gaussian noise", "linear: windows of frames",
                          "linear: templates by label", "trained, stage 1", "trained, stage 2"]
    assert rows["chance"]["accuracy"] == (~concept).mean()
    model = Model.load(examined)
    random = [[slow_accuracy(r, concept).max() for r in weights.responses(model.prepare(images))]
              for weights in map(model.with_random_weights, (0, 1))]
    for stage in (1, 2):
        row = rows[f"random weights, stage {stage}"]
        found = [neuron["accuracy"] for neuron in row["best"]]
        assert found == [bests[stage - 1] for bests in random]
        assert row["accuracy"] == pytest.approx(np.mean(found), rel=1e-14)
        honest = [neuron["accuracy"] for neuron in row["chosen"]]
        assert row["honest"] == pytest.approx(np.mean(honest), rel=1e-14)
        assert row["spread"] == pytest.approx(np.std(honest, ddof=1), rel=1e-12)
    assert rows["linear: templates by label"]["honest"] > rows["chance"]["honest"] + 0.1
    for row in rows.values():
        for measure in ("honest", "accuracy"):
            low, high = row[f"{measure}_interval"]
            assert low <= row[measure] <= high
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
    assert judged == [("trained, stage 2", name) for name in names[:-1]]
    assert results["halves"] == "seed" and not results["why_not_honest"]
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
    assert "81.7\n" in out and "(74.0)" in out and "no comparison" in out
    assert "development half, to choose" in out and "halves made by the seed" in out
    table = out[out.index("chance"):out.index("neuron of the top stage")]
    assert max(map(len, table.splitlines())) <= 120


def test_a_network_of_one_stage_has_no_row_twice(tmp_path, capsys):
    run = write_run(tmp_path, (StageConfig(receptive_field=5, maps=2, pooling=2, lcn=0),),
                    channels=3)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "5"]) == 0
    names = [row["name"] for row in json.loads((run / "neurons.json").read_text())["rows"]]
    assert names == ["chance", "random weights, stage 1", "linear: Gaussian noise",
                     "linear: windows of frames", "linear: templates by label", "trained, stage 1"]


def test_labels_of_the_training_images_choose_and_make_the_ceiling(tmp_path):
    run = write_run(tmp_path)
    write_images(tmp_path / "train.h5", 60, labels=True, seed=1)
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "20", "--random-seeds",
                     "0"]) == 0
    rows = {row["name"]: row for row in json.loads((run / "neurons.json").read_text())["rows"]}
    ridge, chosen = rows["linear: ridge with labels"], rows["stage 2, by training labels"]
    assert ridge["candidates"] == 1 and ridge["honest"] > 0.9
    assert chosen["accuracy"] is None and 0 < chosen["honest"] <= 1
    with h5py.File(run / "neurons.h5") as store:
        place = tuple(store["stage2/by_training"].attrs["where"])
        assert list(place) == chosen["chosen"][0]["where"]
        assert store["stage2/final"][place] == chosen["honest"]
        assert "by_training" not in store["stage1"]


def test_training_labels_about_something_else_are_not_used(tmp_path, capsys):
    run = write_run(tmp_path)
    write_images(tmp_path / "train.h5", 60, labels=True, seed=1)
    with h5py.File(tmp_path / "train.h5", "r+") as file:
        file["labels"].attrs["label_names"] = ["other", "cat"]
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "5"]) == 0
    out = capsys.readouterr().out
    assert "train.h5 are about 'cat', those of" in out and "about 'face': no filters" in out
    assert "ridge with labels  " not in out and "by training labels  " not in out


def one_of_each(path, groups):
    """Images of so many groups with the concept and so many without it."""
    rng = np.random.default_rng(0)
    with DatasetWriter(path, SIZE, 1, ["other", "face"]) as writer:
        for number in range(60):
            image = rng.integers(0, 255, (SIZE, SIZE, 1), np.uint8)
            writer.append(image, source="", group=f"{number % 2}/{number // 2 % groups}",
                          crop=(0, 0, 1, 1), original=(SIZE, SIZE), label=number % 2)


def test_halves_that_say_nothing_are_left_out_with_a_reason(tmp_path, capsys):
    run = write_run(tmp_path)
    for groups, honest, interval in ((1, False, False), (6, False, True), (12, True, True)):
        one_of_each(tmp_path / "test.h5", groups)
        assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "10"]) == 0
        out = capsys.readouterr().out
        results = json.loads((run / "neurons.json").read_text())
        for row in results["rows"]:
            assert (row["honest"] is not None) == honest == (row["auc"] is not None)
            assert (row["accuracy_interval"] is not None) == interval
            assert isinstance(row["accuracy"], float)
        assert ("no choice on one half to judge on the other: " in out) == (not honest)
        assert ("no intervals: the test set has 1 persons" in out) == (not interval)
        assert bool(results["why_not_honest"]) == (not honest) and "nan" not in out
        assert any(verdict["verdict"] for verdict in results["verdicts"]) == honest


def test_several_runs_give_one_table_and_each_its_results(tmp_path, capsys):
    run = write_run(tmp_path)
    other = write_run(tmp_path, name="other", weights=6)
    assert cli.main(["neurons", str(run), str(other), "--bootstrap", "100", "--filters", "10",
                     "--json", str(tmp_path / "both.json")]) == 0
    out = capsys.readouterr().out
    both = {row["name"]: row for row in json.loads((tmp_path / "both.json").read_text())["rows"]}
    alone = []
    for folder in (run, other):
        results = json.loads((folder / "neurons.json").read_text())
        assert (folder / "neurons.h5").is_file() and results["run"] == str(folder)
        alone.append({row["name"]: row for row in results["rows"]})
    assert list(both) == list(alone[0]) == list(alone[1])
    for name, row in both.items():
        found = [results[name]["honest"] for results in alone]
        assert row["honest"]["runs"] == found
        assert row["honest"]["mean"] == pytest.approx(np.mean(found))
    assert both["trained, stage 2"]["honest"]["spread"] == pytest.approx(
        np.std(both["trained, stage 2"]["honest"]["runs"], ddof=1))
    assert both["linear: windows of frames"]["shared"] and "least" in out
    # the same as if the run had been examined alone
    assert cli.main(["neurons", str(other), "--bootstrap", "100", "--filters", "10", "--out",
                     str(tmp_path / "new")]) == 0
    again = json.loads((tmp_path / "new/neurons.json").read_text())["rows"]
    assert again == list(alone[1].values())


def test_training_images_that_are_gone_leave_out_the_linear_filters(tmp_path, capsys):
    run = write_run(tmp_path)
    (tmp_path / "train.h5").unlink()
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--random-seeds", "0"]) == 0
    assert "no linear filters: " in capsys.readouterr().out
    names = [row["name"] for row in json.loads((run / "neurons.json").read_text())["rows"]]
    assert names == ["chance", "trained, stage 1", "trained, stage 2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs and datasets, some of which do not fit together."""
    place = tmp_path_factory.mktemp("bad")
    write_run(place)
    write_run(place, STAGES[:1], name="other")
    write_run(place, name="twin")
    write_run(place, name="seed", weights=6, test="test2.h5")
    write_images(place / "test2.h5", 120, labels=True, seed=8)
    write_images(place / "colour.h5", 20, labels=True, channels=3)
    write_images(place / "large.h5", 20, labels=True, size=SIZE + 2)
    write_images(place / "one_kind.h5", 1, labels=True)
    (place / "truncated.h5").write_bytes((place / "test.h5").read_bytes()[:3000])
    return place


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
    (["RUN", "--json", "FOLDER/test.h5/a.json"], "test.h5 is not a folder"),
    (["RUN", "--json", "FOLDER/test.h5"], "test.h5 exists and is not a result (hpclcae neurons)"),
    (["RUN", "--json", "FOLDER"], "it is a folder"),
    (["RUN", "--out", "FOLDER/test.h5"], "test.h5 is a file: name a folder"),
    (["RUN", "--training-images", "-1"], "--training-images -1: it must be at least 0"),
    (["RUN", "RUN"], "two of these are of one run; a table of several wants runs of different"),
    (["RUN", "FOLDER/twin"], "hold the same weights: a spread needs runs of different seeds"),
    (["RUN", "FOLDER/other"], "have different stages: only runs of one network make one table"),
    (["RUN", "FOLDER/seed"], "another: --test names one for all"),
])
def test_bad_input_is_one_line(folder, capsys, arguments, message):
    words = [word.replace("RUN", str(folder / "run")).replace("FOLDER", str(folder))
             for word in arguments]
    assert cli.main(["neurons", *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(folder.rglob("neurons.*"))


# ---- scan ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A picture, in a folder with large frames and what is no picture."""
    images = pytest.importorskip("PIL.Image")
    place = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 44, 3), np.uint8)
    images.fromarray(pixels).save(place / "street.png")
    images.fromarray(pixels[:8]).save(place / "flat.png")
    (place / "text.png").write_text("no picture")
    (place / "again").mkdir()
    images.fromarray(pixels).save(place / "again/street.jpg")
    write_images(place / "large.h5", 120, labels=True, size=SIZE + 4)
    write_images(place / "colour.h5", 20, labels=True, size=SIZE + 4, channels=3)
    return place


def test_a_scan_leaves_a_heat_map_and_every_response(examined, pictures, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert cli.main(["neurons", str(examined), "--scan", str(pictures / "street.png"), "--scales",
                     "0.5", "1", "--step", "6", "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    assert f"wrote {out}/scan-street.png, {out}/scan-street.h5" in capsys.readouterr().out
    assert (tmp_path / "out/scan-street.png").read_bytes().startswith(b"\x89PNG")
    with h5py.File(examined / "neurons.h5") as store:
        chosen = dict(store["stage2/chosen"].attrs)
    with h5py.File(tmp_path / "out/scan-street.h5") as store:
        assert store.attrs["neuron"] == "2/" + ",".join(map(str, chosen["where"]))
        assert store.attrs["threshold"] == chosen["threshold"]
        assert store["scale1"].attrs["scale"] == 1 and store["scale0"].attrs["side"] == 24
        assert store["scale1/response"].shape == (4, 7)
        assert store["scale1/top"][:].tolist() == [0, 6, 12, 18]
        assert store["scale0/left"][:].tolist() == [0, 12, 20]


def test_a_labelled_set_is_scanned_and_judged(examined, pictures, tmp_path, capsys):
    assert cli.main(["neurons", str(examined), "--scan-test", str(pictures / "large.h5"),
                     "--scales", "1", "--neuron", "1/3,3,0", "--bootstrap", "100", "--out",
                     str(tmp_path)]) == 0
    assert "neuron 1/3,3,0, scanned" in capsys.readouterr().out
    results = json.loads((tmp_path / "scan-large.json").read_text())
    scanned = results["rows"][1]
    with h5py.File(tmp_path / "scan-large.h5") as store, Dataset(pictures / "large.h5") as large:
        images = LabelledImages.of(large.labels, large.groups)
        assert np.array_equal(store["index"], images.index)
        _, threshold, accuracy = slow_choice(store["response"][:][None], images)
    assert scanned["honest"] == accuracy and scanned["candidates"] == 1
    assert scanned["chosen"][0]["threshold"] == pytest.approx(threshold, rel=1e-12)


@pytest.mark.parametrize("arguments, message", [
    (["--scan", "PICTURES/gone.png"], "gone.png is not a file"),
    (["--scan", "PICTURES/street.png", "PICTURES/text.png", "--scales", "1"],
     "text.png cannot be read as a picture: not a picture"),
    (["--scan", "PICTURES/flat.png"], "flat.png at --scales 0.6 has 5x26 pixels"),
    (["--scan", "PICTURES/street.png", "PICTURES/again/street.jpg"], "two pictures are named"),
    (["--scan", "PICTURES/street.png", "--scales", "nan"], "--scales nan: between"),
    (["--scan", "PICTURES/street.png", "--step", "0"], "--step 0: at least 1"),
    (["--scan", "PICTURES/street.png", "--neuron", "2/9,9,9"], "stage 2 has 3 rows"),
    (["--scan", "PICTURES/street.png", "--out", "PICTURES/text.png"], "is a file: name a folder"),
    (["--scan-test", "PICTURES/colour.h5"], "holds images of 3 channels, the network takes 1"),
    (["--scan-test", "PICTURES/text.png"], "cannot be read as HDF5"),
])
def test_what_cannot_be_scanned_is_one_line(examined, pictures, tmp_path, capsys, arguments,
                                            message):
    words = [word.replace("PICTURES", str(pictures)) for word in arguments]
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["neurons", str(examined), *out, *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_scan_replaces_only_what_a_scan_wrote(examined, pictures, tmp_path, capsys):
    words = ["neurons", str(examined), "--scan-test", str(pictures / "large.h5"), "--scales", "1",
             "--step", "4", "--bootstrap", "100", "--out", str(tmp_path)]
    for kept in ("scan-large.json", "scan-large.h5"):
        (tmp_path / kept).write_text("mine")
        assert cli.main(words) == 1
        said = capsys.readouterr().err
        assert f"{kept} exists and is not a result (hpclcae neurons --scan) of ours" in said
        assert (tmp_path / kept).read_text() == "mine"
        (tmp_path / kept).unlink()
    assert cli.main(words) == cli.main(words) == 0


def test_a_scan_without_results_or_of_two_networks_says_what_to_do(tmp_path, capsys, pictures):
    run = write_run(tmp_path)
    assert cli.main(["neurons", str(run), "--scan-test", str(pictures / "large.h5")]) == 1
    assert f"hpclcae neurons {run} writes it" in capsys.readouterr().err
    other = write_run(tmp_path, name="other", weights=6)
    assert cli.main(["neurons", str(run), str(other), "--scan", "x.png"]) == 1
    assert "a scan is of one network: 2 are named" in capsys.readouterr().err


def test_a_scan_without_its_libraries_names_the_extras(examined, pictures, capsys, monkeypatch):
    words = ["neurons", str(examined), "--scan", str(pictures / "street.png"), "--scales", "1"]
    for module, extra in (("PIL.Image", "images"), ("matplotlib", "figures")):
        monkeypatch.setitem(sys.modules, module, None)
        assert cli.main(words) == 1
        assert f"pip install 'hpclcae[{extra}]'" in capsys.readouterr().err


def test_a_trial_looks_at_the_development_half_alone(examined, tmp_path, capsys):
    """Other images in the final half change nothing; without halves there is a line."""
    with Dataset(examined.parent / "test.h5") as whole:
        images, labels = whole.read(np.arange(whole.count)), whole.labels
    half = np.arange(len(labels)) // 2 % 2
    found = []
    for name, noise in (("one", 0), ("other", 99)):
        with DatasetWriter(tmp_path / f"{name}.h5", images.shape[1], images.shape[3],
                           ["no face", "face"]) as writer:
            for image, label, part, number in zip(images, labels, half, range(len(labels))):
                writer.append(image ^ (noise * part).astype(np.uint8), source="s/p",
                              group=f"s/{number}", original=(9, 9), crop=(0, 0, 9, 9),
                              label=int(label), half=int(part))
        assert cli.main(["neurons", str(examined), "--test", str(tmp_path / f"{name}.h5"),
                         "--development", "--bootstrap", "100", "--filters", "20", "--out",
                         str(tmp_path / name)]) == 0
        found.append(json.loads((tmp_path / name / "neurons.json").read_text())["rows"])
    assert found[0] == found[1]
    assert "of the development half of the dataset" in capsys.readouterr().out
    assert cli.main(["neurons", str(examined), "--development"]) == 1
    assert "does not say which half is for development" in capsys.readouterr().err
