"""Requests from outside: USR1 asks a run for a checkpoint now, TERM for a checkpoint and the end.

A handler only notes the request; the program looks at it where it can be met, between two steps.
Whoever asks a second time to end (TERM) cannot wait: the process ends at once, and what was
committed before stays as it is.
"""
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Requests:
    """What has been asked for and not yet been met."""

    def __init__(self) -> None:
        self.checkpoint = False
        self.end = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if number == signal.SIGUSR1:
            self.checkpoint = True
        elif self.end:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            self.end = True


@contextmanager
def requests() -> Iterator[Requests]:
    """Listen to USR1 and TERM; afterwards they do what they did before.

    Only the main thread of a process can; in another one nothing is ever asked for.
    """
    asked = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.note)
              for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
