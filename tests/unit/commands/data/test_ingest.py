"""Whole runs of ``data ingest`` on real files."""
import io
import os
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hpclcae import cli
from hpclcae.data import catalogue
from hpclcae.data.dataset import Dataset
from hpclcae.data.ingest import build, squares, units
from tests.support import films, folders
from tests.support.faces import draw_face
from tests.support.pictures import encode, scene
from tests.support.processes import RUN

SIZE = 32


def ingest(*arguments):
    return cli.main(["data", "ingest", *map(str, arguments)])


def fails(capsys, *arguments):
    """The one line of a run that fails."""
    assert ingest(*arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines()
             if not line.startswith(("reading", "skipped"))]
    assert len(lines) == 1 and lines[0].startswith("hpclcae data ingest: ")
    return lines[0]


def folder_of(path, scenes, suffix=".png"):
    path.mkdir(parents=True, exist_ok=True)
    for i in scenes:
        kind = {".png": "PNG", ".jpg": "JPEG"}[suffix]
        (path / f"{i:03d}{suffix}").write_bytes(encode(scene(i), kind))
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.h5"


def test_folder_archive_and_film_into_one_dataset(tmp_path, out, capsys):
    photos = folder_of(tmp_path / "photos", range(3))
    archive = folders.make_zip(tmp_path / "holiday.zip", {"sea/s.png": encode(scene(10), "PNG")})
    film = films.write(tmp_path / "clip.mp4", [films.SCENE] * 10)
    assert ingest(photos, archive, film, "--out", out, "--size", SIZE, "--licence", "CC0") == 0
    report = capsys.readouterr().out
    assert "5 images in" in report
    with Dataset(out) as dataset:
        assert (dataset.count, dataset.size, dataset.channels) == (5, SIZE, 3)
        assert dataset.labels is None
        place = {name: i for i, name in enumerate(dataset.sources)}
        assert sorted(place) == ["clip.mp4@0.50s", "holiday.zip/sea/s.png",
                                 *(f"photos/00{i}.png" for i in range(3))]
        assert sorted(dataset.groups) == ["clip.mp4", "holiday.zip/sea/s.png",
                                          *(f"photos/00{i}.png" for i in range(3))]
        assert dataset.licences == {"photos": "CC0", "holiday.zip": "CC0", "clip.mp4": "CC0"}
        expected = Image.fromarray(scene(1)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(dataset.read([place["photos/001.png"]])[0],
                                      np.asarray(expected))
        film_at = place["clip.mp4@0.50s"]
        assert dataset.originals[film_at].tolist() == [48, 64]
        assert dataset.crops[film_at].tolist() == [0, 8, 48, 56]
        assert dataset.settings["size"] == SIZE and dataset.settings["out"] == str(out)
        assert dataset.settings["counts"]["stored"] == {"photos": 3, "holiday.zip": 1,
                                                        "clip.mp4": 1}
        assert dataset.verify() == []


def test_odd_files_are_skipped_with_a_line_and_counted(tmp_path, out, capsys):
    photos = folder_of(tmp_path / "photos", range(2))
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = {"turned.jpg": encode(np.rot90(scene(3)).copy(), "JPEG", exif=exif),
           "cut.jpg": encode(scene(4), "JPEG")[:-300], "text.png": b"no picture",
           "notes.txt": b"text", "tiny.png": encode(scene(5)[:20], "PNG"), "cut.mp4": b"no film",
           "cmyk.jpg": encode(Image.fromarray(scene(6)).convert("CMYK"), "JPEG")}
    for name, content in odd.items():
        (photos / name).write_bytes(content)
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    captured = capsys.readouterr()
    for name, reason in (("cut.jpg", "damaged"), ("text.png", "not a picture"),
                         ("cut.mp4", "damaged"), ("tiny.png", "too small, 96 x 20 pixels")):
        assert f"skipped photos/{name}: {reason}" in captured.err
    assert "notes.txt" not in captured.err
    with Dataset(out) as dataset:
        assert dataset.settings["counts"] == {
            "stored": {"photos": 4}, "converted": {"turned by its EXIF tag": 1, "CMYK to RGB": 1},
            "skipped": {"damaged": 2, "not a picture": 1, "other file": 1, "too small": 1}}
        upright = dataset.read(np.flatnonzero(dataset.sources == "photos/turned.jpg"))[0]
    expected = np.asarray(Image.fromarray(scene(3)).resize((SIZE, SIZE), Image.Resampling.LANCZOS),
                          int)
    assert np.abs(upright - expected).mean() < 4
    table = [line.split() for line in captured.out.splitlines()]
    assert ["skipped", "damaged", "2"] in table and ["converted", "CMYK", "to", "RGB", "1"] in table


def test_lines_are_limited(tmp_path, out, capsys):
    photos = folder_of(tmp_path / "photos", range(1))
    for i in range(30):
        (photos / f"x{i}.jpg").write_bytes(b"")
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    captured = capsys.readouterr()
    assert captured.err.count("skipped") == 20 and "only counted" in captured.err
    rows = [line.split() for line in captured.out.splitlines()]
    assert ["skipped", "not", "a", "picture", "30"] in rows


def test_grey(tmp_path, out):
    assert ingest(folder_of(tmp_path / "photos", [3]), "--out", out, "--size", 96, "--channels",
                  "grey") == 0
    with Dataset(out) as dataset:
        weights = np.array([0.299, 0.587, 0.114])
        assert np.abs(dataset.read([0])[0, :, :, 0] - scene(3) @ weights).max() <= 1


def test_labels_from_folders(tmp_path, out):
    for name, scenes in (("cats", range(3)), ("dogs", range(3, 5)), ("fish", range(5, 9))):
        folder_of(tmp_path / "photos" / name, scenes)
    arguments = [tmp_path / "photos", "--out", out, "--size", SIZE, "--label-from", "folder"]
    assert ingest(*arguments) == 0
    with Dataset(out) as dataset:
        assert dataset.label_names == ["cats", "dogs", "fish"]
        assert np.bincount(dataset.labels).tolist() == [3, 2, 4]
        assert all(dataset.label_names[label] == source.split("/")[1]
                   for label, source in zip(dataset.labels, dataset.sources))
    assert ingest(*arguments, "--concept", "dogs") == 0
    with Dataset(out) as dataset:
        assert dataset.label_names == ["not dogs", "dogs"]
        assert np.bincount(dataset.labels).tolist() == [7, 2]


def test_splits_are_disjoint_complete_and_by_group(tmp_path, out):
    for person in range(12):
        folder_of(tmp_path / "people" / f"s{person}", range(10 * person, 10 * person + 2))
    groups = {}
    for split in ("train", "test"):
        assert ingest(tmp_path / "people", "--out", out, "--size", SIZE, "--group", "folder",
                      "--split", split, "--test-share", 0.4) == 0
        with Dataset(out) as dataset:
            groups[split] = sorted(dataset.groups)
            assert all(catalogue.split_of(group, 0.4) == split for group in groups[split])
    everybody = [f"people/s{i}" for i in range(12)]
    assert sorted(groups["train"] + groups["test"]) == sorted(2 * everybody)
    assert not set(groups["train"]) & set(groups["test"])


@pytest.mark.parametrize("dedupe, stored", [("none", 14), ("exact", 11), ("near", 8)])
def test_dedupe(tmp_path, out, dedupe, stored):
    folder_of(tmp_path / "a", range(8))
    folder_of(tmp_path / "b", range(3))          # the same pixels
    folder_of(tmp_path / "c", range(5, 8), ".jpg")  # nearly
    sources = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    assert ingest(*sources, "--out", out, "--size", SIZE, "--dedupe", dedupe) == 0
    with Dataset(out) as dataset:
        assert dataset.count == stored
        assert dataset.settings["counts"]["skipped"] == {
            "none": {}, "exact": {"exact duplicate": 3},
            "near": {"exact duplicate": 3, "near duplicate": 3}}[dedupe]


def test_no_copy_crosses_the_split(tmp_path, out):
    folder_of(tmp_path / "a", range(20))
    folder_of(tmp_path / "b", range(20), ".jpg")
    sources = []
    for split in ("train", "test"):
        assert ingest(tmp_path / "a", tmp_path / "b", "--out", out, "--size", SIZE, "--dedupe",
                      "near", "--split", split, "--test-share", 0.5) == 0
        with Dataset(out) as dataset:
            sources += list(dataset.sources)
    assert sorted(sources) == [f"a/{i:03d}.png" for i in range(20)]


def test_order_is_of_the_seed(tmp_path, out):
    photos = folder_of(tmp_path / "photos", range(12))
    orders = []
    for seed in (0, 0, 1):
        assert ingest(photos, "--out", out, "--size", SIZE, "--seed", seed) == 0
        with Dataset(out) as dataset:
            orders.append(list(dataset.sources))
    assert orders[0] == orders[1] != orders[2] and orders[0] != sorted(orders[0])
    assert set(orders[0]) == set(orders[2])


def test_films_every_second(tmp_path, out):
    films.write(tmp_path / "clip.mp4", [films.SCENE] * 30)
    assert ingest(tmp_path / "clip.mp4", "--out", out, "--size", SIZE, "--every", 1) == 0
    with Dataset(out) as dataset:
        assert sorted(dataset.sources) == ["clip.mp4@0.50s", "clip.mp4@1.50s", "clip.mp4@2.50s"]
        assert set(dataset.groups) == {"clip.mp4"}


@pytest.mark.parametrize("dedupe", ["none", "near"])
def test_films_in_pairs(tmp_path, out, dedupe):
    scenes = [np.roll(films.SCENE, 10 * (i // 10), axis=1) for i in range(40)]  # one a second
    films.write(tmp_path / "clip.mp4", scenes)
    (tmp_path / "a.png").write_bytes(encode(scene(0), "PNG"))
    assert ingest(tmp_path / "clip.mp4", tmp_path / "a.png", "--out", out, "--size", SIZE,
                  "--every", 1, "--pairs", 0.2, "--dedupe", dedupe) == 0
    with Dataset(out) as dataset:
        assert dataset.count in {"none": [9], "near": [3, 5, 7, 9]}[dedupe]
        for i, partner in enumerate(dataset.pair):
            if dataset.groups[i] == "a.png":
                assert partner == -1
            else:
                assert abs(partner - i) == 1 and dataset.pair[partner] == i
        seconds = {float(source.split("@")[1][:-1]): source for source in dataset.sources
                   if "@" in source}
        firsts = sorted(seconds)[::2]
        assert sorted(seconds)[1::2] == pytest.approx([first + 0.2 for first in firsts])
        place = {source: i for i, source in enumerate(dataset.sources)}
        for first in firsts:
            i = place[seconds[first]]
            assert dataset.sources[dataset.pair[i]] == f"clip.mp4@{first + 0.2:.2f}s"


def test_one_clear_line(tmp_path, out, capsys):
    photos = folder_of(tmp_path / "photos", range(2))
    (tmp_path / "empty").mkdir()
    texts = folders.fill(tmp_path / "texts", {"a.txt": b"", "b.md": b""})
    again = folder_of(tmp_path / "more" / "photos", range(1))
    assert "nothing does not exist" in fails(capsys, tmp_path / "nothing", "--out", out)
    assert "there are no files" in fails(capsys, tmp_path / "empty", "--out", out)
    assert "2 x other file" in fails(capsys, texts, "--out", out)
    assert "give --size 96 or less" in fails(capsys, photos, "--out", out, "--size", 97)
    assert "2 sources are called photos" in fails(capsys, photos, again, "--out", out)
    assert "--size 0" in fails(capsys, photos, "--out", out, "--size", 0)
    assert "--every 0.0" in fails(capsys, photos, "--out", out, "--size", SIZE, "--every", 0)
    assert "test share 1.5" in fails(capsys, photos, "--out", out, "--size", SIZE, "--test-share",
                                     1.5)
    assert "needs --label-from" in fails(capsys, photos, "--out", out, "--size", SIZE, "--concept",
                                         "a")
    assert "--concept cats: no image" in fails(capsys, photos, "--out", out, "--size", SIZE,
                                               "--label-from", "folder", "--concept", "cats")
    assert "it is a folder" in fails(capsys, photos, "--out", tmp_path / "empty", "--size", SIZE)
    assert "choose another folder" in fails(capsys, photos, "--out", photos / "000.png" / "a.h5",
                                            "--size", SIZE)
    assert not out.exists()


def test_labels_are_told_before_anything_is_read(tmp_path, out, capsys, monkeypatch):
    for name, scenes in (("faces", range(3)), ("faces/child", range(3, 5)), ("other", [5])):
        folder_of(tmp_path / "set" / name, scenes)
    arguments = [tmp_path / "set", "--out", out, "--size", SIZE, "--label-from", "folder"]
    assert ingest(*arguments, "--concept", "faces") == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split() for line in table[2:4]] == [
        ["not", "faces", "1", "set/other"], ["faces", "5", "set/faces,", "set/faces/child"]]
    with Dataset(out) as dataset:
        labels = {source: dataset.label_names[label]
                  for source, label in zip(dataset.sources, dataset.labels)}
    assert labels["set/faces/child/003.png"] == "faces"
    assert labels["set/other/005.png"] == "not faces"

    def read_nothing(*arguments, **options):
        raise AssertionError("a picture was read")
    monkeypatch.setattr(squares, "decode", read_nothing)
    assert "near: faces" in fails(capsys, *arguments, "--concept", "Faces")
    assert "--label-level -1" in fails(capsys, *arguments, "--label-level", -1)
    assert "--concept ''" in fails(capsys, *arguments, "--concept", "")
    assert "needs --label-from" in fails(capsys, *arguments[:-2], "--label-level", 1)


def test_a_label_without_images_is_a_warning(tmp_path, out, capsys):
    folder_of(tmp_path / "set" / "faces", range(3))
    (tmp_path / "set" / "other").mkdir()
    (tmp_path / "set" / "other" / "broken.png").write_bytes(b"")
    assert ingest(tmp_path / "set", "--out", out, "--size", SIZE, "--label-from", "folder",
                  "--concept", "faces") == 0
    assert "warning: no image has the label not faces" in capsys.readouterr().err


def test_arguments_are_checked_before_anything_is_read(tmp_path, out, capsys, monkeypatch):
    photos = folder_of(tmp_path / "photos", range(2))

    def read_nothing(*arguments):
        raise AssertionError("a source was read")
    monkeypatch.setattr(build.walk, "entries", read_nothing)
    for option, value in (("--seed", -1), ("--seed", 2**64), ("--size", 10**6), ("--every", "nan"),
                          ("--test-share", "nan")):
        wrong = fails(capsys, photos, "--out", out, option, value)
        assert option in wrong or "test share" in wrong
    before = {path: path.read_bytes() for path in photos.iterdir()}
    holiday = folders.make_tar(tmp_path / "holiday.tar", mode="w")
    kept = holiday.read_bytes()
    (tmp_path / "locked").mkdir()
    for target, words in ((photos / "000.png", "lies in the source"), (photos / "new" / "o.h5",
                          "lies in the source"), (photos, "is the source"),
                          (holiday, "is not a dataset of ours"),
                          (tmp_path / "link", "not a regular file")):
        if target.name == "link":
            target.symlink_to(tmp_path / "nowhere")
        assert words in fails(capsys, photos, "--out", target)
    assert "is the source" in fails(capsys, photos / "000.png", "--out", photos / "000.png")
    assert holiday.read_bytes() == kept and before == {p: p.read_bytes() for p in photos.iterdir()}


def test_an_older_dataset_and_an_empty_file_are_replaced(tmp_path, out):
    photos = folder_of(tmp_path / "photos", range(2))
    out.write_bytes(b"")
    for _ in range(2):
        assert ingest(photos, "--out", out, "--size", SIZE) == 0
    with Dataset(out) as dataset:
        assert dataset.count == 2


def test_many_sources_are_summed_up(tmp_path, out, capsys):
    files = [folder_of(tmp_path / f"c{i}", [i]).joinpath(f"{i:03d}.png") for i in range(30)]
    assert ingest(*files, "--out", out, "--size", SIZE, "--label-from", "folder") == 0
    said = capsys.readouterr().out
    assert "from 10 more sources" in said and "and 10 more labels" in said
    assert cli.main(["data", "info", str(out)]) == 0
    said = capsys.readouterr().out
    assert "10 more sources" in said and "and 10 more]" in said and "and 10 more}" in said
    with Dataset(out) as dataset:
        assert dataset.label_names == [f"c{i}" for i in range(30)]


def test_wrong_endings(tmp_path, out):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "jpeg.png").write_bytes(encode(scene(1), "JPEG"))
    (photos / "png.MP4").write_bytes(encode(scene(2), "PNG"))
    (photos / "none").write_bytes(encode(scene(3), "PNG"))
    films.write(tmp_path / "clip.mp4", [films.SCENE] * 10).rename(photos / "film.jpg")
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    with Dataset(out) as dataset:
        assert sorted(dataset.sources) == ["photos/film.jpg@0.50s", "photos/jpeg.png",
                                           "photos/none", "photos/png.MP4"]


def test_names_that_are_not_utf8(tmp_path):
    odd = os.fsdecode(b"b\xe9b\xe9")
    folder_of(tmp_path / "set" / odd, range(3))
    folder_of(tmp_path / "set" / "other", range(3, 6))
    command = [sys.executable, "-m", "hpclcae", "data", "ingest", "set", "--out", f"{odd}.h5",
               "--size", str(SIZE), "--label-from", "folder", "--concept", odd]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60,
                          env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 0 and b"6 images in b\xe9b\xe9.h5" in done.stdout
    with Dataset(tmp_path / f"{odd}.h5") as dataset:
        assert dataset.label_names == ["not b\\xe9b\\xe9", "b\\xe9b\\xe9"]
        assert dataset.settings["out"] == f"{odd}.h5" and dataset.settings["concept"] == odd
        assert np.bincount(dataset.labels).tolist() == [3, 3]


def test_enlarging_on_request(tmp_path, out):
    assert ingest(folder_of(tmp_path / "photos", range(2)), "--out", out, "--size", 120,
                  "--min-side", 96) == 0
    with Dataset(out) as dataset:
        assert dataset.size == 120


WAITING = """
import signal, sys
from hpclcae import cli
from hpclcae.data.ingest import squares
resample = squares.to_square
def third_waits(*arguments, done=[]):
    done.append(1)
    if len(done) == 3:
        print("two images are in", flush=True)
        signal.pause()
    return resample(*arguments)
squares.to_square = third_waits
sys.exit(cli.main())
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_in_the_middle(tmp_path, out, how):
    photos = folder_of(tmp_path / "photos", range(5))
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    older = out.read_bytes()
    command = [sys.executable, "-c", WAITING, "data", "ingest", photos, "--out", out, "--size",
               str(SIZE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[4]) as process:
        assert process.stdout.readline() == "two images are in\n"
        process.send_signal(how)
        assert process.wait(timeout=30) == (130 if how == signal.SIGINT else -signal.SIGKILL)
        lines = process.stderr.read().splitlines()
        assert lines == (["hpclcae data ingest: interrupted"] if how == signal.SIGINT else [])
    left = ["out.h5", "out.h5.work"] if how == signal.SIGKILL else ["out.h5"]
    assert out.read_bytes() == older and sorted(os.listdir(tmp_path)) == [*left, "photos"]
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    assert sorted(os.listdir(tmp_path)) == ["out.h5", "photos"]


def test_classes_are_halved_and_those_of_a_concept_are_not(tmp_path, out, capsys):
    for number, name in enumerate(("cats", "dogs")):
        folder_of(tmp_path / "set" / name, range(10 * number, 10 * number + 6))
    assert ingest(tmp_path / "set", "--out", out, "--size", 8, "--label-from", "folder") == 0
    with Dataset(out) as dataset:
        assert [int((dataset.half[dataset.labels == label]).sum()) for label in (0, 1)] == [3, 3]
        first = dict(zip(dataset.sources, dataset.half))
    assert ingest(tmp_path / "set", "--out", out, "--size", 8, "--label-from", "folder",
                  "--seed", 1) == 0
    with Dataset(out) as dataset:
        assert dict(zip(dataset.sources, dataset.half)) != first
    assert ingest(tmp_path / "set", "--out", out, "--size", 8, "--label-from", "folder",
                  "--concept", "cats") == 0
    with Dataset(out) as dataset:
        assert dataset.half is None


def test_labels_of_a_file(tmp_path, out, capsys):
    photos = folder_of(tmp_path / "photos", range(5))
    names = tmp_path / "labels.csv"
    names.write_text("name,label\n000.png,cat\n001,dog\n002,cat\n003,dog\n009,dog\n")
    assert ingest(photos, "--out", out, "--size", 8, "--label-file", names) == 0
    text = capsys.readouterr().out
    assert "1 of 5 names were not found: 009" in text and "labels: cat, dog" in text
    assert ["converted", "without", "a", "label", "1"] in [row.split() for row in text.splitlines()]
    with Dataset(out) as dataset:
        labels = dict(zip(dataset.sources, dataset.labels.tolist()))
        assert labels == {f"photos/00{i}.png": (i % 2 if i < 4 else -1) for i in range(5)}
        assert dataset.half is not None and dataset.settings["label_file"] == str(names)
    for arguments, message in ((("--label-file", tmp_path / "none.csv"), "none.csv cannot be read"),
                               (("--label-file", names, "--label-from", "folder"),
                                "give one of them"),
                               (("--label-file", names, "--concept", "cat"), "--label-from")):
        assert message in fails(capsys, photos, "--out", out, "--size", 8, *arguments)


def test_hostile_files_are_a_line_each_and_nothing_is_written_elsewhere(tmp_path, out, capsys):
    photos = folder_of(tmp_path / "in" / "photos", range(2))

    def chunk(name, data):
        return (struct.pack(">I", len(data)) + name + data
                + struct.pack(">I", zlib.crc32(name + data)))
    huge = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0,
                                                              0))
            + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""))
    (photos / "huge.png").write_bytes(huge)
    (photos / "cut.jpg").write_bytes(encode(scene(4), "JPEG")[:-300])
    (photos / "none.mp4").write_bytes(films.write(tmp_path / "f.mp4", [films.SCENE]).read_bytes()
                                      [:300])
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "round").symlink_to(".")
    (photos / os.fsdecode(b"\xff\xfe.png")).write_bytes(encode(scene(5), "PNG"))
    (photos / "line\nbreak.png").write_bytes(encode(scene(6), "PNG"))
    with zipfile.ZipFile(tmp_path / "in" / "climbs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../climbed.png", encode(scene(7), "PNG"))
        archive.writestr("/tmp/climbed.png", encode(scene(8), "PNG"))
        archive.writestr("bomb.png", encode(scene(9), "PNG") + bytes(100 * 2**20))
    bomb = io.BytesIO()
    with tarfile.open(fileobj=bomb, mode="w:gz", compresslevel=9) as archive:
        for name, size in (("first.png", 0), ("zeros.bin", 80 * 2**20), ("last.png", 0)):
            content = encode(scene(10), "PNG") if not size else bytes(size)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / "in" / "bomb.tgz").write_bytes(bomb.getvalue())
    sources = [photos, tmp_path / "in" / "climbs.zip", tmp_path / "in" / "bomb.tgz"]
    assert ingest(*sources, "--out", out, "--size", SIZE) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    for name, reason in (("photos/huge.png", "too many pixels"), ("photos/cut.jpg", "damaged"),
                         ("photos/none.mp4", "damaged"),
                         ("photos/loop.jpg", "not a regular file"),
                         ("photos/round", "link to a folder"), ("climbs.zip/bomb.png", "too large"),
                         ("bomb.tgz", "damaged archive, it expands more than 200 times")):
        assert sum(line.startswith(f"skipped {name}: {reason}") for line in said) == 1, said
    assert len(said) == 7
    with Dataset(out) as dataset:
        assert sorted(dataset.sources) == [
            "bomb.tgz/first.png", "climbs.zip/climbed.png", "climbs.zip/tmp/climbed.png",
            "photos/000.png", "photos/001.png", "photos/\\xff\\xfe.png", "photos/line\\nbreak.png"]
    assert sorted(os.listdir(tmp_path)) == ["f.mp4", "in", "out.h5"]
    assert not os.path.exists("/tmp/climbed.png")


def test_black_and_uniform_images_are_left_out_unless_asked_for(tmp_path, out, capsys):
    photos = folder_of(tmp_path / "photos", range(2))
    dark = (scene(0) // 20).astype(np.uint8)
    for name, image in (("dark", dark), ("flat", np.full((96, 96, 3), 99, np.uint8))):
        (photos / f"{name}.png").write_bytes(encode(image, "PNG"))
    assert ingest(photos, "--out", out, "--size", SIZE) == 0
    said = capsys.readouterr().err
    assert "skipped photos/dark.png: black" in said and "skipped photos/flat.png: uniform" in said
    with Dataset(out) as dataset:
        assert dataset.count == 2
    assert ingest(photos, "--out", out, "--size", SIZE, "--contrast", 0) == 0
    with Dataset(out) as dataset:
        assert dataset.count == 4


@pytest.mark.parametrize("channels", ["rgb", "grey"])
def test_faces_are_counted_or_left_out(tmp_path, out, capsys, channels):
    pytest.importorskip("cv2")
    photos = folder_of(tmp_path / "photos", [20, 21, 22])
    (photos / "face.png").write_bytes(encode(draw_face(100), "PNG"))
    arguments = [photos, "--out", out, "--size", 60, "--channels", channels, "--faces"]
    assert ingest(*arguments, "count") == 0
    assert "faces: 1 of 4 images show one (25.00%)" in capsys.readouterr().out
    with Dataset(out) as dataset:
        assert dataset.count == 4 and dataset.settings["counts"]["with faces"] == 1
    assert ingest(*arguments, "drop") == 0
    assert "skipped photos/face.png: shows a face" in capsys.readouterr().err
    with Dataset(out) as dataset:
        assert dataset.count == 3


def test_films_at_random_times_and_by_scene(tmp_path, out):
    films.cut_film(tmp_path / "clip.mp4", [20, 30, 10])
    sources = {}
    for words in (["random"], ["random", "--seed", 1], ["scenes"]):
        assert ingest(tmp_path / "clip.mp4", "--out", out, "--size", SIZE, "--film", *words) == 0
        with Dataset(out) as dataset:
            sources[" ".join(map(str, words))] = sorted(dataset.sources)
            assert [f"clip.mp4@{at:.2f}s" for at in dataset.seconds] == dataset.sources.tolist()
    assert [len(found) for found in sources.values()] == [1, 1, 3]
    assert sources["random"] != sources["random --seed 1"]


def test_a_file_that_ends_its_process_is_left_out(tmp_path, out, capsys, monkeypatch):
    photos = folder_of(tmp_path / "photos", range(12))
    decode = squares.decode

    def kills(content, *more):
        if content.name == "005.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(content, *more)
    monkeypatch.setattr(squares, "decode", kills)
    monkeypatch.setattr(units, "FILES", 4)
    assert ingest(photos, "--out", out, "--size", SIZE, "--workers", 2) == 0
    assert "skipped photos/005.png: ends the process that reads it" in capsys.readouterr().err
    with Dataset(out) as dataset:
        assert dataset.count == 11


def test_training_from_shards_and_from_one_with_a_damaged_shard(tmp_path, hpclcae):
    for i in range(100):
        folder_of(tmp_path / "photos", [i])
    arguments = [tmp_path / "photos", "--out", tmp_path / "set.h5", "--size", 24, "--channels",
                 "grey", "--shard-size", 60 * 24 * 24 / 1e9]
    assert ingest(*arguments) == 0
    train = ["train", str(RUN / "tiny.toml"), "--out", str(tmp_path / "run"), "--stop-at", "6",
             "--set", f"data.train={tmp_path / 'set.h5'}"]
    assert cli.main(train) == 0
    with Dataset(tmp_path / "set.h5") as dataset:
        assert len(dataset.shards) == 2
        shard = dataset.shards[1]
    with h5py.File(shard.path, locking=False) as file:
        at = file["images"].id.get_chunk_info(0).byte_offset
    content = bytearray(shard.path.read_bytes())
    content[at + 9] ^= 1
    shard.path.write_bytes(content)
    train[3] = str(tmp_path / "again")
    ended = hpclcae(*train)  # a process that has not read it before
    assert ended.returncode == 1
    assert f"{shard.path} cannot be read as shard 1 of" in ended.stderr
