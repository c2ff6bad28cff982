"""Time spent in the named parts of a loop."""
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Waits(Protocol):
    """Something that counts the seconds which it spends waiting."""
    waited: float


class Timers:
    """Seconds by name: ``with timers("forward"): ...``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, waits: Waits | None = None) -> Iterator[None]:
        """What `waits` spends in waiting meanwhile counts as "exchange"."""
        start, waited = time.perf_counter(), waits.waited if waits else 0.0
        try:
            yield
        finally:
            waited = waits.waited - waited if waits else 0.0
            self._add(name, time.perf_counter() - start - waited)
            if waited:
                self._add("exchange", waited)

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def summary(self, of: "Timers | None" = None) -> str:
        """The parts in order of first use, with their share of the whole (of another loop)."""
        total = sum((of or self).seconds.values()) or 1.0
        return ", ".join(f"{name} {s:.1f} s ({100 * s / total:.0f} %)"
                         for name, s in self.seconds.items())
