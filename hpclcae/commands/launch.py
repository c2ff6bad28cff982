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
from hpclcae.cluster.memory import USABLE, job_bytes
from hpclcae.cluster.ranks import MOST_RANKS, grid_for, ranks_for
from hpclcae.commands import train
from hpclcae.commands.arguments import whole
from hpclcae.config import Config
from hpclcae.utils.cores import cores, memory


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    train.configure(parser)
    parser.add_argument("--ranks", type=whole(1, MOST_RANKS), metavar="N",
                        help="processes (default: what the configuration asks for, on the cores "
                        "and in the memory of this machine or container)")
    parser.add_argument("--dry-run", action="store_true", help="print the line only")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code is that of the job."""
    config = configuration.load(args.configuration, train.changes(args))
    ranks = _fitting_ranks(config) if args.ranks is None else args.ranks
    grid_for(config, ranks)  # refuses what would not start
    if (needed := job_bytes(config, ranks)) > USABLE * memory():
        print(f"hpclcae launch: the job needs about {needed / 1e9:.3g} GB, and there are "
              f"{memory() / 1e9:.3g} GB: the system may end it (a smaller train.batch needs less)",
              file=sys.stderr, flush=True)
    program = [sys.executable, "-m", "hpclcae", "train", *train.train_words(args)]
    command = [find_mpiexec(), "-n", str(ranks), *program] if ranks > 1 else program
    settings = settings_of(command[0]) if ranks > 1 else {}
    print(shlex.join([*(f"{name}={value}" for name, value in settings.items()), *command]),
          flush=True)
    return 0 if args.dry_run else run_job(command, program, settings, ranks)


def _fitting_ranks(config: Config) -> int:
    """As many processes as the cores are for, fewer where memory does not hold so many."""
    for count in range(cores(), 1, -1):
        ranks = ranks_for(config, count)
        if job_bytes(config, ranks) <= USABLE * memory():
            return ranks
    return ranks_for(config, 1)
