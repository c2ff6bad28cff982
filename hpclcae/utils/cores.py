"""The cores and the memory that this process may use: the machine's, or what a container is given.

Containers and batch systems set limits in control groups: of the process's group and of all groups
around it the smallest counts. Version 2 has one tree of groups, version 1 one for each resource; in
a container the group's own path may be hidden, and its limits are at the root that is seen.
"""
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """How many cores this process may use, where the system tells; else how many there are.

    Of a quota of 2.5 cores two are whole; there is always one.
    """
    there = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
             else os.cpu_count() or 1)
    quotas = [int(quota) / int(period) for quota, period in _cpu_limits()
              if quota.isdecimal() and period.isdecimal() and int(period)]  # not "max", not -1
    return max(1, int(min([there, *quotas])))


def memory() -> float:
    """Bytes of memory that this process may use."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [text for group in _groups("memory")
              for text in (_read(group / "memory.max"), _read(group / "memory.limit_in_bytes"))]
    return float(min([there, *(int(text) for text in limits if text.isdecimal())]))


def available_memory() -> float:
    """Bytes of memory that this process may still take: what others leave, within its limit."""
    _, _, told = _read(Path("/proc/meminfo")).partition("MemAvailable:")
    return min(memory(), 1024.0 * int(told.split()[0]) if told else float("inf"))


def _cpu_limits() -> Iterator[tuple[str, str]]:
    """Quota and period of every group that this process is in."""
    for group in _groups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        yield quota, period
        yield _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")


def _groups(resource: str) -> Iterator[Path]:
    """Folders of the groups of this process, from its own to the root, that limit a resource."""
    for line in _read(MEMBERSHIP).splitlines():
        _, names, path = line.split(":", 2)
        if names and resource not in names.split(","):
            continue
        # version 1 names a folder after all its resources, such as cpu,cpuacct
        root = next((folder for name in (names, resource) if (folder := CGROUPS / name).is_dir()),
                    CGROUPS)
        own = root / path.strip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(root))


def _read(path: Path) -> str:
    """Content of a small file; "" if it cannot be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
