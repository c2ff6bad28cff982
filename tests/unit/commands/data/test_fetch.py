"""Fetching, with the real pip and dpkg-deb, from packages that are built here; no network."""
import io
import json
import os
import shutil
import tarfile
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from hpclcae.commands.data import fetch as command
from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.data.sources import fetch, packages, registry
from hpclcae.data.sources.registry import Source
from hpclcae.utils.errors import InputError
from tests.support.rcc import build

FACES = Source("orl-made", "1.2", "wheel", "made faces", "CC0", {"face": 4}, megabytes=1,
               take=(("face", r"orl_made/(?P<group>s\d)/\d\.pgm"),), same={"s3": "s1"})
DESKS = Source("desks-made", "0.1", "sdist", "made desks", "MIT", {"photograph": 2, "people": 1},
               take=(("photograph", r"photos/(?P<group>.+?)(-\d)?\.jpg"),), drop=r".*/drawing\.jpg",
               people=("crowd",))
BEASTS = Source("beasts-made", "3-1", "deb", "made beasts", "GPL-2",
                {"photograph": 2, "face": 100, "cutout": 1},
                take=(("photograph", r"beasts/(?P<label>\w+)/\w+\.webp"),
                      ("face", r"lfw_subset/(?P<group>lfw)-\d+\.pgm"),
                      ("cutout", r"usr/share/cow\.png")), default=False)
MESH = Source("mesh-made", "2.0", "wheel", "a made mesh", "CC0", {"": 2},
              take=(("", r"mesh/.+\.obj"),))
MADE = (FACES, DESKS, BEASTS, MESH)


def wheel(folder, name, version, files):
    stem = f"{name.replace('-', '_')}-{version}"
    info = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": ""}
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        for path, content in info.items():
            archive.writestr(f"{stem}.dist-info/{path}", content)


BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, settings=None):
    os.mkdir(f"{folder}/desks_made-0.1.dist-info")
    with open(f"{folder}/desks_made-0.1.dist-info/METADATA", "w") as file:
        file.write("Metadata-Version: 2.1\\nName: desks-made\\nVersion: 0.1\\n")
    return "desks_made-0.1.dist-info"
def build_wheel(*arguments):
    raise RuntimeError("it must not be built")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with one package of each kind, and a stand-in for apt-get that sells from it."""
    folder = tmp_path_factory.mktemp("shop")
    wheel(folder, "orl-made", "1.2", {f"orl_made/s{p}/{i}.pgm": f"P5 1 1 255\n{2 * p + i}"
                                      for p in (1, 2) for i in (1, 2)}
          | {"orl_made/s1/target.jpg": "stray"})
    wheel(folder, "mesh-made", "2.0",
          {"mesh/a.obj": "v 0 0 0", "mesh/b.obj": "v 1 1 1", "mesh/code.py": ""})
    with tarfile.open(folder / "desks-made-0.1.tar.gz", "w:gz") as archive:
        for path, text in {"pyproject.toml": PROJECT, "backend.py": BACKEND, "LICENSE": "MIT",
                           "PKG-INFO": "Metadata-Version: 2.1\nName: desks-made\nVersion: 0.1\n",
                           "photos/desk.jpg": "1", "photos/desk-2.jpg": "2",
                           "photos/crowd.jpg": "3", "photos/drawing.jpg": "4"}.items():
            member = tarfile.TarInfo(f"desks-made-0.1/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    if shutil.which("dpkg-deb"):
        debian_package(folder)
    (folder / "bin").mkdir()
    (folder / "bin" / "apt-get").write_text(APT_GET.replace("SHOP", str(folder)))
    (folder / "bin" / "apt-get").chmod(0o755)
    return folder


#: Like the real one on a machine with empty lists: it sells nothing until it has lists of its own.
APT_GET = """#!/bin/sh
echo "$@" >> SHOP/apt.log
case "$*" in
    *lists=*update) exit 0;;
    *lists=*download*) for name; do :; done; exec cp SHOP/${name}_3-1_all.deb .;;
    *) echo "E: Unable to locate package" >&2; exit 100;;
