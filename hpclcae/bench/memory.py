"""The command ``hpclcae bench memory``: peak memory of a training step against what it needs."""
import argparse
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from math import prod
from pathlib import Path

import numpy as np

from hpclcae import config as configuration
from hpclcae.bench import common
from hpclcae.bench.common import Report
from hpclcae.config import Config
from hpclcae.geometry import network_geometry
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import SLOTS, Optimizer
from hpclcae.model.phases import phases
from hpclcae.model.schedule import Schedule
from hpclcae.training.step import train_step
from hpclcae.utils.cores import available_memory
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

DEFAULT = "run/plain.toml"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configuration", nargs="?", default=DEFAULT,
                        help=f"TOML file (default {DEFAULT})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one setting, for instance --set update.rule=sgd")
    common.configure(parser, repeat=2)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    config = configuration.load(args.configuration, args.changes)
    need = needed(config)
    _refuse_too_much(sum(need.values()))
    report = Report("memory", args)
    print(report.heading())
    measured = _measure(config, args.repeat)
    total, peak = sum(need.values()), max(measured.values())
    case = " ".join([str(args.configuration), *args.changes])
    lines = [*need.items(), ("needed", total), *measured.items()]
    for name, size in lines:
        report.add(case, name, size, "bytes")
    report.add(case, "peak over needed", peak / total, "ratio")
    print(f"\n{case}, batch {config.train.batch}, rule {config.update.rule}")
    print(table([("", ""), ("MB", ",.1f")], [(name, size / 1e6) for name, size in lines]))
    print(f"\npeak {peak / 1e9:.2f} GB, {peak / total:.2f} of what is needed")
    return 0


def needed(config: Config) -> dict[str, int]:
    """Bytes that a step cannot do without: parameters, update state, activations.

    Activations are those that the gradients are made of: every stage's input, its filtered and
    pooled maps and its residual.
    """
    item, rule = np.dtype(config.train.dtype).itemsize, config.update.rule
    stages = network_geometry(config)
    parameters = sum(s.parameters for s in stages) * item
    kept = [prod(shape) for s in stages for shape in (s.input, s.input, s.filtered, s.pooled)]
    return {"parameters": parameters, f"state of rule {rule}": parameters * len(SLOTS[rule]),
            "activations": sum(kept) * config.train.batch * item}


def _measure(config: Config, steps: int) -> dict[str, int]:
    """Run `steps` training steps in a process of their own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(peaks, config, steps).result()
        except BrokenProcessPool as error:
            raise InputError("the process that ran the step was killed, most likely for want of "
                             "memory: choose a smaller train.batch or a machine with "
                             "more") from error


def peaks(config: Config, steps: int) -> dict[str, int]:
    """Peak resident bytes of this process at milestones of some training steps on random images."""
    found = {"measured peak: libraries": peak_resident()}
    network, schedule = Network(Layout(config)), Schedule(config)
    network.condition_unfitted()
    parameters = network.parameters(config.train.seed)
    optimizer = Optimizer(config.update, parameters, network.block.fan_in)
    shape = *network.layout.geometry[0].input, config.train.batch
    x = np.random.default_rng(0).standard_normal(shape, dtype=network.dtype)
    found["measured peak: and parameters"] = peak_resident()
    for count in range(1, steps + 1):
        for phase in phases(config):
            optimizer.begin(schedule.learning_rate(phase.first))
            train_step(network, optimizer, phase.first, x)
        found[f"measured peak: and {count} step" + "s" * (count > 1)] = peak_resident()
    return found


def peak_resident() -> int:
    """Largest resident size of this process so far, bytes."""
    try:  # getrusage counts what the process was forked from, too
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _refuse_too_much(size: int) -> None:
    """Stop before the machine does.

    Raises
    ------
    InputError
        Less memory is available than is needed.
    """
    if size > available_memory():
        raise InputError(f"a step needs at least {size / 1e9:.1f} GB, "
                         f"{available_memory() / 1e9:.1f} GB are available: choose a smaller "
                         "train.batch or data.size, or update.rule = 'sgd'")
