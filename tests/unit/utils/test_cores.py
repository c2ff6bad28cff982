"""Cores and memory of this machine, and of a container that is given less."""
import os

import pytest

from hpclcae.utils import cores as module
from hpclcae.utils.cores import available_memory, cores, memory

GB = 10 ** 9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 cores and 64 GB, with the files of control groups that are given."""
    def make(membership, files):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        (tmp_path / "member").write_text(membership)
        monkeypatch.setattr(module, "CGROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(module, "MEMBERSHIP", tmp_path / "member")
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
        pages = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 64 * 10 ** 6}
        monkeypatch.setattr(os, "sysconf", pages.get)
    return make


@pytest.mark.parametrize("membership, files, expected", [
    ("", {}, (8, 64)),
    ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, (8, 64)),
    ("0::/\n", {"cpu.max": "250000 100000", "memory.max": "4000000000"}, (2, 4)),
    ("0::/\n", {"cpu.max": "50000 100000"}, (1, 64)),
    ("0::/\n", {"cpu.max": "nonsense", "memory.max": ""}, (8, 64)),
    # the tightest of the groups around it
    ("0::/job/step\n", {"job/cpu.max": "300000 100000", "job/step/cpu.max": "max 100000",
                        "job/step/memory.max": "9000000000", "job/memory.max": "5000000000"},
     (3, 5)),
    # the path of the host, which a container does not see
    ("0::/docker/1f\n", {"cpu.max": "400000 100000", "memory.max": "3000000000"}, (4, 3)),
    # version 1
    ("4:memory:/docker/1f\n3:cpu,cpuacct:/docker/1f\n1:name=systemd:/\n",
     {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "50000",
      "memory/memory.limit_in_bytes": "2000000000"}, (3, 2)),
    ("4:memory:/\n3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
                               "memory/memory.limit_in_bytes": "9223372036854771712"}, (8, 64))])
def test_what_a_container_is_given_counts(machine, membership, files, expected):
    machine(membership, files)
    assert (cores(), memory() / GB) == expected


def test_this_machine_has_some():
    assert cores() >= 1 and memory() > GB / 10
    assert 0 < available_memory() <= memory()


def test_no_more_is_available_than_a_container_is_given(machine):
    machine("0::/\n", {"memory.max": "1000"})
    assert available_memory() == 1000
