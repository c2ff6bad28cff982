"""Who is in a surviving job, and when silence means death; knows no sockets and no processes."""
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

IN_VAIN = 3  # lives of a replica without a step, starts of a server or of the job to no avail
ENOUGH = 5  # durations from which a limit is drawn
_KEPT = 200  # durations, the newest
#: The median of absolute deviations times this is the standard deviation of a normal distribution.
_NORMAL = 1.4826
#: Steps vary at least by this share of the median, however equal the measured ones were.
_LEAST_DEVIATION = 0.1


class Durations:
    """How long something took, and from when on it takes too long.

    Parameters
    ----------
    deviations : float
        How many standard deviations above the median are too long.
    """

    def __init__(self, deviations: float) -> None:
        self.deviations, self._kept = deviations, deque[float](maxlen=_KEPT)

    def note(self, seconds: float) -> None:
        """It took so long once more."""
        self._kept.append(seconds)

    @property
    def largest(self) -> float | None:
        """Seconds that it took at most, of late."""
        return max(self._kept, default=None)

    @property
    def limit(self) -> float | None:
        """Seconds; None as long as too little is known. Median and median deviation are those of
        the usual case, whatever a few were like."""
        if len(self._kept) < ENOUGH:
            return None
        median = statistics.median(self._kept)
        spread = _NORMAL * statistics.median(abs(each - median) for each in self._kept)
        return median + self.deviations * max(spread, _LEAST_DEVIATION * median)


@dataclass
class Seat:
    """One replica, through all of its lives.

    Attributes
    ----------
    life : int
        The current one, from 1.
    state : str
        "starting": processes run; "joining": servers are told; "training"; "done": all of its ranks
        have ended well; "left": on purpose; "lost": it died again and again.
    cursor : int
        The step with which another life would begin.
    ranks : dict of int to Rank
        By block, as far as they have said that they are there.
    in_vain : int
        Lives in a row that have made no step.
    error : str
        What its ranks said was wrong.
    leaving : bool
        It ends after this step, and the others do not wait for it.
    """
    number: int
    cursor: int
    life: int = 0
    state: str = "left"
    ranks: dict[int, "Rank"] = field(default_factory=dict)
    in_vain: int = 0
    began: float = 0.0
    error: str = ""
    leaving: bool = False
    joining: set[int] = field(default_factory=set)  # shards whose servers have not answered

    @property
    def is_wanted(self) -> bool:
        """Whether the others wait for it at a barrier."""
        return self.state in ("starting", "joining", "training")

    @property
    def step(self) -> int:
        """Steps that all of its ranks have made."""
        return min((rank.step for rank in self.ranks.values()), default=self.cursor)


@dataclass
class Rank:
    """One process of a replica.

    heard, moved : float
        When it last said something, and when it last had made a step or gone on with work between
        two steps.
    step, safe, work : int
        Steps that it has made; the step with which another life would begin; how often it has gone
        on with work between steps.
    waits, paused, final, ended : bool
        For servers; at the barrier; and makes no more steps; has said its last word.
    node : str
        The machine that it runs on.
    """
    peer: Any
    pid: int
    heard: float
    moved: float
    step: int = 0
    safe: int = 0
    work: int = 0
    waits: bool = False
    paused: bool = False
    final: bool = False
    ended: bool = False
    node: str = ""


@dataclass
class Meeting:
    """The barrier under way.

    number : int
        Barriers that are over, plus one.
    asked : bool
        Replicas have been told to come.
    awaited : set of int
        Shards whose servers have not taken the checkpoint yet; None: not all replicas are there.
    """
    number: int = 1
    asked: bool = False
    awaited: set[int] | None = None


def suspect(seats: Iterable[Seat], now: float, limit_of: Callable[[Seat], float],
            heartbeat: float) -> tuple[Seat, int, float] | None:
    """A replica that has come to a halt, the block to blame for it, and for how long.

    A replica that waits for servers or at a barrier is not to blame; nor is a block whose fellows
    are silent while it speaks.

    Parameters
    ----------
    limit_of : callable
        Seconds without a step that are too many.
    heartbeat : float
        Seconds between two words of a rank that runs.
    """
    for seat in seats:
        if seat.state != "training" or not seat.ranks:
            continue
        ranks, limit = seat.ranks, limit_of(seat)
        silent = {block: now - rank.heard for block, rank in ranks.items()
                  if now - rank.heard > max(limit, 5 * heartbeat)}
        if silent:
            block = max(silent, key=lambda b: silent[b])
            return seat, block, silent[block]
        still = {block: now - rank.moved for block, rank in ranks.items()
                 if not (rank.waits or rank.paused)}
        if len(still) == len(ranks) and min(still.values()) > limit:
            block = min(ranks, key=lambda b: ranks[b].step)
            return seat, block, still[block]
    return None
