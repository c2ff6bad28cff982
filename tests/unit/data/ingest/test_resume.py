"""Ingest in several processes and files: killed and gone on with, the dataset is the same."""
import os
import random
import shutil

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.data.dataset import Dataset
from hpclcae.data.ingest import build, store, units
from hpclcae.data.ingest.settings import Settings
from hpclcae.utils.errors import InputError
from tests.support import films, folders
from tests.support.ingesting import contents, killed_after, killed_when
from tests.support.pictures import encode, scene

SIZE, COUNT = 32, 130
#: Of about 40 images.
SHARD = 40 * SIZE * SIZE * 3 / 1e9
OPTIONS = ["--size", SIZE, "--shard-size", SHARD, "--dedupe", "near", "--split", "train",
           "--test-share", 0.1]
KILLS = int(os.environ.get("HPCLCAE_KILLS", 3))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Pictures in a folder (some twice), in an archive, a film, and what cannot be used."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "photos").mkdir()
    for i in range(COUNT):
        kind = "JPEG" if i % 3 else "PNG"
        (folder / "photos" / f"{i:04d}").write_bytes(encode(scene(i % (COUNT - 8)), kind))
    (folder / "photos" / "cut.jpg").write_bytes(encode(scene(0), "JPEG")[:-400])
    folders.make_zip(folder / "more.zip",
                     {f"{i}.jpg": encode(scene(1000 + i), "JPEG") for i in range(20)})
    films.write(folder / "clip.mp4", [films.SCENE] * 30)
    return [folder / "photos", folder / "more.zip", folder / "clip.mp4"]


@pytest.fixture(scope="module")
def undisturbed(sources, tmp_path_factory):
    """What comes of it in one process, without a break."""
    out = tmp_path_factory.mktemp("undisturbed") / "set.h5"
    assert cli.main(["data", "ingest", *map(str, [*sources, "--out", out, *OPTIONS, "--workers",
                                                  1])]) == 0
    return contents(out)


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr(units, "FILES", 16)


def ingest(*words):
    return cli.main(["data", "ingest", *map(str, words)])


def test_shards_are_one_dataset_for_any_reader(sources, undisturbed, tmp_path, monkeypatch):
    out = tmp_path / "here" / "set.h5"
    assert ingest(*sources, "--out", out, *OPTIONS, "--workers", 2) == 0
    assert contents(out) == undisturbed and len(undisturbed["shards"]) > 1
    assert sum(count for _, count, _ in undisturbed["shards"]) == len(undisturbed["group"])
    (tmp_path / "here").rename(tmp_path / "there")  # names in the index are relative
    monkeypatch.chdir("/")
    assert contents(tmp_path / "there" / "set.h5") == undisturbed
    parts = sorted((tmp_path / "there" / "set.shards").iterdir())
    with Dataset(tmp_path / "there" / "set.h5") as whole:
        for part, shard in zip(parts, whole.shards, strict=True):
            with Dataset(part) as one:
                run = np.arange(shard.first, shard.first + shard.count)
                np.testing.assert_array_equal(one.read(np.arange(one.count)), whole.read(run))
                assert one.sources.tolist() == whole.sources[run].tolist()
        # across their edges, in any order, and a part of each image
        at = np.array([shard.first for shard in whole.shards][1:])
        chosen = np.concatenate([at - 1, at, [0, whole.count - 1, 5, 4]])
        everything = np.frombuffer(undisturbed["images"], np.uint8).reshape(-1, SIZE, SIZE, 3)
        np.testing.assert_array_equal(whole.read(chosen, slice(3, 9), slice(20, 32)),
                                      everything[chosen][:, 3:9, 20:32])
        assert whole.verify() == [] and whole.chunks == (8, SIZE, SIZE, 3)