esac
"""


def debian_package(folder):
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text("Package: beasts-made\nVersion: 3-1\n"
                                             "Architecture: all\nMaintainer: a <a@b.c>\n"
                                             "Description: made\n")
    share = root / "usr" / "share"
    share.mkdir(parents=True)
    (share / "cow.png").write_bytes(b"cow")
    (share / "beasts.rcc").write_bytes(build({
        "beasts/owls/a.webp": b"owl", "beasts/cats/b.webp": b"cat",
        "beasts/cats/b.svg": b"drawing"}))
    stack = np.zeros((200, 3, 2))
    stack[7] = [[0, 1], [0.5, 0.25], [1, 1]]
    np.save(share / "lfw_subset.npy", stack)
    packages.run(["dpkg-deb", "--build", str(root), str(folder / "beasts-made_3-1_all.deb")])


@pytest.fixture
def offline(shop, monkeypatch):
    """pip finds the shop and nothing else; so does apt-get."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shop),
                        "PIP_CONFIG_FILE": os.devnull,
                        "PATH": f"{shop / 'bin'}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(registry, "SOURCES", MADE)


@pytest.fixture
def shelf(shop, monkeypatch):
    """The same packages without pip and apt-get, which take a second each."""
    def download(name, version, client, folder):
        folder.mkdir(parents=True)
        ending = {"wheel": f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
                  "sdist": f"{name}-{version}.tar.gz"}
        try:
            return Path(shutil.copy(shop / ending[client], folder))
        except FileNotFoundError as error:
            raise packages.Unavailable("not on the shelf") from error

    monkeypatch.setattr(packages, "download", download)
    monkeypatch.setattr(registry, "SOURCES", MADE)


def call(out, only=(), everything=False, show=False):
    command.run(Namespace(out=out, only=list(only), all=everything, list=show))


def test_pip_sources_end_to_end_and_again(tmp_path, offline, capsys, monkeypatch):
    call(tmp_path / "s")
    out, err = capsys.readouterr()
    assert "warning" not in err
    assert "4 faces" in out and "orl-made 1.2" in out and "CC0" in out and "2 data files" in out
    assert "2 people with faces, 1 photographed scenes" in out
    items = catalogue.load(tmp_path / "s")
    assert items == [
        Item("desks-made/photos/crowd.jpg", "people", "desks-made/crowd", "desks-made", "MIT"),
        Item("desks-made/photos/desk-2.jpg", "photograph", "desks-made/desk", "desks-made", "MIT"),
        Item("desks-made/photos/desk.jpg", "photograph", "desks-made/desk", "desks-made", "MIT"),
        *(Item(f"orl-made/orl_made/s{p}/{i}.pgm", "face", f"orl-made/s{p}", "orl-made", "CC0")
          for p in (1, 2) for i in (1, 2))]
    assert sorted(os.listdir(tmp_path / "s")) == ["catalogue.json", "desks-made", "mesh-made",
                                                  "orl-made"]
    assert (tmp_path / "s/desks-made/photos/desk-2.jpg").read_text() == "2"
    assert (tmp_path / "s/desks-made/LICENSE").exists()
    assert not (tmp_path / "s/desks-made/backend.py").exists()
    monkeypatch.setattr(packages, "run", None)  # nothing is fetched again
    call(tmp_path / "s")
    assert catalogue.load(tmp_path / "s") == items and capsys.readouterr().out == out


@pytest.mark.skipif(not shutil.which("dpkg-deb"),
                    reason="needs dpkg-deb to build and read a Debian package")
def test_debian_source_with_empty_package_lists(tmp_path, shop, offline):
    call(tmp_path, only=["beasts-made"])
    items = catalogue.load(tmp_path)
    assert [item for item in items if item.kind == "photograph"] == [
        Item("beasts-made/beasts/cats/b.webp", "photograph", "beasts-made/b", "beasts-made",
             "GPL-2", "cats"),
        Item("beasts-made/beasts/owls/a.webp", "photograph", "beasts-made/a", "beasts-made",
             "GPL-2", "owls")]
    assert {item.group for item in items if item.kind == "face"} == {"beasts-made/lfw"}
    assert (tmp_path / "beasts-made/beasts/owls/a.webp").read_bytes() == b"owl"
    face = (tmp_path / "beasts-made/lfw_subset/lfw-007.pgm").read_bytes()
    assert face == b"P5 2 3 255\n" + bytes([0, 255, 128, 64, 255, 255])
    words = [line.split()[-2:] for line in (shop / "apt.log").read_text().splitlines()]
    assert [line[-1] for line in words] == ["beasts-made", "update", "beasts-made"]
    record = json.loads((tmp_path / "beasts-made/source.json").read_text())
    assert record["package"] == "beasts-made 3-1"


