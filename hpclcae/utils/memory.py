"""How much memory there is."""
from pathlib import Path


def available() -> float:
    """Bytes that processes may still take; infinite where the system does not say."""
    try:
        told = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
        return 1024 * int(told.split()[0])
    except (OSError, IndexError):
        return float("inf")
