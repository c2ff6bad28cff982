"""``hpclcae checkpoint ...`` as it is typed: what is said is what is in the files."""
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpclcae import checkpoint, config as configuration
from hpclcae.cli import main
from tests.support.output import cells
from tests.support.saving import METRICS, assert_same, datasets, made, save


@pytest.fixture
def run(tiny_config, tmp_path):
    """A run of two checkpoints that differ: a number of stage 1, and all of stage 3's decoder."""
    state = made(tiny_config())
    save(tmp_path / "run", state, 3)
    encode = state.parameters["stage1/encode"]
    encode[np.unravel_index(np.flatnonzero(encode)[1234], encode.shape)] += 0.5
    decode = state.parameters["stage3/decode"]
    decode *= -2
    save(tmp_path / "run", replace(state, step=8), 3)
    return tmp_path / "run"


def said(capsys, *words, code=0):
    """Lines that a command prints."""
    assert main(["checkpoint", *map(str, words)]) == code
    out, err = capsys.readouterr()
    if code:
        line, = err.splitlines()
        assert line.startswith(f"hpclcae checkpoint {words[0]}: ")
        return line
    assert err == ""
    return out.splitlines()


# ---- list, info, verify --------------------------------------------------------------------------


def test_list_says_what_is_whole_and_what_is_not(run, capsys):
    place = run / "checkpoints"
    for step in (9, 10, 11):
        shutil.copytree(place / "step-00000008", place / f"step-{step:08d}")
    (place / "step-00000009/manifest.json").unlink()
    (place / "step-00000010/shard-0002.h5").unlink()
    (place / "step-00000011/model.h5").write_bytes(b"short")
    rows = cells(said(capsys, "list", run)[2:])
    assert list(rows) == ["7", "8", "9", "10", "11"]
    size = sum(path.stat().st_size for path in (place / "step-00000007").iterdir())
    assert rows["7"][1:] == [f"{size / 1e6:.1f}", "3", "complete"]
    assert rows["9"][-1] == "not finished: under way, or interrupted"
    assert rows["10"][2:] == ["2",
                              "shard-0002.h5 is missing: bring it back, or use an older checkpoint"]
    assert rows["11"][-1].startswith("model.h5 has 5 bytes instead of ")


def test_info_tells_step_origin_and_every_array(run, capsys):
    lines = said(capsys, "info", run)
    assert lines[0] == f"{run}/checkpoints/step-00000008: step 8 of 60, 1 s of training"
    text = "\n".join(lines)
    assert "3 shards" in text and "next step of every replica: 7 9" in text
    rows = cells(lines[-20:])
    arrays = datasets(checkpoint.find(run))
    counts = checkpoint.load(checkpoint.find(run))[0].counts
    for name, array in arrays.items():
        if "stage" in name:
            shape, kind, numbers, mean_square, *updates = rows[name]
            assert shape == " x ".join(map(str, array.shape)) and (kind, int(numbers)) == (
                "float32", array.size)
            assert float(mean_square) == pytest.approx(np.sqrt(np.square(array, dtype="f8").mean()),
                                                       rel=0.006)
            assert updates == ([] if name.startswith("update") else [str(counts[name])])


def test_info_prints_the_configuration_and_the_metrics_for_other_programs(run, capsys, tiny_config):
    assert configuration.loads("\n".join(said(capsys, "info", run,
                                              "--configuration"))) == tiny_config()
    assert "\n".join(said(capsys, "info", run, "--metrics")) + "\n" == METRICS


def test_verify_reads_every_checkpoint_of_a_run_and_names_the_shard_that_is_damaged(run, capsys):
    lines = said(capsys, "verify", run)
    assert [line.partition(", ")[0].partition(": ")[2]
            for line in lines] == ["4 files as they were written"] * 2
    shard = run / "checkpoints/step-00000007/shard-0001.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert f"{shard} has CRC-32" in said(capsys, "verify", run, code=1)
    assert f"{shard} has CRC-32" in said(capsys, "verify", shard.parent, code=1)
    line, = said(capsys, "verify", run / "checkpoints/step-00000008")
    assert "4 files as they were written" in line


# ---- diff ----------------------------------------------------------------------------------------


def test_diff_says_which_parameters_moved_and_how_much(run, capsys):
    one, other = (datasets(path) for path in checkpoint.saved(run / "checkpoints"))
    lines = said(capsys, "diff", run)
    assert lines[0].endswith("(step 8)") and "step-00000007 (step 7) -> " in lines[0]
    rows = cells(lines[3:])
    assert set(rows) == {name for name in one if name.startswith("stage")}
    for name, (moved, relative, cosine, largest, *place) in rows.items():
        old, new = (file[name].astype("f8") for file in (one, other))
        change = new - old
        assert float(moved) == pytest.approx(100 * np.mean(change != 0), abs=0.051)
        assert float(relative) == pytest.approx(np.linalg.norm(change) / np.linalg.norm(old),
                                                rel=0.006)
        assert float(cosine) == pytest.approx(np.sum(old * new) / np.linalg.norm(old)
                                              / np.linalg.norm(new), abs=1e-6)
        assert float(largest) == pytest.approx(abs(change).max(), rel=0.006)
        where = np.unravel_index(abs(change).argmax(), change.shape)
        assert place == ([f"{where[0]}, {where[1]}"] if change.any() else [])
    assert rows["stage3/decode"][:3] == ["100.0", "3.0",
                                         "-1.0"] and rows["stage2/encode"][0] == "0.0"


