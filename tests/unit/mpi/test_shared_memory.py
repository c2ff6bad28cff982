"""A small /dev/shm is a line, not a bus error; without MPI."""
import os
from types import SimpleNamespace

import pytest

from hpclcae.mpi import shared_memory
from hpclcae.utils.errors import InputError


@pytest.fixture
def shm(monkeypatch):
    """Set the size of /dev/shm, what is free of it, and which of how many ranks asks."""
    monkeypatch.setenv("UCX_TLS", "")  # so that what a test sets is taken back

    def set_up(megabytes, free, ranks=4, rank=0):
        found = SimpleNamespace(f_frsize=1000, f_blocks=megabytes * 1000, f_bavail=free * 1000)
        monkeypatch.setattr(shared_memory.os, "statvfs", lambda path: found)
        monkeypatch.setattr(shared_memory, "on_this_node", lambda: (ranks, rank))
        monkeypatch.delenv("UCX_TLS", raising=False)
    return set_up


@pytest.mark.parametrize("vendor, ranks, megabytes", [("MPICH", 4, 4), ("Open MPI", 4, 17)])
def test_a_library_that_would_die_is_not_started(shm, vendor, ranks, megabytes):
    shm(megabytes, megabytes, ranks)
    with pytest.raises(InputError, match=rf"/dev/shm has {megabytes} MB free, and {ranks} ranks on "
                                         rf"this node need \d+ MB with {vendor}: .*--shm-size"):
        shared_memory.check_start(vendor)
    shm(2 * megabytes, 2 * megabytes, ranks)
    shared_memory.check_start(vendor)
    shm(megabytes, megabytes, ranks=1)
    shared_memory.check_start(vendor)


def test_what_the_other_ranks_have_taken_is_no_shortage(shm):
    shm(64, 1, rank=1)
    shared_memory.check_start("MPICH")
    shm(64, 1, rank=0)
    with pytest.raises(InputError):
        shared_memory.check_start("MPICH")


@pytest.mark.parametrize("megabytes, told", [(24, "^posix"), (64, None)])
def test_ucx_is_told_to_do_without_what_it_would_die_of(shm, megabytes, told):
    shm(megabytes, megabytes)
    shared_memory.check_start("MPICH")
    assert os.environ.get("UCX_TLS") == told


def test_windows_are_compared_with_what_is_free_on_their_node():
    nodes, free = ["a", "a", "b", "b"], [50e6, 49e6, 9e6, 9e6]
    assert shared_memory.shortage([("a", 40_000_000)], nodes, free) == ""
    assert shared_memory.shortage([], nodes, free) == ""
    assert shared_memory.shortage([("a", 40_000_000), ("a", 9_000_000)], nodes, free) == (
        "the servers' windows need 52 MB of /dev/shm on a, 49 MB are free")
    assert "on b, 9 MB are free" in shared_memory.shortage([("b", 9_000_000)], nodes, free)


def test_a_folder_that_takes_no_files_has_no_space(monkeypatch, shm):
    shm(64, 64)
    assert shared_memory.free_space("MPICH") == shared_memory.free_space("Open MPI") == 64e6
    monkeypatch.setattr(shared_memory.os, "access", lambda path, mode: False)
    assert shared_memory.free_space("MPICH") == 0
    assert shared_memory.free_space("Open MPI") == float("inf")  # it takes /tmp
