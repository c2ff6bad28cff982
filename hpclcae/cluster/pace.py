"""Which replicas are slow, and in what: from the metrics that each of them writes.

A line of metrics has the seconds that every part of the loop took since the line before. A
replica's pace is the median over its last lines of the seconds a step that are its own: those in
which it waits for others or does what only the first one does are left out. It is compared with the
median of the *other* replicas; the deviation is that of its lines (1.48 times the median absolute
one, which a single slow line does not change).
"""
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpclcae.checkpoint.metrics_log import metrics_path, records
from hpclcae.config import Config
from hpclcae.utils.reading import reading
from hpclcae.utils.tables import table

#: So many lines are looked back on; fewer than LEAST say nothing.
LINES, LEAST = 20, 3
TAIL = 1 << 16  # bytes of a file of metrics that hold them
#: A replica is slow if it takes so many times as long as the others, and the difference is more
#: than so many of its deviations.
SLOW, DEVIATIONS = 1.2, 3.0
#: What is not a replica's own: the meeting with others, and what one does for all.
_NOT_OWN = {"checkpoint", "condition", "validate"}
#: Between two looks while it trains, seconds; and how many times as long as a look takes.
LOOK_SECONDS, LOOK_SHARE = 30.0, 100.0


@dataclass(frozen=True)
class Pace:
    """How fast a replica is.

    seconds, deviation : float
        Of a step of its own.
    times : float
        How many times as long as a step of the other replicas (the median of theirs) it takes.
    parts : dict of str to float
        Seconds a step by part of the loop (medians).
    worst : str
        The part that takes most more than that of the others.
    is_slow : bool
    """
    replica: int
    seconds: float
    deviation: float
    times: float
    parts: dict[str, float]
    worst: str
    is_slow: bool

    def __str__(self) -> str:
        return (f"replica {self.replica} is {self.times:.1f} times slower than the median, in: "
                f"{self.worst}")


def paces(run: Path, config: Config) -> list[Pace]:
    """The pace of every replica of a run that has written enough; none of a single replica.

    Raises
    ------
    InputError
        A file of metrics cannot be read.
    """
    lines = {replica: _lines(metrics_path(run, replica))
             for replica in range(config.parallel.replicas)}
    others_wait = _NOT_OWN | ({"fetch"} if config.parallel.waits else set())
    known = {replica: found for replica, found in lines.items() if len(found) >= LEAST}
    if len(known) < 2:
        return []
    own = {replica: [sum(s for part, s in line.items() if part not in others_wait)
                     for line in found] for replica, found in known.items()}
    steps = {replica: statistics.median(each) for replica, each in own.items()}
    parts = {replica: _medians(found) for replica, found in known.items()}
    return [_pace(replica, own[replica], steps, parts, others_wait) for replica in known]


def _pace(replica: int, own: Sequence[float], steps: dict[int, float],
          parts: dict[int, dict[str, float]], others_wait: set[str]) -> Pace:
    others = [each for each in steps if each != replica]
    seconds, middle = steps[replica], statistics.median(steps[each] for each in others)
    deviation = 1.48 * statistics.median(abs(line - seconds) for line in own)
    more = {part: value - statistics.median(parts[each].get(part, 0.0) for each in others)
            for part, value in parts[replica].items() if part not in others_wait}
    times = seconds / max(middle, 1e-9)
    return Pace(replica, seconds, deviation, times, parts[replica],
                max(more, key=lambda part: more[part], default=""),
                times >= SLOW and seconds - middle > DEVIATIONS * deviation)


def describe(found: Sequence[Pace]) -> str:
    """A table of all replicas, and a line for each that is slow."""
    names = list(dict.fromkeys(part for pace in found for part in pace.parts))
    columns: list[str | tuple[str, str]] = [
        "replica", ("ms a step", ".1f"), ("deviation", ".1f"), ("of the median", ".2f"),
        *((name, ".1f") for name in names)]
    rows = [[pace.replica, 1e3 * pace.seconds, 1e3 * pace.deviation, pace.times,
             *(1e3 * pace.parts.get(name, 0.0) for name in names)] for pace in found]
    return "\n".join([table(columns, rows), *(str(pace) for pace in found if pace.is_slow)])


class Lookout:
    """Looks now and then, while a run trains, which replicas are slow.

    Parameters
    ----------
    run : Path
    config : Config
    """

    def __init__(self, run: Path, config: Config) -> None:
        self._run, self._config = run, config
        self._next = time.monotonic() + LOOK_SECONDS
        self._told: set[int] = set()

    def news(self) -> list[str]:
        """What has changed, as lines; mostly nothing, and then at once."""
        began = time.monotonic()
        if began < self._next or self._config.parallel.replicas < 2:
            return []
        slow = {pace.replica: pace for pace in paces(self._run, self._config) if pace.is_slow}
        said = [str(pace) for replica, pace in slow.items() if replica not in self._told]
        said += [f"replica {replica} is as fast as the others again"
                 for replica in sorted(self._told - slow.keys())]
        self._told = set(slow)
        now = time.monotonic()
        self._next = now + max(LOOK_SECONDS, LOOK_SHARE * (now - began))
        return said


def _lines(path: Path) -> list[dict[str, float]]:
    """Seconds a step by part, of the last lines of a file of metrics."""
    content = b""
    with reading(path, "a file of metrics", "move it away"):
        if path.exists():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL))
                content = file.read()
    rows = [row for row in records(content, "timers") if _is_timed(row["timers"])]
    return [{part: seconds / (row["step"] - before["step"])
             for part, seconds in row["timers"].items()}
            for before, row in zip(rows, rows[1:])][-LINES:]


def _is_timed(timers: object) -> bool:
    return isinstance(timers, dict) and all(
        isinstance(seconds, int | float) and 0 <= seconds < 1e9 for seconds in timers.values())


def _medians(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    values = defaultdict[str, list[float]](list)
    for line in lines:
        for part, seconds in line.items():
            values[part].append(seconds)
    return {part: statistics.median(each) for part, each in values.items()}
