"""Standard streams that take every name, and whose end is not the end of the work."""
import codecs
import io
import os
import select
import sys
from typing import TextIO

from hpclcae.utils import signals

ERRORS = "hpclcae.names"  # how text is written that the terminal's encoding does not have


def prepare() -> None:
    """Make stdout and stderr take every text, and outlive their reader or their disk.

    A file name that is not UTF-8 is printed as the bytes it has, so that it can be pasted; what the
    terminal cannot show otherwise becomes an escape. Of a locale that is not UTF-8, Python takes
    file names and files for something else: it is started again, in its UTF-8 mode.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        signals.hand_over()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for descriptor in range(3):  # a file that is opened later must not become stdout
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _lasting(sys.stdout, 1)
    sys.stderr = _lasting(sys.stderr, 2)


def flush() -> None:
    """Write out what was printed on stdout.

    Raises
    ------
    OSError
        Something that was printed, now or before, could not be written.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Lasting) and raw.error is not None:
        error, raw.error = raw.error, None
        raw.over = True
        raise error


class _Lasting(io.FileIO):
    """A descriptor that keeps its first error, and drops what comes after it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None
        self.over = False

    def write(self, data: "io.Buffer") -> int:  # type: ignore[name-defined]
        size = memoryview(data).nbytes
        while self.error is None and not self.over:
            try:
                written = super().write(data)
            except OSError as error:
                self.error = error
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # a pipe that does not wait, and is full
        return size


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """The same stream, with `ERRORS` and without an end."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor)), encoding=getattr(stream, "encoding", "utf-8"),
        errors=ERRORS, line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False))


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace one character that cannot be encoded: the byte of a name, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace"), error.start + 1


codecs.register_error(ERRORS, _escaped)
