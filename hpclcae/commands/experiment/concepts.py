"""The command ``hpclcae experiment concepts``: Table 1, the best neurons of several concepts."""
import argparse
import contextlib
from functools import partial

from hpclcae.commands.examination import add_examination, examination_settings, training_images
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import concepts, neurons
from hpclcae.experiments.ranks import Ranks, share
from hpclcae.experiments.record import Record


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="CHECKPOINT",
                        help="folder of a training run, or one of its checkpoints")
    parser.add_argument("--test", metavar="SET", action="append",
                        help="labelled dataset; once for every concept, or for images of your own "
                        "(hpclcae data ingest FOLDER --label-from folder --concept NAME); default: "
                        "the one in the configuration of the run")
    parser.add_argument("--without-lcn", metavar="RUN",
                        help="run of the same network without contrast normalisation, for its row")
    arguments.add(parser, "grid")
    add_examination(parser)
    arguments.add(parser, "out")


def run(args: argparse.Namespace) -> int:
    """Examine all test sets, in this process or on all ranks."""
    return share("hpclcae experiment concepts", args.grid, partial(work, args))


def work(args: argparse.Namespace, ranks: Ranks) -> None:
    """What one of them does."""
    settings = examination_settings(args)
    model = ranks.load(args.run)
    without_lcn = ranks.load(args.without_lcn) if args.without_lcn else None
    record = Record("concepts", "Table 1: best neurons beside what they have to beat", args.run,
                    model, args.command_line, out=args.out, writes=ranks.is_first)
    with contextlib.ExitStack() as stack:
        paths = dict.fromkeys(args.test or [model.config.data.test])
        tests = [stack.enter_context(neurons.open_fitting(path, model.config)) for path in paths]
        for test in tests:  # what is wrong with a later one is said before the work on the first
            neurons.labelled_images(test, settings)
        if without_lcn is not None:
            neurons.open_fitting(tests[0].path, without_lcn.config).close()
        train = training_images(args.train, model, settings, stack, ranks.is_first)
        concepts.run(model, tests, train, without_lcn, settings, ranks, record)
