"""What is found in folders and archives, under which names, what is passed over and why."""
import os
import stat
import subprocess
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
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
    assert [entry.folders for entry in good] == [("photos",), ("photos",), ("photos", "cats"),
                                                 ("photos", "cats", "deep")]
    assert [entry.is_film for entry in good] == [False, True, False, False]
    assert Counter(s.reason for s in found if isinstance(s, Skipped)) == {"other file": 2,
                                                                          "hidden": 2}


@pytest.mark.parametrize("name, mode",
                         [("a.zip", None), ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"),
                          ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")])
def test_archives_without_unpacking(tmp_path, name, mode):
    path = make_zip(tmp_path / name) if mode is None else make_tar(tmp_path / name, mode=mode)
    found = list(entries(path))
    good = {entry.name: content(entry) for entry in found if isinstance(entry, Entry)}
    assert good == {f"{name}/{path}": data for path, data in FOUND.items()}
    assert Counter(s.reason for s in found if isinstance(s, Skipped)) == {"other file": 2,
                                                                          "hidden": 2}
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
    assert [(e.name, content(e), e.folders)
            for e in entries(tmp_path / "b.jpg")] == [("b.jpg", b"B", (tmp_path.name,))]
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
    assert [entry.reason for entry in entries(tmp_path / "a.tar")] == [
        "not a regular file", "link to what is not in the archive"]


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


def names_and_content(path):
    return {entry.name: content(entry) if isinstance(entry, Entry) else entry.reason
            for entry in entries(path)}


@pytest.fixture
def linked(tmp_path):
    """A folder with a picture, links to it, links that lead nowhere, and a sparse picture."""
    folder = fill(tmp_path / "set", {"cats/a.jpg": b"A" * 5000})
    os.link(folder / "cats/a.jpg", folder / "cats/hard.jpg")
    (folder / "cats/soft.jpg").symlink_to("a.jpg")
    (folder / "up.jpg").symlink_to("cats/../cats/soft.jpg")
    (folder / "out.jpg").symlink_to("../../a.jpg")
    with open(folder / "sparse.bmp", "wb") as file:
        file.truncate(10**6)
        file.write(b"BM")
    return folder


DANGLING = "link to what is not in the archive"
SPARSE = b"BM" + bytes(10**6 - 2)


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"], ["--gzip"]])
def test_links_and_sparse_files_in_a_tar(tmp_path, linked, options):
    subprocess.run(["tar", "--create", "--sparse", *options, "--file", tmp_path / "a.tar",
                    "--directory", linked, "."], check=True, timeout=60)
    same = b"A" * 5000
    assert names_and_content(tmp_path / "a.tar") == {
        "a.tar/cats/a.jpg": same, "a.tar/cats/hard.jpg": same, "a.tar/cats/soft.jpg": same,
        "a.tar/up.jpg": same, "a.tar/out.jpg": DANGLING, "a.tar/sparse.bmp": SPARSE}


def test_symbolic_links_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cats/a.jpg", b"A")
        for name, target in (("cats/soft.jpg", "a.jpg"), ("bad.jpg", "../cats/a.jpg")):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    assert names_and_content(tmp_path / "a.zip") == {
        "a.zip/cats/a.jpg": b"A", "a.zip/cats/soft.jpg": b"A", "a.zip/bad.jpg": DANGLING}


def test_a_damaged_header_is_no_silent_end_of_a_tar(tmp_path):
    path = make_tar(tmp_path / "a.tar", {"a.jpg": b"A", "b.jpg": b"B", "c.jpg": b"C"}, "w")
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"./b.jpg") + 2] ^= 255
    path.write_bytes(damaged)
    assert names_and_content(path) == {"a.tar/a.jpg": b"A", "a.tar": "damaged archive"}


@pytest.mark.parametrize("written, utf8, found", [
    ("cats\\a.jpg", True, "cats/a.jpg"), ("./cats//a.jpg", True, "cats/a.jpg"),
    ("/cats/../a.jpg", True, "cats/a.jpg"), ("C:\\cats\\a.jpg", True, "cats/a.jpg"),
    ("caf\u00e9/a.jpg", False, "caf\u00e9/a.jpg")])
def test_names_in_zips_of_other_systems(tmp_path, written, utf8, found):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = written
        archive.writestr(info, b"A")
    if not utf8:  # as macOS: the bytes are UTF-8, and the flag that says so is missing
        content = bytearray((tmp_path / "a.zip").read_bytes())
        for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            content[content.index(signature) + flags + 1] &= ~8
        (tmp_path / "a.zip").write_bytes(content)
    assert names_and_content(tmp_path / "a.zip") == {f"a.zip/{found}": b"A"}