def test_diff_names_settings_that_differ_and_compares_the_memory_on_request(run, tmp_path,
                                                                            tiny_config, capsys):
    state, _ = checkpoint.load(checkpoint.find(run))
    other = save(tmp_path / "other", replace(state, config=tiny_config("train.steps=99")), 1)
    lines = said(capsys, "diff", run / "checkpoints/step-00000007", other, "--state")
    assert "train.steps: 60 -> 99" in lines
    assert cells(lines)["update/velocity/stage2/decode"][:3] == ["0.0", "0.0", "1.0"]


def test_diff_needs_two_checkpoints_of_one_network(run, tmp_path, tiny_config, capsys):
    shutil.rmtree(run / "checkpoints/step-00000007")
    assert "run has 1 checkpoints, and a difference needs two" in said(capsys, "diff", run, code=1)
    other = save(tmp_path / "other", made(tiny_config("stages.1.maps=2")))
    assert "stage2/encode has shape" in said(capsys, "diff", run, other, code=1)


# ---- reshard, export -----------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_reshard_makes_a_run_with_the_same_numbers_in_other_files(run, tmp_path, capsys, shards):
    again = tmp_path / "again"
    line, = said(capsys, "reshard", run, "--shards", shards, "--out", again)
    folder = checkpoint.find(again)
    assert line == f"{folder}: {shards} shards" and folder.name == "step-00000008"
    assert len(list(folder.glob("shard-*.h5"))) == shards
    checkpoint.verify(folder)
    assert_same(datasets(folder), datasets(checkpoint.find(run)))
    one, other = (checkpoint.load(checkpoint.find(path))[0] for path in (run, again))
    assert (one.counts, one.cursors, one.metrics, one.seconds) \
        == (other.counts, other.cursors, other.metrics, other.seconds)
    assert (again / "metrics.jsonl").read_text() == METRICS
    assert configuration.load(again / "configuration.toml") == one.config
    assert "already holds checkpoints" in said(capsys, "reshard", run, "--shards", 2, "--out",
                                               again, code=1)


def test_reshard_into_more_shards_than_there_are_tiles_is_refused(tiny_config, tmp_path, capsys):
    state = made(tiny_config(*(f"stages.{i}.tile=8" for i in range(3))))  # 28 tiles
    folder = save(tmp_path / "run", state)
    for shards in (29, 100_000):
        line = said(capsys, "reshard", folder, "--shards", shards, "--out", tmp_path / "x", code=1)
        assert "the weights are 28 tiles" in line and not (tmp_path / "x").exists()
    said(capsys, "reshard", folder, "--shards", "28", "--out", tmp_path / "many")
    many = checkpoint.find(tmp_path / "many")
    chunks = []
    for path in many.glob("shard-*.h5"):
        with h5py.File(path) as file:
            chunks.append(len(file["chunks"]))
    assert (len(chunks), sum(chunks)) == (28, 28)
    assert_same(datasets(many), datasets(folder))


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("state", [False, True])
def test_export_gives_the_same_arrays_and_texts(run, tmp_path, capsys, tiny_config, ending, state):
    out = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        numpy_files = pytest.importorskip("safetensors.numpy")
    said(capsys, "export", run, "--out", out, *["--state"] * state)
    if ending == "npz":
        with np.load(out, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        texts = {name: str(found.pop(name)) for name in ("step", "configuration")}
    else:
        found = numpy_files.load_file(out)
        with pytest.importorskip("safetensors").safe_open(out, "np") as file:
            texts = file.metadata()
    arrays = datasets(checkpoint.find(run))
    assert_same(found, {name: array for name, array in arrays.items()
                        if name.startswith(("stage", "preprocess", *["update"] * state))})
    assert texts["step"] == "8" and configuration.loads(texts["configuration"]) == tiny_config()


def test_export_refuses_names_and_folders_that_it_cannot_use(run, tmp_path, capsys):
    assert "must end in .npz or .safetensors" in said(capsys, "export", run, "--out",
                                                      tmp_path / "weights.h5", code=1)
    assert "none is not a folder" in said(capsys, "export", run, "--out",
                                          tmp_path / "none/weights.npz", code=1)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_export_replaces_its_own_files_and_no_others(run, tmp_path, capsys, ending):
    if ending == "safetensors":
        pytest.importorskip("safetensors.numpy")
    out = tmp_path / f"weights.{ending}"
    for _ in range(2):
        said(capsys, "export", run, "--out", out)
    np.savez(tmp_path / "x.npz", step=1)
    for content in (b"mine", (tmp_path / "x.npz").read_bytes()):
        out.write_bytes(content)
        assert "not an export of ours" in said(capsys, "export", run, "--out", out, code=1)
        assert out.read_bytes() == content


def test_reshard_writes_into_nothing_that_exists(run, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "configuration.toml").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "configuration.toml"):
        assert "is not an empty folder" in said(capsys, "reshard", run, "--shards", 2, "--out",
                                                out, code=1)
    assert (tmp_path / "taken" / "configuration.toml").read_text() == "mine"


@pytest.mark.parametrize("words",
                         [["list", "none"], ["info", "none"], ["verify", "none"], ["diff", "none"],
                          ["reshard", "none", "--shards", "2", "--out", "new"],
                          ["export", "none", "--out", "new.npz"]])
def test_a_run_that_does_not_exist_is_named(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "none" in said(capsys, *words, code=1)
    assert list(tmp_path.iterdir()) == []
