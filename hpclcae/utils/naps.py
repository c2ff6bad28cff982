"""How long to nap between two looks for something that will come."""
#: A rank that waits looks again and again for so long, then it sleeps in between, for a twentieth
#: of the time that it has waited: ranks which share its core can compute (notes/partition.md). Naps
#: of half a millisecond are long enough for a wait within a step; one that has gone on for longer
#: than any step naps for a five-hundredth of it, 5 ms at most: looking costs more than the nap.
SPIN_SECONDS, SLEEP_SHARE, LONG_SLEEP = 100e-6, 1 / 20, 0.5e-3
IDLE_SHARE, LONGEST_SLEEP = 1 / 500, 5e-3


def nap_after(waited: float) -> float:
    """How long to nap, in seconds, for who has waited for so long; 0: look again at once."""
    if waited < SPIN_SECONDS:
        return 0.0
    return min(waited * SLEEP_SHARE, max(LONG_SLEEP, min(waited * IDLE_SHARE, LONGEST_SLEEP)))
