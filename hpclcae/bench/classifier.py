"""The command ``hpclcae bench classifier``: time and memory of a step as classes grow.

A step of the classifier alone on features that are there: scores, objective, gradient, update in
place. Every number of classes has a process of its own, so that its peak memory is its own.
"""
import argparse
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from hpclcae.bench import common
from hpclcae.bench.common import CLOCKS, Report
from hpclcae.bench.memory import peak_resident
from hpclcae.commands.arguments import whole
from hpclcae.config import (MOST_CLASSES, ClassifierConfig, Config, DataConfig, StageConfig,
                            TrainConfig, UpdateConfig)
from hpclcae.geometry import parameters, training_flop
from hpclcae.model.layout import Layout
from hpclcae.model.network import Network
from hpclcae.model.optimizers import SLOTS, Optimizer
from hpclcae.training.step import train_step
from hpclcae.utils.cores import available_memory
from hpclcae.utils.errors import InputError
from hpclcae.utils.tables import table

CLASSES = 10, 100, 1000, 10_000, 22_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--classes", type=whole(2, MOST_CLASSES), nargs="+", default=list(CLASSES),
                        metavar="N", help=f"(default {' '.join(map(str, CLASSES))})")
    parser.add_argument("--side", type=whole(1, 1000), default=8, metavar="N",
                        help="rows and columns of the top stage's map (default %(default)s)")
    parser.add_argument("--maps", type=whole(1, 4096), default=8, metavar="N",
                        help="its maps (default %(default)s)")
    parser.add_argument("--batch", type=whole(1, 65_536), default=100, metavar="N",
                        help="images a minibatch (default %(default)s)")
    parser.add_argument("--loss", choices=["logistic", "softmax"], default="logistic",
                        help="(default %(default)s)")
    parser.add_argument("--rule", choices=sorted(SLOTS), default="sgd",
                        help="update rule (default %(default)s)")
    common.configure(parser, repeat=5)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    common.refuse_more_threads()
    configs = [_config(args, classes) for classes in args.classes]
    for config in configs:
        _refuse_too_much(config)
    report = Report("classifier", args)
    print(report.heading())
    rows = []
    for config in configs:
        seconds, bare, peak = _measured(config, args.repeat, args.clock)
        classes, size = config.classifier.classes, 4 * parameters(config)
        case = (f"{classes} classes, {args.side * args.side * args.maps} features, batch "
                f"{args.batch}, {args.loss}, {args.rule}")
        flop = training_flop(config, len(config.stages), True) * args.batch
        for name, value, unit in (("step", seconds, "s"), ("rate", flop / seconds / 1e9, "GFLOP/s"),
                                  ("parameters", size, "bytes"),
                                  ("memory", peak - bare, "bytes")):
            report.add(case, name, value, unit)
        rows.append((classes, 1e3 * seconds, flop / seconds / 1e9, 1e6 * seconds / classes,
                     size / 1e6, (peak - bare) / 1e6))
    print(f"\n{args.side}x{args.side}x{args.maps} features, batch {args.batch}, {args.loss}, "
          f"{args.rule}")
    print(table([("classes", ",d"), ("step, ms", ",.2f"), ("GFLOP/s", ".1f"),
                 ("us a class", ".2f"), ("parameters, MB", ",.1f"), ("memory, MB", ",.1f")], rows))
    return 0


def _config(args: argparse.Namespace, classes: int) -> Config:
    """A network whose top stage has such a map, with a classifier that is trained alone."""
    stage = StageConfig(receptive_field=1, maps=args.maps, pooling=1, lcn=0, weights="tied")
    return Config(DataConfig(size=args.side, channels=1), stages=(stage,),
                  update=UpdateConfig(rule=args.rule, rate=1e-12),
                  train=TrainConfig(steps=1000, batch=args.batch),
                  classifier=ClassifierConfig(loss=args.loss, classes=classes, steps=1000,
                                              standardise=False))


def _refuse_too_much(config: Config) -> None:
    """Stop before the machine does.

    Raises
    ------
    InputError
        Less memory is available than is needed.
    """
    slots = len(SLOTS[config.update.rule])
    needed = 4 * (parameters(config) * (1 + slots) + 6 * config.classifier.classes
                  * config.train.batch)
    if needed > available_memory():
        raise InputError(f"{config.classifier.classes} classes need about {needed / 1e9:.1f} GB, "
                         f"{available_memory() / 1e9:.1f} GB are available: fewer --classes, "
                         "--maps, or a smaller --side or --batch")


def _measured(config: Config, repeat: int, clock: str) -> tuple[float, int, int]:
    """`measure` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, config, repeat, clock).result()
        except BrokenProcessPool as error:
            raise InputError(f"the process with {config.classifier.classes} classes was killed, "
                             "most likely for want of memory: use fewer") from error


def measure(config: Config, repeat: int, clock: str = "wall") -> tuple[float, int, int]:
    """Seconds of a step (the median), and peak resident bytes before and after the steps."""
    bare, now = peak_resident(), CLOCKS[clock]
    network = Network(Layout(config))
    parameters = network.parameters(0)
    optimizer = Optimizer(config.update, parameters, network.block.fan_in)
    random = np.random.default_rng(0)
    weights = parameters["classifier/weights"]  # from 0 they would become denormal: slow
    weights[...] = 0.01 * random.standard_normal(weights.shape, dtype=np.float32)
    features = random.standard_normal((*network.layout.geometry[-1].output, config.train.batch),
                                      dtype=np.float32)
    labels = random.integers(0, config.classifier.classes, config.train.batch)
    seconds = []
    for _ in range(1 + repeat):
        optimizer.begin(config.update.rate)
        began = now()
        train_step(network, optimizer, 0, features, given=True, labels=labels)
        seconds.append(now() - began)
    return statistics.median(seconds[1:]), bare, peak_resident()