def test_an_archive_is_what_its_bytes_say(tmp_path):
    make_zip(tmp_path / "a.zip", {"a.jpg": b"A"}).rename(tmp_path / "a.tar")
    make_tar(tmp_path / "b.tar", {"b.jpg": b"B"}).rename(tmp_path / "b.ZIP")
    assert names_and_content(tmp_path / "a.tar") == {"a.tar/a.jpg": b"A"}
    assert names_and_content(tmp_path / "b.ZIP") == {"b.ZIP/b.jpg": b"B"}


def test_what_is_hidden_is_named_unless_the_user_names_it(tmp_path):
    folder = fill(tmp_path / ".set", {"a.jpg": b"A", ".b.jpg": b"B", "._a.jpg": b"",
                                      ".c/d.jpg": b"D"})
    make_zip(folder / "z.zip", {"e.jpg": b"E", ".f/g.jpg": b"G", "__MACOSX/e.jpg": b""})
    make_zip(folder / ".y.zip", {"h.jpg": b"H"})
    assert names_and_content(folder) == {
        ".set/a.jpg": b"A", ".set/.b.jpg": "hidden", ".set/._a.jpg": "other file",
        ".set/.c": "hidden", ".set/z.zip/e.jpg": b"E", ".set/z.zip/.f/g.jpg": "hidden",
        ".set/z.zip/__MACOSX/e.jpg": "other file", ".set/.y.zip": "hidden"}
    assert names_and_content(folder / ".y.zip") == {".y.zip/h.jpg": b"H"}


def test_a_picture_without_an_ending_and_formats_that_are_not_read(tmp_path):
    jpeg = b"\xff\xd8\xff" + bytes(9)
    folder = fill(tmp_path / "set", {"face": jpeg, "a.jpg_large": jpeg, "note": b"text",
                                     "b.CR2": b"II*\0", "c.rar": b"", "d.txt": jpeg})
    make_zip(folder / "z.zip", {"face": jpeg, "note": b"text"})
    make_tar(folder / "t.tar", {"face": jpeg, "note": b"text"})
    assert names_and_content(folder) == {
        "set/face": jpeg, "set/a.jpg_large": jpeg, "set/note": "other file",
        "set/b.CR2": "format that is not read", "set/c.rar": "format that is not read",
        "set/d.txt": "other file", "set/z.zip/face": jpeg, "set/z.zip/note": "other file",
        "set/t.tar/face": jpeg, "set/t.tar/note": "other file"}


def test_names_without_content_are_the_same_names(tmp_path, linked):
    folder = fill(tmp_path / "all")
    make_zip(folder / "z.zip")
    make_tar(folder / "t.tgz")
    for source in (folder, linked):
        listed = [entry.name for entry in entries(source, read=False) if isinstance(entry, Entry)]
        assert listed == [entry.name for entry in entries(source) if isinstance(entry, Entry)]


def test_random_damage_never_escapes(tmp_path):
    generator = np.random.default_rng(0)
    reasons = Counter()
    for path in (make_zip(tmp_path / "a.zip"), make_tar(tmp_path / "a.tar", mode="w"),
                 make_tar(tmp_path / "a.tgz"), make_tar(tmp_path / "a.tar.xz", mode="w:xz")):
        whole = path.read_bytes()
        for trial in range(60):
            damaged = bytearray(whole)
            for _ in range(1 + trial % 5):
                damaged[generator.integers(len(damaged))] = generator.integers(256)
            path.write_bytes(damaged[:generator.integers(len(damaged))] if trial % 4 == 0
                             else damaged)
            reasons.update(getattr(entry, "reason", "good") for entry in entries(path))
    assert {"good", "damaged archive", "damaged"} <= set(reasons)


@pytest.mark.parametrize("error", [NotImplementedError("zip file version 18.4"),
                                   TypeError("ord() expected a character")])
def test_what_archives_raise_is_a_damaged_archive(tmp_path, monkeypatch, error):
    def fails(*arguments, **options):
        raise error
    path = make_zip(tmp_path / "a.zip")
    monkeypatch.setattr(walk.zipfile, "ZipFile", fails)
    assert names_and_content(path) == {"a.zip": "damaged archive"}
