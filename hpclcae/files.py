"""Writing files so that a reader finds the old one or the whole new one, never a part."""
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path`, on any exception it is removed.

    The content is on the disk before the name changes, so `path` is always the old file or the whole new one.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        for name in (partial, path.parent):  # the content, then (after the rename) the folder's entry
            descriptor = os.open(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if name is partial:
                os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
