"""Checkpoints: bit for bit, on any grid and any number of owners, readable without the package."""
import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint, config as configuration
from hpclcae.checkpoint import folder as folders
from hpclcae.checkpoint.regions import rectangles, regions
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.partition.blocks import Grid
from hpclcae.partition.communicator import SerialCommunicator
from hpclcae.utils.errors import InputError
from tests.support.images import structured_images
from tests.support.saving import (METRICS, WHOLE, assert_same, datasets, made, old_file,
                                  owned_chunks, save, save_chunk_states)


@pytest.fixture
def saved(tiny_config, tmp_path):
    """(folder, state) of a checkpoint of three shards on the disk."""
    state = made(tiny_config())
    return save(tmp_path / "run", state, 3), state


# ---- round trip ----------------------------------------------------------------------------------


@pytest.mark.parametrize("owners", [1, 5])
@pytest.mark.parametrize("change",
                         ["update.rule=adam", "update.rule=sgd", "train.dtype=float64",
                          "stages.1.weights=tied", "preprocess.whitening=0", "data.channels=3"])
def test_everything_comes_back_bit_for_bit(tiny_config, tmp_path, change, owners):
    state = made(tiny_config(change))
    loaded, network = checkpoint.load(save(tmp_path, state, owners))
    for name in ("config", "step", "seconds", "cursors", "metrics", "counts"):
        assert getattr(loaded, name) == getattr(state, name), name
    assert network.config == state.config
    assert_same({"all": loaded.parameters.vector}, {"all": state.parameters.vector})
    assert_same({slot: v.vector for slot, v in loaded.update_state.items()},
                {slot: v.vector for slot, v in state.update_state.items()})
    for name in ("kernel", "eigenvalues"):
        one, other = getattr(loaded.preprocessing, name), getattr(state.preprocessing, name)
        assert (one is None) == (other is None) and (one is None or np.array_equal(one, other))
    images = structured_images(9, 24, state.config.data.channels, seed=9)
    prepared = [s.preprocessing.preprocessor(24, network.dtype)(images) for s in (state, loaded)]
    assert np.array_equal(*prepared)  # the test is treated as the training was


LAYOUTS = [((1, 1), 1), ((1, 1), 4), ((2, 3), 1), ((2, 3), 7), ((3, 1), 2), ((5, 5), 9)]


@pytest.mark.parametrize("grid, owners", LAYOUTS)
def test_any_owners_on_any_grid_read_and_write_the_same_positions(saved, tmp_path, grid, owners):
    """Three owners of one block wrote.

    Other owners of other blocks read, write, and are read by one process.
    """
    folder, state = saved
    grid = Grid(*grid)
    held = [checkpoint.load_chunk_states(folder, Layout(state.config, grid), chunks)
            for chunks in owned_chunks(state.config, grid, owners)]
    again = save_chunk_states(tmp_path / "again", state, grid, held)
    assert len(list(again.glob("shard-*.h5"))) == owners
    assert_same(datasets(again), datasets(folder))
    loaded, _ = checkpoint.load(again)
    assert_same({"all": loaded.parameters.vector}, {"all": state.parameters.vector})
    assert loaded.counts == state.counts


@pytest.mark.parametrize("grid", [(2, 3), (5, 5)])
def test_every_block_reads_its_own_part(saved, grid):
    folder, state = saved
    grid = Grid(*grid)

    class Rank(SerialCommunicator):
        size = grid.size

        def channel(self, tag, sends, receives):
            """Reading needs none."""
    expected = datasets(folder)
    seen = dict.fromkeys(state.parameters.views, 0)
    for block in range(grid.size):
        rank = Rank()
        rank.rank = block
        part, network = checkpoint.load(folder, grid, rank)
        assert part.counts == state.counts
        for stage in network.stages:
            owned = stage.plan.z.owned
            for name in stage.parameter_shapes():
                for prefix, vector in (("", part.parameters),
                                       ("update/velocity/", part.update_state["velocity"])):
                    rows = [stage.filter.unpack_row(vector[name], j)
                            for j in range(stage.filter.tile_rows)]
                    if owned.size:
                        there = expected[prefix + name][slice(*owned.rows), slice(*owned.cols)]
                        assert np.array_equal(np.concatenate(rows), there)
                seen[name] += owned.size
    assert all(seen[name] == np.prod(expected[name].shape[:2]) for name in seen)


