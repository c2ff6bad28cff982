"""The command ``hpclcae bench checkpoint``: how fast checkpoints are written and read.

It measures bandwidth against a plain file, stall of training, size, and time to verify.

Every shard is written and read in turn with a plain file of its size, and what is the same for
both:

- A write (a plain one in pieces of 4 MB) ends when fsync says that it is on the disk. A shard's
  write also makes the HDF5 file, brings weights into another order, computes a checksum, renames,
  and flushes the folder.
- What was written is read back from the disk, which the system was told to drop from its memory. A
  shard's write ends only then, so beside a plain write it is compared with a plain write and read
  as well.
- Loading ends in arrays that are there already, and begins with a file that the system was told to
  drop.
- Each comes first in every other round, as the second finds the memory that the first gave back.
"""
import argparse
import os
import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

import numpy as np

from hpclcae import checkpoint, config as configuration
from hpclcae.bench.cases import minibatches
from hpclcae.bench.common import MOST_TIMES, Report, configure_json, forget
from hpclcae.checkpoint import ChunkState, Committer, RunState, ShardWriter
from hpclcae.checkpoint.folder import content_of, shard_name
from hpclcae.checkpoint.state import views
from hpclcae.commands.arguments import output, whole
from hpclcae.cluster.interval import HOUR, best_seconds
from hpclcae.config import Config
from hpclcae.geometry import network_geometry
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import SLOTS, Optimizer
from hpclcae.model.parameters import ParameterVector
from hpclcae.model.preprocess import Preprocessing
from hpclcae.model.schedule import Schedule
from hpclcae.parameter_server.chunks import Shards
from hpclcae.training.step import train_step
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

DEFAULT = "run/plain.toml"
PIECE = 1 << 22  # bytes of a plain write or read
Seconds = dict[str, list[float]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", nargs="?", default=DEFAULT,
                        help=f"TOML file (default {DEFAULT})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set update.rule=sgd")
    parser.add_argument("--shards", type=whole(1, 10_000), default=1, metavar="N",
                        help="shards, written one after the other (default 1); only one is copied "
                        "at a time")
    parser.add_argument("--steps", type=whole(0, MOST_TIMES), default=20, metavar="N",
                        help="training steps to measure the stall with; 0: none (default 20)")
    parser.add_argument("--stall-only", action="store_true",
                        help="measure the stall only; needs less of the disk")
    parser.add_argument("--folder", type=output, default=Path("."), metavar="DIR",
                        help="a folder on the disk to measure; what is written there is removed "
                        "(default .)")
    parser.add_argument("--repeat", type=whole(1, MOST_TIMES), default=3, metavar="N",
                        help="rounds of measurement after a warm-up; their median counts (default "
                        "3)")
    configure_json(parser)
    parser.set_defaults(clock="wall")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    config = configuration.load(args.configuration, args.changes)
    if not args.folder.is_dir():
        raise InputError(f"--folder {args.folder} is not a folder: make it, or name another one")
    report = Report("checkpoint", args)
    print(report.heading())
    case = " ".join([str(args.configuration), *args.changes, f"{args.shards} shards"])
    layout = Layout(config)
    network = Network(layout)
    network.condition_unfitted()
    parameters = network.parameters(config.train.seed)
    memory = {slot: parameters.like() for slot in SLOTS[config.update.rule]}
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-checkpoint-") as name:
        rows = []
        if not args.stall_only:
            bench = _Bench(Path(name), layout, args.shards)
            bench.write_and_read([views(chunks, parameters, memory, {}) for chunks in bench.chunks],
                                 args.repeat)
            rows += bench.rows(_elements(config) * network.dtype.itemsize)
            shutil.rmtree(bench.run)
        del memory
        if args.steps:
            rows += _training(Path(name) / "training", network, parameters,
                              args.steps, args.repeat)
    for metric, value, unit in rows:
        report.add(case, metric, value, unit)
    print(f"\n{case}")
    print(table([("", ""), ("", ".4g"), ("", "")], rows))


def _elements(config: Config) -> int:
    """Elements that a checkpoint of the configuration must hold."""
    return sum(shape.parameters
               for shape in network_geometry(config)) * (1 + len(SLOTS[config.update.rule]))


