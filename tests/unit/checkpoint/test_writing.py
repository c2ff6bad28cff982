"""Writing checkpoints while training goes on: what is copied, what waits, what fails."""
import contextlib
import errno
import json
import math
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from hpclcae import checkpoint
from hpclcae.checkpoint import (Committer, ShardWriter, committer, folder as folders, shard_file,
                                writer as writers)
from hpclcae.utils.background import Background
from hpclcae.checkpoint.state import views
from hpclcae.model.layout import Layout
from hpclcae.utils.errors import InputError
from tests.support.saving import WHOLE, assert_same, datasets, made, owned_chunks, save

TIMEOUT = 60


class Run:
    """A run folder, a state, and the writers and chunk_states of two owners."""

    def __init__(self, folder, state):
        self.folder, self.state = folder, state
        self.chunk_states = [views(chunks, state.parameters, state.update_state, state.counts)
                             for chunks in owned_chunks(state.config, WHOLE, 2)]
        checkpoint.clean(folder)
        self.writers = [ShardWriter(folder, number, Layout(state.config, WHOLE))
                        for number in (0, 1)]
        self.committer = Committer(folder, 2, patience=TIMEOUT)
        self.parts = *self.writers, self.committer

    def start(self, **changes):
        """All parts of one checkpoint."""
        state = replace(self.state, **changes)
        self.committer.start(state)
        for part, chunk_states in zip(self.writers, self.chunk_states):
            part.start(state.step, chunk_states)

    def wait(self):
        for part in self.parts:
            part.wait()


@pytest.fixture
def run(tiny_config, tmp_path):
    made_run = Run(tmp_path / "run", made(tiny_config(), step=20))
    yield made_run
    for part in made_run.parts:
        part.close()


@pytest.fixture
def gate(monkeypatch):
    """A disk that takes nothing until the gate is open.

    `reached` says that somebody waits at it.
    """
    class Gate:
        reached, opened = threading.Event(), threading.Event()

    def waiting(*arguments, original=shard_file.write_elements):
        Gate.reached.set()
        assert Gate.opened.wait(TIMEOUT)
        return original(*arguments)
    monkeypatch.setattr(shard_file, "write_elements", waiting)
    yield Gate
    Gate.opened.set()


# ---- in the background ---------------------------------------------------------------------------


def test_what_is_saved_is_what_was_there_when_it_started(run, gate):
    """The arrays change while the disk is slow; nothing of that gets into the checkpoint."""
    expected = run.state.parameters.vector.copy(), run.state.update_state["velocity"].vector.copy()
    run.start()
    run.state.parameters.vector[:] = np.nan
    run.state.update_state["velocity"].vector[:] = np.nan
    for chunk_state in run.chunk_states[0]:
        chunk_state.count += 1
    assert gate.reached.wait(TIMEOUT) and run.writers[0].busy and run.committer.busy
    assert checkpoint.saved(run.folder / "checkpoints") == []
    gate.opened.set()
    run.wait()
    loaded, _ = checkpoint.load(checkpoint.find(run.folder))
    assert np.array_equal(loaded.parameters.vector, expected[0])
    assert np.array_equal(loaded.update_state["velocity"].vector, expected[1])
    assert loaded.counts == run.state.counts
    assert not run.writers[0].busy and not run.committer.busy


def test_a_reader_meets_the_checkpoint_before_while_a_writer_works(run, gate):
    gate.opened.set()
    older = save(run.folder, replace(run.state, step=10), 2)
    gate.opened.clear()
    gate.reached.clear()
    expected = datasets(older)
    run.start()
    assert gate.reached.wait(TIMEOUT)
    assert checkpoint.find(run.folder) == older
    assert_same(datasets(checkpoint.find(run.folder)), expected)
    checkpoint.verify(older)
    gate.opened.set()
    run.wait()
    assert checkpoint.load_state(checkpoint.find(run.folder)).step == 20