def test_one_file_when_it_fits_holds_the_same_images(sources, undisturbed, tmp_path):
    out = tmp_path / "set.h5"
    assert ingest(*sources, "--out", out, *OPTIONS[:2], *OPTIONS[4:]) == 0
    one = contents(out)
    assert one["shards"] == [] and os.listdir(tmp_path) == ["set.h5"]
    assert sorted(one["checksum"]) == sorted(undisturbed["checksum"])


def test_killed_at_random_moments_it_comes_to_the_same(sources, undisturbed, tmp_path):
    """HPCLCAE_KILLS=20 kills more often."""
    generator = random.Random(0)
    out = tmp_path / "set.h5"
    kills = 0
    for _ in range(10 * KILLS):
        # an import alone takes some tenths of a second, so a new time is drawn every time
        kills += not killed_after(generator.uniform(0.2, 2.5), *sources, "--out", out, *OPTIONS,
                                  "--workers", 2)
        if kills == KILLS:
            break
        if not (tmp_path / "set.h5.work").exists():
            shutil.rmtree(tmp_path / "set.shards", ignore_errors=True)
            out.unlink(missing_ok=True)
    assert ingest(*sources, "--out", out, *OPTIONS, "--workers", 2) == 0
    assert contents(out) == undisturbed
    assert sorted(os.listdir(tmp_path)) == ["set.h5", "set.shards"]
    assert len(os.listdir(tmp_path / "set.shards")) == len(undisturbed["shards"])


@pytest.mark.parametrize("moment", ["first part", "first shard", "index"])
def test_killed_at_a_chosen_moment_it_goes_on(sources, undisturbed, tmp_path, capsys, moment):
    out, work = tmp_path / "set.h5", tmp_path / "set.h5.work"
    is_time = {"first part": lambda: any(path.is_file() and not path.suffix for path
                                         in (work / "units").rglob("*")),
               "first shard": lambda: (work / "shard-0000").exists(),
               "index": lambda: out.with_name("set.h5.partial").exists()}[moment]
    killed_when(is_time, *sources, "--out", out, *OPTIONS, "--workers", 2)
    assert ingest(*sources, "--out", out, *OPTIONS, "--workers", 2) == 0
    assert contents(out) == undisturbed
    assert sorted(os.listdir(tmp_path)) == ["set.h5", "set.shards"]


