"""What a job refuses: one clear line within seconds, a non-zero exit, no requeue, nothing left.

A node's mounts are its own, so a file can be missing, or another one, on one node alone.
"""
import platform
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import RUN
from tests.support.slurm_jobs import ROOT, Job, command, on_node, submit

SECONDS = 60  # it takes 1 to 3 seconds; more on a busy machine
NODES = ("--nodes=4", "--ntasks-per-node=1")


@contextmanager
def mounted(node, *words):
    """Something mounted on one node."""
    on_node(node, "mount", *words)
    try:
        yield
    finally:
        on_node(node, "umount", "--lazy", words[-1])  # the job's last process may still end


def words(dataset, *more):
    settings = [f"data.train={dataset}", "train.steps=4", *more]
    return [word for setting in settings for word in ("--set", setting)]


def refused(job, *texts):
    """The last line of the log says why, and no other line speaks of it."""
    assert job.ended(SECONDS) == "FAILED", job.said
    assert job.exit_code == 1 and "requeued" not in job.said and "Traceback" not in job.said
    line = job.said.splitlines()[-1]
    assert line.startswith("train: not started: ") and all(text in line for text in texts), job.said
    assert [other for other in job.said.splitlines()[:-1]
            if not re.match("train: Python ", other)] == []


@pytest.mark.parametrize("options, more, texts", [
    (NODES, ["parallel.grid=3x1"], ["4 processes were launched", "blocks (parallel.grid) need 3"]),
    (NODES, ["parallel.servers=2", "parallel.replicas=3"],
     ["4 processes were launched", "2 servers", "need 5"]),
    (NODES, ["stages.0.receptive_field=30"], ["stages.0.receptive_field = 30 does not fit"]),
    (NODES, ["train.speed=9"], ["unknown key 'train.speed'"]),])
def test_a_configuration_that_does_not_fit(tiny_dataset, tmp_path, options, more, texts):
    job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words(tiny_dataset, *more),
                 log=tmp_path / "log", options=options)
    refused(job, *texts)


def test_a_dataset_that_is_nowhere(slurm, tmp_path):
    job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run",
                 *words(tmp_path / "nowhere.h5"), log=tmp_path / "log", options=NODES)
    refused(job, "nowhere.h5 is not a file")


def test_a_dataset_that_one_node_does_not_have(tiny_dataset, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(tiny_dataset, data / "train.h5")
    with mounted("node3", "-t", "tmpfs", "nothing", data):
        job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words(data / "train.h5"),
                     log=tmp_path / "log", options=NODES)
        refused(job, "node3: ", "train.h5 is not a file")


def test_another_python_on_one_node(tiny_dataset, tmp_path):
    """The system's, where this one is not the system's."""
    version = platform.python_version()
    other = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    found = command(other, "-c", "import platform; print(platform.python_version())").strip()
    if found == version:
        pytest.skip(f"there is no other Python than {version} here")
    same_packages = found.split(".")[:2] == version.split(".")[:2]
    with mounted("node2", "--bind", Path(other).resolve(), Path(sys.executable).resolve()):
        job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words(tiny_dataset),
                     log=tmp_path / "log", options=NODES)
        refused(job, "node2: ", f"Python {found} here, Python {version} on the first node"
                if same_packages else "No module named")


def test_python_without_the_package_on_one_node(tiny_dataset, tmp_path):
    import numpy
    with mounted("node4", "-t", "tmpfs", "nothing", Path(numpy.__file__).parents[1]):
        job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words(tiny_dataset),
                     log=tmp_path / "log", options=NODES)
        refused(job, "node4: ", "No module named")


def test_another_mpi_on_one_node(tiny_dataset, tmp_path):
    library = next(iter(sorted((Path(sys.prefix) / "lib").glob("libmpi.so.*"))), None)
    version = re.search(rb"\0(\d\.\d\.\d)\0MPICH %s", library.read_bytes()) if library else None
    if version is None:
        pytest.skip("no MPICH wheel in this environment")
    copy = tmp_path / "libmpi.so"
    copy.write_bytes(library.read_bytes().replace(b"\0" + version[1] + b"\0",
                                                  b"\0" + b"3.1.4" + b"\0"))
    with mounted("node2", "--bind", copy, library.resolve()):
        job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "run", *words(tiny_dataset),
                     log=tmp_path / "log", options=NODES)
        refused(job, "node2: ", "3.1.4 here", f"{version[1].decode()} on the first node")


def test_a_run_folder_that_cannot_be_made(tiny_dataset, tmp_path):
    (tmp_path / "file").write_text("no folder")
    job = submit("train.sbatch", RUN / "tiny.toml", tmp_path / "file/run", *words(tiny_dataset),
                 log=tmp_path / "log", options=NODES)
    refused(job, f"run folder {tmp_path}/file/run cannot be made")


def test_a_run_folder_that_one_node_cannot_write(tiny_dataset, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with mounted("node4", "-t", "tmpfs", "-o", "ro", "nothing", run):
        job = submit("train.sbatch", RUN / "tiny.toml", run, *words(tiny_dataset),
                     log=tmp_path / "log", options=NODES)
        refused(job, "node4: ", "cannot be written (Read-only file system)")


def test_a_job_that_was_not_submitted_from_the_project(slurm, tmp_path):
    said = command("bash", "-c", 'cd "$0" && sbatch --parsable --output=log "$1" a b', tmp_path,
                   ROOT / "slurm/train.sbatch")
    job = Job(said.strip(), tmp_path / "log")
    assert job.ended(SECONDS) == "FAILED"
    assert f"submit from the project's folder: {tmp_path} has no slurm/" in job.said, job.said