def test_the_next_checkpoint_waits_for_the_one_before_and_uses_its_memory_again(run, gate):
    run.start()
    assert gate.reached.wait(TIMEOUT)
    second = threading.Thread(target=run.start, kwargs={"step": 40})
    second.start()
    second.join(0.05)
    assert second.is_alive()
    gate.opened.set()
    second.join(TIMEOUT)
    memory = {name: buffer.ctypes.data for name, buffer in run.writers[0].buffers.items()}
    run.wait()
    assert [path.name for path in checkpoint.saved(run.folder / "checkpoints")] == ["step-00000020",
                                                                                    "step-00000040"]
    run.start(step=60)
    assert {name: buffer.ctypes.data for name, buffer in run.writers[0].buffers.items()} == memory


def test_only_a_step_with_all_its_shards_is_committed(run):
    run.committer.start(run.state)
    run.writers[1].start(20, run.chunk_states[1])
    run.writers[1].wait()
    assert run.committer.busy and run.committer.committed is None
    run.writers[0].start(20, run.chunk_states[0])
    run.wait()
    assert run.committer.committed == checkpoint.find(run.folder)
    names = ["manifest.json", "model.h5", "shard-0000.h5", "shard-0001.h5"]
    assert sorted(path.name for path in run.committer.committed.iterdir()) == names


@pytest.mark.parametrize("when", ["begun", "committed", "committed by a job before"])
def test_a_step_that_is_there_is_not_written_again(run, when):
    shard = run.folder / "checkpoints/step-00000020/shard-0000.h5"
    run.writers[0].start(20, run.chunk_states[0])
    run.writers[0].wait()
    if when != "begun":
        run.start()
        run.wait()
    if when == "committed by a job before":
        run.writers = [ShardWriter(run.folder, number, Layout(run.state.config, WHOLE))
                       for number in (0, 1)]
    before = shard.read_bytes(), shard.stat().st_mtime_ns
    run.state.parameters.vector[:] = 0
    run.start()
    run.wait()
    assert (shard.read_bytes(), shard.stat().st_mtime_ns) == before
    checkpoint.verify(checkpoint.find(run.folder))


def test_a_name_that_is_visible_late_is_waited_for(run, monkeypatch):
    """As on network file systems: the note comes before the shard, or only a part of the note."""
    looks = []

    def late(shard, original=writers.read_done_marker):
        looks.append(shard)
        return original(shard) if len(looks) > 10 else None
    monkeypatch.setattr("hpclcae.checkpoint.committer.read_done_marker", late)
    run.start()
    run.wait()
    assert run.committer.committed.name == "step-00000020" and len(looks) > 10
    note = folders.done_marker(run.folder / "shard-0000.h5")
    for text in ("", '{"size"'):
        note.write_text(text)
        assert writers.read_done_marker(run.folder / "shard-0000.h5") is None


# ---- which are kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("keep, keep_every, expected",
                         [(2, 0, [80, 100]), (1, 0, [80, 100]), (3, 0, [60, 80, 100]),
                          (2, 40, [40, 80, 100]), (2, 20, [20, 40, 60, 80, 100]),])
def test_the_last_and_every_nth_are_kept(run, tiny_config, keep, keep_every, expected):
    config = tiny_config(f"train.keep={keep}", f"train.keep_every={keep_every}")
    for step in (20, 40, 60, 80, 100):
        run.start(step=step, config=config)
        run.wait()
    assert [checkpoint.step_of(path)
            for path in checkpoint.saved(run.folder / "checkpoints")] == expected


def test_clean_removes_what_an_interrupted_write_left_and_nothing_else(run):
    run.start()
    run.wait()
    place = run.folder / "checkpoints"
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    broken = place / "step-00000040"
    broken.mkdir()
    for name in ("shard-0000.h5", "shard-0000.json", "shard-0001.h5.partial", "model.h5"):
        (broken / name).write_bytes(b"half")
    # the manifest was there, the notes not yet away
    (place / "step-00000020/shard-0000.json").write_text("{}")
    (place / "step-00000020/manifest.json.partial").write_text("{}")
    checkpoint.clean(run.folder)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert not broken.exists()


