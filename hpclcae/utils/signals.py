"""Requests from outside: USR1 asks a run for a checkpoint now, TERM for a checkpoint and the end.

A handler only notes the request; the program looks at it where it can be met, between two steps.
Whoever asks a second time to end (TERM) cannot wait: the process ends at once, and what was
committed before stays as it is.

USR1 would end a process that has no handler, so the program listens from its first line on
(`listen`), before it loads anything: what comes while it starts is met after the first step, and
what comes when the steps are over is of no use any more. TERM before the first step ends the
process: there is nothing to save yet.
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


_early = Requests()


def listen() -> None:
    """Note USR1 until `requests` asks for it; called by the program's first line.

    Library code does not call it: signals belong to the program.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _early.note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def hand_over() -> None:
    """Keep a USR1, noted or yet to come, for the program that is about to replace this one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if take_early():
        os.kill(os.getpid(), signal.SIGUSR1)


def take_early() -> bool:
    """Whether USR1 came since `listen` and nobody has asked before."""
    came, _early.checkpoint = _early.checkpoint, False
    return came


@contextmanager
def requests() -> Iterator[Requests]:
    """Listen to USR1 and TERM; afterwards they do what they did before.

    A USR1 since `listen` counts. Only the main thread of a process can listen; in another one
    nothing is ever asked for.
    """
    asked = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.note)
              for number in (signal.SIGUSR1, signal.SIGTERM)}
    asked.checkpoint |= take_early()
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
