"""Progress of long work: a bar on a terminal, plain lines in a batch log."""
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def progress(items: Iterable[T], label: str, total: int | None = None,
             unit: str = "") -> Iterator[T]:
    """Yield from `items` and report on stderr.

    On a terminal a bar; elsewhere a line every ten seconds and one at the end, so that a batch log
    stays readable.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, unit=f" {unit}" if unit else "it")
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            print(_line(label, done, total, unit, now - start), file=sys.stderr, flush=True)
    print(_line(label, done, total, unit, time.monotonic() - start), file=sys.stderr, flush=True)


def _line(label: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    of = f"/{total}" if total else ""
    rate = done / seconds if seconds > 0 else 0.0
    return f"{label}: {done}{of} {unit} in {seconds:.0f} s ({rate:.1f}/s)"