@pytest.mark.parametrize("tile", [1, 3])
def test_another_tile_size_reads_the_same_weights(saved, tmp_path, tile):
    folder, state = saved
    config = replace(state.config,
                     stages=tuple(replace(stage, tile=tile) for stage in state.config.stages))
    held = [checkpoint.load_chunk_states(folder, Layout(config, WHOLE), chunks)
            for chunks in owned_chunks(config, WHOLE, 2)]
    assert held[0][0].values.shape != state.parameters["stage1/encode"].shape
    again = save_chunk_states(tmp_path / "again", replace(state, config=config), WHOLE, held)
    assert_same(datasets(again), datasets(folder))


def test_reading_into_arrays_that_are_there(saved):
    folder, state = saved
    chunks = owned_chunks(state.config, WHOLE, 2)[1]
    expected = checkpoint.load_chunk_states(folder, Layout(state.config, WHOLE), chunks)
    chunk_states = [replace(h, values=np.full_like(h.values, np.nan), count=0,
                            state={slot: np.full_like(a, np.nan) for slot, a in h.state.items()})
                    for h in expected]
    arrays = [h.values for h in chunk_states]
    checkpoint.fill(folder, Layout(state.config, WHOLE), chunk_states)
    for array, chunk_state, wanted in zip(arrays, chunk_states, expected):
        assert chunk_state.values is array and np.array_equal(array, wanted.values)
        assert np.array_equal(chunk_state.state["velocity"], wanted.state["velocity"])
        assert (chunk_state.count, chunk_state.version) == (wanted.count, wanted.version)


def test_counts_and_versions_are_kept_by_chunk_and_the_largest_counts_where_chunks_are_larger(
        saved, tmp_path):
    folder, state = saved
    chunks = owned_chunks(state.config, WHOLE, 40)
    held = [checkpoint.load_chunk_states(folder, Layout(state.config, WHOLE), mine)
            for mine in chunks]
    for number, chunk_state in enumerate(h for mine in held for h in mine):
        chunk_state.count, chunk_state.version = 100 + number, 1000 + number
    again = save_chunk_states(tmp_path / "again", state, WHOLE, held)
    for mine, wanted in zip(chunks, held):
        found = checkpoint.load_chunk_states(again, Layout(state.config, WHOLE), mine)
        for chunk_state, other in zip(found, wanted):
            assert (chunk_state.count, chunk_state.version) == (other.count, other.version)
    written = [h for mine in held for h in mine]
    most = {name: max(h.count for h in written if h.chunk.name == name)
            for name in state.parameters.views}
    assert len({h.chunk.name for h in written}) < len(written)
    assert checkpoint.load(again)[0].counts == most


# ---- rectangles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cols", [1, 2, 5])
def test_a_run_of_tiles_is_at_most_three_rectangles_that_cover_it_once(cols):
    for first in range(2 * cols):
        for last in range(first, 5 * cols):
            found = list(rectangles(first, last, cols))
            assert len(found) <= 3
            tiles = [row * cols + col for rows, columns in found for row in range(*rows)
                     for col in range(*columns)]
            assert tiles == list(range(first, last))


def test_what_an_owner_holds_is_stored_in_few_pieces(tiny_config):
    config = tiny_config("stages.0.tile=1")
    for chunks in owned_chunks(config, Grid(2, 2), 3):
        pieces = regions(Layout(config, Grid(2, 2)), chunks)
        parts = {(chunk.block, chunk.name) for chunk in chunks}
        assert len(parts) <= len(pieces) <= 3 * len(parts)


# ---- plain h5py ----------------------------------------------------------------------------------


