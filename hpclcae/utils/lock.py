"""One process at a time works in a folder: the one that holds the lock of a file in it.

The system gives the lock back when the process ends, however it ends: a file that is left, as by a
process that was killed, hinders nobody. The file says who has the lock.
"""
import contextlib
import errno
import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpclcae.utils.errors import InputError

FILE = "lock"
_JOB, _RESTART = "SLURM_JOB_ID", "SLURM_RESTART_COUNT"


@contextlib.contextmanager
def locked(folder: Path, what: str = "run folder") -> Iterator[int]:
    """Lock a folder, which is made if it is not there; one that nothing came into is removed.

    `what` it is, for messages. What keeps the lock is yielded: a descriptor that processes forked
    from this one should close. On a file system without locks there is only a line that says so.

    Raises
    ------
    InputError
        Another process works in it, or it cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _take(folder / FILE)
    except OSError as error:
        raise InputError(f"{what} {folder} cannot be written ({error.strerror}); choose "
                         "another --out") from error
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # somebody may have removed it; or it is not empty
            if _is_file(descriptor, folder / FILE):
                (folder / FILE).unlink()
            if made:
                folder.rmdir()
        os.close(descriptor)


def _take(file: Path) -> int:
    """Open and lock the file; returns what keeps the lock until it is closed."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = _read(descriptor)
                os.close(descriptor)
                if not _is_earlier_start(holder):
                    raise InputError(_in_use(file, holder)) from error
                file.unlink(missing_ok=True)
                continue
            print(f"{file.parent}: its file system has no locks ({error.strerror}), so nothing "
                  "stops a second job in this folder", file=sys.stderr, flush=True)
        if _is_file(descriptor, file):  # not removed meanwhile
            _write(descriptor)
            return descriptor
        os.close(descriptor)


def _is_file(descriptor: int, file: Path) -> bool:
    """Whether that is the file of this name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), file.stat())
    return False


def _write(descriptor: int) -> None:
    me = {"host": os.uname().nodename, "process": os.getpid(),
          **{name: os.environ[name] for name in (_JOB, _RESTART) if name in os.environ}}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(me).encode() + b"\n")


def _read(descriptor: int) -> dict[str, Any]:
    """Who wrote the file; {} if it cannot be told."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_earlier_start(holder: dict[str, Any]) -> bool:
    """Whether the holder is this SLURM job before it was requeued.

    SLURM starts a job again when the nodes of the start before are free or lost; a file server
    may not have heard of a node that is lost.
    """
    def count(start: Any) -> int:
        return int(start.get(_RESTART, 0)) if str(start.get(_RESTART, 0)).isdecimal() else 0
    return (_JOB in os.environ and holder.get(_JOB) == os.environ[_JOB]
            and count(holder) < count(os.environ))


def _in_use(file: Path, holder: dict[str, Any]) -> str:
    job = f", SLURM job {holder[_JOB]}" if _JOB in holder else ""
    who = f"process {holder.get('process', 'unknown')} on {holder.get('host', 'some host')}{job}"
    return (f"{file.parent} is in use by {who}: wait for it to end, or choose another --out (if "
            f"that host was lost: rm {shlex.quote(str(file))})")