def test_only_what_has_changed_is_read_again(tmp_path, capsys, small_units, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(50):
        (photos / f"{i:02d}.png").write_bytes(encode(scene(i), "PNG"))
    write, out = build._write, tmp_path / "set.h5"

    def fails(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(build, "_write", fails)
    assert ingest(photos, "--out", out, "--size", SIZE, "--workers", 1) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(build, "_write", write)
    (tmp_path / "set.h5.work" / "plan.json").unlink()
    (photos / "20.png").write_bytes(encode(scene(500), "PNG"))
    damaged = tmp_path / "set.h5.work" / "units" / "00000" / "002"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    assert ingest(photos, "--out", out, "--size", SIZE, "--workers", 1) == 0
    assert "2 of 4 parts were there from before" in capsys.readouterr().err
    again = tmp_path / "again.h5"
    assert ingest(photos, "--out", again, "--size", SIZE, "--workers", 1) == 0
    assert contents(out) == contents(again)
    # other settings read everything again
    assert not (tmp_path / "set.h5.work").exists()


@pytest.mark.parametrize("name", ["units/00000/000", "ledger", "plan.json"])
def test_a_damaged_part_is_found_and_its_remedy_works(name, tmp_path, capsys, monkeypatch):
    photos, out, work = tmp_path / "photos", tmp_path / "set.h5", tmp_path / "set.h5.work"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.png").write_bytes(encode(scene(i), "PNG"))
    write = build._write

    def fails(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(build, "_write", fails)
    assert ingest(photos, "--out", out, "--size", SIZE) == 130
    monkeypatch.setattr(build, "_write", write)
    part = work / name
    content = bytearray(part.read_bytes())
    content[min(SIZE * SIZE * 3, len(content) // 2) + 5] ^= 1  # a pixel of its second image
    part.write_bytes(content)
    capsys.readouterr()
    if "units" in name:
        assert ingest(photos, "--out", out, "--size", SIZE) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{part} is damaged (its image 1 is not as it was written): remove it and" in said
        part.unlink()
        (work / "plan.json").unlink()
    # of others nothing has to be said: all is chosen again
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    with Dataset(out) as dataset:
        assert dataset.count == 3 and dataset.verify() == []


def test_a_full_disk_loses_nothing(tmp_path, capsys, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.png").write_bytes(encode(scene(i), "PNG"))
    append = store.DatasetWriter.append

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(store.DatasetWriter, "append", full)
    out = tmp_path / "set.h5"
    assert ingest(photos, "--out", out, "--size", SIZE) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device: what was read is kept in" in said and "Traceback" not in said
    monkeypatch.setattr(store.DatasetWriter, "append", append)
    monkeypatch.setattr(build, "_read", None)  # nothing is read again
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    with Dataset(out) as dataset:
        assert dataset.count == 3
    assert sorted(os.listdir(tmp_path)) == ["photos", "set.h5"]


def test_an_older_set_stays_whole_until_the_new_one_is_there(sources, undisturbed, tmp_path,
                                                             monkeypatch):
    out = tmp_path / "set.h5"
    assert ingest(*sources, "--out", out, *OPTIONS) == 0
    monkeypatch.setattr(build, "write_index", None)  # as if it ended there
    with pytest.raises(TypeError):
        build.ingest(sources, out, Settings(size=SIZE, shard_size=SHARD), workers=1)
    assert contents(out) == undisturbed
    monkeypatch.undo()
    assert ingest(*sources, "--out", out, "--size", SIZE, "--shard-size", SHARD) == 0
    assert contents(out) != undisturbed
    with Dataset(out) as dataset:
        assert len(os.listdir(tmp_path / "set.shards")) == len(dataset.shards)
    # in one file again: no shards are left
    assert ingest(*sources, "--out", out, "--size", SIZE) == 0
    assert os.listdir(tmp_path) == ["set.h5"]


def test_pairs_stay_together_in_shards(tmp_path):
    for name in "abcd":
        films.write(tmp_path / f"{name}.mp4",
                    [np.roll(films.SCENE, ord(name) + 5 * (i // 10), axis=1) for i in range(60)])
    out = tmp_path / "set.h5"
    assert ingest(*(tmp_path / f"{name}.mp4" for name in "abcd"), "--out", out, "--size", SIZE,
                  "--every", 1, "--pairs", 0.2, "--shard-size", SHARD / 4, "--workers", 1) == 0
    with Dataset(out) as dataset:
        pair = dataset.pair
        assert (pair >= 0).all() and (pair[pair] == np.arange(dataset.count)).all()
        assert (dataset.groups == dataset.groups[pair]).all()
        assert np.abs(dataset.seconds - dataset.seconds[pair]) == pytest.approx(0.2)


def test_two_at_once_is_one_line(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encode(scene(0), "PNG"))
    with build._work(tmp_path / "set.h5"):
        assert ingest(tmp_path / "photos", "--out", tmp_path / "set.h5", "--size", SIZE) == 1
    assert "set.h5.work is in use by process" in capsys.readouterr().err


def test_an_index_that_contradicts_itself_is_one_line(sources, tmp_path):
    out = tmp_path / "set.h5"
    assert ingest(*sources, "--out", out, *OPTIONS) == 0
    with Dataset(out) as dataset:
        count = len(dataset.shards)
    for name, value, said in (("first", range(count), "do not follow"),
                              ("name", ["../a"] * count, "outside")):
        with h5py.File(out, "r+") as file:
            kept = file[f"shards/{name}"][:]
            file[f"shards/{name}"][:] = value
        with pytest.raises(InputError, match=said):
            Dataset(out)
        with h5py.File(out, "r+") as file:
            file[f"shards/{name}"][:] = kept
