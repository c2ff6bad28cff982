"""The dataset file: what is written is read back, and a bad file is one clear line."""
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset, DatasetWriter
from hpclcae.utils.errors import InputError

SIZE, COUNT = 30, 37


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)


def write(path, images, **options):
    with DatasetWriter(path, images.shape[1], images.shape[3], **options) as writer:
        for i, image in enumerate(images):
            writer.append(image, source=f"a/{i}.jpg", group=f"a/{i // 2}", original=(40 + i, 50),
                          crop=(1, 2, 31, 32),
                          label=-1 if writer.label_names is None else i % 3 - 1)
    return path


def test_round_trip(tmp_path, images):
    path = write(tmp_path / "deeper" / "a.h5", images, label_names=["cat", "not cat"],
                 settings={"size": 30, "of": [1]}, licences={"a": "CC0"})
    with Dataset(path) as dataset:
        assert (dataset.count, dataset.size, dataset.rows, dataset.cols,
                dataset.channels) == (COUNT, 30, 30, 30, 3)
        np.testing.assert_array_equal(dataset.read(np.arange(COUNT)), images)
        np.testing.assert_array_equal(dataset.labels, np.arange(COUNT) % 3 - 1)
        assert dataset.labels.dtype == np.int8 and dataset.label_names == ["cat", "not cat"]
        assert dataset.groups.tolist() == [f"a/{i // 2}" for i in range(COUNT)]
        assert dataset.sources[5] == "a/5.jpg"
        assert dataset.originals[5].tolist() == [45, 50]
        assert dataset.crops[5].tolist() == [1, 2, 31, 32]
        assert dataset.settings == {"size": 30, "of": [1]} and dataset.licences == {"a": "CC0"}
        assert dataset.verify() == []
    assert os.listdir(path.parent) == ["a.h5"]


def test_plain_h5py_reads_it(tmp_path, images):
    with h5py.File(write(tmp_path / "a.h5", images)) as file:
        np.testing.assert_array_equal(file["images"][7], images[7])
        assert file.attrs["kind"] == "hpclcae dataset" and json.loads(file.attrs["settings"]) == {}
        assert set(json.loads(file.attrs["versions"])) == {"hpclcae", "python", "numpy", "h5py",
                                                           "hdf5"}
        assert "labels" not in file


@pytest.mark.parametrize("indices", [[0], [36], [5, 6, 7, 8], [8, 7, 6], [3, 3, 3],
                                     [30, 31, 2, 3, 4, 2, 36, 0], []])
@pytest.mark.parametrize("rows, cols", [(slice(None), slice(None)), (slice(3, 9), slice(20, 30)),
                                        (slice(0, 30, 7), slice(-5, None))])
def test_any_indices_and_slab(tmp_path, images, indices, rows, cols):
    with Dataset(write(tmp_path / "a.h5", images)) as dataset:
        np.testing.assert_array_equal(dataset.read(np.array(indices, int), rows, cols),
                                      images[indices][:, rows, cols])


@pytest.mark.parametrize("indices", [[COUNT], [-1], [0, 1, 99]])
def test_indices_outside(tmp_path, images, indices):
    with (Dataset(write(tmp_path / "a.h5", images)) as dataset,
          pytest.raises(IndexError, match="37 images")):
        dataset.read(np.array(indices))


def test_shuffle_is_a_seeded_permutation_of_everything(tmp_path, images):
    order = np.random.default_rng(5).permutation(COUNT)
    with Dataset(write(tmp_path / "a.h5", images, label_names=["no", "yes"],
                       shuffle_seed=5)) as dataset:
        np.testing.assert_array_equal(dataset.read(np.arange(COUNT)), images[order])
        np.testing.assert_array_equal(dataset.labels, order % 3 - 1)
        assert dataset.sources.tolist() == [f"a/{i}.jpg" for i in order]
        assert dataset.groups.tolist() == [f"a/{i // 2}" for i in order]
        np.testing.assert_array_equal(dataset.originals[:, 0], order + 40)
        assert dataset.verify() == []


def test_blocks_of_copying_do_not_show(tmp_path, images, monkeypatch):
    monkeypatch.setattr("hpclcae.data.dataset.BLOCK_BYTES", 1)  # blocks of one chunk
    with Dataset(write(tmp_path / "a.h5", images)) as dataset:
        np.testing.assert_array_equal(dataset.read(np.arange(COUNT)), images)
        assert dataset.verify() == []


@pytest.mark.parametrize("size, channels, chunks",
                         [(30, 3, (8, 30, 30, 3)), (200, 3, (8, 67, 67, 3)),
                          (128, 1, (8, 64, 64, 1))])
def test_chunks_are_runs_of_eight_images_times_tiles(tmp_path, size, channels, chunks):
    with Dataset(write(tmp_path / "a.h5",
                       np.zeros((9, size, size, channels), np.uint8))) as dataset:
        assert dataset.chunks == chunks