def test_what_was_never_finished_goes_when_a_later_step_is_committed(run):
    broken = run.folder / "checkpoints/step-00000010"
    broken.mkdir()
    (broken / "shard-0000.h5.partial").write_bytes(b"half")
    run.start()
    run.wait()
    assert not broken.exists()


# ---- what goes wrong -----------------------------------------------------------------------------


def test_an_error_is_raised_where_somebody_asks_and_leaves_older_checkpoints(run, monkeypatch):
    run.start()
    run.wait()
    before = datasets(checkpoint.find(run.folder))

    def full(raw, places, go_on):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(shard_file, "write_elements", full)
    run.writers[0].start(40, run.chunk_states[0])
    shard = run.folder / "checkpoints/step-00000040/shard-0000.h5"
    said = (f"the checkpoint of step 40 cannot be written: {shard}: No space left on device; "
            "step-00000020 is complete, and --resume goes on from it")
    for ask in (run.writers[0].wait, run.writers[0].check,
                lambda: run.writers[0].start(60, run.chunk_states[0])):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value) == said
    assert list(shard.parent.iterdir()) == []
    assert_same(datasets(checkpoint.find(run.folder)), before)


def test_a_disk_that_takes_something_else_than_was_written_is_found_out(run, monkeypatch):
    def flipping(descriptor, original=shard_file.os.fsync):
        place = shard_file.os.fstat(descriptor).st_size // 2
        byte = shard_file.os.pread(descriptor, 1, place)
        shard_file.os.pwrite(descriptor, bytes([byte[0] ^ 8]), place)
        original(descriptor)
    with monkeypatch.context() as patched:
        patched.setattr(shard_file.os, "fsync", flipping)
        run.writers[0].start(20, run.chunk_states[0])
        with pytest.raises(InputError, match="shard-0000.h5 does not read back as it was written"):
            run.writers[0].wait()
    assert list((run.folder / "checkpoints/step-00000020").iterdir()) == []


def test_a_committer_names_the_owners_that_are_missing(run):
    committer = Committer(run.folder, 12, patience=0)
    run.writers[1].start(20, run.chunk_states[1])
    run.writers[1].wait()
    committer.start(run.state)
    with pytest.raises(InputError, match="no shard of owner 0, 2, 3, 4, 5, 6, 7, 8, 9 after 0 s"):
        committer.wait()
    assert checkpoint.saved(run.folder / "checkpoints") == []


def test_two_jobs_in_one_run_folder_do_not_make_one_checkpoint(run):
    run.writers[0].start(20, run.chunk_states[0])
    run.writers[0].wait()
    (run.folder / "checkpoints/run-id").write_text("another\n")
    run.writers[1].start(20, run.chunk_states[1])
    run.committer.start(run.state)
    with pytest.raises(InputError, match="shard-0000.h5 is of another run or step: two jobs write "
                       "into one run folder"):
        run.wait()
    assert checkpoint.saved(run.folder / "checkpoints") == []


def test_owners_that_do_not_hold_everything_are_refused(run):
    run.chunk_states[1].pop()
    run.start()
    with pytest.raises(InputError, match="the shards have .* positions of stage3/decode: the "
                       "owners do not agree"):
        run.wait()


def test_ranks_that_do_not_see_the_run_folder_are_told(run, monkeypatch):
    (run.folder / "checkpoints/run-id").unlink()
    monkeypatch.setattr(writers, "LATE", 0.0)
    run.writers[0].start(20, run.chunk_states[0])
    with pytest.raises(InputError, match="run-id did not appear in 0 s: it was removed, or the "
                       "ranks do not see"):
        run.writers[0].wait()


