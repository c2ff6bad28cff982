"""The command ``hpclcae experiment sensitivity``: accuracy against receptive field and maps."""
import argparse
from itertools import product
from pathlib import Path

from hpclcae.checkpoint.trained import Model
from hpclcae.commands.arguments import output, positive, real, whole
from hpclcae.commands.experiment import arguments
from hpclcae.experiments import sensitivity
from hpclcae.experiments.neurons import LEAST, Settings, run_folder
from hpclcae.experiments.record import Record, experiments_folder
from hpclcae.experiments.sensitivity import Variant
from hpclcae.utils.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    arguments.add(parser, "run", "test", "batch", "seed", "out")
    parser.add_argument("--fields", type=positive, nargs="+", required=True, metavar="FIELD",
                        help="receptive fields, positions")
    parser.add_argument("--maps", type=positive, nargs="+", required=True, metavar="MAPS",
                        help="numbers of maps")
    parser.add_argument("--stage", type=positive, metavar="NUMBER",
                        help="change this stage alone (default: all, as slurm/sweep.sbatch)")
    parser.add_argument("--share", type=real(0.001, 1), default=sensitivity.SHARE,
                        help="of the run's steps, in each training (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
                        help="change one more setting of all trainings")
    parser.add_argument("--runs", type=output, metavar="FOLDER",
                        help="where the trainings are, field10-maps8 and so on (default: "
                        "RUN/experiments/sensitivity); those of slurm/sweep.sbatch are taken, too")
    parser.add_argument("--collect", action="store_true",
                        help="train nothing: test what is complete in --runs")
    parser.add_argument("--bootstrap", type=whole(LEAST["bootstrap"], 10 ** 6), default=1000,
                        help="replicates (%(default)s)")


def run(args: argparse.Namespace) -> None:
    """Train and test every combination; what is complete is not repeated."""
    model = Model.load(args.run)
    count = len(model.config.stages)
    if args.stage and args.stage > count:
        raise InputError(f"--stage {args.stage}: stages are 1 to {count}")
    configuration = run_folder(args.run) / "configuration.toml"
    if not args.collect and not configuration.is_file():
        raise InputError(f"there is no {configuration}, which the trainings vary: name a run "
                         "folder, or --collect what is trained already")
    record = Record("sensitivity", "Accuracy against receptive field and number of maps", args.run,
                    model, args.command_line, figures=["accuracy"], out=args.out)
    variants = [Variant(field, maps) for field, maps in product(dict.fromkeys(args.fields),
                                                                dict.fromkeys(args.maps))]
    folder: Path = args.runs or experiments_folder(args.run) / "sensitivity"
    changes = [*sensitivity.small_changes(model.config, args.share), *args.changes]
    settings = Settings(batch=args.batch, seed=args.seed, filters=0, random_seeds=0,
                        training_images=0, bootstrap=args.bootstrap)
    sensitivity.run(model, configuration, variants,
                    [args.stage - 1] if args.stage else list(range(count)), args.test, folder,
                    changes, args.collect, settings, record)
