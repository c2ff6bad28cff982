"""/dev/shm, through which ranks of a node talk: is there enough of it, and nothing is left in it.

A container often has 64 MB of it. Taking too much is no error of a call: the process dies of a bus
error when it touches a page that is not there. So what is needed is compared with what is free
before it is used.
"""
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpclcae.cluster.launcher import on_this_node
from hpclcae.utils.errors import InputError

FOLDER = Path("/dev/shm")
MORE = "give the container more (docker run --shm-size=1g)"
#: Bytes of a node that a library cannot start without: for all ranks together and for each.
#: Measured with the wheels of MPICH 5.0 and Open MPI 5.0.
_LEAST = {"MPICH": (500_000, 1_100_000), "Open MPI": (16_800_000, 300_000)}
#: The same for UCX in MPICH's wheel: with less it ends in a segmentation fault, unless it is told
#: to do without.
_UCX = (10_000_000, 5_400_000)
_WITHOUT = ("UCX_TLS", "^posix")
#: What one window takes beside the memory that was asked for, and every rank meanwhile.
_WINDOW, _RANK = 1_000_000, 500_000


def check_start(vendor: str) -> None:
    """See that an MPI library can start; called before it does.

    Parameters
    ----------
    vendor : str
        Name of the library.

    Raises
    ------
    InputError
        /dev/shm is too small for the ranks of this node.
    """
    ranks, rank = on_this_node()
    least = _needed(_LEAST.get(vendor, (0, 0)), ranks)
    # While the first rank looks, the others may have taken their part: they look at the whole.
    there = _space(vendor, free=rank == 0)
    if ranks > 1 and there < least:
        raise InputError(f"{FOLDER} has {_megabytes(there)} free, and {ranks} ranks on this node "
                         f"need {_megabytes(least)} with {vendor}: {MORE}, or start fewer ranks")
    if vendor == "MPICH" and ranks > 1 and free_space(vendor) < _needed(_UCX, ranks):
        os.environ.setdefault(*_WITHOUT)


def _needed(bytes_: tuple[int, int], ranks: int) -> int:
    together, each = bytes_
    return together + each * ranks


def shortage(windows: Sequence[tuple[str, int]], nodes: Sequence[str],
             free: Sequence[float]) -> str:
    """What windows lack on the node where it is worst; "" if they fit.

    Parameters
    ----------
    windows : sequence of (str, int)
        Node and bytes of each window whose memory is shared.
    nodes : sequence of str
        Of every rank.
    free : sequence of float
        Bytes that every rank sees on its node.
    """
    for node in dict.fromkeys(nodes):
        sizes = [size for where, size in windows if where == node]
        there = min(space for where, space in zip(nodes, free) if where == node)
        needed = sum(sizes) + _WINDOW * len(sizes) + _RANK * nodes.count(node)
        if sizes and needed > there:
            return (f"the servers' windows need {_megabytes(needed)} of {FOLDER} on {node}, "
                    f"{_megabytes(there)} are free")
    return ""


def free_space(vendor: str) -> float:
    """Bytes that are free in /dev/shm for a library; infinite where it uses something else."""
    return _space(vendor, free=True)


def forget_names() -> None:
    """Remove the names of what MPICH shares, when all ranks of the job have it.

    MPICH removes them at its end. A job that is killed does not come to that, and every one would
    leave some MB behind until the machine is restarted.
    """
    for path in _mapped():
        if path.parent == FOLDER and path.name.startswith("mpich_shm_"):
            with contextlib.suppress(OSError):  # another rank was faster
                path.unlink()


def maps(word: str) -> bool:
    """Whether a file with `word` in its name is in this process's memory, such as a library."""
    return any(word in path.name for path in _mapped())


def _mapped() -> Iterator[Path]:
    """Files in this process's memory (Linux; elsewhere none)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and not fields[5].endswith("(deleted)"):
                yield Path(fields[5])


def _space(vendor: str, free: bool) -> float:
    usable = os.access(FOLDER, os.W_OK)
    if sys.platform != "linux" or (vendor == "Open MPI" and not usable):  # that takes /tmp
        return float("inf")
    if not usable:
        return 0.0
    found = os.statvfs(FOLDER)
    return (found.f_bavail if free else found.f_blocks) * found.f_frsize


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
