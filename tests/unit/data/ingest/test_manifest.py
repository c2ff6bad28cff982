"""A dataset is made again from its manifest, wholly or in part, and damage is found and mended."""
import json
import re
import shutil

import h5py
import numpy as np
import pytest

from hpclcae import cli
from hpclcae.data.dataset import Dataset
from hpclcae.data.ingest import units
from hpclcae.utils.errors import InputError
from tests.support import films, folders
from tests.support.images import structured_images, write_dataset
from tests.support.ingesting import contents
from tests.support.pictures import encode, scene

SIZE = 32
SOURCES = ("photos", "z.zip", "c1.mp4", "c2.mp4")
SHARD = 27 * SIZE * SIZE * 3 / 1e9


def data(*words):
    return cli.main(["data", *map(str, words)])


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Sources, and a set of three shards with labels, films and pairs."""
    folder = tmp_path_factory.mktemp("made")
    for name in "ab":
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(25):
            (folder / "photos" / name / f"{i:03d}.png").write_bytes(
                encode(scene(1000 * ord(name) + i), "PNG"))
    folders.make_zip(folder / "z.zip", {f"b/{i}.jpg": encode(scene(9000 + i), "JPEG")
                                        for i in range(10)})
    for name in ("c1", "c2"):
        films.write(folder / f"{name}.mp4", [np.roll(films.SCENE, 4 * (i // 10), axis=1)
                                             for i in range(40)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "FILES", 8)
        assert data("ingest", *(folder / name for name in SOURCES), "--out", folder / "set.h5",
                    "--size", SIZE, "--every", 1, "--pairs", 0.3, "--shard-size", SHARD,
                    "--label-from", "folder", "--dedupe", "exact", "--workers", 1) == 0
    with Dataset(folder / "set.h5") as dataset:
        assert len(dataset.shards) == 3 and dataset.pair is not None
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """The same, to damage."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def again(copy, *words):
    """Make it again; its sources are those of the copy."""
    sources = [copy / name for name in SOURCES]
    return data("ingest", *sources, "--manifest", *words, "--workers", 1)


def same_images(one, other):
    keys = set(one) - {"shards", "settings"}
    return set(other) - {"shards", "settings"} == keys and all(one[k] == other[k] for k in keys)


@pytest.mark.parametrize("as_text", [False, True])
def test_the_same_images_in_the_same_order(copy, tmp_path, capsys, as_text):
    file = copy / "set.h5"
    if as_text:
        file = tmp_path / "deep" / "set.manifest"
        assert data("info", copy / "set.h5", "--manifest", file) == 0
        assert data("info", copy / "set.h5", "--manifest", file) == 0  # over an older one
        with Dataset(copy / "set.h5") as dataset:
            head, *lines = map(json.loads, file.read_text().splitlines())
            assert head["count"] == len(lines) == dataset.count
            assert [line[0] for line in lines] == dataset.sources.tolist()
            assert [int(line[2], 16) for line in lines] == dataset.checksums.tolist()
    # what is new in the sources since is not taken
    (copy / "photos" / "a" / "new.png").write_bytes(encode(scene(5), "PNG"))
    assert again(copy, file, "--out", tmp_path / "new.h5") == 0
    assert "as they were" in capsys.readouterr().out
    assert same_images(contents(copy / "set.h5"), contents(tmp_path / "new.h5"))


def test_what_is_missing_or_has_changed_is_said(copy, tmp_path, capsys):
    (copy / "photos" / "a" / "007.png").write_bytes(encode(scene(5), "PNG"))
    assert again(copy, copy / "set.h5", "--out", tmp_path / "new.h5") == 0
    captured = capsys.readouterr()
    assert "with some changes" in captured.out and "1 images have other pixels" in captured.err
    (copy / "photos" / "a" / "007.png").unlink()
    assert again(copy, copy / "set.h5", "--out", tmp_path / "new.h5") == 1
    assert "1 images of" in (said := last_line(capsys)) and "photos/a/007.png" in said


def damage(path, how):
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-999])
    elif how == "other":
        shutil.copy(path.with_name(path.name.replace("0001", "0002")), path)
    else:
        content = bytearray(path.read_bytes())
        with h5py.File(path) as file:
            at = file["images"].id.get_chunk_info(0).byte_offset
        content[at + 100] ^= 4
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "cut", "other", "bit"])
def test_a_damaged_shard_is_found_named_and_mended(copy, capsys, how):
    index = copy / "set.h5"
    before = contents(index)
    assert data("check", index, "--workers", 1) == 0
    assert "in 3 files" in capsys.readouterr().out
    with Dataset(index) as dataset:
        shard = dataset.shards[1]
    damage(shard.path, how)
    assert data("check", index, "--workers", 2) == 1
    captured = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"damaged {shard.path}: ") for line in captured)
    command = f"hpclcae data ingest --manifest {index} --shard 1 --out {index}"
    assert "1 of 3 files" in captured[-1] and captured[-1].endswith(command)
    if how != "other":  # who trains is stopped, with the name of the file
        with (pytest.raises(InputError, match=f"{shard.path.name} cannot be read.*--shard 1"),
              Dataset(index) as dataset):
            dataset.read(np.arange(dataset.count))
    assert again(copy, index, "--shard", 1, "--out", index) == 0
    assert contents(index) == before and data("check", index) == 0


def test_a_damaged_bit_in_one_file_stops_who_reads_it(tmp_path, capsys):
    path = write_dataset(tmp_path / "a.h5", structured_images(40))
    damage(path, "bit")
    with Dataset(path) as dataset:
        dataset.read(np.arange(8, 40))
        with pytest.raises(InputError, match="a.h5 cannot be read"):
            dataset.read(np.arange(10))
        assert dataset.verify() == list(range(8))  # a chunk
    assert data("check", path) == 1
    assert "1 of 1 files" in (said := last_line(capsys)) and "write it again" in said


def test_what_cannot_be_made_again_is_one_line(copy, tmp_path, capsys):
    index = copy / "set.h5"
    write_dataset(tmp_path / "frames.h5", structured_images(10))
    (tmp_path / "text").write_text("no manifest\n")
    (tmp_path / "cut").write_text('{"kind": "hpclcae dataset, manifest"}\n')
    for words, said in (
            (["--manifest", tmp_path / "none"], "is not a file"),
            (["--manifest", tmp_path / "text"], "cannot be read as a manifest"),
            (["--manifest", tmp_path / "cut"], "cannot be read as a manifest"),
            (["--manifest", tmp_path / "frames.h5"], "was not made by 'hpclcae data ingest'"),
            (["--manifest", index, "--size", 50], "--size 50: with --manifest"),
            (["--manifest", index, "--shard", 3], "--shard 3: .* has 3 shards"),
            (["--manifest", index, "--shard", 1], "is made again in place"),
            (["--shard", 1], "--shard says what"), ([], "nothing to read")):
        assert data("ingest", *words, "--out", tmp_path / "new.h5", "--workers", 1) == 1
        assert re.search(said, last_line(capsys)), said
    assert not (tmp_path / "new.h5").exists() and not (tmp_path / "new.h5.work").exists()
    (copy / "photos" / "a" / "007.png").write_bytes(encode(scene(5), "PNG"))
    with Dataset(index) as dataset:
        at = dataset.sources.tolist().index("photos/a/007.png")
        number = next(shard.number for shard in dataset.shards
                      if shard.first <= at < shard.first + shard.count)
    assert again(copy, index, "--shard", number, "--out", index) == 1
    assert "other pixels than before" in last_line(capsys)