def test_plain_h5py_finds_what_the_package_documents(saved):
    folder, state = saved
    expected = {f"{prefix}stage{i + 1}/{name}" for i in range(3) for name in ("encode", "decode")
                for prefix in ("", "update/velocity/")}
    network = Network(Layout(state.config))
    with h5py.File(folder / "model.h5") as file:
        assert set(datasets(folder)) == expected | {"preprocess/kernel", "preprocess/eigenvalues",
                                                    "cursors"}
        for i, geometry in enumerate(network.layout.geometry):
            for name in ("encode", "decode"):
                weights = file[f"stage{i + 1}/{name}"]
                rows, cols, maps = geometry.filtered
                field = geometry.receptive_field
                assert weights.shape == (rows, cols, field, field, geometry.input[2], maps)
                assert list(weights.attrs["axes"]) == ["row", "col", "krow", "kcol", "map in",
                                                       "map"]
                assert weights.dtype == np.float32
                plan = network.stages[i].filter
                filters = [plan.unpack_row(state.parameters[weights.name[1:]], j)
                           for j in range(plan.tile_rows)]
                assert np.array_equal(weights[2, 3], np.concatenate(filters)[2, 3])
        assert file["preprocess/kernel"].shape == (5, 5, 1, 1)
        assert file["metrics"].asstr()[()] == METRICS and list(file["cursors"]) == [7, 9]
        assert file["chunks"].dtype.names == ("parameter", "row", "col", "rows", "cols", "count",
                                              "version")
        attributes = dict(file.attrs)
    found = attributes["kind"], attributes["schema"], attributes["step"]
    assert found == ("hpclcae checkpoint", 2, 7)
    assert configuration.loads(attributes["configuration"]) == state.config
    assert {"hpclcae", "numpy", "h5py", "python"} <= json.loads(attributes["versions"]).keys()
    for name in attributes:
        assert name in checkpoint.__doc__, f"attribute {name} is not documented"


def test_the_list_of_places_finds_every_number_without_hdf5(saved):
    folder, state = saved
    with h5py.File(folder / "model.h5") as file:
        arrays = {name: file[name][...] for name in file["places"]["array"].astype(str)}
        places = file["places"][...]
    assert arrays.keys() == datasets(folder).keys() - {"preprocess/kernel",
                                                       "preprocess/eigenvalues", "cursors"}
    found = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
    for place in places:
        array = found[place["array"].decode()]
        rows, cols = (slice(place[n], place[n] + place[f"{n}s"]) for n in ("row", "col"))
        part = array[rows, cols]
        part[...] = np.fromfile(folder / f"shard-{place['shard']:04d}.h5", array.dtype, part.size,
                                offset=place["offset"]).reshape(part.shape)
    assert_same(found, arrays)


def change_places(folder, change):
    """Write model.h5 with another list of places (None: without it), and a manifest that fits."""
    with h5py.File(folder / "model.h5", "a") as file:
        places = change(file["places"][...])
        del file["places"]
        if places is not None:
            file["places"] = places
    manifest = folders.read_manifest(folder)
    files = manifest.files | {"model.h5": folders.content_of(folder / "model.h5")}
    folders.write_manifest(folder, replace(manifest, files=files))


def test_a_checkpoint_without_the_list_of_places_is_read_through_hdf5(saved):
    folder, state = saved
    change_places(folder, lambda places: None)
    loaded, _ = checkpoint.load(folder)
    assert_same(
        {"all": loaded.parameters.vector, **{s: v.vector for s, v in loaded.update_state.items()}},
        {"all": state.parameters.vector, **{s: v.vector for s, v in state.update_state.items()}})


@pytest.mark.parametrize("change, said", [
    (lambda places: places[1:],
     "does not say where all of stage1/.* lies: use an older checkpoint"),
    (lambda places: np.array([(*tuple(place)[:-1], 1 << 30) for place in places], places.dtype),
     r"shard-0000.h5 ends too early: bring back a whole copy"),])
def test_a_list_of_places_that_cannot_be_is_refused(saved, change, said):
    folder, _ = saved
    change_places(folder, change)
    with pytest.raises(InputError, match=said):
        checkpoint.load(folder)


def test_the_revision_is_read_from_gits_files(tmp_path):
    from hpclcae.utils.provenance import revision
    code = tmp_path / "checkout" / "package" / "module.py"
    git = tmp_path / "checkout" / ".git"
    (git / "refs/heads").mkdir(parents=True)
    assert revision(code) == ""
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs with: peeled\n" + "b" * 40 + " refs/heads/main\n")
    assert revision(code) == "b" * 40
    (git / "refs/heads/main").write_text("a" * 40 + "\n")
    assert revision(code) == "a" * 40
    (git / "HEAD").write_text("c" * 40 + "\n")
    assert revision(code) == "c" * 40


READ = """
import sys
from hpclcae import checkpoint
state, _ = checkpoint.load(checkpoint.find(sys.argv[1]))
print(state.step, float(abs(state.parameters.vector).sum(dtype="f8")))
"""


