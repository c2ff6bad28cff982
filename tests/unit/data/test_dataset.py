"""The dataset file: what is written is read back, and a bad file is one clear line."""
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpclcae.data.dataset import Dataset
from hpclcae.data.writer import DatasetWriter
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


def write_one_by_one(path, images, **columns):
    """A dataset of which some columns are given: one value for each image."""
    with DatasetWriter(path, SIZE, 3, ["no", "yes"], {"path": str(path)},
                       shuffle_seed=columns.pop("shuffle_seed", None)) as writer:
        for i, image in enumerate(images):
            writer.append(image, source="s", group=f"s/{i // 4}", original=(1, 1),
                          crop=(0, 0, 1, 1), **{name: list(values)[i]
                                                for name, values in columns.items()})
    return Dataset(path)


def test_halves_kinds_and_pairs_are_read_back_and_are_none_without(tmp_path, images):
    half, kind = [i // 4 % 2 for i in range(COUNT)], ["face" if i % 3 else "" for i in range(COUNT)]
    with write_one_by_one(tmp_path / "a.h5", images) as dataset:
        assert dataset.half is dataset.kind is dataset.pair is dataset.recipe is None
        assert dataset.framing == "as in the pictures"
    with write_one_by_one(tmp_path / "a.h5", images, half=half, kind=kind) as dataset:
        assert dataset.half.tolist() == half and dataset.half.dtype == np.uint8
        assert dataset.kind is None  # not of all images
    kind = ["face" if i % 3 else "cut-out" for i in range(COUNT)]
    with write_one_by_one(tmp_path / "a.h5", images, kind=kind) as dataset:
        assert dataset.kind.tolist() == kind and dataset.half is None


@pytest.mark.parametrize("seed", [None, 3])
def test_partners_stand_side_by_side(tmp_path, images, seed):
    pair = np.full(COUNT, -1)
    for i, j in ((0, 9), (1, 2), (5, 20), (35, 36)):
        pair[[i, j]] = j, i
    earlier = np.where(pair < np.arange(COUNT), pair, -1)
    with write_one_by_one(tmp_path / "a.h5", images, pair=earlier.tolist(),
                          shuffle_seed=seed) as dataset:
        stored, partner = dataset.read(np.arange(COUNT)), dataset.pair
    assert partner.dtype == np.int64 and (partner >= 0).sum() == 8
    place = {image.tobytes(): i for i, image in enumerate(stored)}
    now = np.array([place[image.tobytes()] for image in images])
    np.testing.assert_array_equal(partner[now], np.where(pair >= 0, now[pair], -1))
    assert (np.abs(partner - np.arange(COUNT))[partner >= 0] == 1).all()
    if seed is None:
        assert now[[0, 9, 1, 2, 3]].tolist() == [0, 1, 2, 3, 4]


def test_memory_for_columns_does_not_grow_with_the_images(tmp_path, images):
    """Three million images of which no pixel is stored."""
    write_one_by_one(tmp_path / "a.h5", images[:2]).close()
    count = 3_000_000
    with h5py.File(tmp_path / "a.h5", "r") as small, h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs.update(small.attrs)
        file.create_dataset("images", (count, 1, 1, 1), np.uint8, chunks=(8, 1, 1, 1))
        file["checksum"] = np.arange(count, dtype=np.uint64)
        file["pair"] = np.arange(count) ^ 1
    with Dataset(tmp_path / "b.h5") as dataset:
        tracemalloc.start()
        assert dataset.fingerprint and dataset.pair_count == count // 2
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6e6  # a column has 24
        np.testing.assert_array_equal(dataset.pair[-4:], count - np.array([3, 4, 1, 2]))


@pytest.mark.parametrize("pair", [[1, -1, -1], [0, -1, -1], [-1, 0, 0], [-1, -1, -2]])
def test_partners_that_are_not_there_or_taken_are_refused(tmp_path, images, pair):
    with pytest.raises(ValueError, match="cannot be the partner of image"):
        write_one_by_one(tmp_path / "a.h5", images[:3], pair=pair)
    assert os.listdir(tmp_path) == []


def test_a_group_in_both_halves_is_one_line(tmp_path, images):
    with (write_one_by_one(tmp_path / "a.h5", images, half=[0, 1] + [0] * 35) as dataset,
          pytest.raises(InputError, match="image 0 has half 0, others of its group 's/0' do not")):
        dataset.half


@pytest.mark.parametrize("name, values, said", [
    ("half", np.zeros(3, np.uint8), r"half has shape \(3,\) for 37 images"),
    ("kind", np.full(COUNT, 9, np.uint8), "index 9 is out of bounds"),
    ("pair", np.full(COUNT, 2), "not the partner of its partner"),
    ("pair", np.full(COUNT, COUNT), "not the partner of its partner")])
def test_damaged_columns_are_one_line(tmp_path, images, name, values, said):
    columns = {"half": [0] * COUNT, "kind": ["x"] * COUNT, "pair": [-1, 0] + [-1] * (COUNT - 2)}
    write_one_by_one(tmp_path / "a.h5", images, **columns).close()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)
    with (Dataset(tmp_path / "a.h5") as dataset,
          pytest.raises(InputError, match=f"a.h5 cannot be read as HDF5 .*{said}.*write it again")):
        getattr(dataset, name)


