"""Progress of long work: a bar on a terminal, plain lines in a batch log."""
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Reports on stderr how far something is; use as a context manager.

    On a terminal a bar; elsewhere a line every ten seconds and one at the end, so that a batch log
    stays readable; both with an estimate of the time that is left, where the total is known.

    Parameters
    ----------
    label : str
        "": nothing is said, and only `made` goes on.
    total : float, optional
        In `unit`; an integer is counted, anything else is told in percent.
    unit : str

    Attributes
    ----------
    made : int
        Of the class: how often anything in this process has gone on. Who watches it from outside
        sees that it is not standing still.
    """
    made = 0

    def __init__(self, label: str, total: float | None = None, unit: str = "") -> None:
        self.label, self.total, self.unit = label, total, unit
        self._done = 0.0
        self._note = ""

    def __enter__(self) -> "Progress":
        self._bar = (tqdm(desc=self.label, total=self.total, bar_format=self._format(),
                          unit=f" {self.unit}" if self.unit else "it")
                     if self.label and sys.stderr.isatty() else None)
        self._start = self._last = time.monotonic() if self._bar is None else 0.0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self.label:
            self._print(time.monotonic(), done=True)

    def advance(self, by: float = 1, note: str = "") -> None:
        """Go on by so many units; `note` stands behind the rate."""
        Progress.made += 1
        if self.total:  # it may have been an estimate
            by = min(by, max(0.0, self.total - self._done))
        self._done += by
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(by)
        elif self.label and (now := time.monotonic()) - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._print(now)

    def _format(self) -> str | None:
        """tqdm's own, or percent."""
        return ("{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
                if isinstance(self.total, float) else None)

    def _print(self, now: float, done: bool = False) -> None:
        seconds = now - self._start
        note = f", {self._note}" if self._note else ""
        of = f"/{self.total}" if self.total else ""
        rate = self._done / seconds if seconds > 0 else 0.0
        left = ""
        if self.total and rate and not done and self._done < self.total:
            left = f", about {_duration((self.total - self._done) / rate)} left"
        said = f"{self._done:.0f}{of} {self.unit} in {seconds:.0f} s ({rate:.1f}/s)"
        if isinstance(self.total, float):
            said = f"{100 * self._done / self.total:.0f} % in {seconds:.0f} s"
        print(f"{self.label}: {said}{left}{note}", file=sys.stderr, flush=True)


def progress(items: Iterable[T], label: str, total: int | None = None,
             unit: str = "") -> Iterator[T]:
    """Yield from `items` and report on stderr (see Progress)."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(label, total, unit) as report:
        for item in items:
            yield item
            report.advance()


def _duration(seconds: float) -> str:
    """A time as one says it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
