"""Work that goes on in a thread of its own, one piece at a time.

Its error is raised where somebody asks.
"""
import threading
from collections.abc import Callable

#: Seconds that a thread waits for its next piece: pieces that follow each other faster, as those of
#: training steps, do not pay for a new thread each. An object that nobody closes keeps none.
LINGER = 0.2


class Stopped(Exception):
    """Nobody wants the result any more."""


class Background:
    """A thread for work that looks now and then whether it is still wanted.

    What writes checkpoints inherits from it, and what reads images has one. The end of the process
    waits for it (so it is no daemon): a thread that vanished inside the HDF5 library would leave a
    lock behind, at which the library hangs when it closes. For the same reason nobody joins it: a
    join that Ctrl-C interrupts makes Python (3.11) take a thread at work for one that has ended.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._work: Callable[[], None] | None = None  # that no thread has taken yet
        self._there = False                           # a thread that will look for work

    def begin(self, work: Callable[[], None]) -> None:
        """Begin a piece of work; waits for the piece before, and raises its error if it had one."""
        self.wait()
        with self._changed:
            self._work = work
            self._idle.clear()
            try:
                if self._there:
                    self._changed.notify()
                else:
                    threading.Thread(target=self._run, name=self.name).start()
                    self._there = True
            except BaseException:  # Ctrl-C, or no more threads: nobody is to wait for it
                self._work = None
                self._idle.set()
                raise

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        return not self._idle.is_set()

    def check(self) -> None:
        """Raise the error of the work so far, if there is one; cheap, for every step."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Return when the work is done; raises its error."""
        self._idle.wait()
        self.check()

    def close(self) -> None:
        """Give up what is not finished."""
        self.closed.set()
        self._idle.wait()
        with self._changed:
            self._changed.notify()

    def go_on(self) -> None:
        """For the work to ask.

        Raises
        ------
        Stopped
            It was closed, or the process is about to end.
        """
        if self.closed.is_set() or not threading.main_thread().is_alive():
            raise Stopped

    def _run(self) -> None:
        while work := self._next():
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:  # whatever it is, it belongs to the one who asks
                self._error = error
            finally:
                del work  # and what it holds
                self._idle.set()

    def _next(self) -> Callable[[], None] | None:
        """The next piece of work; None: none came for a while, and this thread ends."""
        with self._changed:
            if self._work is None and not self.closed.is_set():
                self._changed.wait(LINGER)
            work, self._work = self._work, None
            self._there = work is not None
            return work
