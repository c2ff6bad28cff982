"""Results in a run folder: which folder, what is read back, what is refused."""
import shutil

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.checkpoint.trained import Model
from hpclcae.data.dataset import Dataset
from hpclcae.experiments import made_from
from hpclcae.experiments.results import read_neurons
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_images, write_run


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """A run on which ``hpclcae neurons`` has been called."""
    run = write_run(tmp_path_factory.mktemp("results"))
    assert cli.main(["neurons", str(run), "--bootstrap", "100", "--filters", "0", "--random-seeds",
                     "0"]) == 0
    return run


@pytest.fixture
def copied(examined, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(examined, tmp_path / "run")


@pytest.mark.parametrize("damage", ["truncated", "other kind", "incomplete", "nan"])
def test_damaged_results_are_one_line(copied, damage):
    file = copied / "neurons.h5"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:2000])
    else:
        with h5py.File(file, "r+") as store:
            if damage == "other kind":
                store.attrs["kind"] = "something"
            elif damage == "nan":
                store["stage1/chosen"].attrs["threshold"] = np.nan
            else:
                del store["stage1/best"], store["stage1/chosen"]
    with pytest.raises(InputError, match="hpclcae neurons .* writes it"):
        read_neurons(str(copied))


def test_results_about_other_weights_are_refused(copied):
    with h5py.File(copied / "neurons.h5", "r+") as store:
        store.attrs["weights_fingerprint"] = "0"
    with pytest.raises(InputError, match="neurons.h5 was made from another network than .*step-"):
        read_neurons(str(copied))
    with h5py.File(copied / "neurons.h5", "r+") as store:
        store.attrs["step"] = 8
    with pytest.raises(InputError, match="is about step 8, .* is step 20: hpclcae neurons"):
        read_neurons(str(copied))


def test_results_of_an_older_version_are_read(copied):
    """Schema 1 had no fingerprints and one neuron a stage."""
    with h5py.File(copied / "neurons.h5", "r+") as store:
        store.attrs["schema"] = 1
        del store.attrs["weights_fingerprint"], store.attrs["test_fingerprint"]
        for stage in ("stage1", "stage2"):
            del store[stage]["chosen"]
    stages = read_neurons(str(copied))["stages"]
    assert not stages[0]["honest"] and stages[0]["histogram"].sum() == 107


def test_fingerprints_tell_weights_images_and_labels_apart(examined, tmp_path):
    model = Model.load(examined)
    prints = {made_from.weights_fingerprint(model),
              made_from.weights_fingerprint(model.with_random_weights(0))}
    assert len(prints) == 2
    assert made_from.weights_fingerprint(Model.load(examined)) in prints
    found = set()
    for seed, labels in ((0, True), (0, False), (1, True)):
        write_images(tmp_path / "test.h5", 20, labels=labels, seed=seed)
        with Dataset(tmp_path / "test.h5") as test:
            found.add(test.fingerprint)
    assert len(found) == 3
