"""Whether a job that has failed is started again from its last checkpoint, and what the run folder
tells of it.

What a job of one MPI world leaves in its run folder for the one who started it::

    progress        steps that the leader has made, written after each; kept whatever ends it
    refused         the line of a rank that was given what cannot work, where WATCHED is set
    failures.jsonl  a line for every failure: when, in which step, what, and whether it went on

A job is started again unless a rank refused to work (that comes back), it failed in the step in
which it had failed before, or it has been started again `train.restarts` times.
"""
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from hpclcae.utils.errors import InputError
from hpclcae.utils.reading import whole_objects

PROGRESS, REFUSED, FAILURES = "progress", "refused", "failures.jsonl"
#: Variable of the environment that whoever may start a job again gives it.
WATCHED = "HPCLCAE_WATCHED"
#: In place of a step: the job had not begun its first one.
STARTING = -1


class Progress:
    """Writes down how far a run is, step by step; a kill loses nothing of it.

    Parameters
    ----------
    run : Path
        Run folder.
    """

    def __init__(self, run: Path) -> None:
        self._file = os.open(run / PROGRESS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def __call__(self, step: int) -> None:
        """So many steps have been made."""
        with suppress(OSError):  # a full disk: nothing needs it to go on
            os.pwrite(self._file, f"{step:20d}\n".encode(), 0)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        os.close(self._file)


def step_reached(run: Path) -> int:
    """Steps that the leader of the last job had made; STARTING if it had not begun."""
    with suppress(OSError, ValueError):
        return int((run / PROGRESS).read_text())
    return STARTING


@contextmanager
def last_words(run: Path) -> Iterator[None]:
    """Of a rank: what it refuses to work with is written down, for nobody is to try again.

    If nobody is there to try, it leaves nothing.
    """
    try:
        yield
    except InputError as error:
        with suppress(OSError):
            if os.environ.get(WATCHED):
                run.mkdir(parents=True, exist_ok=True)  # it may be gone with the lock; see `judge`
                (run / REFUSED).write_text(str(error).replace("\n", " ") + "\n")
        raise


def forget(run: Path) -> None:
    """Before a job is started: remove what the one before left of itself."""
    for name in (PROGRESS, REFUSED):
        with suppress(OSError):
            (run / name).unlink()


class Verdict(NamedTuple):
    """Whether a job is to be started again, and what there is to say.

    refused : bool
        It was given what cannot work, and a rank has said so.
    """
    again: bool
    text: str
    refused: bool = False


def judge(run: Path, job: str, what: str, restarts: int) -> Verdict:
    """A job has failed: write it down, and say whether it is to be started again.

    Parameters
    ----------
    job : str
        Names the series of starts that this one belongs to.
    what : str
        What has ended it, in words.
    restarts : int
        How often it may be started again in all (train.restarts).
    """
    step, before = step_reached(run), [one for one in failures(run) if one["job"] == job]
    where = "before its first step" if step == STARTING else f"after step {step}"
    refused = ""
    with suppress(OSError):
        refused = (run / REFUSED).read_text(errors="replace").strip()
        (run / REFUSED).unlink()
        run.rmdir()  # where nothing else has come into it
    if refused:
        verdict = Verdict(False, f"not started again, as this would come back: {refused}",
                          refused=True)
    elif before and before[-1]["step"] == step:
        verdict = Verdict(False, f"{what}, {where}, as the time before: not started again")
    elif len(before) >= restarts:
        verdict = Verdict(False, f"{what}, {where}; started again {len(before)} times already "
                          f"(train.restarts = {restarts}): given up")
    else:
        verdict = Verdict(True, f"{what}, {where}: it goes on from the last checkpoint (start "
                          f"{len(before) + 1} of at most {restarts} after a failure)")
    line = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "job": job,
            "step": step, "what": what, "again": verdict.again}
    with suppress(OSError), (run / FAILURES).open("a") as file:  # no folder: it never began
        file.write(json.dumps(line) + "\n")
    return verdict


def failures(run: Path) -> list[dict[str, object]]:
    """The failures of a run, the newest last; damaged lines are left out."""
    try:
        content = (run / FAILURES).read_bytes()
    except OSError:
        return []
    wanted = {"time": str, "job": str, "step": int, "what": str, "again": bool}
    return [record for _, record in whole_objects(content)
            if all(type(record.get(key)) is kind for key, kind in wanted.items())]