class _Bench:
    """Write the checkpoints of steps 1, 2, ... and read the last, each beside a plain file.

    Attributes
    ----------
    seconds : dict of str to list of float
        Of each thing that was done; one entry a round, the sum over shards. Round 0 is the warm-up.
    """

    def __init__(self, folder: Path, layout: Layout, shards: int) -> None:
        self.folder, self.layout, self.shards = folder, layout, shards
        self.config = layout.config
        self.run = folder / "run"
        owners = Shards(layout, shards)
        self.chunks = [owners.held_by(number) for number in range(shards)]
        self.seconds: Seconds = {}
        self.size = 0

    def write_and_read(self, owners: Sequence[list[ChunkState]], rounds: int) -> None:
        """All measurements; one round more comes first: it warms up, and copies into new memory."""
        checkpoint.clean(self.run)
        for number, chunk_states in enumerate(owners):
            writer = ShardWriter(self.run, number, self.layout)
            for step in range(rounds + 1):
                self._write(writer, step, chunk_states)
            writer.close()
        for step in range(rounds + 1):
            self._time("commit", step, lambda: self._commit(step))
        path = checkpoint.find(self.run)
        self.size = sum(file.stat().st_size for file in path.iterdir())
        for step in range(rounds + 1):
            for number, chunk_states in enumerate(owners):
                self._read(path, step, number, chunk_states)
            forget(path.iterdir())
            self._time("verify", step, lambda: checkpoint.verify(path))

    def _commit(self, step: int) -> None:
        committer = Committer(self.run, self.shards)
        committer.start(RunState(config=self.config, step=step,
                                 preprocessing=Preprocessing(self.config.preprocess)))
        committer.wait()

    def _write(self, writer: ShardWriter, step: int, chunk_states: list[ChunkState]) -> None:
        size = sum(a.nbytes for h in chunk_states for a in (h.values, *h.state.values()))
        sides = [lambda: self._write_plain(step, size),
                 lambda: self._write_shard(writer, step, chunk_states)]
        for side in sides[::-1] if step % 2 else sides:
            side()

    def _write_plain(self, step: int, size: int) -> None:
        plain = self.folder / "plain"
        self._time("plain write", step, lambda: _write_plain(plain, size))
        forget([plain])
        self._time("plain read", step, lambda: _read_plain(plain, memoryview(bytearray(PIECE))))
        plain.unlink()

    def _write_shard(self, writer: ShardWriter, step: int, chunk_states: list[ChunkState]) -> None:
        self._time("copy", step, lambda: writer.start(step, chunk_states))
        self._time("write and read back", step, writer.wait)
        shard = checkpoint.step_folder(self.run, step) / shard_name(writer.number)
        self._time("read back", step, lambda: content_of(shard, from_disk=True))
        forget([shard])

    def _read(self, path: Path, step: int, number: int, chunk_states: list[ChunkState]) -> None:
        before, shard = _crc(chunk_states), path / shard_name(number)
        memory = memoryview(bytearray(shard.stat().st_size))
        sides = [("plain load", lambda: _read_plain(shard, memory)),
                 ("load", lambda: checkpoint.fill(path, self.layout, chunk_states))]
        for name, side in sides[::-1] if step % 2 else sides:
            forget(path.iterdir())
            self._time(name, step, side)
        if _crc(chunk_states) != before:
            raise InputError(f"{shard}: what was loaded is not what was saved")

    def _time(self, name: str, step: int, function: Callable[[], object]) -> None:
        """Add to the seconds of a round."""
        began = time.perf_counter()
        function()
        seconds = self.seconds.setdefault(name, [])
        seconds += [0.0] * (step + 1 - len(seconds))
        seconds[step] += time.perf_counter() - began

    def rows(self, parameters: int) -> list[tuple[str, float, str]]:
        """Metric, value, unit."""
        s = {name: statistics.median(seconds[1:]) for name, seconds in self.seconds.items()}
        gigabytes = self.size / 1e9
        write = s["write and read back"] - s["read back"]
        return [("parameters and update state", parameters / 1e9, "GB"), ("files", gigabytes, "GB"),
                ("files over parameters", self.size / parameters, "ratio"),
                ("plain write", gigabytes / s["plain write"], "GB/s"),
                ("write", gigabytes / write, "GB/s"),
                ("write over plain write", s["plain write"] / write, "ratio"),
                ("write and read back", gigabytes / s["write and read back"], "GB/s"),
                ("write and read back over plain write and read",
                 (s["plain write"] + s["plain read"]) / s["write and read back"], "ratio"),
                ("plain read", gigabytes / s["plain load"], "GB/s"),
                ("load", gigabytes / s["load"], "GB/s"),
                ("load over plain read", s["plain load"] / s["load"], "ratio"),
                ("verify", s["verify"], "s"), ("verify", gigabytes / s["verify"], "GB/s"),
                ("commit after the last shard", s["commit"], "s"),
                ("copy into new memory, the first time", self.seconds["copy"][0], "s"),
                ("copy", s["copy"], "s"), ("copy", gigabytes / s["copy"], "GB/s")]


