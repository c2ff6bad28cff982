"""Event logs: who fetched and pushed which version of which chunk, in the order of servers' acts.

``RUN/events/from-00000040/`` is of the job that began with step 40, in a new folder for every
start::

    configuration.toml     of that job, with the grid that it used
    step-00000040/         the checkpoint that it began with: the same files as the run's, which
                           keeps only the newest
    server-0.bin ...       records of parameter_server.store.EVENT
    server-0.1.bin ...     of a server that had a copy of the first one's chunks (survive/)

Nothing is kept back in the process, so the log of a job that was killed ends with the last thing
that its servers did.
"""
import dataclasses
import io
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.checkpoint import step_of
from hpclcae.config import Config
from hpclcae.parameter_server.store import EVENT, PUSHED
from hpclcae.partition.blocks import Grid
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replace_text
from hpclcae.utils.reading import reading

CONFIGURATION = "configuration.toml"


def logs(run: Path) -> dict[int, Path]:
    """The logs of a run: the step with which the job began, and the folder; in order of steps."""
    found = {int(name[1]): path for path in (run / "events").glob("from-*")
             if (name := re.fullmatch(r"from-(\d{8})", path.name))}
    return dict(sorted(found.items()))


class EventLog:
    """The log of one server while it is written.

    Call it with events (n,), and they are on their way to the disk. The first server removes logs
    of later steps: the job goes another way now.

    Parameters
    ----------
    start : Path or None
        The checkpoint that the job begins with.
    part : int
        How many servers have had the chunks before this one took them over.

    Raises
    ------
    OSError
        The folder cannot be written.
    """

    def __init__(self, run: Path, start: Path | None, server: int, config: Config,
                 grid: Grid, part: int = 0) -> None:
        step = step_of(start) if start else 0
        folder = run / "events" / f"from-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        if not part:
            for stale in folder.glob(f"server-{server}.*.bin"):
                stale.unlink()
        if server == 0 and not part:
            for later in [path for begin, path in logs(run).items() if begin > step]:
                shutil.rmtree(later)
            if start and start.is_dir():
                shutil.copytree(start, folder / start.name, copy_function=_link, dirs_exist_ok=True)
            elif start:
                _link(start, folder / start.name)
            used = dataclasses.replace(config, parallel=dataclasses.replace(config.parallel,
                                                                            grid=str(grid)))
            replace_text(folder / CONFIGURATION, configuration.dumps(used))
        # A server of the job before that has not ended yet keeps its file, which has no name now.
        (folder / _name(server, part)).unlink(missing_ok=True)
        self._file = io.FileIO(folder / _name(server, part), "w")

    def __call__(self, events: np.ndarray) -> None:
        self._file.write(events.tobytes())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _name(server: int, part: int) -> str:
    """File of a server's events; `part`: of how many servers before it the shard has been."""
    return f"server-{server}.{part}.bin" if part else f"server-{server}.bin"


def _part(path: Path) -> int:
    return int(path.suffixes[-2][1:])


def merged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The events (n,) of a shard, from those of all servers that have had it, one after the other.

    A copy has logged what it got from the server before: of each chunk those events are left out.
    """
    whole = parts[0]
    for part in parts[1:]:
        keep = np.ones(len(part), bool)
        for chunk in np.unique(part["chunk"][part["chunk"] >= 0]):
            known = whole["version"][(whole["chunk"] == chunk) & (whole["kind"] == PUSHED)]
            last = known.max(initial=-1)
            mine = np.flatnonzero(part["chunk"] == chunk)
            old = mine[(part["kind"][mine] == PUSHED) & (part["version"][mine] >= 0)
                       & (part["version"][mine] <= last)]
            if old.size:
                keep[mine[mine <= old[-1]]] = False
        whole = np.concatenate([whole, part[keep]])
    return whole


def _link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, which takes no space.

    Or copy it, where the file system has no links.
    """
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def first_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a job began with."""
    return next((path for path in folder.glob("step-*") if step_of(path) >= 0), None)


def read_log(folder: Path) -> tuple[Config, list[np.ndarray]]:
    """The configuration of a job, and the events (n,) of each of its servers.

    A record that a crash cut short is left out.

    Raises
    ------
    InputError
        A file is missing, or cannot be read.
    """
    config = configuration.load(folder / CONFIGURATION)
    files = [folder / f"server-{number}.bin" for number in range(config.parallel.servers)]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"{', '.join(missing)} is missing: the logs of all {len(files)} servers "
                         "are needed")
    with reading(folder, "an event log", "nothing but a replay needs it"):
        return config, [merged([np.fromfile(path, EVENT) for path in [
            first, *sorted(folder.glob(f"server-{number}.*.bin"), key=_part)]])
            for number, first in enumerate(files)]
