"""The command ``hpclcae launch``: ``hpclcae train`` on as many ranks as the configuration wants.

It finds mpiexec, prints the line and runs it, on this machine. In place of typing the line yourself
you get the number of ranks, what Open MPI has to be told, and signals: USR1, TERM and Ctrl-C that
come to this command are passed on to every rank (mpiexec itself would kill them at TERM). On a
cluster use slurm/train.sbatch.
"""
import argparse
import shlex
import sys

from hpclcae import config as configuration
from hpclcae.cluster.mpiexec import find_mpiexec, run_job, settings_of
from hpclcae.cluster.ranks import MOST_RANKS, grid_for, ranks_for
from hpclcae.commands import train
from hpclcae.commands.arguments import whole
from hpclcae.utils.cores import cores


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    train.configure(parser)
    parser.add_argument("--ranks", type=whole(1, MOST_RANKS), metavar="N",
                        help="processes (default: what the configuration and the cores of this "
                        "machine ask for)")
    parser.add_argument("--dry-run", action="store_true", help="print the line only")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code is that of the job."""
    config = configuration.load(args.configuration, train.changes(args))
    ranks = ranks_for(config, cores()) if args.ranks is None else args.ranks
    grid_for(config, ranks)  # refuses what would not start
    program = [sys.executable, "-m", "hpclcae", "train", *train_words(args)]
    command = [find_mpiexec(), "-n", str(ranks), *program] if ranks > 1 else program
    settings = settings_of(command[0]) if ranks > 1 else {}
    print(shlex.join([*(f"{name}={value}" for name, value in settings.items()), *command]),
          flush=True)
    return 0 if args.dry_run else run_job(command, program, settings)


def train_words(args: argparse.Namespace) -> list[str]:
    """The arguments of hpclcae train again, as words."""
    words = [args.configuration, "--out", str(args.out)]
    for change in args.changes:
        words += ["--set", change]
    words += ["--resume"] if args.resume else []
    for name in ("stop_at", "grid", "servers", "replicas"):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return words