def test_labels_may_be_named_while_writing(tmp_path, images):
    names = []
    with DatasetWriter(tmp_path / "a.h5", SIZE, 3, names) as writer:
        for i in range(2):
            names.append(f"class {i}")
            writer.append(images[i], source="s", group="g", original=(1, 1), crop=(0, 0, 1, 1),
                          label=i)
    with Dataset(tmp_path / "a.h5") as dataset:
        assert dataset.label_names == ["class 0", "class 1"] and dataset.labels.tolist() == [0, 1]


def test_verify_finds_the_changed_image(tmp_path, images):
    path = write(tmp_path / "a.h5", images)
    with h5py.File(path, "r+") as file:
        file["images"][11, 4, 4, 1] ^= 1
        file["images"][36, 29, 29, 2] ^= 128
    with Dataset(path) as dataset:
        assert dataset.verify() == [11, 36]


def test_an_error_leaves_the_older_file(tmp_path, images):
    path = write(tmp_path / "a.h5", images)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="on purpose"), DatasetWriter(path, SIZE, 3) as writer:
        writer.append(images[0], source="s", group="g", original=(1, 1), crop=(0, 0, 1, 1))
        raise RuntimeError("on purpose")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.h5"]


def test_an_error_while_saving_leaves_the_older_file(tmp_path, images):
    path = write(tmp_path / "a.h5", images)
    before = path.read_bytes()
    # found only when the settings are written, at the end
    with pytest.raises(TypeError, match="JSON"):
        write(path, images[:3], settings={"not for JSON": object()})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.h5"]


KILLED = """
import sys, time
import numpy as np
from hpclcae.data.dataset import DatasetWriter
with DatasetWriter(sys.argv[1], 8, 3) as writer:
    writer.append(np.ones((8, 8, 3), np.uint8), source="s", group="g", original=(1, 1),
                  crop=(0, 0, 1, 1))
    print("appended", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_writer_leaves_nothing(tmp_path, how):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "a.h5")],
                          stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout.readline() == "appended\n"
        process.send_signal(how)
        assert process.wait(timeout=30) != 0
    assert os.listdir(tmp_path) == []


def test_nothing_appended(tmp_path):
    with (pytest.raises(InputError, match="no image for .*a.h5"),
          DatasetWriter(tmp_path / "a.h5", 8, 3)):
        pass
    assert os.listdir(tmp_path) == []


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in ((tmp_path, "it is a folder"),
                          (tmp_path / "file" / "a.h5", "choose another folder")):
        with pytest.raises(InputError, match=message), DatasetWriter(path, 8, 3):
            pass


@pytest.mark.parametrize("size, channels", [(0, 3), (-5, 1), (8, 2)])
def test_impossible_shapes(tmp_path, size, channels):
    with pytest.raises(InputError, match=f"size {size} with {channels} channels"):
        DatasetWriter(tmp_path / "a.h5", size, channels)


@pytest.mark.parametrize("image, label, message", [
    (np.zeros((8, 8, 1), np.uint8), -1, r"\(8, 8, 1\)"), (np.zeros((8, 8, 3)), -1, "float64"),
    (np.zeros((8, 8, 3), np.uint8), 2, "label 2"), (np.zeros((8, 8, 3), np.uint8), -2, "label -2")])
def test_append_checks_what_it_gets(tmp_path, image, label, message):
    with (pytest.raises(ValueError, match=message),
          DatasetWriter(tmp_path / "a.h5", 8, 3, ["no", "yes"]) as writer):
        writer.append(image, source="s", group="g", original=(1, 1), crop=(0, 0, 1, 1), label=label)


def as_input_error(path):
    with pytest.raises(InputError) as caught:
        Dataset(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_files_that_are_no_dataset(tmp_path, images):
    path = write(tmp_path / "a.h5", images)
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:-1000])
    (tmp_path / "text.h5").write_text("no HDF5\n" * 100)
    (tmp_path / "empty.h5").write_bytes(b"")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = [1]
    assert "not a file" in as_input_error(tmp_path / "missing.h5")
    assert "not a file" in as_input_error(tmp_path)
    assert "truncated" in as_input_error(tmp_path / "cut.h5")
    assert "cannot be read as HDF5" in as_input_error(tmp_path / "text.h5")
    assert "cannot be read as HDF5" in as_input_error(tmp_path / "empty.h5")
    assert "of another kind" in as_input_error(tmp_path / "other.h5")


def test_other_kinds_newer_and_damaged_files(tmp_path, images):
    path = write(tmp_path / "a.h5", images)
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 99
    assert "schema 99" in as_input_error(path) and "newer hpclcae" in as_input_error(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 1
        file.attrs["settings"] = "{"
    assert "damaged" in as_input_error(path)
    with h5py.File(path, "r+") as file:
        file.attrs["settings"] = "{}"
        del file["images"]
    assert "damaged" in as_input_error(path)
    with h5py.File(path, "r+") as file:
        file.attrs["kind"] = "hpclcae checkpoint"
    assert "hpclcae checkpoint" in as_input_error(path)
