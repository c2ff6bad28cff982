"""Waiting for MPI: with naps, without, or without as long as a stream of messages flows."""
import os
import time
from collections.abc import Iterable, Sequence

from mpi4py import MPI

from hpclcae.utils.naps import nap_after

FLOW_SECONDS = 1e-3  # one message of a stream may take: longer than a nap takes at least, by far


class Backoff:
    """Waiting without keeping a core busy for long.

    It looks again at once at first, later after ever longer naps.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()

    def pause(self) -> None:
        """Called when there was nothing."""
        nap = nap_after(time.monotonic() - self._began)
        if nap:
            time.sleep(nap)
        else:
            os.sched_yield()


def wait(requests: Sequence[MPI.Request]) -> None:
    """Return when all requests are complete."""
    requests = list(requests)
    backoff = Backoff()
    while not MPI.Request.Testall(requests):
        backoff.pause()


def wait_spinning(requests: Sequence[MPI.Request]) -> None:
    """The same without naps: a transfer may need many small acts of MPI on both sides."""
    requests = list(requests)
    while not MPI.Request.Testall(requests):
        os.sched_yield()


def wait_stream(requests: Iterable[MPI.Request]) -> None:
    """Return when all messages of a stream have gone through; no naps while one follows the other.

    MPI lets only so many messages be on their way to another rank, and sends the next ones when it
    is called: a nap here would hold up the other side.
    """
    for request in requests:
        began = time.monotonic()
        while not request.Test():
            if time.monotonic() - began > FLOW_SECONDS:  # it has come to a halt
                wait([request])
            os.sched_yield()