def _training(folder: Path, network: Network, parameters: ParameterVector, steps: int,
              repeat: int) -> list[tuple[str, float, str]]:
    """What checkpoints cost a training that goes on.

    The copy, and steps that are slower while a thread writes.
    """
    config, schedule = network.config, Schedule(network.config)
    optimizer = Optimizer(config.update, parameters, network.block.fan_in)
    batches = minibatches(config, network.layout.geometry[0].input)
    checkpoint.clean(folder)
    writer = ShardWriter(folder, 0, network.layout)

    def cycle() -> float:
        """Seconds of a step; greedy training does one for every stage."""
        began = time.perf_counter()
        for phase, x in batches:
            optimizer.begin(schedule.learning_rate(phase.first))
            train_step(network, optimizer, phase.first, x)
        return (time.perf_counter() - began) / len(batches)

    cycle()
    seconds: Seconds = {name: [] for name in ("step", "copy", "write", "slower step", "lost")}
    for number in range(repeat + 1):
        alone = statistics.median(cycle() for _ in range(-(-steps // len(batches))))
        began = time.perf_counter()
        writer.start(number, checkpoint.block_chunk_states(network.block, parameters,
                                                           optimizer.state, optimizer.counts))
        copied, meanwhile = time.perf_counter(), []
        while writer.busy:
            meanwhile.append(cycle())
        writer.wait()
        over = time.perf_counter()
        for name, value in (("step", alone), ("copy", copied - began), ("write", over - copied),
                            ("slower step", statistics.fmean(meanwhile or [alone])),
                            ("lost", over - began - len(meanwhile) * len(batches) * alone)):
            seconds[name].append(value)
        shutil.rmtree(checkpoint.step_folder(folder, number))
    writer.close()
    # the first copy is into new memory
    s = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    given = config.train.checkpoint_every
    every = (given if given != "auto" else
             round(best_seconds(s["lost"], config.train.mtbf * HOUR) / s["step"]))
    between = every * s["step"]
    return [("training step", 1e3 * s["step"], "ms"),
            ("training stands still for the copy", 1e3 * s["copy"], "ms"),
            ("the write behind it, to the end of the step in which it ends", s["write"], "s"),
            ("a step meanwhile", s["slower step"] / s["step"], "of a step"),
            ("training lost by one checkpoint", 1e3 * s["lost"], "ms"),
            (f"of {every} steps between checkpoints",
             100 * s["lost"] / between, "%")]


def _write_plain(path: Path, size: int) -> None:
    piece = memoryview(np.random.default_rng(0).bytes(PIECE))
    with FileIO(path, "w") as file:
        for start in range(0, size, PIECE):
            file.write(piece[:size - start])
        os.fsync(file.fileno())


def _read_plain(path: Path, memory: memoryview) -> None:
    """Read a file, piece by piece, into memory; where it is full, from its beginning again."""
    start = 0
    with FileIO(path) as file:
        while count := file.readinto(memory[start:start + PIECE]):
            start = (start + count) % len(memory)


def _crc(chunk_states: list[ChunkState]) -> int:
    crc = 0
    for chunk_state in chunk_states:
        for array in (chunk_state.values, *chunk_state.state.values()):
            crc = zlib.crc32(array.data.cast("B"), crc)
    return crc
