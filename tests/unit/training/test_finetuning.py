"""The supervised phase: the one training loop, on any grid, with servers, resumed, replayed."""
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint, config as configuration
from hpclcae.checkpoint.event_log import logs, read_log
from hpclcae.checkpoint.trained import Model
from hpclcae.cluster.status import COMPLETE, run_status
from hpclcae.data.classes import ClassSplit
from hpclcae.data.dataset import Dataset
from hpclcae.experiments.classification import classify
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.partition.threads import run_blocks
from hpclcae.training.evaluation import Evaluation, Patience
from hpclcae.training.local_job import run_local_job
from hpclcae.training.replay import replay
from hpclcae.training.resume import starting_point
from hpclcae.training.trainer import Trainer
from hpclcae.training.worker import WorkerContext
from hpclcae.utils.errors import InputError
from tests.support.images import write_classes
from tests.support.saving import TIMES, assert_same, datasets, made, old_file, save

SMALL = ["train.steps=8", "train.batch=10", "train.checkpoint_every=4", "train.log_every=1",
         "classifier.steps=4", "update.rule=adam", "update.rate=0.01", "classifier.rate=0.05",
         "classifier.validation=0.2", "train.keep=9", "train.condition_images=40",
         "data.mirror=false"]
#: 5 x 5 x 6 features instead of 1 x 1 x 2
TOP = ["stages.2.receptive_field=2", "stages.2.lcn=0", "stages.2.maps=6"]
GREEDY = [*TOP, "train.gradient=greedy", "stages.0.standardise=true", "stages.0.log=true",
          "stages.1.standardise=true", "stages.1.whiten=5", "stages.1.window=3"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Images of three classes that fit run/tiny.toml."""
    return write_classes(tmp_path_factory.mktemp("data") / "classes.h5")


@pytest.fixture(scope="module")
def pretrained(tiny_config, tmp_path_factory):
    """A checkpoint of run/tiny.toml without any classifier, as unsupervised training leaves it."""
    config = tiny_config("train.dtype=float64", *TOP)
    return save(tmp_path_factory.mktemp("pretrained"), made(config))


@pytest.fixture(scope="module")
def supervised(classes, pretrained, tmp_path_factory):
    """The configuration of a supervised phase, with changes."""
    file = tmp_path_factory.mktemp("configuration") / "finetune.toml"
    file.write_text("")

    def load(*changes, weights=pretrained):
        network = checkpoint.load_state(weights).config
        return configuration.load_supervised(
            file, [*SMALL, f"data.train={classes}", "classifier.classes=3", *changes], network,
            str(weights))
    return load


def trained(config, folder, stop_at=None, resume=False, grid=Grid(1, 1)):
    start = starting_point(config, folder, resume, SerialCommunicator())

    def work(communicator):
        worker = WorkerContext.unserved(config, communicator)
        return Trainer(config, folder, start, worker).train(stop_at)
    if grid.size == 1:
        Trainer(config, folder, start).train(stop_at)
    else:
        run_blocks(grid.size, work)
    return folder


def newest(folder):
    return datasets(checkpoint.find(folder))


def lines(folder, key):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if key in row]


def assert_alike(one, other, tolerance):
    assert one.keys() == other.keys()
    for name in one:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(one[name], other[name], rtol=0,
                                       atol=tolerance * max(1e-3, np.abs(one[name]).max()),
                                       err_msg=name)


# ---- what is learned -----------------------------------------------------------------------------

def test_it_learns_first_the_classifier_then_everything(supervised, pretrained, tmp_path):
    """The stages stay in the first phase; decoders are not kept; a reader needs only h5py."""
    run = trained(supervised(), tmp_path)
    before, first, last = (datasets(path) for path in
                           (pretrained, *checkpoint.saved(run / "checkpoints")))
    for name in ("stage1", "stage2", "stage3"):
        assert np.array_equal(before[f"{name}/encode"], first[f"{name}/encode"])
        assert not np.array_equal(before[f"{name}/encode"], last[f"{name}/encode"])
        assert f"{name}/decode" in before and f"{name}/decode" not in last
    assert first["classifier/weights"].any()
    objectives = [row["classifier"]["data"] for row in lines(run, "classifier")]
    assert len(objectives) == 8 and objectives[-1] < 0.8 * objectives[0]
    assert [row["stages"] for row in lines(run, "stages")] == [[None] * 3] * 8
    assert objectives[0] == pytest.approx(3 * np.log(2), rel=1e-12)  # it begins with zeros
    assert [row["step"] for row in lines(run, "validation")] == [4, 8]
    with h5py.File(checkpoint.find(run) / "model.h5") as file:
        shape = file["stage3/encode"].shape
        assert file["classifier/weights"].shape[2:] == (1, 1, shape[-1], 3)
        assert list(file["classifier/weights"].attrs["axes"])[-2:] == ["map", "class"]
        assert file["classifier/names"].asstr()[...].tolist() == ["class 0", "class 1", "class 2"]
        assert file["conditioner/classifier/mean"].shape == (*file["classifier/weights"].shape[:2],
                                                             shape[-1])


def test_a_model_scores_pictures_and_its_test_is_of_the_other_half(supervised, classes, tmp_path):
    run = trained(supervised("train.steps=30", "classifier.steps=30"), tmp_path)
    model = Model.load(run)
    assert model.categories == ("class 0", "class 1", "class 2")
    with Dataset(classes) as dataset:
        found = classify(model, dataset)
        split = ClassSplit.of(dataset, 0.2, 0)
        assert np.array_equal(found.indices, split.test)
        x = model.prepare(dataset.read(split.test[:5]))
    scores, probabilities = model.scores(x).copy(), model.probabilities(x)
    assert scores.shape == probabilities.shape == (3, 5)
    assert np.allclose(probabilities, 1 / (1 + np.exp(-scores)))
    assert np.array_equal(scores.argmax(axis=0), found.evaluation.predicted[:5])
    assert found.evaluation.top(1) > 0.6


def test_a_network_without_classifier_says_so(pretrained, classes):
    model = Model.load(pretrained)
    with pytest.raises(InputError, match="no classifier: hpclcae finetune"):
        model.scores(np.zeros((24, 24, 1, 1)))
    with Dataset(classes) as dataset, pytest.raises(InputError, match="no classifier"):
        classify(model, dataset)


def test_random_weights_are_a_start_with_the_same_preprocessing(supervised, pretrained, tmp_path):
    run = trained(supervised("classifier.start=random", "train.seed=3"), tmp_path, stop_at=1)
    before, found = datasets(pretrained), newest(run)
    assert np.array_equal(before["preprocess/kernel"], found["preprocess/kernel"])
    assert not np.array_equal(before["stage1/encode"], found["stage1/encode"])


def test_a_file_of_the_first_version_is_a_start(tiny_config, supervised, tmp_path):
    """One HDF5 file, whose configuration knows nothing of classifiers or crops."""
    state = made(tiny_config("train.dtype=float64", *TOP))
    path = old_file(tmp_path / "old/checkpoints/step-00000007.h5", state)
    with h5py.File(path, "r+") as file:
        text = str(file.attrs["configuration"])
        first, _, rest = text.partition("[classifier]")
        file.attrs["configuration"] = first.replace("crop = 0\n", "") + rest[rest.index("[["):]
        assert "classifier" not in file.attrs["configuration"]
    run = trained(supervised(weights=path), tmp_path / "run", stop_at=5)
    found = newest(run)
    assert found["classifier/weights"].any() and found["stage1/encode"].any()


def test_conditioners_between_greedy_stages_are_kept_and_passed_through(
        tiny_config, supervised, tmp_path):
    """Those of the checkpoint stay; random stages get their own, fitted once on training images."""
    greedy = tiny_config(*GREEDY, "train.steps=3", "train.batch=20", "train.condition_images=50")
    start = trained(greedy, tmp_path / "greedy")
    before, conditioned = newest(start), {}
    for kind in ("pretrained", "random"):
        config = supervised(f"classifier.start={kind}", weights=start)
        run = trained(config, tmp_path / kind)
        for path in checkpoint.saved(run / "checkpoints"):
            found = datasets(path)
            assert "conditioner/classifier/mean" in found
            now = {name: array for name, array in found.items() if name.startswith("conditioner/")}
            assert_same(now, conditioned.setdefault(kind, now))  # fixed in both phases
        assert not np.array_equal(before["stage1/encode"], found["stage1/encode"])
    for name in (name for name in before if name.startswith("conditioner/")):
        assert np.array_equal(before[name], conditioned["pretrained"][name])
        if before[name].any():
            assert not np.array_equal(before[name], conditioned["random"][name])


# ---- the same however it is computed -------------------------------------------------------------

@pytest.mark.parametrize("changes, stop", [([], 2), ([], 6), (["classifier.steps=0"], 3),
                                           (["train.cache=auto"], 2),
                                           (["train.cache=disk", "data.crop=1"], 3),
                                           (["classifier.loss=softmax", "data.crop=2"], 4)],
                         ids=str)
def test_a_run_that_is_resumed_equals_one_that_never_stopped(supervised, tmp_path, changes, stop):
    config = supervised(*changes)
    whole, parts = trained(config, tmp_path / "whole"), tmp_path / "parts"
    trained(config, parts, stop_at=stop)
    trained(config, parts, resume=True)
    assert_same(newest(whole), newest(parts))
    for key in ("classifier", "validation"):
        rows = [[{k: v for k, v in row.items() if k not in TIMES}
                 for row in lines(run, key)] for run in (whole, parts)]
        assert rows[0] == rows[1]


def test_a_run_that_still_has_decoders_goes_on_without(supervised, tmp_path):
    """Earlier versions kept them."""
    config = supervised()
    whole, parts = trained(config, tmp_path / "whole"), tmp_path / "parts"
    before = replace(config, stages=tuple(replace(stage, weights="untied")
                                          for stage in config.stages))
    assert "stage1/decode" in newest(trained(before, parts, stop_at=4))
    trained(config, parts, resume=True)
    assert_same(newest(whole), newest(parts))
    assert configuration.flatten(config)["train.weights"]
    other = replace(config, train=replace(config.train, weights="other"), stages=before.stages)
    with pytest.raises(InputError, match="was written with train.weights = "):
        starting_point(other, parts, True, SerialCommunicator())


@pytest.mark.parametrize("grid, parts", [(Grid(2, 1), 1), (Grid(2, 2), 1), (Grid(1, 2), 2)],
                         ids=str)
def test_any_grid_trains_the_same_classifier(supervised, tmp_path, grid, parts):
    changes = ["data.crop=1", "classifier.balance=true", "update.rule=momentum", "update.rate=0.05"]
    one = trained(supervised(*changes, f"classifier.parts={parts}"), tmp_path / "one")
    config = supervised(*changes, f"classifier.parts={parts}", f"parallel.grid={grid}")
    many = trained(config, tmp_path / "many", grid=grid)
    assert_alike(newest(one), newest(many), 1e-9)
    resumed = trained(config, tmp_path / "one", resume=True, grid=grid)  # written by one block
    assert_same(newest(one), newest(resumed))


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
def test_kept_features_are_those_that_are_computed(supervised, tmp_path, monkeypatch, cache):
    """To the 16 bits that are kept; auto gives the same bits where there is no room for them."""
    plain = trained(supervised(), tmp_path / "plain")
    kept = trained(supervised(f"train.cache={cache}"), tmp_path / "kept")
    assert_alike(newest(plain), newest(kept), 0.05)
    if cache == "auto":
        monkeypatch.setattr("hpclcae.training.cache.available_memory", lambda: 1000.0)
        streamed = trained(supervised("train.cache=auto"), tmp_path / "streamed")
        assert_same(newest(kept), newest(streamed))


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(1, 2)], ids=str)
def test_any_number_of_servers_trains_the_same_classifier(supervised, tmp_path, servers, grid):
    """Lockstep, one replica: the same as without servers."""
    alone = trained(supervised(), tmp_path / "alone")
    config = supervised(f"parallel.servers={servers}", "parallel.consistency=synchronous",
                        f"parallel.grid={grid}")
    run_local_job(config, tmp_path / "served", grid=grid)
    assert_alike(newest(alone), newest(tmp_path / "served"), 1e-9)


def test_replicas_in_lockstep_are_resumed_to_the_same_bits(supervised, tmp_path):
    config = supervised("parallel.servers=2", "parallel.replicas=2",
                        "parallel.consistency=synchronous")
    run_local_job(config, tmp_path / "whole")
    run_local_job(config, tmp_path / "parts", stop_at=6)
    start = starting_point(config, tmp_path / "parts", True, SerialCommunicator())
    run_local_job(config, tmp_path / "parts", start)
    assert_same(newest(tmp_path / "whole"), newest(tmp_path / "parts"))


@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(2, 1)], ids=str)
def test_an_asynchronous_run_is_replayed_to_the_same_bits(supervised, tmp_path, grid):
    config = supervised("parallel.servers=2", "parallel.replicas=2", "parallel.log_events=true",
                        f"parallel.grid={grid}", "classifier.balance=true", "data.crop=1")
    run_local_job(config, tmp_path, grid=grid)
    found = logs(tmp_path)
    logged, events = read_log(found[0])
    servers = replay(logged, events, None, checkpoint.find(tmp_path))
    assert all(server.left == 0 and set(server.gaps.values()) == {0.0} for server in servers)


# ---- when it ends, and what is kept --------------------------------------------------------------

def test_training_ends_when_it_gets_no_better_and_the_best_is_kept(supervised, tmp_path,
                                                                   monkeypatch):
    """Shares right: 0.5, 0.4 (classifier alone), 0.9, 0.8, 0.7: two worse ones of the last phase.
    """
    shares = iter([0.5, 0.4, 0.9, 0.8, 0.7, 1.0, 1.0])
    monkeypatch.setattr(Evaluation, "top", lambda self, count: next(shares) if count == 1 else 1.0)
    config = supervised("train.steps=14", "train.checkpoint_every=2", "classifier.patience=2",
                        "train.keep=2")
    run = trained(config, tmp_path)
    steps = [checkpoint.step_of(path) for path in checkpoint.saved(run / "checkpoints")]
    assert steps == [6, 8, 10]
    assert checkpoint.step_of(checkpoint.find_best(run)) == 6
    assert checkpoint.step_of(checkpoint.find(run)) == 10
    assert Model.load(run).step == 6
    assert run_status(run).code == COMPLETE and run_status(run).steps == 10
    trained(config, run, resume=True)  # it is over
    assert checkpoint.step_of(checkpoint.find(run)) == 10


@pytest.mark.parametrize("consistency", ["synchronous", "asynchronous"])
def test_all_replicas_end_when_the_first_gets_no_better(supervised, tmp_path, monkeypatch,
                                                        consistency):
    shares = iter([0.5, 0.9, 0.8, 1.0])
    monkeypatch.setattr(Evaluation, "top", lambda self, count: next(shares) if count == 1 else 1.0)
    config = supervised("train.steps=100", "train.checkpoint_every=4", "classifier.patience=1",
                        "parallel.servers=1", "parallel.replicas=2", "update.rate=0.001",
                        f"parallel.consistency={consistency}", "train.batch=5")
    reports = run_local_job(config, tmp_path)
    assert reports[0].steps == 12 and reports[1].steps < 100
    if consistency == "synchronous":
        assert checkpoint.step_of(checkpoint.find(tmp_path)) == 12
        assert checkpoint.step_of(checkpoint.find_best(tmp_path)) == 8


def test_patience_counts_in_the_last_phase_alone(supervised):
    config = supervised("classifier.patience=1", "train.steps=20", "classifier.steps=10")
    patience = Patience(config)
    assert [patience.look(step, share) for step, share in ((5, 0.5), (10, 0.4))] == [True, False]
    assert not patience.is_over
    assert not patience.look(15, 0.5) and patience.is_over
    text = "".join(json.dumps({"step": step, "validation": {"top1": share}}) + "\n"
                   for step, share in ((5, 0.5), (10, 0.4), (15, 0.5)))
    assert Patience.after(config, text, 20) == patience
    assert not Patience.after(config, text, 10).is_over


# ---- what is refused, before training ------------------------------------------------------------

@pytest.mark.parametrize("changes, message", [
    (["classifier.classes=4"], "has 3 classes, classifier.classes = 4"),
    (["train.batch=100"], "a minibatch of 100 is more than"),
    (["train.cache=memory", "data.size=3"], "data.size is that of the checkpoint"),
    (["stages=3"], "stages is that of the checkpoint"),
    (["classifier.loss=none"], "use 'logistic' or 'softmax'"),
    (["classifier.patience=2", "classifier.validation=0"], "without validation images"),
    (["classifier.steps=9"], "more than train.steps = 8"),
    (["classifier.parts=4"], "there are 3 categories: at most as many parts")], ids=str)
def test_what_cannot_be_is_refused_in_one_line(supervised, tmp_path, changes, message):
    with pytest.raises(InputError) as caught:
        trained(supervised(*changes), tmp_path / "run")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_other_classes_than_those_of_the_checkpoint_are_refused(supervised, classes, tmp_path):
    run = trained(supervised(), tmp_path / "run", stop_at=2)
    other = tmp_path / "other.h5"
    other.write_bytes(classes.read_bytes())
    with h5py.File(other, "r+") as file:
        file["labels"].attrs["label_names"] = ["class 0", "other", "class 2"]
    with pytest.raises(InputError, match="class 1 of .* is 'other', that of the checkpoint is"):
        trained(supervised(f"data.train={other}"), run, resume=True)