def test_a_folder_that_is_gone_is_told_at_once_by_every_part(run):
    """Not after the time that a name may appear late.

    What was committed before is where it was moved to.
    """
    run.start()
    run.wait()
    run.folder.rename(run.folder.with_name("moved"))
    with pytest.raises(InputError, match="run/checkpoints was removed or moved while the job ran: "
                       "bring it back"):
        run.committer.check()
    run.writers[0].start(40, run.chunk_states[0])
    with pytest.raises(InputError, match="step 40 cannot be written: .*/step-00000040: No such "
                       "file or directory; the run folder was removed or moved while the job ran"):
        run.writers[0].wait()
    checkpoint.verify(checkpoint.find(run.folder.with_name("moved")))


def test_closing_gives_up_what_is_not_finished_and_leaves_no_part(run, gate):
    run.start()
    assert gate.reached.wait(TIMEOUT)
    closing = [threading.Thread(target=part.close) for part in run.parts]
    for thread in closing:
        thread.start()
    assert all(part.closed.wait(TIMEOUT) for part in run.parts)
    gate.opened.set()
    for thread in closing:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert list((run.folder / "checkpoints/step-00000020").iterdir()) == []
    for part in run.parts:
        part.check()  # to be stopped is no error


def test_a_background_thread_does_one_thing_after_the_other():
    thread, done = Background("test"), []
    opened = threading.Event()
    thread.begin(lambda: opened.wait(TIMEOUT) and done.append(1))
    later = threading.Thread(target=thread.begin, args=[lambda: done.append(2)])
    later.start()
    assert thread.busy and done == []
    opened.set()
    later.join(TIMEOUT)
    thread.wait()
    assert done == [1, 2] and not thread.busy


def test_ctrl_c_while_it_is_waited_for_does_not_end_it():
    """Python would leave it behind at the end of the process, inside HDF5."""
    background, opened = Background("test"), threading.Event()
    background.begin(lambda: opened.wait(TIMEOUT) and None)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            background.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert background.busy
    assert "test" in [thread.name for thread in threading.enumerate()]  # waited for at the end
    opened.set()
    background.wait()


def test_numbers_without_room_for_a_copy_are_written_from_where_they_are(tiny_config, tmp_path):
    """The same file; `start` returns when it is on the disk, and nothing was copied."""
    state, written = made(tiny_config()), []
    chunks, = owned_chunks(state.config, WHOLE, 1)
    held = views(chunks, state.parameters, state.update_state, state.counts)
    for name, spare in ("copied", math.inf), ("in place", 0.0):
        checkpoint.clean(tmp_path / name)
        with contextlib.closing(ShardWriter(tmp_path / name, 0, Layout(state.config, WHOLE),
                                            lambda room=spare: room)) as writer:
            writer.start(state.step, held)
            if not spare:
                assert writer.buffers == {} and not writer.busy
            writer.wait()
        shard, = tmp_path.glob(f"{name}/checkpoints/*/shard-*.h5")
        written.append(datasets(shard))
    assert len(written[0]) > 1
    assert_same(*written)


def test_a_window_of_bytes_needs_no_copy_either():
    """What servers' parameters lie in where workers read them."""
    numbers = np.zeros(48, np.uint8)[8:40].view(np.float32)
    joined = writers.as_one([numbers[:3], numbers[3:7].reshape(2, 2)])
    numbers[:] = np.arange(8)
    assert joined.dtype == np.float32 and joined.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_numbers_that_lie_apart_are_copied_whatever_the_room(tiny_config, tmp_path):
    state = made(tiny_config())
    chunks, = owned_chunks(state.config, WHOLE, 1)
    apart = [replace(held, values=held.values.copy())
             for held in views(chunks, state.parameters, {}, state.counts)]
    checkpoint.clean(tmp_path)
    with contextlib.closing(ShardWriter(tmp_path, 0, Layout(state.config, WHOLE),
                                        lambda: 0.0)) as writer:
        writer.start(state.step, apart)
        writer.wait()
        assert np.array_equal(writer.buffers[""], state.parameters.vector)


