"""Bad input, as a user types it: one line that names the thing, its value and the remedy.

Never a traceback.
"""
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hpclcae.checkpoint import saved
from hpclcae.training.trainer import Trainer
from tests.support.images import structured_images, write_dataset
from tests.support.processes import RUN, run_limited

TINY = RUN / "tiny.toml"


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_config, tiny_dataset, labelled_dataset):
    """A folder with things to get wrong; commands run inside it."""
    folder = tmp_path_factory.mktemp("place")
    Trainer(tiny_config("train.steps=4"), folder / "run").train(stop_at=2)
    shutil.copy(tiny_dataset, folder / "train.h5")
    shutil.copy(labelled_dataset, folder / "test.h5")
    content = (folder / "train.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(content[:len(content) // 2])
    shutil.copytree(folder / "run/checkpoints/step-00000002", folder / "truncated-checkpoint")
    shard = folder / "truncated-checkpoint/shard-0000.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    write_dataset(folder / "size20.h5", structured_images(30, 20), np.arange(30) % 2)
    write_dataset(folder / "one-label.h5", structured_images(30), np.ones(30, int))
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    for name in ("a.txt", "b.md"):
        (folder / "texts" / name).write_text("words\n")
    (folder / "file").write_text("words\n")
    (folder / "broken.toml").write_text("[data\n")
    return folder


def assert_refused(process, command, *parts):
    """Exit code 1 and one line on stderr that holds all of `parts`.

    A log of progress may come before it.
    """
    assert process.returncode == 1, (process.returncode, process.stderr)
    assert "Traceback" not in process.stderr
    *progress, line = process.stderr.splitlines()
    assert all(before.startswith("reading: ") for before in progress), process.stderr
    assert line.startswith(f"hpclcae {command}: ")
    for part in parts:
        assert part in line, line


def train(*changes, out="new", data="train.h5", configuration=TINY):
    sets = [word for change in (f"data.train={data}", *changes) for word in ("--set", change)]
    return ["train", configuration, "--out", out, *sets]


CASES = {
    "unknown key": (train("train.stepz=5"), ["'train.stepz'", "steps"]),
    "unknown section": (train("trian.steps=5"), ["'trian'", "train"]),
    "wrong type": (train("train.steps=many"), ["train.steps = 'many'", "must be of type int"]),
    "out of range": (train("data.channels=2"), ["data.channels = 2", "1 (grey), 3 (colour)"]),
    "not a number": (train("update.rate=nan"), ["update.rate = nan", "greater than 0"]),
    "no equals sign": (train("train.steps"), ["--set 'train.steps'", "train.steps=500"]),
    "no such stage": (train("stages.3.maps=5"), ["'3'", "list of 3"]),
    "no configuration": (train(configuration="none.toml"),
                         ["configuration none.toml", "No such file"]),
    "broken configuration": (train(configuration="broken.toml"),
                             ["broken.toml is not valid TOML", "line 1"]),
    "window larger than the image": (train("stages.0.receptive_field=25"),
                                     ["stages.0.receptive_field = 25", "24 x 24", "smaller"]),
    "whitening larger than the image": (train("preprocess.whitening=25"),
                                        ["preprocess.whitening = 25", "24 x 24"]),
    "batch larger than the dataset": (train("train.batch=61"),
                                      ["a minibatch of 61", "60 images", "smaller"]),
    "dataset of the wrong size": (train(data="size20.h5"),
                                  ["size20.h5", "20 x 20 x 1", "data.size = 24"]),
    "no dataset": (train(data="none.h5"), ["none.h5", "hpclcae data ingest"]),
    "truncated dataset": (train(data="truncated.h5"), ["truncated.h5", "truncated file"]),
    "text for a dataset": (train(data="file"), ["file", "cannot be read as HDF5"]),
    "checkpoint for a dataset": (train(data="run/checkpoints/step-00000002/model.h5"),
                                 ["is hpclcae checkpoint, not a"]),
    "run folder under a file": (train(out="file/run"),
                                ["run folder file/run", "choose another --out"]),
    "run that exists": (train(out="run"), ["run already holds a run", "step-00000002", "--resume"]),
    "resume of another configuration": ([*train("stages.1.maps=2", out="run"), "--resume"],
                                        ["stages.1.maps = 3", "now says 2", "another --out"]),
    "objective not finite": (train("update.rate=1e30"),
                             ["stage 1", "step 2", "update.rate = 1e+30", "too large"]),
    "neurons: no labels": (["neurons", "run", "--test", "train.h5"],
                           ["train.h5 has no labels", "data frames"]),
    "neurons: one label": (["neurons", "run", "--test", "one-label.h5"], ["one-label.h5"]),
    "neurons: wrong size": (["neurons", "run", "--test", "size20.h5"],
                            ["size20.h5", "20x20x1", "24x24x1"]),
    "neurons: no test set": (["neurons", "run", "--test", "none.h5"], ["none.h5 is not a file"]),
    "neurons: no run": (["neurons", "none"], ["none is neither a checkpoint nor", "hpclcae train"]),
    "neurons: nothing trained": (["neurons", "empty"],
                                 ["empty is neither a checkpoint nor", "hpclcae train"]),
    "neurons: truncated checkpoint": (["neurons", "truncated-checkpoint"],
                                      ["shard-0000.h5 has", "older checkpoint"]),
    "neurons: dataset for a checkpoint": (["neurons", "test.h5"],
                                          ["test.h5 is hpclcae dataset, not", "run"]),
    "neurons: result under a file": (["neurons", "run", "--test", "test.h5", "--json",
                                      "file/out.json"], ["file/out.json", "not a folder"]),
    "figures: no run": (["figures", "none"], ["none does not exist", "hpclcae train"]),
    "figures: folder under a file": (["figures", "run", "--out", "file/figures"], ["file/figures"]),
    "figures: a file for a folder": (["figures", "run", "--out", "file"], ["--out file is a file"]),
    "ingest: empty folder": (["data", "ingest", "empty", "--out", "new.h5"],
                             ["empty", "there are no files"]),
    "ingest: folder of text files": (["data", "ingest", "texts", "--out", "new.h5"],
                                     ["texts", "2 x other file"]),
    "ingest: no such folder": (["data", "ingest", "none", "--out", "new.h5"],
                               ["none does not exist", "folder"]),
    "ingest: dataset under a file": (["data", "ingest", "texts", "--out", "file/new.h5"],
                                     ["file/new.h5", "another"]),
    "ingest: size 0": (["data", "ingest", "texts", "--out", "new.h5", "--size", "0"],
                       ["--size 0", "at least 1"]),
    "frames: nothing fetched": (["data", "frames", "empty", "--out", "new.h5"],
                                ["empty/catalogue.json does not exist", "hpclcae data fetch"]),
    "fetch: folder under a file": (["data", "fetch", "--out", "file/sources"], ["file/sources"]),
    "info: truncated": (["data", "info", "truncated.h5"], ["truncated.h5", "truncated file"]),
    "info: text": (["data", "info", "file"], ["file cannot be read as HDF5"]),
    "show: does not fit": (["show", TINY, "--set", "data.size=9"],
                           ["stages.1.receptive_field = 5", "1 x 1"])}


@pytest.mark.parametrize("words, parts", CASES.values(), ids=CASES)
def test_bad_input_is_one_line(hpclcae, place, words, parts):
    command = " ".join(words[:2]) if words[0] == "data" else words[0]
    before = {path for path in place.rglob("*") if "new" not in path.parts}
    process = hpclcae(*words, cwd=place)
    assert_refused(process, command, *parts)
    assert process.stdout == ""
    assert {path for path in place.rglob("*") if "new" not in path.parts} == before
    assert not (place / "new.h5").exists() and not saved(place / "new/checkpoints")
    shutil.rmtree(place / "new", ignore_errors=True)


def test_figures_of_a_folder_without_a_run_name_what_is_missing(hpclcae, place):
    process = hpclcae("figures", "empty", cwd=place)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "hpclcae train CONFIGURATION --out empty" in process.stdout + process.stderr


# ---- a folder that may not be written ------------------------------------------------------------


@pytest.fixture(scope="module")
def without_privilege():
    """Words before a command that take root's right to write everywhere."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("root may write everywhere, and there is no setpriv to change that")
    return words


@pytest.mark.parametrize("command, words, part",
                         [("train", train(out="locked/run"),
                           "run folder locked/run cannot be written (Permission denied)"),
                          ("neurons", ["neurons", "locked", "--test", "test.h5"],
                           "locked may not be written to"),
                          ("data ingest", ["data", "ingest", "texts", "--out", "locked/new.h5"],
                           "locked may not be written to"),
                          ("data info", ["data", "info", "train.h5", "--sheet", "locked/sheet.png"],
                           "locked may not be written to")])
def test_a_read_only_folder_is_named(place, without_privilege, command, words, part):
    locked = place / "locked"
    shutil.copytree(place / "run", locked)
    before = set(locked.rglob("*"))
    locked.chmod(0o500)
    try:
        process = run_limited([*without_privilege, sys.executable, "-m", "hpclcae",
                               *map(str, words)], 60, cwd=place)
    finally:
        locked.chmod(0o700)
    after = set(locked.rglob("*"))
    shutil.rmtree(locked)
    assert_refused(process, command, part)
    assert after == before


# ---- a missing extra -----------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
from hpclcae.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("library, extra, words", [
    ("PIL", "images", ["data", "info", "train.h5", "--sheet", "sheet.png"]),
    ("PIL", "images", ["data", "ingest", "pictures", "--out", "new.h5"]),
    ("av", "images", ["data", "ingest", "films", "--out", "new.h5"]),
    ("matplotlib", "figures", ["figures", "run"]),
])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(place, library, extra, words):
    for folder, file in (("pictures", "a.png"), ("films", "a.mp4")):
        (place / folder).mkdir(exist_ok=True)
        (place / folder / file).write_bytes(b"\x00" * 100)
    process = run_limited([sys.executable, "-c", WITHOUT, library, *words], 60, cwd=place)
    command = " ".join(words[:2]) if words[0] == "data" else words[0]
    assert_refused(process, command, f"needs {library}", f"pip install 'hpclcae[{extra}]'")
    assert not (place / "new.h5").exists() and not (place / "sheet.png").exists()