def test_half_needs_groups(tmp_path, images):
    write_one_by_one(tmp_path / "a.h5", images, half=[0] * COUNT).close()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["group"]
    with (Dataset(tmp_path / "a.h5") as dataset,
          pytest.raises(InputError, match="a.h5 has halves but no groups.*write the dataset")):
        dataset.half


def test_fingerprints_tell_datasets_apart_and_not_their_names(tmp_path, images):
    other = images.copy()
    other[7, 3, 3, 1] ^= 1
    pair, label = [-1, 0] + [-1] * 35, [0, 1] * 18 + [-1]

    def of(name, *arguments, **columns):
        with write_one_by_one(tmp_path / name, *arguments, **columns) as dataset:
            return dataset.fingerprint
    plain = of("a.h5", images)
    assert re.fullmatch("[0-9a-f]{16}", plain) and of("b.h5", images) == plain
    others = [of("a.h5", other), of("a.h5", images[:-1]), of("a.h5", images[::-1]),
              of("a.h5", images, pair=pair), of("a.h5", images, label=label),
              of("a.h5", images, half=[0] * COUNT), of("a.h5", images, half=[1] * COUNT),
              of("a.h5", images, kind=["x"] * COUNT), of("a.h5", images, kind=["y"] * COUNT)]
    assert len({plain, *others}) == 10


@pytest.mark.parametrize("settings, said", [
    ({"reach": 0.08}, "faces 0.80 to 1.20 of the frame, centred (+-0.08)"),
    ({"reach": 0.2}, "faces 0.80 to 1.20 of the frame, up to 0.20 off the middle"),
    ({"reach": None}, "faces 0.80 to 1.20 of the frame, anywhere (whole)"),
    ({"anywhere": True}, "faces 0.80 to 1.20 of the frame, anywhere (whole)"),
    ({"anywhere": False}, "faces 0.80 to 1.20 of the frame, centred (+-0.08)"),
    ({"reach": None, "faces": 0}, "no faces")])
def test_framing_is_said_of_older_files_too(tmp_path, images, settings, said):
    settings = {"face_size": [0.8, 1.2], "faces": 0.1, "heads": 0} | settings
    with Dataset(write(tmp_path / "a.h5", images, settings=settings)) as dataset:
        assert dataset.recipe == settings and dataset.framing == said


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
from hpclcae.data.writer import DatasetWriter
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


# ---- compression ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", ["lz4", "blosc"])
def test_compressed_pixels_are_read_as_others(tmp_path, images, compress):
    pytest.importorskip("hdf5plugin")
    grey = images // 64 * 64  # fewer levels: it has something to compress
    path = write(tmp_path / "a.h5", grey, compress=compress)
    with Dataset(path) as dataset:
        np.testing.assert_array_equal(dataset.read(np.array([5, 6, 30]), slice(2, 9)),
                                      grey[[5, 6, 30], 2:9])
        assert dataset.verify() == []
    assert path.stat().st_size < 0.9 * write(tmp_path / "b.h5", grey).stat().st_size


def test_a_missing_filter_is_named_with_its_package(tmp_path, images, monkeypatch):
    path = write(tmp_path / "a.h5", images)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"compression 'lz4' needs hdf5plugin.*hpclcae\[compress"):
        write(path, images, compress="lz4")
    with pytest.raises(InputError, match="compression 'zip' is not one of none, lz4, blosc"):
        write(path, images, compress="zip")
    unknown = 32999
    with h5py.File(path, "r+") as file:
        attributes = dict(file["images"].attrs)
        del file["images"]
        kept = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kept.set_chunk((8, SIZE, SIZE, 3))
        kept.set_filter(unknown, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8,
                        h5py.h5s.create_simple(images.shape), kept)
        file["images"].attrs.update(attributes)
    with pytest.raises(InputError, match=rf"a\.h5 is compressed with filter {unknown} .*"
                       r"pip install 'hpclcae\[compress\]'"):
        Dataset(path)