# ---- real disks ----------------------------------------------------------------------------------

#: Goes on from a checkpoint: writes the next one; a limit of the size of files comes first.
WRITE_NEXT = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from hpclcae import checkpoint
from tests.support.saving import save
run, limit = Path(sys.argv[1]), int(sys.argv[2])
state, _ = checkpoint.load(checkpoint.find(run))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    save(run, replace(state, step=state.step + 1), 2)
except checkpoint.folder.InputError as error:
    print(error)
checkpoint.verify(checkpoint.find(run))
checkpoint.clean(run)
"""


def assert_refused_by_the_disk(process, run, reason):
    """The process ended well, said one line and left the older checkpoint alone."""
    assert (process.returncode, process.stderr) == (0, "")
    line, = process.stdout.splitlines()
    assert line.startswith("the checkpoint of step 8 cannot be written: "
                           f"{run}/checkpoints/step-00000008")
    assert reason in line and line.endswith("; step-00000007 is complete, and --resume goes on "
                                            "from it")


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
            if path.is_file()}


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_file_that_may_not_grow_leaves_the_older_checkpoint_intact(tiny_config, tmp_path, share):
    older = save(tmp_path, made(tiny_config()), 2)
    before = everything(tmp_path)
    limit = int(share * min(path.stat().st_size for path in older.glob("shard-*.h5")))
    process = subprocess.run([sys.executable, "-c", WRITE_NEXT, tmp_path, str(limit)],
                             capture_output=True, text=True, timeout=TIMEOUT)
    assert_refused_by_the_disk(process, tmp_path, "File too large")
    assert everything(tmp_path) == before


FULL_DISK = """
set -e
mount -t tmpfs -o size=$3 tmpfs "$2"
cp -r "$1/checkpoints" "$2"
"$0" -c "$4" "$2" 0
diff -r "$1" "$2"
"""


@pytest.mark.parametrize("room", [1.2, 1.5, 1.98])
def test_a_full_disk_leaves_the_older_checkpoint_intact(tiny_config, tmp_path, room):
    """A real one: a small file system in a mount namespace of its own.

    It fills with the first shard or the second.
    """
    run, disk = tmp_path / "run", tmp_path / "disk"
    save(run, made(tiny_config()), 2)
    disk.mkdir()
    own_mounts = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*own_mounts, "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True,
                       check=True, timeout=TIMEOUT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here, so no disk to fill (the test above limits the "
                    "file's size instead)")
    size = int(sum(map(len, everything(run).values())) * room)
    process = subprocess.run([*own_mounts, "sh", "-c", FULL_DISK, sys.executable, run, disk,
                              str(size), WRITE_NEXT],
                             capture_output=True, text=True, timeout=TIMEOUT)
    assert_refused_by_the_disk(process, disk, "No space left on device")


def test_a_folder_that_cannot_be_made_is_named(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError,
                       match="file/run/checkpoints cannot be written .Not a directory.; choose "
                       "another"):
        checkpoint.clean(tmp_path / "file/run")


def test_the_manifest_is_the_last_to_be_written_and_says_what_is_there(run, monkeypatch):
    seen = {}

    def watched(folder, manifest, original=folders.write_manifest):
        seen.update({path.name: path.stat().st_size for path in folder.glob("*.h5")})
        original(folder, manifest)
    monkeypatch.setattr("hpclcae.checkpoint.committer.write_manifest", watched)
    run.start()
    run.wait()
    manifest = json.loads((run.committer.committed / "manifest.json").read_text())
    assert {name: file["size"] for name, file in manifest["files"].items()} == seen
    assert sorted(seen) == ["model.h5", "shard-0000.h5", "shard-0001.h5"]


def test_a_run_that_was_moved_away_has_nothing_to_prune(tmp_path):
    """Whoever writes into it next tells of it, by its name and with the remedy."""
    committer.prune(tmp_path / "gone", 2, 0)
