"""Checkpoints: bit for bit, readable without the package, and never half there."""
import errno
import json
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint, config as configuration, preprocess
from hpclcae.checkpoint import Checkpoint
from hpclcae.errors import InputError
from hpclcae.network import Network
from hpclcae.update_rules import SLOTS
from tests.conftest import structured_images


def made(config, step=7):
    """A checkpoint whose every number is another one, and its network."""
    network = Network(config)
    generator = np.random.default_rng(5)

    def filled():
        """Random numbers at every learned position; the kernel's padding stays zero."""
        vector = network.parameters(0)
        for weights in vector.views.values():
            weights *= generator.standard_normal(weights.shape).astype(weights.dtype)
        return vector
    images = structured_images(40, config.data.size, config.data.channels)
    state = Checkpoint(config, step, filled(), preprocess.fit(config.preprocess, images),
                       {slot: filled() for slot in SLOTS[config.update.rule]},
                       dict.fromkeys(network.parameters().views, 3), seconds=1.25)
    return state, network


@pytest.fixture
def saved(tiny_config, tmp_path):
    """(path, state, network) of a checkpoint on the disk."""
    state, network = made(tiny_config())
    path = checkpoint.path_of(tmp_path / "run" / "checkpoints", 7)
    checkpoint.save(path, state, network)
    return path, state, network


def datasets(path):
    """Every dataset of an HDF5 file by name, read with plain h5py."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]), name


# ---- round trip --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["update.rule=adam", "update.rule=sgd", "train.dtype=float64",
                                    "stages.1.weights=tied", "preprocess.whitening=0", "data.channels=3"])
def test_everything_comes_back_bit_for_bit(tiny_config, tmp_path, change):
    state, network = made(tiny_config(change))
    checkpoint.save(tmp_path / "step-00000007.h5", state, network)
    loaded, again = checkpoint.load(tmp_path / "step-00000007.h5")
    assert (loaded.config, loaded.step, loaded.counts, loaded.seconds) == (state.config, 7, state.counts, 1.25)
    assert again.config == state.config and again.dtype == network.dtype
    assert_same({"all": loaded.parameters.vector}, {"all": state.parameters.vector})
    assert_same({slot: v.vector for slot, v in loaded.update_state.items()},
                {slot: v.vector for slot, v in state.update_state.items()})
    for name in ("kernel", "eigenvalues"):
        one, other = getattr(loaded.preprocessing, name), getattr(state.preprocessing, name)
        assert (one is None) == (other is None) and (one is None or np.array_equal(one, other))
    images = structured_images(9, 24, state.config.data.channels, seed=9)
    prepared = [s.preprocessing.preparer(24, network.dtype)(images) for s in (state, loaded)]
    assert np.array_equal(*prepared)  # the test is treated as the training was


@pytest.mark.parametrize("tile", [1, 3])
def test_another_tile_size_reads_the_same_weights(saved, tmp_path, tile):
    path, state, network = saved
    before = datasets(path)
    tiles = tuple(replace(stage, tile=tile) for stage in state.config.stages)
    with h5py.File(path, "r+") as file:
        file.attrs["configuration"] = configuration.dumps(replace(state.config, stages=tiles))
    loaded, other = checkpoint.load(path)
    assert all(stage.filter.tile == tile for stage in other.stages)
    assert other.stages[0].filter.shape != network.stages[0].filter.shape
    checkpoint.save(tmp_path / "again.h5", loaded, other)
    assert_same(datasets(tmp_path / "again.h5"), before)


def test_plain_h5py_finds_what_the_module_documents(saved):
    path, state, network = saved
    expected = {f"{prefix}stage{i + 1}/{name}" for i in range(3) for name in ("encode", "decode")
                for prefix in ("", "update/velocity/")}
    with h5py.File(path) as file:
        assert set(datasets(path)) == expected | {"preprocess/kernel", "preprocess/eigenvalues"}
        for i, geometry in enumerate(network.geometry):
            for name in ("encode", "decode"):
                weights = file[f"stage{i + 1}/{name}"]
                rows, cols, maps = geometry.filtered
                field = geometry.receptive_field
                assert weights.shape == (rows, cols, field, field, geometry.input[2], maps)
                assert list(weights.attrs["axes"]) == ["row", "col", "krow", "kcol", "map in", "map"]
                assert weights.dtype == np.float32
        assert file["preprocess/kernel"].shape == (5, 5, 1, 1)
        attributes = dict(file.attrs)
    assert (attributes["kind"], attributes["schema"], attributes["step"]) == ("hpclcae checkpoint", 1, 7)
    assert configuration.loads(attributes["configuration"]) == state.config
    assert json.loads(attributes["counts"]) == state.counts
    assert {"hpclcae", "numpy", "h5py", "python"} <= json.loads(attributes["versions"]).keys()
    for name in attributes:
        assert name in checkpoint.__doc__, f"attribute {name} is not documented"


# ---- finding one -------------------------------------------------------------------------------------------


def test_find_takes_a_file_or_the_newest_of_a_run(saved):
    path, state, network = saved
    run = path.parent.parent
    for step in (40, 123456789, 8):  # no checkpoint has a name of nine digits
        checkpoint.save(path.parent / f"step-{step:08d}.h5", state, network)
    (path.parent / "step-00000050.h5.partial").write_text("a crash left this")
    assert [p.name for p in checkpoint.saved(path.parent)] == ["step-00000007.h5", "step-00000008.h5",
                                                               "step-00000040.h5"]
    assert checkpoint.find(run).name == "step-00000040.h5"
    assert checkpoint.find(path) == path
    with pytest.raises(InputError, match="neither a checkpoint nor the folder of a run with checkpoints"):
        checkpoint.find(path.parent)


# ---- what is refused ---------------------------------------------------------------------------------------


def refused(path):
    with pytest.raises(InputError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_truncated_file_is_refused(saved):
    path, _, _ = saved
    content = path.read_bytes()
    for length in (0, 5, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "cannot be read as HDF5" in refused(path)
    path.write_bytes(content)
    checkpoint.load(path)


def test_files_of_another_kind_are_refused(tmp_path, tiny_dataset):
    assert "is hpclcae dataset, not an hpclcae checkpoint" in refused(tiny_dataset)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1]
    assert "an HDF5 file of another program" in refused(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("not HDF5 at all\n")
    assert "cannot be read as HDF5" in refused(tmp_path / "text.h5")
    assert "cannot be read as HDF5" in refused(tmp_path / "missing.h5")


def test_a_newer_schema_is_refused_and_says_what_to_do(saved):
    path, _, _ = saved
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = checkpoint.SCHEMA + 1
    assert refused(path).endswith("has schema 2, this hpclcae reads up to 1: use a newer hpclcae")


@pytest.mark.parametrize("name", ["stage2/decode", "update/velocity/stage1/encode"])
def test_a_missing_part_is_refused(saved, name):
    path, _, _ = saved
    with h5py.File(path, "r+") as file:
        del file[name]
    assert "is a damaged checkpoint" in refused(path)


@pytest.mark.parametrize("name", ["configuration", "counts", "step"])
def test_a_missing_attribute_is_refused(saved, name):
    path, _, _ = saved
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
    assert "is a damaged checkpoint" in refused(path)


def test_a_configuration_of_another_version_is_refused_by_its_key(saved):
    path, state, _ = saved
    with h5py.File(path, "r+") as file:
        file.attrs["configuration"] = configuration.dumps(state.config).replace("momentum =", "inertia =")
    assert "unknown key 'update.inertia'" in refused(path)


# ---- a write that fails ------------------------------------------------------------------------------------


class Interrupted(RuntimeError):
    """Something that goes wrong in the middle of a save."""


def test_a_save_that_fails_leaves_the_older_file_and_nothing_else(saved, monkeypatch):
    path, state, network = saved
    before = path.read_bytes()
    rows = []

    def failing(*arguments):
        rows.append(arguments)
        if len(rows) == 3:
            raise Interrupted
        return unpack(*arguments)
    plan = type(network.stages[0].filter)
    unpack = plan.unpack_row
    monkeypatch.setattr(plan, "unpack_row", failing)
    with pytest.raises(Interrupted):
        checkpoint.save(path, state, network)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


SAVE_TWICE = """
import resource, sys
from pathlib import Path
from hpclcae import checkpoint
path, limit = Path(sys.argv[1]), int(sys.argv[2])
state, network = checkpoint.load(path)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    checkpoint.save(path.with_name("step-00000008.h5"), state, network)
except OSError as error:
    print(error.errno, error.filename)
