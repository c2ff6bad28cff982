"""Arguments that several commands take: numbers with a range, files that are written."""
import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hpclcae.utils.errors import InputError, one_line
from hpclcae.utils.files import keep_out_of_checkpoints

MOST = 10 ** 12  # of what is counted, where nothing smaller is known


class Parser(argparse.ArgumentParser):
    """The arguments of one command; says what is wrong with them on one line, without the usage."""

    def __init__(self, name: str, summary: str, example: str) -> None:
        super().__init__(prog=f"hpclcae {name}", description=summary[0].upper() + summary[1:] + ".",
                         epilog=f"example:\n  {example}",
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} ({self.prog} --help explains)\n")


def whole(low: int, high: int = MOST) -> Callable[[str], int]:
    """Whole numbers from `low` to `high`, for argparse."""
    return lambda text: int(_within(text, int, low, high))


def real(low: float, high: float, above: bool = False) -> Callable[[str], float]:
    """Real numbers from `low` to `high`, for argparse; `above`: not `low` itself."""
    return lambda text: _within(text, float, low, high, above)


positive = whole(1)


def _within(text: str, kind: type[int] | type[float], low: float, high: float,
            above: bool = False) -> float:
    try:
        value = kind(text)
    except ValueError as error:
        what = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"{one_line(text, 60)!r} is no {what}") from error
    if not (low <= value <= high) or above and value == low:
        least = f"above {low:g}" if above else f"at least {low:,}"
        most = "" if math.isinf(high) else f" and at most {high:,}"
        raise argparse.ArgumentTypeError(f"{one_line(text, 60)}; it must be {least}{most}")
    return value


def output(text: str) -> Path:
    """A file or folder to write, for argparse: it may not lie in a checkpoint."""
    try:
        keep_out_of_checkpoints(Path(text))
    except (InputError, OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(one_line(str(error))) from error
    return Path(text)
