"""The command ``hpclcae experiment without-faces``: the control whose training set has no faces."""
import argparse
import contextlib
import shlex

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import output, positive
from hpclcae.commands.examination import (add_examination, add_rival, examination_settings,
                                          training_images)
from hpclcae.data.faces import require_detector
from hpclcae.experiments import neurons, rivals, without_faces
from hpclcae.experiments.neurons import Examination
from hpclcae.experiments.record import Record
from hpclcae.experiments.seeds import require_one_network


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_rival(parser)
    parser.add_argument("--write", type=output, metavar="FILE",
                        help="write the training images in which no face is found as a dataset, to "
                        "train the control with")
    parser.add_argument("--without", metavar="RUN",
                        help="the run that was trained with it: its best neuron is compared")
    parser.add_argument("--patches", type=positive, default=10_000,
                        help="random patches of 60x60 that are looked at (%(default)s)")
    add_examination(parser)


def run(args: argparse.Namespace) -> None:
    """Count faces; write a training set without them; compare what was trained with it."""
    require_detector()
    settings, model = examination_settings(args), Model.load(args.run)
    record = Record("without-faces", "Control: training images without faces", args.run, model,
                    args.command_line, out=args.out)
    other = Model.load(args.without) if args.without else None
    if other is not None:
        require_one_network([model, other])
    if args.write:
        without_faces.check_written(args.write)
    with contextlib.ExitStack() as stack:
        test = stack.enter_context(neurons.open_fitting(args.test or model.config.data.test,
                                                        model.config))
        images = neurons.labelled_images(test, settings)
        train = rivals.check_training(training_images(args.train, model, settings, stack,
                                                      says=False))
        record.about(test, train)
        found = without_faces.find(train, "looking for faces")
        patches = without_faces.random_patches(train, args.patches, settings.seed)
        left = without_faces.write_others(train, found, args.write) if args.write else None
        without_faces.add_shares(record, train, found, patches, left)
        if other is not None:
            print(neurons.describe(test, images), flush=True)
            without_faces.add_comparison(record, Examination(test, images, None, settings), model,
                                         other)
        else:
            record.text("No network was trained without faces: write such a training set (--write "
                        "FILE), train the same configuration with --set data.train=FILE, and name "
                        "that run with --without.")
        record.save()
    if args.write:
        print(f"wrote {args.write}; train with --set data.train={shlex.quote(str(args.write))}")
