"""One rank makes a checkpoint out of the shards of all owners, when they are all there."""
from pathlib import Path
from time import monotonic, sleep

from hpclcae.checkpoint.folder import (BEST, MANIFEST, MODEL, Content, Manifest, best_of,
                                       content_of, remove, remove_done_markers, saved, shard_name,
                                       step_folder, step_of, write_manifest)
from hpclcae.checkpoint.model_file import write_model
from hpclcae.checkpoint.state import RunState
from hpclcae.checkpoint.writer import GONE, PATIENCE, POLL, as_input_error, read_done_marker, run_id
from hpclcae.utils.background import Background
from hpclcae.utils.errors import InputError
from hpclcae.utils.files import replace_text

KEEP_AT_LEAST = 2  # a checkpoint may turn out to be damaged


class Committer(Background):
    """Commits the checkpoints of a run; one rank has one (replica 0, block 0).

    Parameters
    ----------
    run : Path
        Run folder, prepared by `clean`.
    shards : int
        Owners that write one.
    patience : float
        Seconds that the last shard may come after `start`.
    """

    def __init__(self, run: Path, shards: int, patience: float = PATIENCE) -> None:
        super().__init__("committer")
        self.run, self.shards, self.patience = run, shards, patience

    @property
    def committed(self) -> Path | None:
        """The newest checkpoint of the run."""
        found = saved(self.run / "checkpoints")
        return found[-1] if found else None

    def check(self) -> None:
        """Raise the error of the work so far.

        It also sees that nobody trains on for hours when the folder is gone.

        Raises
        ------
        InputError
            The folder of checkpoints, which `clean` made in this process, is not there any more.
        """
        super().check()
        if not (self.run / "checkpoints").is_dir():
            raise InputError(f"{self.run / 'checkpoints'} was {GONE}")

    def start(self, state: RunState, is_best: bool = False) -> None:
        """Begin to wait for the shards of a step and to commit them.

        The one that `is_best` so far is kept until another one is. Waits first if the step before
        is not committed.

        Raises
        ------
        InputError
            The step before could not be committed.
        """
        self.wait()
        folder = step_folder(self.run, state.step)
        if (folder / MANIFEST).exists():
            return

        def work() -> None:
            with as_input_error(self.run, state.step, folder):
                self._commit(folder, state, is_best)
        self.begin(work)

    def _commit(self, folder: Path, state: RunState, is_best: bool) -> None:
        files = self._shards(folder)
        run = run_id(self.run, self)
        write_model(folder / MODEL, run, state, self.shards)
        files[MODEL] = content_of(folder / MODEL, from_disk=True)
        write_manifest(folder, Manifest(run, state.step, files))
        remove_done_markers(folder)
        if is_best:
            replace_text(folder.with_name(BEST), folder.name + "\n")
        prune(self.run, state.config.train.keep, state.config.train.keep_every)

    def _shards(self, folder: Path) -> dict[str, Content]:
        """Wait until every shard is there, as large as its marker says.

        Names on another node may appear late.
        """
        found: dict[str, Content] = {}
        deadline = monotonic() + self.patience
        while len(found) < self.shards:
            for name in map(shard_name, range(self.shards)):
                if (name not in found and (content := read_done_marker(folder / name))
                        and _there(folder / name, content)):
                    found[name] = content
            self.go_on()
            if monotonic() > deadline:
                late = [str(n) for n in range(self.shards) if shard_name(n) not in found]
                raise InputError(f"{folder}: no shard of owner {', '.join(late[:9])} after "
                                 f"{self.patience:.0f} s: see the messages of the servers; older "
                                 "checkpoints are untouched")
            sleep(POLL)
        return {name: found[name] for name in sorted(found)}


def _there(shard: Path, content: Content) -> bool:
    try:
        return shard.stat().st_size == content.size
    except FileNotFoundError:
        return False


def prune(run: Path, keep: int, keep_every: int) -> None:
    """Remove the old checkpoints of a run.

    The last `keep` (2 or more) stay, those of steps that `keep_every` divides, and the best. What
    is older than the newest and was never finished goes too.
    """
    folder = run / "checkpoints"
    found, best = saved(folder), best_of(run)
    for path in found[:-max(keep, KEEP_AT_LEAST)]:
        if path != best and not (keep_every and step_of(path) % keep_every == 0):
            remove(path)
    for path in folder.glob("step-*"):
        if path.is_dir() and -1 < step_of(path) < step_of(found[-1]) and not (path
                                                                              / MANIFEST).exists():
            remove(path)