"""


def assert_refused_by_the_disk(process, path, number):
    """The process ended well, told the error in one line and left the older checkpoint alone."""
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines() == [f"{number} {path.with_name('step-00000008.h5')}"]


def test_a_file_that_may_not_grow_leaves_the_older_checkpoint_intact(saved):
    """HDF5 itself would crash the process when it ends."""
    path, _, _ = saved
    before = path.read_bytes()
    for limit in (1000, len(before) - 1):
        process = subprocess.run([sys.executable, "-c", SAVE_TWICE, path, str(limit)], capture_output=True, text=True,
                                 timeout=60)
        assert_refused_by_the_disk(process, path, errno.EFBIG)
        assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


FULL_DISK = """
set -e
mount -t tmpfs -o size=$3 tmpfs "$2"
cp "$1" "$2"
"$0" -c "$4" "$2/step-00000007.h5" 0
cmp "$1" "$2/step-00000007.h5"
test "$(ls "$2")" = step-00000007.h5
"""


def test_a_full_disk_leaves_the_older_checkpoint_intact(saved, tmp_path):
    """A real one: a small file system in a mount namespace of its own."""
    path, _, _ = saved
    disk = tmp_path / "disk"
    disk.mkdir()
    own_mounts = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*own_mounts, "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=True,
                       timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here, so no disk to fill (the test above limits the file's size instead)")
    size = path.stat().st_size * 3 // 2
    process = subprocess.run([*own_mounts, "sh", "-c", FULL_DISK, sys.executable, path, disk, str(size), SAVE_TWICE],
                             capture_output=True, text=True, timeout=60)
    assert_refused_by_the_disk(process, disk / path.name, errno.ENOSPC)


def test_a_folder_that_cannot_be_made_is_an_os_error(saved, tmp_path):
    _, state, network = saved
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="File exists"):
        checkpoint.save(tmp_path / "file" / "step-00000007.h5", state, network)
