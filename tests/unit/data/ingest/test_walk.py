"""What is found in folders and archives, under which names, what is passed over and why."""
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from hpclcae.data.ingest import walk
from hpclcae.data.ingest.walk import Entry, Skipped, entries
from tests.support.folders import fill, make_tar, make_zip

FOUND = {"b.jpg": b"B", "cats/a.PNG": b"A", "cats/deep/c.webp": b"C", "clip.MP4": b"film"}


def content(entry):
    return entry.content if isinstance(entry.content, bytes) else entry.content.read_bytes()


def test_folder_in_order(tmp_path):
    found = list(entries(fill(tmp_path / "photos")))
    good = [entry for entry in found if isinstance(entry, Entry)]
    assert [entry.name for entry in good] == ["photos/b.jpg", "photos/clip.MP4",
                                              "photos/cats/a.PNG", "photos/cats/deep/c.webp"]
    assert {entry.name.removeprefix("photos/"): content(entry) for entry in good} == FOUND
    assert [entry.folder for entry in good] == ["photos", "photos", "cats", "deep"]
    assert [entry.is_film for entry in good] == [False, True, False, False]
    assert Counter(s.reason for s in found if isinstance(s, Skipped)) == {"other file": 4}


@pytest.mark.parametrize("name, mode",
                         [("a.zip", None), ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"),
                          ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")])
def test_archives_without_unpacking(tmp_path, name, mode):
    path = make_zip(tmp_path / name) if mode is None else make_tar(tmp_path / name, mode=mode)
    found = list(entries(path))
    good = {entry.name: content(entry) for entry in found if isinstance(entry, Entry)}
    assert good == {f"{name}/{path}": data for path, data in FOUND.items()}
    assert Counter(s.reason for s in found if isinstance(s, Skipped)) == {"other file": 4}
    assert os.listdir(tmp_path) == [name]


def test_archive_inside_a_folder_and_inside_an_archive(tmp_path):
    inner = make_zip(tmp_path / "inner.zip").read_bytes()
    outer = make_zip(fill(tmp_path / "photos", {"x.jpg": b"X"}) / "outer.zip",
                     {"y/inner.zip": inner, "y/y.jpg": b"Y"})
    assert outer.exists()
    found = list(entries(tmp_path / "photos"))
    assert [f.name for f in found] == ["photos/outer.zip/y/inner.zip", "photos/outer.zip/y/y.jpg",
                                       "photos/x.jpg"]
    assert found[0].reason == "archive inside an archive"


def test_single_file(tmp_path):
    fill(tmp_path)
    assert [(e.name, content(e), e.folder)
            for e in entries(tmp_path / "b.jpg")] == [("b.jpg", b"B", "")]
    assert [s.reason for s in entries(tmp_path / "notes.txt")] == ["other file"]


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.4, 0.8])
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_truncated_archives_keep_what_came_before(tmp_path, name, kept):
    files = {f"{i:03d}.jpg": os.urandom(2000) for i in range(200)}
    mode = {"tar": "w", "gz": "w:gz", "xz": "w:xz", "bz2": "w:bz2"}.get(name.rpartition(".")[2])
    path = tmp_path / name
    path = make_zip(path, files) if mode is None else make_tar(path, files, mode)
    path.write_bytes(path.read_bytes()[:int(kept * path.stat().st_size)])
    *good, last = entries(path)
    assert isinstance(last, Skipped) and last.reason == "damaged archive" and last.name == name
    assert all(content(entry) == files[entry.name.removeprefix(f"{name}/")] for entry in good)
    if kept == 0.8 and name in ("a.tar", "a.tar.gz"):
        assert len(good) > 100


def test_a_damaged_member_of_a_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"A" * 500, "b.jpg": b"B" * 500})
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"a.jpg") + 6] ^= 255  # in the packed bytes
    path.write_bytes(damaged)
    found = list(entries(path))
    assert [type(entry) for entry in found] == [Skipped, Entry] and found[0].reason == "damaged"


def test_a_locked_member_of_a_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"A"})
    locked = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.index(signature) + flags] |= 1
    path.write_bytes(locked)
    assert [entry.reason for entry in entries(path)] == ["locked in its archive"]


def test_large_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(walk, "MAX_BYTES", 100)
    for path in (make_zip(tmp_path / "a.zip", {"a.jpg": bytes(101), "b.jpg": bytes(100)}),
                 make_tar(tmp_path / "a.tar.gz", {"a.jpg": bytes(101), "b.jpg": bytes(100)})):
        refused, kept = entries(path)
        assert refused.reason == "too large" and content(kept) == bytes(100)


def test_links_devices_and_pipes(tmp_path):
    folder = fill(tmp_path / "photos", {"a.jpg": b"A"})
    (folder / "again.jpg").symlink_to("a.jpg")
    (folder / "broken.jpg").symlink_to("nothing.jpg")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe.jpg")
    found = {entry.name: getattr(entry, "reason", "good") for entry in entries(folder)}
    assert found == {"photos/a.jpg": "good", "photos/again.jpg": "good",
                     "photos/broken.jpg": "not a regular file",
                     "photos/loop": "link to a folder", "photos/pipe.jpg": "not a regular file"}
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder / "again.jpg", "again.jpg")
        archive.add(folder / "pipe.jpg", "pipe.jpg")
    assert [entry.reason for entry in entries(tmp_path / "a.tar")] == ["other file", "other file"]


def test_names_that_are_not_utf8(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"A")
    (entry,) = entries(folder)
    assert entry.name == "photos/caf\\xe9.jpg" and content(entry) == b"A"
    entry.name.encode("utf-8")


def test_name_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path / "photos", {"a.jpg": b"A"}))
    assert [entry.name for entry in entries(Path("."))] == ["photos/a.jpg"]
