"""Work that goes on in a thread of its own, one piece at a time.

Its error is raised where somebody asks.
"""
import threading
from collections.abc import Callable


class Stopped(Exception):
    """Nobody wants the result any more."""


class Background:
    """A thread for work that looks now and then whether it is still wanted.

    What writes checkpoints inherits from it. The end of the process waits for it (so it is no
    daemon): a thread that vanished inside the HDF5 library would leave a lock behind, at which the
    library hangs when it closes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Begin a piece of work; waits for the piece before, and raises its error if it had one."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=[work], name=self.name)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise the error of the work so far, if there is one; cheap, for every step."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Return when the work is done; raises its error."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def close(self) -> None:
        """Give up what is not finished."""
        self.closed.set()
        if self._thread is not None:
            self._thread.join()

    def go_on(self) -> None:
        """For the work to ask.

        Raises
        ------
        Stopped
            It was closed, or the process is about to end.
        """
        if self.closed.is_set() or not threading.main_thread().is_alive():
            raise Stopped

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            pass
        except BaseException as error:  # whatever it is, it belongs to the one who asks
            self._error = error