@pytest.mark.parametrize("locking", ["FALSE", "TRUE"])
def test_any_setting_of_hdf5_file_locking_reads_and_writes(saved, locking):
    folder, state = saved
    process = subprocess.run([sys.executable, "-c", READ, folder], capture_output=True, text=True,
                             timeout=60, env=os.environ | {"HDF5_USE_FILE_LOCKING": locking})
    assert process.returncode == 0, process.stderr
    step, total = process.stdout.split()
    assert (int(step), float(total)) == (7, float(abs(state.parameters.vector).sum(dtype="f8")))


def test_nothing_is_pickled():
    for path in Path(checkpoint.__file__).parent.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Name)}
        assert not names & {"pickle", "dill", "marshal", "shelve"}, path


# ---- a single file of schema 1 -------------------------------------------------------------------


def test_a_checkpoint_of_schema_1_is_read_and_the_next_one_is_a_folder(tiny_config, tmp_path):
    state = made(tiny_config())
    path = old_file(tmp_path / "checkpoints/step-00000007.h5", state)
    assert checkpoint.find(tmp_path) == path
    assert checkpoint.saved(tmp_path / "checkpoints") == [path]
    loaded, _ = checkpoint.load(path)
    assert (loaded.config, loaded.step, loaded.counts, loaded.cursors, loaded.metrics) \
        == (state.config, 7, state.counts, (7,), "")
    assert_same({"all": loaded.parameters.vector}, {"all": state.parameters.vector})
    folder = save(tmp_path, replace(loaded, step=8), 2)
    assert checkpoint.saved(tmp_path / "checkpoints") == [path, folder]
    old, new = datasets(path), datasets(folder)
    assert_same({name: new[name] for name in old}, old)
    save(tmp_path, replace(loaded, step=9), 2)
    assert not path.exists()  # it is among those that are kept, and then it is not


# ---- finding one ---------------------------------------------------------------------------------


def test_find_takes_a_checkpoint_or_a_file_in_it_or_the_newest_of_a_run(saved, tmp_path):
    folder, state = saved
    run = tmp_path / "run"
    for step in (40, 8):
        shutil.copytree(folder, folder.with_name(f"step-{step:08d}"))
    # no checkpoint has a name of nine digits
    shutil.copytree(folder, folder.with_name("step-123456789"))
    unfinished = shutil.copytree(folder, folder.with_name("step-00000050"))
    (unfinished / "manifest.json").unlink()
    names = ["step-00000007", "step-00000008", "step-00000040"]
    assert [path.name for path in checkpoint.saved(folder.parent)] == names
    assert checkpoint.find(run).name == names[-1]
    for path in (folder, folder / "model.h5", folder / "manifest.json"):
        assert checkpoint.find(path) == folder
    with pytest.raises(InputError,
                       match="step-00000050 has no manifest.json: its writing was interrupted"):
        checkpoint.find(unfinished)
    with pytest.raises(InputError,
                       match="neither a checkpoint nor the folder of a run with checkpoints"):
        checkpoint.find(folder.parent)


def test_a_folder_may_be_renamed_and_copied_elsewhere(saved, tmp_path):
    folder, _ = saved
    expected = datasets(folder)
    elsewhere = tmp_path / "another place" / "best"
    shutil.copytree(folder, elsewhere)
    shutil.rmtree(tmp_path / "run")
    checkpoint.verify(elsewhere)
    assert_same(datasets(elsewhere), expected)
    assert checkpoint.load(elsewhere)[0].step == 7
    linked = tmp_path / "link"
    linked.symlink_to(elsewhere)
    assert_same(datasets(linked), expected)


# ---- what is refused -----------------------------------------------------------------------------


def refused(path, read=checkpoint.load):
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_missing_and_a_truncated_file_are_named(saved, tmp_path):
    folder, _ = saved
    for name in ("shard-0001.h5", "model.h5"):
        moved = (folder / name).rename(tmp_path / name)
        assert f"{folder / name} is missing: bring it back" in refused(folder)
        content = moved.read_bytes()
        for length in (0, 300, len(content) - 1):
            (folder / name).write_bytes(content[:length])
            said = f"{name} has {length} bytes instead of {len(content)}: bring back a whole copy"
            assert said in refused(folder)
        (folder / name).write_bytes(content)
    checkpoint.load(folder)