def test_a_missing_source_is_a_warning_and_all_missing_an_error(tmp_path, shelf, capsys,
                                                                monkeypatch):
    gone = Source("not-there", "1.0", "wheel", "horses", "CC0", {"photograph": 7},
                  take=(("photograph", ".*"),))
    monkeypatch.setattr(registry, "SOURCES", (FACES, gone))
    call(tmp_path / "s")
    said = "warning: not-there is missing (7 photographs: horses): not on the shelf"
    assert said in capsys.readouterr().err
    assert len(catalogue.load(tmp_path / "s")) == 4
    monkeypatch.setattr(registry, "SOURCES", (gone,))
    with pytest.raises(InputError, match="nothing came into"):
        call(tmp_path / "empty")
    assert os.listdir(tmp_path / "empty") == []


def test_no_network_and_no_apt_get(tmp_path, offline, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match="nothing came into"):
        call(tmp_path / "s", only=["orl-made", "beasts-made"])
    err = capsys.readouterr().err
    assert ("warning: orl-made is missing (4 faces: made faces): "
            "ERROR: No matching distribution") in err
    assert ("warning: beasts-made is missing (2 photographs, 100 faces, 1 cut-outs: made beasts): "
            "apt-get does not exist on this machine") in err


def test_a_changed_package_is_noticed(tmp_path, shelf, capsys, monkeypatch):
    expecting = Source(**{**vars(FACES), "expected": {"face": 5}})
    monkeypatch.setattr(registry, "SOURCES", (expecting,))
    call(tmp_path)
    assert "warning: orl-made 1.2 has 4 faces, 5 faces were expected" in capsys.readouterr().err


def test_interrupted_while_unpacking(tmp_path, shelf, monkeypatch):
    def cut(file):
        for count, member in enumerate(members(file)):
            if count == 2:
                raise KeyboardInterrupt
            yield member

    members = packages.members
    monkeypatch.setattr(packages, "members", cut)
    with pytest.raises(KeyboardInterrupt):
        call(tmp_path, only=["orl-made"])
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(packages, "members", members)
    call(tmp_path, only=["orl-made"])
    assert len(catalogue.load(tmp_path)) == 4


def test_what_a_killed_fetch_left_is_removed_and_a_lost_file_fetched_again(tmp_path, shelf):
    (tmp_path / fetch.STAGING / "orl-made").mkdir(parents=True)
    call(tmp_path, only=["orl-made"])
    assert sorted(os.listdir(tmp_path)) == ["catalogue.json", "orl-made"]
    (tmp_path / "orl-made/orl_made/s1/1.pgm").write_text("scratched")
    call(tmp_path, only=["orl-made"])
    assert (tmp_path / "orl-made/orl_made/s1/1.pgm").read_text() == "P5 1 1 255\n3"


def test_only_one_fetch_at_a_time(tmp_path, shelf):
    with fetch.locked(tmp_path):
        with pytest.raises(InputError, match="another 'hpclcae data fetch' is working"):
            call(tmp_path)
        assert os.listdir(tmp_path) == [fetch.STAGING]  # what the first one works in is still there


def test_list_fetches_nothing(offline, capsys, monkeypatch):
    monkeypatch.setattr(packages, "run", None)
    call(None, show=True)
    out = capsys.readouterr().out
    assert "beasts-made 3-1 (Debian)" in out and "desks-made 0.1 (PyPI sdist)" in out
    assert "--all" in out
    with pytest.raises(InputError, match="give --out FOLDER"):
        call(None)


def test_folders_of_others_are_not_replaced(tmp_path, offline, monkeypatch):
    monkeypatch.setattr(packages, "download", None)  # before anything is fetched
    (tmp_path / "orl-made").mkdir()
    (tmp_path / "orl-made" / "work").write_text("mine")
    with pytest.raises(InputError, match="orl-made exists and was not fetched by us"):
        call(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "catalogue.json").write_text("[]")
    with pytest.raises(InputError, match="is not a catalogue of ours"):
        call(tmp_path / "other")
    with pytest.raises(InputError, match="is not a folder"):
        call(tmp_path / "orl-made" / "work" / "new")
    assert (tmp_path / "orl-made" / "work").read_text() == "mine"
