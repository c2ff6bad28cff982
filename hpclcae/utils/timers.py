"""Time spent in the named parts of a loop."""
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timers:
    """Seconds by name: ``with timers("forward"): ...``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def summary(self, of: "Timers | None" = None) -> str:
        """The parts in order of first use, with their share of the whole (of another loop)."""
        total = sum((of or self).seconds.values()) or 1.0
        return ", ".join(f"{name} {s:.1f} s ({100 * s / total:.0f} %)"
                         for name, s in self.seconds.items())