def test_verify_finds_any_flipped_bit_and_names_the_file(saved):
    folder, _ = saved
    generator = np.random.default_rng(3)
    told = []
    checkpoint.verify(folder, told.append)
    assert sorted(told) == ["model.h5", *(f"shard-000{n}.h5" for n in range(3))]
    for name in [*told, "manifest.json"]:
        content = bytearray((folder / name).read_bytes())
        for place in generator.integers(len(content), size=40):
            bit = 1 << generator.integers(8)
            content[place] ^= bit
            (folder / name).write_bytes(content)
            if name == "manifest.json":
                try:  # JSON that says the same in other letters is no damage: white space
                    assert checkpoint.verify(folder) and chr(content[place] ^ bit).isspace()
                except InputError as error:
                    assert name in str(error) or "shard" in str(error)
            else:
                assert f"{folder / name} has CRC-32" in refused(folder, checkpoint.verify)
            content[place] ^= bit
        (folder / name).write_bytes(content)
    checkpoint.verify(folder)


def test_a_manifest_from_another_run_is_refused(saved, tiny_config, tmp_path):
    folder, state = saved
    other = save(tmp_path / "other", state, 3)
    later = save(tmp_path / "other", replace(state, step=8), 3)
    for place, manifest in ((folder, checkpoint.read_manifest(other)),
                            (later, checkpoint.read_manifest(other))):
        files = checkpoint.read_manifest(place).files
        folders.write_manifest(place, replace(manifest, files=files))
        assert "manifest.json is of another run or step than model.h5 beside it" in refused(place)


def test_files_of_another_kind_are_refused(saved, tmp_path, tiny_dataset):
    assert "is hpclcae dataset, not an hpclcae checkpoint" in refused(tiny_dataset)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1]
    assert "an HDF5 file of another program" in refused(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("not HDF5 at all\n")
    assert "cannot be read as HDF5" in refused(tmp_path / "text.h5")
    assert "neither a checkpoint nor" in refused(tmp_path / "missing.h5")
    assert "is one shard of a checkpoint: give the folder" in refused(saved[0] / "shard-0001.h5")


def test_a_newer_schema_is_refused_and_says_what_to_do(saved, monkeypatch):
    folder, state = saved
    monkeypatch.setattr("hpclcae.checkpoint.folder.SCHEMA", 1)
    assert refused(folder / "manifest.json") .endswith("has schema 2, this hpclcae reads up to 1: "
                                                       "use a newer hpclcae")


@pytest.mark.parametrize("what", ["update/velocity/stage1/encode", "stage2/decode", "cursors",
                                  "configuration", "step"])
def test_a_missing_part_is_refused(saved, what):
    folder, _ = saved
    with h5py.File(folder / "model.h5", "r+") as file:
        del (file if what in file else file.attrs)[what]
    manifest = checkpoint.read_manifest(folder)
    manifest.files["model.h5"] = folders.content_of(folder / "model.h5")
    checkpoint.folder.write_manifest(folder, manifest)
    assert "it is damaged, or of another kind" in refused(folder)


def test_damage_of_the_model_is_found_before_hdf5_parses_it(saved, monkeypatch):
    folder, _ = saved
    content = bytearray((folder / "model.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.h5").write_bytes(content)
    monkeypatch.setattr(h5py, "File", None)
    assert "model.h5 has CRC-32" in refused(folder)


@pytest.mark.parametrize("text",
                         ["", "{", "[]", "{}", '{"schema": "new"}', '{"schema": 2, "crc32": "0"}'])
def test_a_damaged_manifest_is_refused(saved, text):
    folder, _ = saved
    (folder / "manifest.json").write_text(text)
    assert "use an older checkpoint" in refused(folder / "manifest.json",
                                                lambda path: checkpoint.load(folder))


def test_a_configuration_that_is_not_the_checkpoints_is_refused(saved, tiny_config):
    folder, _ = saved
    other = tiny_config("stages.0.maps=5")
    with pytest.raises(InputError, match="has stage1/encode of shape .*: use the configuration of "
                       "the checkpoint"):
        checkpoint.load_chunk_states(folder, Layout(other, WHOLE), owned_chunks(other, WHOLE, 1)[0])
